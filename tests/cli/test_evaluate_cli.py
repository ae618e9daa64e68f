"""``bloodseg evaluate``: scores of pixels and of cells."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import sparse
from shell import SMEARS, raiser, rows_of

from bloodseg import BloodCellSegmenter
from bloodseg.cells import Cells
from bloodseg.cli import _batch, _evaluation, main
from bloodseg.cli._evaluation import CellOverlaps, Evaluation, ScoredImage
from bloodseg.datasets import TrueCells
from bloodseg.metrics import cell_report, confusion_matrix, mean_iou, report_of_overlaps


def test_evaluate_prints_and_writes_scores(data, model, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["evaluate", str(data), "-m", str(model), "-o", str(out), "-q"]) == 0
    segmenter = BloodCellSegmenter.load(model)
    expected = mean_iou(SMEARS.masks, segmenter.predict(SMEARS.images))
    text = capsys.readouterr().out
    for line in ("CPA ", "IoU ", "pixel accuracy (PA) ", "mean Dice ", "4 images, "):
        assert f"\n{line}" in text
    assert f"mean IoU{expected:>40.4f}" in text
    report = json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert report["scores"]["mean_iou"] == expected
    assert np.sum(report["confusion_matrix"]) == SMEARS.masks.size
    assert [image["image"] for image in report["images"]] == list("abcd")
    pooled, *single = rows_of(out / "metrics.csv")
    assert pooled["image"] == "(pooled)"
    assert float(pooled["mean_iou"]) == expected
    assert [row["image"] for row in single] == list("abcd")
    assert {file.name for file in (out / "overlays").iterdir()} == {
        f"{name}_overlay.png" for name in "abcd"
    }
    assert main(["evaluate", str(data), "-m", str(model), "-o", str(out), "-q"]) == 2
    assert "metrics.json exists. Choose another name" in capsys.readouterr().err


def test_evaluate_scores_cells_where_they_are_known(data, model, tmp_path, capsys):
    folder, out = tmp_path / "smears", tmp_path / "out"
    shutil.copytree(data, folder)
    (folder / "instances").mkdir()
    for name, labels in zip("abcd", SMEARS.instances, strict=True):
        Image.fromarray(labels.astype(np.uint16)).save(folder / "instances" / f"{name}.png")
    command = ["evaluate", str(folder), "-m", str(model), "-o", str(out), "-q"]
    assert main(command) == 0
    text = capsys.readouterr().out
    found = BloodCellSegmenter.load(model).predict_instances(SMEARS.images)
    classes = [["white"] * white + ["red"] * red for white, red in SMEARS.counts]
    expected = cell_report(list(SMEARS.instances), found, true_classes=classes)
    report = json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)
    for row, other in zip(report["cells"], expected.to_dict("records"), strict=True):
        assert row == {k: None if v != v else pytest.approx(v) for k, v in other.items()}
    assert report["scores"]["mean_iou"] > 0
    every = expected.iloc[-1]
    assert re.search(rf"\nannotated .* {every.true}\nfound .* {every.found}\n", text)
    shown = f"{every.f1:.3f} [{every.f1_low:.3f}, {every.f1_high:.3f}]"
    assert re.search(rf"\nF1 .* {re.escape(shown)}\n", text)
    assert "cells, IoU of cells at least 0.5" in text
    # The same from a table of boxes, of one image alone, which has no intervals.
    (folder / "instances").rename(tmp_path / "other")
    for file in folder.rglob("[bcd].*"):
        file.unlink()
    (folder / "boxes.csv").write_text("image,class,xmin,ymin,xmax,ymax\na,RBC,1,2,9,9\n")
    assert main([*command, "--overwrite"]) == 0
    text = capsys.readouterr().out
    assert "cells, IoU of boxes at least 0.5" in text
    assert re.search(r"\nrecall .* [01]\.000 .* [01]\.000\n", text)
    assert "drawn anew" not in text
    report = json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert report["cells"][-1]["true"] == 1


def test_platelets_are_no_mistake_where_none_is_annotated():
    classes = ("background", "white", "red", "platelet")
    labels = np.zeros((40, 60), int)
    labels[5:20, 5:20], labels[25:35, 40:50] = 1, 2
    found = Cells(
        labels,
        np.array([2, 3]),
        np.ones(2),
        np.zeros((2, 4), bool),
        np.ones(2, bool),
        None,
        classes,
    )
    boxes = TrueCells(np.array([[5.0, 5, 20, 20]]), np.array(["red"]))
    platelet = TrueCells(np.array([[25.0, 40, 35, 50]]), np.array(["platelet"]))
    images = [
        ScoredImage({}, np.eye(4, dtype=int), CellOverlaps.of(true, found))
        for true in (boxes, platelet)
    ]
    result = Evaluation(images[:1], classes)
    assert [(row["class"], row["tp"], row["fp"]) for row in result.cell_rows] == [
        ("red", 1, 0),
        ("all", 1, 0),
    ]
    rows = {row["class"]: row for row in Evaluation(images, classes).cell_rows}
    assert (rows["platelet"]["tp"], rows["platelet"]["fp"]) == (1, 1)


def test_pixels_of_platelets_count_by_what_the_label_maps_of_all_images_hold():
    classes = ("background", "white", "red", "platelet")

    def find_platelet(true):
        matrix = np.diag([1, 1, 1, 0])
        matrix[true, 3] += 1
        return ScoredImage({"image": "a", "seconds": 1.0}, matrix)

    background, platelet = find_platelet(0), find_platelet(3)
    alone = Evaluation([background], classes)
    assert [row["pixel_accuracy"] for row in alone.rows] == [1]
    note = "No label map holds a platelet: those found count as background."
    assert list(alone.notes()) == [note]
    both = Evaluation([background, platelet], classes)
    assert [row["pixel_accuracy"] for row in both.rows] == [0.75, 1]
    assert not list(both.notes())


def test_cells_are_matched_once_for_print_and_files(tmp_path, monkeypatch):
    calls = []

    def report(*args, **kwargs):
        calls.append(args)
        return report_of_overlaps(*args, **kwargs)

    monkeypatch.setattr(_evaluation, "report_of_overlaps", report)
    classes = np.array(["red", "white"], object)
    one = CellOverlaps(sparse.csr_array(np.eye(2)), classes, classes, boxes=False)
    image = ScoredImage({"image": "a", "seconds": 1.0}, np.eye(3, dtype=int), one)
    result = Evaluation([image] * 2)
    for path, write in result.files(tmp_path).items():
        write(path)
    assert "F1" in "\n".join(result.table())
    assert len(calls) == 1


def test_columns_of_cells_stay_apart():
    score = {"true": 300, "found": 1, **dict.fromkeys(("tp", "fp", "fn"), 0)}
    score |= {"precision": np.nan, **dict.fromkeys(("recall", "f1", "panoptic_quality"), 0.0)}
    score |= {"mean_matched_iou": np.nan, "average_precision": 0.0, "count_error": 299.0}
    score |= {"count_bias": -299.0, "count_bias_low": -300.25, "count_bias_high": -297.75}
    low = {f"{name}_{side}": value for name, value in score.items() for side in ("low", "high")}
    result = Evaluation(images=[ScoredImage({}, np.eye(3, dtype=int))] * 2)
    rows = [{"class": name, **low, **score} for name in ("red", "all")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluation, "cell_rows", rows)
        lines = list(result._cell_lines())
    (bias,) = (line for line in lines if line.startswith("count bias"))
    assert bias.count("  -299.000 [-300.250, -297.750]") == 2
    assert len({len(line) for line in lines if line.startswith(("annotated", "count bias"))}) == 1


def test_a_stop_keeps_the_scores(data, model, tmp_path, capsys, each_segment, monkeypatch):
    kept = []

    def stop_at_the_third(number, image):
        if number == 3:
            kept.append(json.loads((tmp_path / "metrics.json").read_text()))  # as a kill leaves it
            raise KeyboardInterrupt

    each_segment(stop_at_the_third)
    monkeypatch.setattr(_batch, "_KEPT_EVERY", 0)
    monkeypatch.setattr(_batch, "_KEPT_SHARE", 0)
    assert main(["evaluate", str(data), "-m", str(model), "-o", str(tmp_path), "-q"]) == 130
    out = capsys.readouterr().out
    assert "\n2 images, " in out
    assert "Stopped before 2 more: the scores are without them.\n" in out
    kept.append(json.loads((tmp_path / "metrics.json").read_text()))
    for report in kept:
        assert [image["image"] for image in report["images"]] == ["a", "b"]
        assert report["n_left"] == 2
    assert len(rows_of(tmp_path / "metrics.csv")) == 3


@pytest.mark.parametrize(("labels", "said"), [([0, 1], True), ([0, 1, 2], False)])
def test_classes_that_no_label_map_holds_are_named(labels, said):
    matrices = [
        confusion_matrix([np.array([true])], [np.array([found])])
        for true, found in ((labels, labels), ([0, 1], [2, 1]))
    ]
    images = [ScoredImage({"image": "a", "seconds": 1.0}, matrix) for matrix in matrices]
    assert not list(Evaluation(images=images[:1]).notes())
    note = "No label map holds red cells (2): those found count as wrong."
    assert any(line.startswith(note) for line in Evaluation(images=images).table()) == said


def test_evaluate_leaves_out_what_it_cannot_read(broken, model, tmp_path, capsys):
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(broken / "masks/a.png")  # NaN: no cells
    out = tmp_path / "out"
    assert main(["evaluate", str(broken), "-m", str(model), "-o", str(out)]) == 1
    captured = capsys.readouterr()
    for message in (
        "b skipped: ",
        "c skipped: ",
        "c.png has no label map",
        "d.png must have the size of its image, (64, 64); got (32, 64)",
    ):
        assert message in captured.err
    assert "\n1 image, " in captured.out
    assert "3 left out, see the messages.\n" in captured.out
    assert "Stopped before" not in captured.out
    report = json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert report["scores"]["cpa_white"] is None
    assert set(report["failed"]) == set("bcd")
    assert report["n_left"] == 0
    assert rows_of(out / "metrics.csv")[0]["cpa_white"] == ""


def test_results_that_cannot_be_written_are_reported(data, model, tmp_path, capsys, monkeypatch):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("bloodseg.cli._evaluation.write_csv", raiser(full))
    command = ["evaluate", str(data), "-q", "-m", str(model), "-o", str(tmp_path)]
    assert main(command) == 2
    assert capsys.readouterr().err == (
        f"bloodseg: error: {tmp_path / 'metrics.csv'} cannot be written: No space left on device\n"
    )


def test_evaluate_refuses_what_cannot_be_done(broken, model, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "none"), "-m", str(model)]) == 2
    assert "must be a folder of annotated images" in capsys.readouterr().err
    (broken / "images/a.png").write_bytes(b"")
    assert main(["evaluate", str(broken), "-q", "-m", str(model)]) == 2
    assert "could be evaluated." in capsys.readouterr().err
