"""The benchmarks run; what they measure is for them to say."""

import importlib
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from skimage.measure import regionprops
from sklearn.utils import Bunch

from benchmarks import (
    _laboratories,
    few_labels,
    finetuning,
    memory,
    noise,
    pretrained,
    robustness,
)
from benchmarks import all as everything
from benchmarks import cells as cells_benchmark
from benchmarks._colours import exchange_colours
from benchmarks._stains import restain
from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears
from bloodseg.metrics import scores_of_each
from bloodseg.ode import choose_method
from bloodseg.study import run_study
from bloodseg.study._statistics import correct_by_holm

ROOT = Path(__file__).parents[1]


def call_main(module, *arguments):
    """Run a benchmark in this process, as another would import torch for seconds."""
    # Benchmarks may turn gradients off, and need not turn them on again.
    with mock.patch.object(sys, "argv", [module, *map(str, arguments)]), torch.enable_grad():
        importlib.import_module(f"benchmarks.{module}").main()


def run(module, tmp_path, *options):
    file = tmp_path / "results.json"
    call_main(module, "--quick", "--json", file, *options)
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def solves(tmp_path_factory):
    return run("ode", tmp_path_factory.mktemp("ode"), "--positions", "5")


def test_the_solver_against_torchdiffeq(solves):
    for row in solves["rows"]:
        assert row["error"] < 1e-2
        assert row["evaluations"] >= 3
        assert row["over bare f"] > 0
        assert row["tuned over ours"] > 0
        assert sum(row["shares"].values()) == pytest.approx(1, abs=0.2)
    backends = {(row["method"], row["backend"]) for row in solves["sweep"]}
    assert ("tsit5", "bloodseg") in backends
    assert ("dopri5", "torchdiffeq") in backends


def test_auto_takes_a_method_of_few_evaluations(solves):
    for tol in {row["tol"] for row in solves["methods"]}:
        cost = {row["method"]: row["evaluations"] for row in solves["methods"] if row["tol"] == tol}
        assert cost[choose_method(tol)] <= 1.5 * min(cost.values())


def test_the_plots(solves, tmp_path):
    file = tmp_path / "ode.json"
    rows = [row | {"position": position} for row in solves["rows"] for position in (2, 9)]
    file.write_text(json.dumps(solves | {"rows": rows}))
    call_main("plots", file, "-o", tmp_path / "plots")
    names = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert names == ["cost-against-error.png", "cost-of-positions.png"]


def save_fields(folder, smears, n_fields):
    """Write the first of some smears as images/ and masks/."""
    for kind, pictures in (("images", smears.images), ("masks", smears.masks)):
        (folder / kind).mkdir(parents=True)
        for index in range(n_fields):
            Image.fromarray(pictures[index]).save(folder / f"{kind}/{index}.png")


def save_boxes(folder, smears):
    """Write smears in the form of BCCD, in three folds."""
    for name in ("images", "annotations"):
        (folder / name).mkdir()
    names = {1: "WBC", 2: "RBC"}
    rows = []
    for index, (image, mask, instances) in enumerate(
        zip(smears.images, smears.masks, smears.instances, strict=True)
    ):
        Image.fromarray(image).save(folder / f"images/{index}.png")
        objects = ""
        for cell in regionprops(instances):
            box = zip(("ymin", "xmin", "ymax", "xmax"), cell.bbox, strict=True)
            corners = "".join(f"<{corner}>{at}</{corner}>" for corner, at in box)
            name = names[int(mask[tuple(cell.coords[0])])]
            objects += f"<object><name>{name}</name><bndbox>{corners}</bndbox></object>"
        (folder / f"annotations/{index}.xml").write_text(f"<annotation>{objects}</annotation>")
        rows.append(f"{index},{index},{index % 3}\n")
    (folder / "split.csv").write_text("image,group,fold\n" + "".join(rows))


def test_counting(tmp_path):
    smears = make_smears(6, image_size=64, random_state=0, red_cell_diameter=16)
    save_boxes(tmp_path, smears)
    model = BloodCellSegmenter(width=2, max_epochs=1, crop_size=32, random_state=0)
    model.fit(smears.images, smears.masks).save(tmp_path / "m")
    options = [tmp_path, "--model", tmp_path / "m", "--pretrained", tmp_path / "m"]
    found = run("counting", tmp_path, *options, "--folds", "1", "2", "--scale", "1")
    assert found["errors"].keys() == {
        "the mean of training",
        "the median of training",
        "BloodCellCounter",
        "segmenting first",
        "segmenting first, and a line from there to the boxes",
    }
    guess = np.abs(smears.counts[[0, 3]] - smears.counts[[1, 2, 4, 5]].mean(axis=0)).mean(axis=0)
    row = found["errors"]["the mean of training"]
    assert [row["white"], row["red"]] == pytest.approx(guess)


def test_counting_in_a_folder(tmp_path):
    smears = make_smears(4, image_size=64, random_state=0, red_cell_diameter=16)
    save_fields(tmp_path, smears, 4)
    rows = ["image,class"]
    for index, (white, red) in enumerate(smears.counts):
        rows += [f"{index},wbc"] * white + [f"{index},rbc"] * red
    (tmp_path / "boxes.csv").write_text("\n".join(rows) + "\n")
    found = run("counting", tmp_path, tmp_path, "--test", tmp_path, "--scale", "1")["errors"]
    spread = np.abs(smears.counts - smears.counts.mean(axis=0)).mean(axis=0)
    row = found["the mean of training"]
    assert [row["white"], row["red"]] == pytest.approx(spread)


def test_a_network_against_its_onnx_file(tmp_path):
    smears = make_smears(3, image_size=40, random_state=0)
    save_fields(tmp_path, smears, 3)
    model = BloodCellSegmenter(width=2, max_epochs=1, crop_size=32, random_state=0)
    model.fit(smears.images, smears.masks).save(tmp_path / "m")
    found = run("export", tmp_path, tmp_path / "m", tmp_path)
    assert found["steps"].keys() == {"4", "5", "6"}
    assert found["changed"] < 0.01
    assert 0 < found["megabytes"] < 1
    assert min(found["seconds"].values()) > 0


def test_whole_networks(tmp_path):
    found = run("network", tmp_path)
    assert found["prediction"]["evaluations"].keys() == {"4", "5", "6"}
    (launches,) = found["launches"].values()
    assert launches["multiplications over the U-Net's"] > 1
    assert launches["ruler, against unet"].keys() == {"waiting", "no waiting"}
    assert launches["share of refused samples"] == 0
    assert found["training"]["torchdiffeq over ours"] > 0
    for block in found["gradients"].values():
        assert block["relative error"] < 1e-4


def test_all_in_one_run_and_where_the_time_of_training_goes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    file = tmp_path / "results.json"
    assert everything.main(["--quick", "--parts", "training", "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())["training"]["rows"]
    assert (row["batch"], row["crop"]) == (2, 32)
    step = row["ms a step"]
    assert row["crops a second"] == pytest.approx(2 / step["fit"] * 1e3)
    assert row["share of the network"] == pytest.approx(step["network"] / step["fit"])
    assert row["changes over network"] == pytest.approx(step["changes"] / step["network"])
    assert everything.main(["--quick", "--seconds", "0", "--json", str(file)]) == 1
    found = json.loads(file.read_text())
    for part in ("network", "training", "slides", "ode"):
        assert found[part] == {"error": "not done after 0 s"}
    assert capsys.readouterr().out.startswith("training done\nnetwork not done after 0 s\n")


def test_cells_of_drawn_smears_are_scored_and_their_sizes_spread():
    smears = make_smears(2, 128, random_state=0, red_cell_diameter=24, white_cells=(1, 1))
    true = []
    for instances, mask in zip(smears.instances, smears.masks, strict=True):
        classes = np.zeros(instances.max() + 1, int)
        classes[instances] = mask
        true.append(cells_benchmark.cells_of(instances, classes))
    rows = cells_benchmark.measure(smears.images, smears.masks, true)
    by_method = {(row["method"], row["class"]): row for row in rows}
    assert by_method["bloodseg", "red"]["recall"] > 0.9
    assert by_method["bloodseg", "white"]["f1"] == 1
    drawn, found = (by_method[name, "red"]["spread"] for name in ("the boxes", "bloodseg"))
    assert found == pytest.approx(drawn, abs=0.05)
    whole = [(np.array([[5, 5, 15, 5 + side] for side in (8, 10, 10, 10, 12)]), ["red"] * 5)]
    assert cells_benchmark.spread_of_sizes(whole, [(40, 40)]) == pytest.approx(0.036)
    assert cells_benchmark.spread_of_sizes(whole, [(15, 40)]) is None  # all at the border


def test_fields_with_the_right_number_of_white_cells():
    smears = make_smears(3, 160, random_state=1, red_cell_diameter=40, white_cells=(1, 2))
    rows = cells_benchmark.white_counts(smears, smears.masks)
    assert rows[0]["white"] == smears.counts[:, 0].sum()
    assert (rows[0]["method"], rows[0]["share right"]) == ("bloodseg", 1)


@pytest.mark.parametrize("name", robustness.CORRUPTIONS)
def test_corruptions_do_more_harm_the_stronger_they_are(name):
    image = make_smears(1, 64, random_state=0).images[0]
    before = image.copy()
    changes = []
    for strength in range(1, 6):
        damaged = robustness.corrupt(image, name, strength)
        assert (damaged.shape, damaged.dtype) == (image.shape, np.uint8)
        assert np.array_equal(damaged, robustness.corrupt(image, name, strength))
        changes.append(np.abs(damaged - image.astype(float)).mean())
    assert np.array_equal(image, before)
    assert changes[0] > 0
    assert (np.diff(changes) > 0).all()


def test_with_nothing_faded_the_image_comes_back():
    image = np.random.default_rng(0).integers(1, 256, (20, 20, 3)) / 255
    np.testing.assert_allclose(robustness._fade_stain(image, 1.0), image, atol=1e-6)


def test_robustness(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(robustness, "compare", partial(robustness.compare, n_draws=100))
    train, test = (make_smears(n, 32, random_state=n, red_cell_diameter=12) for n in (4, 2))
    save_fields(tmp_path / "test", test, 2)
    run_study("networks", train, test, output=tmp_path / "study", networks=["U-Net", "NODEs-UNet"],
              seeds=[0, 1], width=2, max_epochs=1, crop_size=32)  # fmt: skip
    test, file = str(tmp_path / "test"), tmp_path / "matrices.json"
    robustness.main([str(tmp_path / "study"), test, "--elsewhere", test, "--json", str(file)])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[1] for row in rows] == [
        "clean", *robustness.CORRUPTIONS, "all", "elsewhere", "clean", "greatest strength"
    ]  # fmt: skip
    assert rows[0][2:5] == ["NODEs-UNet", "U-Net", rows[7][4]]  # the same images elsewhere
    assert rows[8][2:4] == ["NODEs-UNet at 1e-6", "NODEs-UNet at 1e-1"]
    found = json.loads(file.read_text())
    scores = [
        mean_iou_of(found["NODEs-UNet"]["0"][name]) - mean_iou_of(found["U-Net"]["0"][name])
        for name in ("blur 1", "blur 2", "blur 3", "blur 4", "blur 5")
    ]
    others = [
        mean_iou_of(found["NODEs-UNet"]["1"][name]) - mean_iou_of(found["U-Net"]["1"][name])
        for name in ("blur 1", "blur 2", "blur 3", "blur 4", "blur 5")
    ]
    assert float(rows[1][4]) == pytest.approx(100 * np.mean(scores + others), abs=0.006)
    table = robustness.judge(found)
    assert table.question.value_counts().to_dict() == {
        "robustness": 7, "another laboratory": 1, "depth for free": 2
    }  # fmt: skip
    for _, of_one in table.groupby("question"):
        assert of_one.p_holm.tolist() == correct_by_holm(of_one.p.to_numpy()).tolist()


def test_densities(capsys):
    call_main("densities", "--smears", "1", "--diameter", "40")
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    photos = {row[0]: float(row[1].split()[0]) for row in rows}
    assert len(photos) == 4
    assert rows[2][2] == "+0.0 %"  # what all are compared with
    # Nothing but the border makes more cells show than belong to a photo.
    assert photos["drawn, all that show"] > 15
    assert abs(photos["found, the frame"]) < 10


def test_few_labels(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(robustness, "compare", partial(robustness.compare, n_draws=100))
    for name, n in (("train", 9), ("test", 2)):
        save_fields(tmp_path / name, make_smears(n, 32, random_state=n, red_cell_diameter=12), n)
    folders = [str(tmp_path / name) for name in ("train", "test")]
    options = "--fields 2 4 8 --steps 2 --width 2 --seeds 0 1 --networks U-Net NODEs-UNet"
    arguments = [*folders, "-o", str(tmp_path / "few"), *options.split()]
    few_labels.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if "undecided" in line or "±" in line]
    scores = {(row[0], row[1]): float(row[3].split()[0]) for row in rows if "±" in row[-1]}
    assert len(scores) == 6
    differences = [row for row in rows if row[0] == "few labels"]
    assert [row[1] for row in differences] == [
        "mean of 2, 4 and 8 fields", "2 fields", "4 fields", "8 fields"
    ]  # fmt: skip
    found = few_labels.collect(tmp_path / "few")
    mean = np.mean([
        mean_iou_of(found[n]["NODEs-UNet"][seed]) - mean_iou_of(found[n]["U-Net"][seed])
        for n in (2, 4, 8) for seed in (0, 1)
    ])  # fmt: skip
    assert float(differences[0][4]) == pytest.approx(100 * mean, abs=0.006)
    assert f"mean {100 * mean:+.2f}, p " in lines[-1]
    few_labels.main(arguments)  # nothing is trained again
    assert capsys.readouterr().out.splitlines() == lines


def test_fewer_fields_are_of_different_groups_and_part_of_more():
    groups = np.repeat(["a", "b", "c", "d"], [4, 1, 2, 1])
    data = Bunch(images=list(range(8)), masks=list(range(8)), names=list("01234567"), groups=groups)
    two, four = (few_labels.draw_fields(data, n, seed=3) for n in (2, 4))
    assert len(set(four.groups)) == 4
    assert two.names == four.names[:2]
    assert two.images == [int(name) for name in two.names] == two.masks
    drawn = {tuple(few_labels.draw_fields(data, 2, seed).names) for seed in range(5)}
    assert len(drawn) > 1
    assert few_labels.count_epochs(four, seed=0, n_steps=600) == 200
    with pytest.raises(SystemExit, match=r"--fields asks for 5 groups of fields; there are 4\."):
        few_labels.draw_fields(data, 5, seed=0)


def test_few_labels_asks_seeds_whether_they_agree(capsys):
    def wrong(n):  # pixels of 100 of each class
        return [[[100 - n, n], [n, 100 - n]]]

    seeds = {
        "U-Net": [wrong(n) for n in (10, 12, 14, 10)],
        "NODEs-UNet": [wrong(n) for n in (9, 10, 11)],
    }
    of_networks = {network: dict(enumerate(matrices)) for network, matrices in seeds.items()}
    few_labels.show_gains(dict.fromkeys(few_labels.ANSWERING, of_networks))
    gains, verdict = capsys.readouterr().out.splitlines()
    expected = [
        100 * (mean_iou_of(a) - mean_iou_of(b))
        for a, b in zip(seeds["NODEs-UNet"], seeds["U-Net"], strict=False)
    ]
    assert gains.endswith(str(np.round(expected, 2)))
    t = np.mean(expected) / stats.sem(expected)
    p = 2 * stats.t.sf(t, df=2)
    assert verdict == f"mean {np.mean(expected):+.2f}, p {p:.3f} by a paired t-test"


def mean_iou_of(matrices):
    return scores_of_each(np.sum(matrices, axis=0))["mean_iou"]


def test_memory_of_a_training_step():
    command = [sys.executable, "-m", "benchmarks.memory", "--of", "residual", "2"]
    command += ["--width", "4", "--side", "64"]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert output.returncode == 0, output.stderr
    assert int(output.stdout) > 4 * 64**2 * 4 * 4  # a map of the first stage, for four crops


@pytest.mark.parametrize("kind", memory.KINDS)
def test_a_deep_network_takes_as_many_steps_as_it_is_deep(kind):
    network = memory.make_deep_network(kind, 3, width=2)
    network(torch.zeros(1, 3, 32, 32))
    if kind == "residual":
        assert [len(network.stages[position - 1][1]) for position in memory.POSITIONS] == [3] * 3
    else:
        assert [b.n_evaluations.item() for b in network.ode_blocks.values()] == [3] * 3


def test_the_diameter_of_red_cells(tmp_path):
    save_fields(tmp_path / "data", make_smears(2, 160, 0, red_cell_diameter=24), 2)
    rows = run("diameter", tmp_path, "--data", tmp_path / "data")["rows"]
    assert [row["magnified"] for row in rows] == [1, 1, 1, 1, 0.5, 2]
    assert all(row["off by 25 %"] == 0 for row in rows)


@pytest.fixture
def laboratories(tmp_path):
    """Save drawn smears as the making of published weights takes them; return their folder."""
    smears = make_smears(6, 96, random_state=0, red_cell_diameter=30, white_cells=(1, 1))
    folder = tmp_path / "data"
    for place in ("smear256/train", "leukocyte300/train", "chula_bangkok", "krd_erbil"):
        save_fields(folder / place, smears, 4)
    (folder / "krd_erbil" / "masks_wbc").mkdir()
    for index, mask in enumerate(smears.masks[:4]):
        white = Image.fromarray((mask == 1).astype(np.uint8))
        white.save(folder / f"krd_erbil/masks_wbc/{index}.png")
    (folder / "bccd").mkdir()
    save_boxes(folder / "bccd", smears)
    return folder


TINY = ["--width", "2", "--n-steps", "1"]


def test_published_weights(tmp_path, laboratories, capsys):
    model = tmp_path / "m"
    sets = ["--sets", "smear256=2", "bccd"]
    pretrained.main(["train", str(laboratories), "-o", str(model), *TINY, *sets])
    assert BloodCellSegmenter.load(model).red_cell_diameter_ == pytest.approx(36, abs=3)
    assert capsys.readouterr().out.startswith("12 images, ")  # 2 x 4 fields, and 4 of BCCD
    only = ["--only", "all", "without boxes of bccd"]
    pretrained.main(["ablation", str(laboratories), *TINY, *only])
    lines = capsys.readouterr().out.splitlines()
    rows = [json.loads(line) for line in lines if line.startswith("{")]
    assert [row["recipe"] for row in rows] == ["all", "without boxes of bccd"]
    assert 0 <= rows[0]["other laboratory"]["mean_iou"] <= 100
    report = tmp_path / "report.json"
    options = ["--masks", str(laboratories / "krd_erbil"), "--bccd", str(laboratories / "bccd")]
    options += ["--tolerances", "1e-4", "1e-1", "--json", str(report)]
    pretrained.main(["evaluate", str(model), *options])
    found = json.loads(report.read_text())
    (sizes,) = found["mean IoU"].values()
    assert sizes.keys() == {"original", "half", "double"}
    (rows,) = found["tolerances"].values()
    assert [*rows] == ["1e-04", "1e-01"]
    assert rows["1e-04"]["evaluations an image"] >= rows["1e-01"]["evaluations an image"]
    assert len(found["count error on bccd, fold 0"]["segmented and counted"]) == 2


def test_a_row_for_each_laboratory(tmp_path, laboratories):
    model, report = tmp_path / "m", tmp_path / "report.json"
    pretrained.main(["train", str(laboratories), "-o", str(model), *TINY, "--sets", "smear256"])
    pretrained.main(["score", str(laboratories), str(model), "--json", str(report)])
    (rows,) = json.loads(report.read_text())["models"].values()
    assert {row["use"] for row in rows.values()} == {"choose"}
    assert rows["leukocyte300"]["fields"] == 4
    assert rows["chula_bangkok, other half"]["fields"] == 2
    for row in rows.values():
        assert row["white"] is None or 0 <= row["white"] <= 100
        assert 1 / 3 <= row["confidence"] <= 1
    assert rows["krd_erbil, white cells"]["mean IoU"] is None


def test_no_field_that_trains_judges():
    for judge in _laboratories.JUDGES.values():
        for fields in _laboratories.TRAINING.values():
            if judge.folder == fields.folder and judge.labels == fields.labels:
                names = range(107) if fields.labels == "masks" else [0, 1, 2, 3, 4]
                parts = [
                    set(names[part] if isinstance(part, slice) else part)
                    for part in (judge.part, fields.part)
                ]
                assert parts[0].isdisjoint(parts[1])
                assert parts[0] | parts[1] == set(names)


def test_each_laboratory_left_out_in_turn(tmp_path, laboratories):
    report = tmp_path / "report.json"
    sets = ["smear256", "chula_bangkok", "krd_erbil"]
    options = [*TINY, "--sets", *sets, "--exchange", "--restain", "--json", str(report)]
    pretrained.main(["leave-out", str(laboratories), *options])
    found = json.loads(report.read_text())["left_out"]
    assert [*found] == sets
    for left_out, rows in found.items():
        assert [*rows] == [left_out, "leukocyte300"]
        assert 0 <= rows[left_out]["mean IoU"] <= 100


def test_colours_are_those_of_another_laboratory():
    smears = make_smears(2, 64, random_state=0)
    pink, violet = (
        (image * np.array(light)).astype(np.uint8)
        for image, light in zip(smears.images, ([1, 0.8, 0.9], [0.7, 0.6, 1]), strict=True)
    )
    changed = exchange_colours([pink, violet], smears.masks, ["here", "there"], seed=1)

    def mean_of_red_cells(image, mask):
        return image[mask == 2].mean(axis=0)

    for image, new, other in ((0, 0, 1), (1, 1, 0)):
        images = [pink, violet]
        target = mean_of_red_cells(images[other], smears.masks[other])
        before = np.abs(mean_of_red_cells(images[image], smears.masks[image]) - target).max()
        after = np.abs(mean_of_red_cells(changed[new], smears.masks[image]) - target).max()
        assert after < 0.6 * before
    again = exchange_colours([pink, violet], smears.masks, ["here", "there"], seed=1)
    assert all(np.array_equal(*pair) for pair in zip(changed, again, strict=True))


def test_some_images_are_burnt_out():
    smears = make_smears(12, 64, random_state=0)
    changed = exchange_colours(smears.images, smears.masks, ["here", "there"] * 6, seed=0)
    burnt = [np.mean(image.min(axis=-1)[mask == 0] == 255) > 0.5 for image, mask in
             zip(changed, smears.masks, strict=True)]  # fmt: skip
    assert 1 <= sum(burnt) <= 8


def test_classes_are_stained_each_for_itself():
    smears = make_smears(12, 192, random_state=0, red_cell_diameter=36)
    changed, masks = restain(smears.images, smears.masks, seed=0)
    again, _ = restain(smears.images, smears.masks, seed=0)
    assert all(np.array_equal(*pair) for pair in zip(changed, again, strict=True))
    darker = []  # than before: log10 of what is left of the light, white cells and red ones
    for image, mask, new, labels in zip(smears.images, smears.masks, changed, masks, strict=True):
        added = labels != mask
        assert (labels[added] == 1).all()  # white cells that were pasted
        if all((mask == label).sum() > 50 for label in (1, 2)) and not added.any():
            density = [
                np.log10(np.median(each[mask == 0], axis=0) + 1)
                - np.log10([each[mask == label].mean(axis=0) + 1 for label in (1, 2)])
                for each in (image, new)
            ]
            darker.append(density[1].mean(axis=1) / density[0].mean(axis=1))
    darker = np.array(darker)
    assert len(darker) >= 3
    assert np.ptp(darker, axis=0).min() > 0.2
    assert np.abs(darker[:, 0] - darker[:, 1]).max() > 0.2  # not both by the same
    assert sum((one != other).any() for one, other in zip(masks, smears.masks, strict=True)) >= 3


@pytest.mark.parametrize("name", ["a.jpg", "002"])  # Barcelona's and smear256's
def test_platelets_with_a_box_are_background(name, tmp_path):
    mask = np.full((20, 20), 255, np.uint8)
    mask[:5] = 2
    rows = ["image,class,xmin,ymin,xmax,ymax", f"{name},platelet,2,3,8,9", f"{name},rbc,6,6,12,12"]
    (tmp_path / "boxes.csv").write_text("\n".join([*rows, "003,platelet,0,0,19,19"]))
    (found,) = _laboratories.with_platelets(tmp_path, [mask], [name.partition(".")[0]])
    expected = mask.copy()
    expected[5:10, 2:9] = 0
    expected[6:10, 6:9] = 255  # may be the red cell's
    np.testing.assert_array_equal(found, expected)


def test_a_crop_has_the_whole_white_cell():
    white = np.zeros((90, 120), bool)
    white[60:80, 95:115] = True
    white[5:9, 5:9] = True
    image = np.repeat(np.where(white, 90, 230).astype(np.uint8)[..., None], 3, 2)
    crop, mask = _laboratories.crop_of_white_cell(image, white, 12)
    assert crop.shape == (128, 128, 3)
    assert mask.sum() == pytest.approx(400 * (128 / 42) ** 2, rel=0.02)  # a side is 42 pixels
    assert ((mask == 1) == (crop[..., 0] < 160)).mean() > 0.98


@pytest.mark.parametrize("sets", ["smear", "smear256=often"])
def test_sets_that_are_none(tmp_path, sets, capsys):
    with pytest.raises(SystemExit):
        pretrained.main(["train", str(tmp_path), "-o", str(tmp_path / "m"), "--sets", sets])
    assert "NAME=TIMES of smear256, bccd, pbc_barcelona, chula_bangkok, krd_erbil, nlm_" in (
        capsys.readouterr().err
    )


def test_going_on_and_averaging(tmp_path, laboratories):
    files = [str(tmp_path / name) for name in ("start", "further", "averaged")]
    tiny = ["train", str(laboratories), *TINY, "--sets", "smear256", "-o"]
    pretrained.main([*tiny, files[0]])
    pretrained.main([*tiny, files[1], "--start", files[0]])
    pretrained.main(["average", *files[:2], "-o", files[2], "--shares", "0.75", "0.25"])
    start, further, averaged = (
        BloodCellSegmenter.load(file).network_.state_dict() for file in files
    )
    assert any((start[name] != further[name]).any() for name in start)
    for name, weight in averaged.items():
        if weight.is_floating_point():
            expected = 0.75 * start[name] + 0.25 * further[name]
            np.testing.assert_allclose(weight, expected, rtol=1e-3, atol=1e-6)
    with pytest.raises(SystemExit, match="one for each model, of sum 1; got"):
        pretrained.main(["average", *files[:2], "-o", files[2], "--shares", "0.5"])


def test_fine_tuning(tmp_path):
    smears = make_smears(4, 64, random_state=0, red_cell_diameter=24)
    tiny = {"width": 2, "max_epochs": 1, "crop_size": 32, "validation_fraction": None}
    start = BloodCellSegmenter(**tiny, random_state=0).fit(smears.images, smears.masks)
    start.save(tmp_path / "m")
    start.set_params(pretrained=tmp_path / "m")
    rows = list(finetuning.trainings(start, smears, n_images=[1, 2], seeds=[0, 1], epochs=1))
    starts = ["as published"] + ["fine-tuned", "from scratch"] * 4
    assert [row["start"] for row in rows] == starts
    assert [row["images"] for row in rows] == [0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert all(0 <= row["mean IoU"] <= 100 for row in rows)


@pytest.mark.parametrize("name", noise.NOISES)
def test_noise_is_added_to_a_picture(name):
    image = make_smears(1, 96, random_state=0).images[0]
    damage, strengths = noise.NOISES[name]
    noisy = [damage(image, each, np.random.default_rng(0)) for each in strengths]
    assert {(each.shape, each.dtype) for each in noisy} == {(image.shape, image.dtype)}
    errors = [np.abs(each.astype(int) - image).mean() for each in noisy]
    assert errors == sorted(errors)
    assert errors[0] > 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_ways_to_meet_noise_are_compared(monkeypatch):
    monkeypatch.setattr(noise, "NOISES", {"normal": (noise.add_normal, [50])})
    smears = make_smears(2, 160, random_state=3, red_cell_diameter=40, white_cells=(1, 1))
    rows = list(noise.rows(BloodCellSegmenter.from_pretrained(), smears, 1))
    scores = {row["way"]: row["mean IoU"] for row in rows}
    assert scores["neither"] < min(scores["adapted"], scores["smoothed"])
    assert scores["both"] > 70
