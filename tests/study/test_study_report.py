"""Reports: the paper's tables, verdicts on its claims, figures."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bloodseg.datasets import make_smears
from bloodseg.study import TABLE_1, TABLE_2, report_study, run_study
from bloodseg.study._claims import (
    EQUAL,
    FAILS,
    HOLDS,
    LESS,
    UNDECIDED,
    Claim,
    compare_networks,
    judge_claims,
)
from bloodseg.study._plans import PAPER_TOLERANCES, Job, network_names
from bloodseg.study._report import format_spread, format_table
from bloodseg.study._statistics import correct_by_holm
from bloodseg.study._store import Store, make_results_table

POOR = np.array([[800, 100, 100], [50, 400, 50], [100, 0, 900]])
GOOD = np.array([[900, 50, 50], [20, 460, 20], [50, 0, 950]])


def record(study, network, seed, matrices, train_tol="", **more):
    """A record as a job writes it, of one prediction or, with ``predicted``, of several."""
    predicted = more.pop("predicted", {train_tol: matrices})
    predictions = [
        {
            "tolerance": None,
            "predict_tol": tol,
            "seconds": more.get("seconds", 1.0),
            "evaluations": [more.get("evaluations", 12) / (1 + k)] * len(each),
            "changed": 0.0,
            "confusion": np.asarray(each).tolist(),
        }
        for k, (tol, each) in enumerate(predicted.items())
    ]
    return {
        "name": Job(study, "d", network, seed, {"network": "unet"}).name + train_tol,
        "study": study,
        "dataset": "d",
        "network": network,
        "seed": seed,
        "train_tol": train_tol,
        "n_parameters": more.get("n_parameters", 1000),
        "valid_mean_iou": more.get("valid", 0.5),
        "train_seconds": 3.0,
        "best_epoch": 1,
        "history": [{"train_loss": 0.5}],  # as of a training without validation
        "parameters": {},
        "protocol": None,
        "data": "of the images",
        "images": [str(k) for k in range(len(next(iter(predicted.values()))))],
        "work": more.get("work", {}),
        "predictions": predictions,
    }


def noisy(matrix, rng, n_images=12):
    return np.stack(
        [rng.multinomial(row.sum(), row / row.sum(), size=n_images) for row in matrix], axis=1
    )


def said(records):
    found = judge_claims(records, compare_networks(records), make_results_table(records))
    return {sentence.partition(": ")[0]: verdict for verdict, sentence in found}, found


def networks(rng, nodes=GOOD, seeds=range(5)):
    kinds = (("U-Net", POOR, 700), ("ResNet", POOR, 2700), ("NODEs-UNet", nodes, 1100))
    return [
        record("networks", name, seed, noisy(matrix, rng), n_parameters=n)
        for seed in seeds
        for name, matrix, n in kinds
    ]


# The paper


def test_the_papers_tables():
    assert list(TABLE_1) == network_names("positions")
    assert list(TABLE_2) == network_names("networks")[:3]
    assert TABLE_1["ODEUNet4"]["mean_iou"] == 90.17
    assert TABLE_1["ODEUNet9"]["seconds"] == 7.35
    gains = {
        name: TABLE_2["NODEs-UNet"]["mean_iou"] - TABLE_2[name]["mean_iou"] for name in TABLE_2
    }
    assert gains["U-Net"] == pytest.approx(2.18)  # as its abstract says
    assert gains["ResNet"] == pytest.approx(1.13)


# Verdicts


def test_a_better_network_holds(rng):
    by_claim, found = said(networks(rng))
    assert by_claim["NODEs-UNet has a higher mean IoU than U-Net (paper"] == HOLDS
    assert by_claim["ResNet has a higher mean IoU than U-Net (paper"] == UNDECIDED
    (undecided,) = (s for _, s in found if s.startswith("ResNet has a higher mean IoU"))
    assert "undecided here. Here " in undecided
    assert "These data could show a difference of " in undecided
    (held,) = (s for _, s in found if s.startswith("NODEs-UNet has a higher mean IoU than U-Net"))
    assert "(paper: +2.18 points): holds. Here +" in held
    assert "all 5 seeds agree" in held


def test_a_worse_network_does_not_hold(rng):
    kinds = (("U-Net", GOOD), ("NODEs-UNet", POOR))
    records = [
        record("networks", name, seed, noisy(matrix, rng))
        for seed in range(5)
        for name, matrix in kinds
    ]
    by_claim, _ = said(records)
    assert set(by_claim.values()) == {FAILS}


def test_one_seed_is_undecided(rng):
    by_claim, found = said(networks(rng, seeds=[0]))
    better = [v for claim, v in by_claim.items() if "higher" in claim]
    assert set(better) == {UNDECIDED}
    assert all(", one seed." in s or ", one seed. These" in s for v, s in found if "higher" in s)


def test_memory(rng):
    _by_claim, found = said(networks(rng))
    (sentence,) = (s for _, s in found if "memory" in s)
    assert "(paper: 46%): holds. Here 41%." in sentence


def test_two_networks_are_compared_over_the_seeds_that_both_have(rng):
    records = networks(rng)
    assert records[-1]["network"] == "NODEs-UNet"
    table = compare_networks(records[:-1]).set_index(["first", "second"])
    assert set(table.loc[("ResNet", "U-Net")].n_seeds) == {5}
    assert set(table.loc[("NODEs-UNet", "U-Net")].n_seeds) == {4}
    # In the order of the tables, and corrected for all.
    whole = compare_networks(records)
    pairs = ["first", "second", "metric"]
    assert table.reset_index()[pairs].equals(whole[pairs])
    corrected = correct_by_holm(table.p.to_numpy())
    assert table.p_holm.tolist() == pytest.approx(corrected.tolist())
    assert compare_networks(records[:1]) is None


def verdicts_of(claim, **given):
    """The claim's verdict on a row, of five seeds that all are near its middle."""
    row = {"low": -0.001, "high": 0.001, "p_holm": 1.0, "n_seeds": 5, "effect": 0.02,
           "margin": claim.margin, "p_effect_holm": 1.0, "p_equal_holm": 1.0} | given  # fmt: skip
    middle = (row["low"] + row["high"]) / 2
    near = {"difference": middle, "lowest": middle, "highest": middle, "seeds_agree": middle != 0}
    return claim.verdict({**near, **row})


def test_each_verdict():
    better = Claim("a", "b", "mean_iou", paper=2.0)
    assert verdicts_of(better) == UNDECIDED
    assert verdicts_of(better, low=0.001, high=0.03, p_holm=0.01) == HOLDS
    assert verdicts_of(better, low=-0.03, high=-0.001, p_holm=0.01) == FAILS
    assert verdicts_of(better, p_effect_holm=0.01) == LESS
    assert verdicts_of(better, p_effect_holm=0.01, p_equal_holm=0.01) == LESS
    assert verdicts_of(better, p_equal_holm=0.01) == EQUAL
    assert verdicts_of(better, low=-0.001, high=0.021, p_effect_holm=0.01) == UNDECIDED
    equal = Claim("a", "b", "mean_iou", equal=True)
    assert verdicts_of(equal) == UNDECIDED
    assert verdicts_of(equal, p_equal_holm=0.01) == HOLDS
    assert verdicts_of(equal, low=0.006, high=0.03, p_holm=0.01) == FAILS
    assert verdicts_of(equal, low=0.004, high=0.03, p_holm=0.01) == UNDECIDED


def test_a_gain_of_the_paper_s_size_is_excluded(rng):
    kinds = (("U-Net", POOR), ("NODEs-UNet", POOR))
    records = [
        record("networks", name, seed, noisy(40 * matrix, rng, 16))
        for seed in range(5)
        for name, matrix in kinds
    ]
    _, found = said(records)
    verdict, sentence = next((v, s) for v, s in found if "higher mean IoU" in s)
    assert verdict == LESS
    assert "(paper: +2.18 points): less than the paper says. Here " in sentence
    high = 100 * compare_networks(records).set_index("metric").loc["mean_iou", "high"]
    assert f"+2.18 is excluded (corrected p 0.0004): at most {high:+.2f} fits" in sentence
    assert "The two differ by less than 0.5 points (corrected p 0.0002)." in sentence


def test_positions(rng):
    records = [
        record("positions", name, seed, noisy(POOR, rng, 40), "" if name == "U-Net" else "0.001",
               seconds={"U-Net": 1.0, "ODEUNet1": 1.3, "ODEUNet9": 3 - seed / 2}.get(name, 1.1))
        for seed in range(5)
        for name in network_names("positions")
    ]  # fmt: skip
    _by_claim, found = said(records)
    assert len([s for _, s in found if "higher" in s]) == 18
    assert len([s for _, s in found if "and ODEUNet5 differ by less than" in s]) == 16
    (slow,) = (s for _, s in found if s.startswith("ODEUNet1 takes"))
    assert "(paper: 12.0 times): does not hold. Here 1.2 to 1.2 times over 5 seeds." in slow
    (torn,) = (s for _, s in found if s.startswith("ODEUNet9 takes"))
    assert "(paper: 12.0 times): undecided here. Here 0.9 to 2.7 times over 5 seeds." in torn


def test_equal_positions_hold_where_the_interval_is_narrow(rng):
    same = noisy(POOR, rng)
    records = [
        record("positions", name, seed, matrix, "0.001")
        for seed in range(5)
        for name, matrix in (("ODEUNet4", same), ("ODEUNet5", same), ("ODEUNet6", noisy(GOOD, rng)))
    ]
    by_claim, _ = said(records)
    end = " differ by less than 0.5 points in mean IoU (paper"
    assert by_claim[f"ODEUNet4 and ODEUNet5{end}"] == HOLDS
    assert by_claim[f"ODEUNet6 and ODEUNet5{end}"] == FAILS


def test_tolerances(rng):
    records = []
    for seed in range(5):
        tight, loose = noisy(GOOD, rng), noisy(POOR, rng)
        predicted = {"0.001": tight, "0.1": tight}
        records.append(record("tolerance", "NODEs-UNet", seed, tight, "0.001", predicted=predicted))
        predicted = {"0.001": tight, "0.01": loose, "0.1": loose}
        records.append(record("tolerance", "NODEs-UNet", seed, loose, "0.01", predicted=predicted))
    by_claim, _found = said(records)
    key = "NODEs-UNet trained at {}, predicting at {}".format
    looser = f"{key('0.001', '0.1')} and {key('0.001', '0.001')} differ by less than 0.5 points in "
    assert by_claim[f"{looser}mean IoU"] == HOLDS
    better = f"{key('0.001', '0.001')} has a higher mean IoU than {key('0.01', '0.01')}"
    assert by_claim[better] == HOLDS
    fewer = "A NODEs-UNet trained at {} takes fewer {} when it predicts at 0.1".format
    assert by_claim[fewer("0.001", "evaluations of f")] == HOLDS
    assert by_claim[fewer("0.001", "seconds")] == FAILS
    assert not any(key("0.01", "0.001") in claim for claim in by_claim)
    pairs = compare_networks(records)[["first", "second"]].drop_duplicates()
    assert len(pairs) == 4


# The report


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    drawn = {"image_size": 32, "red_cell_diameter": 12, "white_cells": (1, 1)}
    train, test = (make_smears(n, random_state=n, **drawn) for n in (6, 3))
    settings = {"width": 4, "max_epochs": 1, "crop_size": 32, "seeds": [0, 1], "output": folder}
    run_study("networks", train, test, networks=["U-Net", PAPER_TOLERANCES], **settings)
    run_study("positions", train, test, networks=["U-Net", "ODEUNet5"], **settings)
    run_study(
        "tolerance",
        train,
        test,
        train_tolerances=[1e-2],
        predict_tolerances=[1e-3, 1e-2],
        **settings,
    )
    return folder


@pytest.fixture(scope="module")
def text(folder):
    return report_study(folder)


def test_report(folder, text):
    assert (folder / "report.md").read_text() == text
    assert text.count("\n# data: ") + text.startswith("# data: ") == 3
    assert text.count("## The paper's claims") == 3
    first = "# data: Three networks (the paper's Table 2)\n\n![networks-data-differences]("
    assert first in text  # what all is about comes first
    assert "(95.30)" in text  # the paper's pixel accuracy beside ours
    assert "3 test images; seeds 0, 1" in text
    (row,) = (
        line for line in text.splitlines() if line.startswith(f"| {PAPER_TOLERANCES} | paper | pap")
        and "MB" not in line and "±" in line and "(90.61)" in line
    )  # fmt: skip
    assert row.split("|")[4].strip() == "2"
    assert "chosen" in text
    assert "## What the ODE-blocks do" in text
    table = pd.read_csv(folder / "comparisons.csv")
    assert set(table.study) == {"networks", "positions", "tolerance"}


@pytest.mark.usefixtures("text")
def test_figures(folder):
    names = {file.name for file in (folder / "figures").iterdir()}
    assert names == {
        "networks-data-differences.png",
        "networks-data-losses.png",
        "networks-data-mean-iou.png",
        "networks-data-pixel-accuracy.png",
        "networks-data-smears-networks.png",
        "positions-data-differences.png",
        "positions-data-losses.png",
        "positions-data-table-1.png",
        "tolerance-data-differences.png",
        "tolerance-data-front.png",
        "tolerance-data-losses.png",
    }
    for name in names:
        with Image.open(folder / "figures" / name) as picture:
            assert np.asarray(picture.convert("L")).std() > 5
    assert all(f"(figures/{name})" in (folder / "report.md").read_text() for name in names)


def test_without_times_there_are_none_in_the_report(tmp_path, rng):
    store = Store(tmp_path).make()
    for name, tol in (("U-Net", ""), ("ODEUNet5", "0.001"), ("ODEUNet1", "0.001")):
        job = Job("positions", "d", name, 0, {"network": "unet"})
        store.write(job, record("positions", name, 0, noisy(POOR, rng), tol, seconds=float("nan")))
    text = report_study(tmp_path)
    assert "nan" not in text
    assert "times as long" not in text
    assert "positions-d-table-1.png" in text


def test_report_without_matplotlib(folder, tmp_path, monkeypatch):
    folder = shutil.copytree(folder, tmp_path / "study")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.warns(UserWarning, match=r"need matplotlib: pip install 'bloodseg\[plot\]'"):
        text = report_study(folder)
    assert "smears-networks.png" in text
    assert "table-1.png" not in text


def test_report_of_nothing(tmp_path):
    with pytest.raises(ValueError, match="output must hold finished trainings"):
        report_study(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def report_networks(folder, rng, names):
    """Return the report of networks with one seed in common."""
    store = Store(folder).make()
    for name in names:
        job = Job("networks", "d", name, 0, {"network": "unet"})
        store.write(job, record("networks", name, 0, noisy(POOR, rng)))
    return report_study(folder)


def test_report_of_part_of_a_study(tmp_path, rng):
    text = report_networks(tmp_path, rng, ("U-Net", "ResNet"))
    assert "seeds 0;" in text
    assert "| 1 | " in text


def test_report_of_networks_of_which_the_paper_claims_nothing(tmp_path, rng):
    text = report_networks(tmp_path, rng, ("U-Net", "U-Net (as many weights)"))
    assert "No claim of the paper compares networks that are here with a seed in common." in text
    assert "All differences" in text  # the two do have a seed in common


def test_spread_and_tables():
    assert format_spread([1.0, 2.0, 3.0], 1) == "2.0 ± 1.0"
    assert format_spread([1.25], 2) == "1.25"
    assert format_table(["a", "b"], [[1, "x"]]) == "| a | b |\n| --- | --- |\n| 1 | x |"


def test_records_are_json(folder):
    for file in (folder / "jobs").iterdir():
        assert json.loads(file.read_text())["name"] == file.stem


def test_costs_that_no_seed_has_both_of_are_not_judged(rng):
    matrices = noisy(GOOD, rng)
    records = [
        record("tolerance", "NODEs-UNet", seed, None, "0.001", predicted={tol: matrices})
        for seed, tol in enumerate(("0.001", "0.01"))
    ]
    assert said(records)[1] == []
