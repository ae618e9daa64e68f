"""``bloodseg compare``."""

import csv

import numpy as np
import pytest
from sklearn.utils import Bunch

from bloodseg import BloodCellSegmenter
from bloodseg.cli import _compare, main
from bloodseg.cli._evaluation import Evaluation, ScoredImage
from bloodseg.datasets import make_smears, save_annotated
from bloodseg.metrics import compare_predictions, confusion_matrix

SMEARS = make_smears(3, image_size=64, random_state=0, red_cell_diameter=20)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two files of models, the first of them better."""
    folder = tmp_path_factory.mktemp("models")
    for name, epochs in (("a", 6), ("b", 1)):
        segmenter = BloodCellSegmenter(
            network="unet", width=4, max_epochs=epochs, crop_size=32, random_state=0,
            batch_size=1, learning_rate=1e-2, validation_fraction=None,
        )  # fmt: skip
        segmenter.fit(SMEARS.images, SMEARS.masks).save(folder / name)
    return folder / "a", folder / "b"


@pytest.fixture
def data(tmp_path):
    save_annotated(SMEARS, tmp_path / "data", "coco")
    return tmp_path / "data"


def run(*arguments):
    return main(["compare", *map(str, arguments), "-q"])


def test_it_prints_and_writes_what_python_gives(models, data, tmp_path, capsys):
    assert run(*models, data, "-o", tmp_path / "c.csv") == 0
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    first, second = map(BloodCellSegmenter.load, models)
    expected = compare_predictions(
        SMEARS.masks, first.predict(SMEARS.images), second.predict(SMEARS.images)
    )
    for row, wanted in zip(rows, expected.to_dict("records"), strict=False):
        assert [row[name] for name in ("of", "class", "score")] == [
            wanted[name] for name in ("of", "class", "score")
        ]
        for name in ("first", "second", "difference", "low", "high"):
            assert float(row[name]) == pytest.approx(wanted[name], abs=0.02)
    assert {row["class"] for row in rows if row["of"] == "cells"} >= {"red", "all"}
    out = capsys.readouterr().out
    assert out.startswith(f"A: {models[0]}\nB: {models[1]}\n")
    shown = {line.split("  ")[0]: line for line in out.splitlines()}
    values = [f"{float(rows[0][name]):.4f}" for name in ("first", "second", "difference")]
    assert shown["mean IoU"].split()[2:5] == values
    assert "Where A - B is above 0, A is better; of count errors, B." in out
    for title in ("IoU, red", "F1, red", "F1, all cells", "count error an image, all cells"):
        assert title in out
    assert "3 images; " in out
    assert f"Table: {tmp_path / 'c.csv'}" in out
    assert run(*models, data, "-o", tmp_path / "c.csv") == 2
    assert "c.csv exists" in capsys.readouterr().err


def test_what_cannot_be_read_is_left_out_for_both(models, tmp_path, capsys):
    save_annotated({**SMEARS, "instances": None}, tmp_path / "data", "masks")
    (tmp_path / "data/images/1.png").write_bytes(b"junk")
    assert run(*models, tmp_path / "data") == 1
    captured = capsys.readouterr()
    assert "2 images; " in captured.out
    assert "1 left out" in captured.out
    assert "F1" not in captured.out  # no single cells are known
    for file in (tmp_path / "data/images").iterdir():
        file.write_bytes(b"junk")
    assert run(*models, tmp_path / "data") == 2
    assert f"no image of {tmp_path / 'data'} could be compared." in capsys.readouterr().err


def test_a_stop_keeps_the_images_that_both_have_seen(models, data, tmp_path, capsys, each_segment):
    def stop_at_the_last(number, image):
        if number == 6:  # of the third image only the first model has said anything
            raise KeyboardInterrupt

    each_segment(stop_at_the_last)
    assert run(*models, data, "-o", tmp_path / "c.csv") == 130
    out = capsys.readouterr().out
    assert "\n2 images; " in out
    assert "Stopped before 1 more: the scores are without them.\n" in out
    with (tmp_path / "c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    first, second = map(BloodCellSegmenter.load, models)
    images, masks = SMEARS.images[:2], SMEARS.masks[:2]
    expected = compare_predictions(masks, first.predict(images), second.predict(images))
    assert float(rows[0]["difference"]) == pytest.approx(expected["difference"][0], abs=0.02)


@pytest.mark.parametrize("doubted", [0, 1])
def test_an_answer_in_doubt_counts_whichever_model_gives_it(doubted, models, data, monkeypatch):
    score_image, calls = _compare.score_image, []

    def score(segmenter, *given):
        calls.append(segmenter)
        doubts = ["blurred"] * (len(calls) % 2 != doubted)
        return score_image(segmenter, *given)[0], Bunch(doubts=lambda: doubts)

    monkeypatch.setattr(_compare, "score_image", score)
    assert run(*models, data) == 0
    assert run(*models, data, "--strict") == 1


def test_seconds_and_notes_are_those_of_both_models():
    def evaluate(found, seconds):
        matrix = confusion_matrix([np.array([[0, 1]])], [np.array([found])])
        return Evaluation([ScoredImage({"image": "a", "seconds": seconds}, matrix)])

    notes = list(_compare._Comparison(evaluate([0, 1], 1.0), evaluate([0, 2], 3.0), 0).notes())
    assert notes[1] == "1 image; 1.00 and 3.00 seconds an image."
    assert notes[-1].startswith("No label map holds red cells (2)")


def test_models_of_other_classes_are_refused(models, data, tmp_path, capsys):
    classes = ("background", "red")
    masks = [(mask == 2).astype("u1") for mask in SMEARS.masks]
    other = BloodCellSegmenter(network="unet", width=1, max_epochs=1, crop_size=32, classes=classes)
    other.fit(SMEARS.images, masks).save(tmp_path / "m")
    assert run(models[0], tmp_path / "m", data) == 2
    said = "the two models must have the same classes; got background, white, red and background"
    assert said in capsys.readouterr().err
    assert run(models[0], tmp_path / "none", data) == 2
    assert f"There is no model file at {tmp_path / 'none'}" in capsys.readouterr().err
    assert run(*models, tmp_path / "nowhere") == 2
    assert "must be a folder" in capsys.readouterr().err
