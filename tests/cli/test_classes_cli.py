"""Classes other than the three, from `bloodseg train --classes` to every other command."""

import json

import numpy as np
import pytest
from PIL import Image
from shell import rows_of

from bloodseg import BloodCellCounter, BloodCellSegmenter
from bloodseg.cli import main
from bloodseg.datasets import make_smears

NAMES = "background,white,red,platelet"
SMEARS = make_smears(3, image_size=64, red_cell_diameter=24, platelets="label", random_state=3)
TINY = ["--width", "4", "--max-epochs", "1", "--crop-size", "32", "--random-state", "0", "-q"]


def save(folder, masks):
    for kind, pictures in (("images", SMEARS.images), ("masks", masks)):
        (folder / kind).mkdir(parents=True)
        for name, picture in zip("abc", pictures, strict=True):
            Image.fromarray(picture).save(folder / kind / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return save(tmp_path_factory.mktemp("data"), SMEARS.masks)


@pytest.fixture(scope="module")
def model(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("model") / "four.safetensors"
    assert main(["train", str(data), "-o", str(path), "--classes", NAMES, *TINY]) == 0
    return path


def test_train_makes_a_model_of_the_classes_named(data, model, tmp_path, capsys):
    assert BloodCellSegmenter.load(model).class_names_ == tuple(NAMES.split(","))
    assert main(["train", str(data), "-o", str(tmp_path / "m"), *TINY]) == 2
    assert "must hold the labels 0 (background), 1 (white) and 2 (red)" in capsys.readouterr().err
    wrong = ["train", str(data), "-o", str(tmp_path / "m"), "--classes", "white,red", *TINY]
    assert main(wrong) == 2
    assert "classes must hold 2 to 255 different names, 'background'" in capsys.readouterr().err


def test_train_goes_on_with_the_classes_of_a_model_or_with_others(data, model, tmp_path):
    again = tmp_path / "again.safetensors"
    assert main(["train", str(data), "-o", str(again), "--pretrained", str(model), *TINY]) == 0
    assert BloodCellSegmenter.load(again).class_names_ == tuple(NAMES.split(","))
    masks = save(tmp_path / "three", np.where(SMEARS.masks == 3, 0, SMEARS.masks))
    fewer = [*("--pretrained", str(model)), *("--classes", "background,white,red"), *TINY]
    assert main(["train", str(masks), "-o", str(tmp_path / "few"), *fewer]) == 0
    assert BloodCellSegmenter.load(tmp_path / "few").class_names_ == ("background", "white", "red")


def test_evaluate_has_scores_of_every_class(data, model, tmp_path, capsys):
    assert main(["evaluate", str(data), "-m", str(model), "-o", str(tmp_path), "-q"]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].split() == NAMES.split(",")
    assert "count as background" not in printed
    assert "green: platelets" in printed
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert written["classes"] == NAMES.split(",")
    assert np.array(written["confusion_matrix"]).shape == (4, 4)
    assert {"iou_platelet", "cpa_platelet"} <= rows_of(tmp_path / "metrics.csv")[0].keys()


def test_evaluate_on_label_maps_that_know_no_platelets(model, tmp_path, capsys, monkeypatch):
    plain = np.where(SMEARS.masks == 3, 0, SMEARS.masks)
    masks = save(tmp_path / "three", plain)
    segment = BloodCellSegmenter.segment

    def with_platelets(self, images):  # of a model that finds those that are drawn, and no more
        (found,) = segment(self, images)
        truth = next(m for i, m in zip(SMEARS.images, SMEARS.masks, strict=True)
                     if np.array_equal(i, found.image[:]))  # fmt: skip
        found.class_map[:] = truth
        yield found

    monkeypatch.setattr(BloodCellSegmenter, "segment", with_platelets)
    command = ["evaluate", str(masks), "-m", str(model), "-o", str(tmp_path / "out"), "-q"]
    assert main(command) == 0
    assert (
        "No label map holds a platelet: those found count as background." in capsys.readouterr().out
    )
    written = json.loads((tmp_path / "out/metrics.json").read_text())
    assert written["scores"]["mean_iou"] == 1
    assert all(row["mean_iou"] == 1 for row in written["images"])
    assert sum(row[3] for row in written["confusion_matrix"]) == (SMEARS.masks == 3).sum()


def test_count_and_measure_have_a_column_and_a_category_for_each_class(
    data, model, tmp_path, capsys
):
    table = tmp_path / "counts.csv"
    images = str(data / "images")
    assert main(["count", images, "-m", str(model), "-o", str(table), "-q"]) == 0
    assert capsys.readouterr().out.split()[:5] == [*NAMES.split(",")[1:], "confidence", "image"]
    assert list(rows_of(table)[0])[:4] == ["image", "white", "red", "platelet"]
    out = tmp_path / "cells"
    formats = ["--format", "csv,geojson,coco"]
    assert main(["measure", images, "-m", str(model), "-o", str(out), "-q", *formats]) == 0
    coco = json.loads((out / "cells.coco.json").read_text())
    assert [category["name"] for category in coco["categories"]] == NAMES.split(",")[1:]
    assert main(["predict", images, "-m", str(model), "-o", str(tmp_path / "maps"), "-q"]) == 0
    assert "share_platelet" in rows_of(tmp_path / "maps/predictions.csv")[0]
    page = tmp_path / "page.html"
    assert main(["report", images, "-m", str(model), "-o", str(page), "-q"]) == 0
    assert "<button>platelet</button>" in page.read_text()


def test_a_counter_of_further_classes(data, tmp_path, capsys):
    table = tmp_path / "counts.csv"
    table.write_text("image,white,red,platelet\na,0,3,3\nb,0,7,1\nc,1,4,0\n")
    model = tmp_path / "counter.safetensors"
    options = [*("--counts", str(table)), *("--classes", NAMES), *("--scale", "1")]
    plain = [word for word in TINY if word not in ("--crop-size", "32")]
    assert main(["train", str(data), "-o", str(model), *options, *plain]) == 0
    assert " platelets an image" in capsys.readouterr().out
    assert BloodCellCounter.load(model).class_names_ == tuple(NAMES.split(","))
    assert main(["count", str(data / "images"), "-m", str(model), "-q"]) == 0
    assert capsys.readouterr().out.split()[:3] == ["white", "red", "platelet"]
