"""Studies: what they train, what they keep, and how they go on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.utils import Bunch

from bloodseg import BloodCellSegmenter
from bloodseg._hardware import name_processor
from bloodseg.datasets import make_smears
from bloodseg.metrics import confusion_matrix, segmentation_report
from bloodseg.networks import NETWORKS, make_network
from bloodseg.study import _run as running
from bloodseg.study import _store, load_results, report_study, run_study
from bloodseg.study._plans import network_names, plan
from bloodseg.study._store import COLUMNS, KEYS, Store, merge_results

DRAWN = {"image_size": 32, "red_cell_diameter": 12, "white_cells": (1, 1)}
TRAIN = make_smears(6, random_state=0, **DRAWN)
TEST = make_smears(2, random_state=1, **DRAWN)
NAMES = network_names("networks")
TINY = {"width": 4, "max_epochs": 1, "crop_size": 32}


def study(output, name="networks", train=TRAIN, test=TEST, **options):
    settings = {"networks": ["U-Net"] if name == "networks" else None, "seeds": [0], **TINY}
    return run_study(name, train, test, output=output, **{**settings, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a study of two networks, and its table."""
    folder = tmp_path_factory.mktemp("study")
    table = study(folder, networks=["U-Net", "NODEs-UNet"], seeds=[0, 1])
    return folder, table


# What is trained


def test_the_networks_of_each_study():
    assert [job.network for job in plan("networks", "d", [0], {})] == [
        "U-Net",
        "ResNet",
        "NODEs-UNet",
        "NODEs-UNet (paper tolerances)",
    ]
    jobs = plan("positions", "d", [3, 4], {"width": 8})
    assert len(jobs) == 20
    for position, job in enumerate(jobs[:10]):
        assert job.seed == 3
        assert job.parameters["width"] == 8
        if position:
            assert job.network == f"ODEUNet{position}"
            assert job.parameters["ode_positions"] == (position,)
            assert job.parameters["ode_tol"] == 1e-3
    jobs = plan("tolerance", "d", [0, 1], {}, train_tolerances=[1e-3, 1e-2])
    assert [(job.seed, job.train_tol) for job in jobs] == [
        (0, "0.001"), (0, "0.01"), (1, "0.001"), (1, "0.01"),
    ]  # fmt: skip
    assert len({job.name for job in jobs}) == 4


def test_tolerance_is_for_the_nodes_unet_alone():
    jobs = plan("networks", "d", [0], {"ode_tol": 1e-2})
    assert [job.parameters["ode_tol"] for job in jobs] == [1e-3, 1e-3, 1e-2, "paper"]
    assert [job.train_tol for job in jobs] == ["", "", "0.01", "paper"]


def test_a_row_is_what_the_same_estimator_gives(finished):
    folder, table = finished
    segmenter = BloodCellSegmenter(network="nodes-unet", random_state=1, **TINY)
    maps = segmenter.fit(TRAIN.images, TRAIN.masks).predict(TEST.images)
    row = table.set_index(["network", "seed"]).loc["NODEs-UNet", 1]
    for name, value in segmentation_report(TEST.masks, maps).items():
        if name in COLUMNS:
            assert row[name] == pytest.approx(value)
    evaluations = sum(counts.mean() for counts in segmenter.n_function_evaluations_.values())
    assert row.evaluations == pytest.approx(evaluations)
    assert row.parameters == sum(w.numel() for w in segmenter.network_.parameters())
    loaded = BloodCellSegmenter.load(folder / "models/networks-data-nodes-unet-1.safetensors")
    assert np.array_equal(loaded.predict(TEST.images), maps)


def test_a_record_holds_each_image(finished):
    folder, _ = finished
    record = json.loads((folder / "jobs/networks-data-u-net-0.json").read_text())
    segmenter = BloodCellSegmenter.load(folder / "models/networks-data-u-net-0.safetensors")
    maps = segmenter.predict(TEST.images)
    (prediction,) = record["predictions"]
    for index, matrix in enumerate(prediction["confusion"]):
        assert np.array_equal(
            matrix, confusion_matrix(TEST.masks[index : index + 1], maps[index : index + 1])
        )
    assert record["train_seconds"] > 0
    assert len(record["history"]) == 1
    assert prediction["evaluations"] == [0, 0]


def test_a_training_of_another_command_is_taken_over(tmp_path):
    BloodCellSegmenter(
        network="unet",
        batch_size=4,
        random_state=0,
        checkpoint_dir=tmp_path / "checkpoints",
        **TINY,
    ).fit(TRAIN.images, TRAIN.masks)
    (before,) = (tmp_path / "checkpoints").iterdir()
    written = before.stat().st_mtime_ns
    study(tmp_path)
    (after,) = (tmp_path / "checkpoints").iterdir()
    assert after.stat().st_mtime_ns == written


def test_label_maps_may_leave_pixels_open(tmp_path):
    open_ = [np.where(mask == 1, 255, mask) for mask in TEST.masks]
    table = study(tmp_path, train=TRAIN, test=Bunch(images=TEST.images, masks=open_))
    assert table.mean_iou.notna().all()


def test_groups_reach_fit(tmp_path, monkeypatch):
    seen = []
    fit = BloodCellSegmenter.fit

    def watched(self, images, masks, **more):
        seen.append(more["groups"])
        return fit(self, images, masks, **more)

    monkeypatch.setattr(BloodCellSegmenter, "fit", watched)
    study(tmp_path, train=Bunch(**TRAIN, groups=[0, 0, 1, 1, 2, 2]))
    assert seen == [[0, 0, 1, 1, 2, 2]]


def test_tolerances_of_prediction(tmp_path):
    table = study(tmp_path, "tolerance", train_tolerances=[1e-2], predict_tolerances=[1e-1, 1e-4])
    assert table.predict_tol.tolist() == ["0.0001", "0.1"]
    assert table.train_tol.tolist() == ["0.01", "0.01"]
    assert table.evaluations[0] > table.evaluations[1]
    (record,) = Store(tmp_path).records()
    assert record["predictions"][0]["changed"] == 0
    # More tolerances later: predicted anew, not trained anew.
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    written = checkpoint.stat().st_mtime_ns
    table = study(tmp_path, "tolerance", train_tolerances=[1e-2], predict_tolerances=[1e-2])
    assert table.predict_tol.tolist() == ["0.0001", "0.01", "0.1"]
    assert checkpoint.stat().st_mtime_ns == written


# What is kept


def test_the_table_on_disk_is_the_one_returned(finished):
    folder, table = finished
    assert list(table.columns) == COLUMNS
    assert table.attrs["failures"] == {}
    read = load_results(folder)
    assert read[KEYS].equals(table[KEYS])
    texts = [*KEYS, "machine", "commit"]
    assert read[texts].equals(table[texts])
    assert np.allclose(read.drop(columns=texts), table.drop(columns=texts), rtol=1e-5)


def test_nothing_is_run_twice(finished, monkeypatch):
    folder, table = finished
    monkeypatch.setattr(running, "_fit", lambda *args: pytest.fail("trained again"))
    again = study(folder, networks=["U-Net", "NODEs-UNet"], seeds=[1, 0])
    assert again.equals(table)


def test_another_study_in_the_same_folder_is_refused(finished):
    folder, _ = finished
    with pytest.raises(ValueError, match=r"with width=4, not 8\. Choose another folder"):
        study(folder, width=8)
    with pytest.raises(ValueError, match=r"with other images, label maps, names or groups\."):
        study(folder, test=TRAIN)
    with pytest.raises(ValueError, match=r"with other images, label maps, names or groups\."):
        study(folder, test=TRAIN, dataset="Data!")
    # Of networks and seeds that are not there yet, too: they could not be compared.
    with pytest.raises(ValueError, match=r"with width=4, not 8\. Choose another folder"):
        study(folder, width=8, networks=["ResNet"], seeds=[5])
    with pytest.raises(ValueError, match=r"nodes-unet-0 with ode_tol=0\.001, not 0\.1\."):
        study(folder, networks=["NODEs-UNet"], ode_tol=1e-1)


def test_explicit_defaults_are_the_same_study(finished):
    folder, table = finished
    assert study(folder, batch_size=4, device="cpu").equals(table)


def test_rows_merge_into_a_table(finished, tmp_path):
    _, table = finished
    file = tmp_path / "docs" / "results.csv"
    other = table.assign(study="positions", train_tol="paper", cpa_white=np.nan)
    merge_results(file, other)
    merge_results(file, table.assign(seconds=7.0))
    merge_results(file, table)
    merged = load_results(file)
    assert len(merged) == 2 * len(table)
    assert merged[merged.study == "positions"][KEYS].equals(other[KEYS])
    assert merged[merged.study == "positions"].cpa_white.isna().all()
    ours = merged[merged.study == "networks"]
    assert np.allclose(ours.seconds, table.seconds, rtol=1e-5)


def test_studies_that_merge_side_by_side_lose_no_row(finished, tmp_path, monkeypatch):
    _, table = finished
    load = _store.load_results

    def load_slowly(file):
        rows = load(file)
        time.sleep(0.02)  # in which the others would read the same rows
        return rows

    monkeypatch.setattr(_store, "load_results", load_slowly)
    file = tmp_path / "results.csv"
    merge_results(file, table)
    others = [table.assign(dataset=f"other {number}") for number in range(5)]
    joblib.Parallel(5, backend="threading")(
        joblib.delayed(merge_results)(file, each) for each in others
    )
    assert len(load(file)) == 6 * len(table)


def test_controls_are_as_large_or_as_slow_as_the_paper_s_network():
    jobs = {job.network: job for job in plan("networks", "d", [0], {}, networks=NAMES)}

    def weights(name):
        keys = ("network", "width")
        settings = {k: v for k, v in jobs[name].parameters.items() if k in keys}
        network = make_network(settings.pop("network"), **settings)
        return sum(weight.numel() for weight in network.parameters())

    widths = {n: job.parameters["width"] for n, job in jobs.items() if "(as " in n}
    assert list(widths.values()) == [39, 44, 20, 30]
    for name in ("U-Net", "ResNet"):
        ratio = weights(f"{name} (as many weights)") / weights("NODEs-UNet")
        assert ratio == pytest.approx(1, abs=0.08)
    assert {job.parameters["network"] for job in jobs.values()} == set(NETWORKS)
    narrow = plan("networks", "d", [0], {"width": 8}, networks=[*widths])
    assert [job.parameters["width"] for job in narrow] == [10, 11, 5, 7]


def test_a_control_joins_a_study_of_another_width(tmp_path):
    study(tmp_path)
    table = study(tmp_path, networks=["U-Net (as many weights)", "FCN"])
    assert set(table.network) == {"U-Net", "U-Net (as many weights)", "FCN"}
    text = report_study(tmp_path)
    assert "| U-Net (as many weights) | U-Net | mean IoU |" in text
    assert "- U-Net (as many" not in text  # the paper claims nothing of it
    with pytest.raises(ValueError, match=r"fcn-0 with width=4, not 8\."):
        study(tmp_path, networks=["ResNet"], width=8)


def test_rows_say_where_they_come_from(finished):
    folder, table = finished
    (record, *_) = Store(folder).records()
    assert set(table.epochs) == {len(record["history"])}
    assert set(table.machine) == {record["machine"]} == {name_processor(torch.device("cpu"))}
    assert set(table.commit) == {record["commit"]}


def test_the_commit_is_the_package_s_own(tmp_path, monkeypatch):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    package, installed = tmp_path / "package", tmp_path / "site-packages"
    for folder in (package, installed):
        folder.mkdir()
        (folder / "code.py").write_text("")
    for command in (["init", "-q"], ["add", "package"], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout
    find_commit = running._find_commit.__wrapped__
    commit = find_commit(package)
    assert len(commit) >= 4
    assert head.startswith(commit)
    assert find_commit(installed) == ""  # beside a checkout of something else
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert find_commit(package) == ""


def test_a_table_of_an_earlier_version(finished, tmp_path):
    _, table = finished
    file = tmp_path / "results.csv"
    table.drop(columns=["epochs", "machine", "commit"]).to_csv(file, index=False)
    loaded = load_results(file)
    assert list(loaded.columns) == list(table.columns)
    assert loaded.epochs.isna().all()
    assert set(loaded.machine) == set(loaded.commit) == {""}
    merge_results(file, table)
    again = load_results(file)
    for name in ("epochs", "machine", "commit"):
        assert again[name].tolist() == table[name].tolist()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda text: text[:300], " cannot be read as the record of a job ("),
        (lambda text: "[]", " cannot be read as the record of a job ("),
        (lambda text: text.replace('"work"', '"wrok"'), " lacks work, as a record of another ver"),
        (lambda text: text.replace('"changed"', '"c"'), " lacks changed, as a record of another"),
    ],
)
def test_a_record_that_is_not_understood_is_named(finished, tmp_path, change, text):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    file = min((tmp_path / "copy/jobs").glob("*.json"))
    file.write_text(change(file.read_text()))
    for use in (report_study, study):
        with pytest.raises(ValueError, match=re.escape(f"{file}{text}")) as info:
            use(tmp_path / "copy")
        assert str(info.value).endswith("Delete it to run the job anew.")


def test_tables_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_results(tmp_path)
    file = tmp_path / "other.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"must have the columns study, .* study, dataset"):
        load_results(file)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="cannot be read as a table of results"):
        load_results(file)


# Long work


def test_workers_come_to_the_same_rows(finished, tmp_path):
    _, table = finished
    again = study(tmp_path, seeds=[0, 1], n_jobs=2)
    ours = table[table.network == "U-Net"].reset_index(drop=True)
    assert again.drop(columns="seconds").equals(ours.drop(columns="seconds"))


def test_a_cluster_comes_to_the_same_rows(finished, tmp_path):
    distributed = pytest.importorskip("distributed")
    _, table = finished
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        again = study(tmp_path, seeds=[0, 1])
    ours = table[table.network == "U-Net"].reset_index(drop=True)
    assert again.drop(columns="seconds").equals(ours.drop(columns="seconds"))


PROGRAM = """
import sys
from bloodseg.datasets import make_smears
from bloodseg.study import run_study
drawn = {"image_size": 32, "red_cell_diameter": 12, "white_cells": (1, 1)}
run_study(
    "networks", make_smears(6, random_state=0, **drawn),
    make_smears(2, random_state=1, **drawn), output=sys.argv[1],
    networks=["U-Net", "NODEs-UNet"], seeds=[0, 1], width=4, max_epochs=1, crop_size=32,
)
"""


def test_a_killed_study_goes_on_where_it_was(finished, tmp_path, monkeypatch):
    _, table = finished
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, tmp_path])
    store = Store(tmp_path)
    while not store.records():
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    kept = {record["network"] for record in store.records()}
    trained = []
    fitted = running._fit

    def watched(job, *args):
        trained.append(job.network)
        return fitted(job, *args)

    monkeypatch.setattr(running, "_fit", watched)
    again = study(tmp_path, networks=["U-Net", "NODEs-UNet"], seeds=[0, 1])
    assert len(trained) < 4
    assert kept
    assert again.drop(columns="seconds").equals(table.drop(columns="seconds"))


def test_what_another_process_is_at_is_left_for_last(tmp_path, monkeypatch):
    order, locks = [], []
    fitted = running._fit

    def watched(job, *args):
        if not locks:  # another process takes the second job, and gives it up in a moment
            locks.append(Store(tmp_path).lock(second))
            locks[0].acquire()
        order.append(job.seed)
        if len(order) == 2:
            locks[0].release()
        return fitted(job, *args)

    from bloodseg.study import _study

    settings = {"batch_size": 4, **TINY}
    jobs = plan("networks", "data", [0, 1, 2], settings, networks=["U-Net"])
    hashes = [joblib.hash(_study._check_data(data, "")) for data in (TRAIN, TEST)]
    second = _study._identify(jobs[1], "folder", *hashes)["training"]
    monkeypatch.setattr(running, "_fit", watched)
    table = study(tmp_path, seeds=[0, 1, 2])
    assert order == [0, 2, 1]
    assert table.seed.tolist() == [0, 1, 2]


@pytest.mark.parametrize("how", ["interrupted", "broke down"])
def test_a_training_that_ends_early_is_no_result(how, tmp_path, monkeypatch):
    from bloodseg.training import _callbacks

    def stop(self, net, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt if how == "interrupted" else FloatingPointError("not finite")

    monkeypatch.setattr(_callbacks.EpochScores, "on_epoch_end", _after(stop))
    if how == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            study(tmp_path, max_epochs=2)
        table = load_results(tmp_path)
    else:
        with pytest.warns(UserWarning, match=r"networks-data-u-net-0 came to no result: .*finite"):
            table = study(tmp_path, max_epochs=2)
        assert list(table.attrs["failures"]) == ["networks-data-u-net-0"]
    assert table.empty
    assert not Store(tmp_path).records()


def test_predictions_that_fail_are_no_result(tmp_path, monkeypatch):
    def fail(self, images):
        raise FloatingPointError("the answer is not finite")

    monkeypatch.setattr(BloodCellSegmenter, "predict", fail)
    with pytest.warns(UserWarning, match="u-net-0 came to no result: the answer is not finite"):
        table = study(tmp_path)
    assert list(table.attrs["failures"]) == ["networks-data-u-net-0"]
    assert not Store(tmp_path).records()


def _after(stop):
    from bloodseg.training import _callbacks

    original = _callbacks.EpochScores.on_epoch_end

    def on_epoch_end(self, net, **kwargs):
        stop(self, net, **kwargs)
        return original(self, net, **kwargs)

    return on_epoch_end


# Errors


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "nothing"}, "study must be one of positions, networks, tolerance; got 'nothing'"),
        ({"networks": ["V-Net"]}, "networks must be among unet, resnet-unet, .*; got 'V-Net'"),
        ({"networks": []}, r"networks must name at least one; got \[\]\."),
        ({"seeds": []}, r"seeds must be whole numbers of at least 0, none of them twice; got \[\]"),
        ({"seeds": [1, 1]}, "none of them twice"),
        ({"seeds": [0.5]}, "whole numbers"),
        ({"protocol": "mine"}, "protocol must be one of folder, paper; got 'mine'"),
        ({"protocol": "paper"}, "test must be None where protocol is 'paper'"),
        ({"test": None}, "test must have images and masks, .*; got NoneType"),
        ({"networ": 3}, "'networ' is not: there is no such parameter"),
        ({"ode_positions": (5,)}, "'ode_positions' is not: the study sets it"),
        # What it compares is scored in the paper's three classes, in their order.
        ({"classes": ("background", "red", "white")}, "'classes' is not: the study sets it"),
        (
            {"name": "positions", "ode_tol": 1e-2},
            r"ode_tol is for the NODEs-UNet of the study 'networks'; got it for 'positions', whose "
            r"networks are trained at 0.001 as the paper's are. Leave it out.",
        ),
        (
            {"name": "tolerance", "ode_tol": 1e-2},
            "got it for 'tolerance', which trains at train_tolerances. Leave it out.",
        ),
        (
            {"test": Bunch(images=TEST.images, masks=TEST.masks, names=["one"])},
            "test.names must hold one name for each of 2 images; got 1.",
        ),
        ({"predict_tolerances": [-1]}, "predict_tolerances must hold .* positive and finite"),
        ({"train_tolerances": []}, "train_tolerances must hold at least one number"),
    ],
)
def test_bad_arguments(options, text, tmp_path):
    with pytest.raises(ValueError, match=text):
        study(tmp_path, **options)


def test_results_are_pandas(finished):
    assert isinstance(finished[1], pd.DataFrame)
