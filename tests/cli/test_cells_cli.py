"""``bloodseg count`` and ``bloodseg measure``."""

import json
import os
import re
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import roifile
import tifffile
import zarr
from PIL import Image
from shell import rows_of

from bloodseg import BloodCellSegmenter, summarize
from bloodseg.cli import _batch, _count, _measure, _report, _signals, main
from bloodseg.datasets import make_smears, open_slide
from bloodseg.plotting._pictures import overlay

SMEARS = make_smears(3, image_size=96, random_state=0, red_cell_diameter=20)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "cells.safetensors"
    segmenter = BloodCellSegmenter(
        width=4, max_epochs=4, crop_size=64, batch_size=2, random_state=0, learning_rate=1e-2
    )
    segmenter.fit(SMEARS.images, SMEARS.masks).save(path)
    return path


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, image in zip("ab", SMEARS.images, strict=False):
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


def run(*arguments):
    return main([*map(str, arguments), "-q"])


def test_count_prints_and_writes_what_the_api_counts(model, images, tmp_path, capsys):
    assert run("count", images, "-m", model, "-o", tmp_path / "counts.csv") == 0
    expected = BloodCellSegmenter.load(model).count(sorted(images.iterdir()))
    rows = rows_of(tmp_path / "counts.csv")
    assert [int(row["red"]) for row in rows] == expected["red"].tolist()
    assert [row["image"] for row in rows] == expected["image"].tolist()
    assert expected["red"].sum() > 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["white", "red", "confidence", "image"]
    for line, row in zip(lines[1:], expected.itertuples(), strict=False):
        shown = [str(row.white), str(row.red), f"{row.confidence:.3f}", row.image]
        assert line.split()[:4] == shown
    assert lines[3].split() == [str(expected[n].sum()) for n in ("white", "red")] + ["2", "images"]


def test_count_per_square_millimetre(model, images, tmp_path):
    output = tmp_path / "counts.csv"
    assert run("count", images, "-m", model, "-o", output, "--pixel-size", 0.1) == 0
    for row in rows_of(output):
        area = 96 * 96 * 0.1**2 / 1e6
        assert float(row["area_mm2"]) == pytest.approx(area)
        density = int(row["red_in_frame"]) / float(row["frame_mm2"])
        assert float(row["red_per_mm2"]) == pytest.approx(density)
        assert 0 < float(row["frame_mm2"]) < area


def test_count_in_other_frames(model, images, tmp_path):
    segmenter = BloodCellSegmenter.load(model)
    for name, sides in (("top,left", ("top", "left")), ("none", ())):
        output = tmp_path / f"{name}.csv"
        assert run("count", images, "-m", model, "-o", output, "--excluded-sides", name) == 0
        expected = segmenter.count(sorted(images.iterdir()), excluded_sides=sides)
        assert [int(row["red_in_frame"]) for row in rows_of(output)] == expected[
            "red_in_frame"
        ].tolist()
        assert (
            run("measure", images, "-m", model, "-o", tmp_path / name, "--excluded-sides", name)
            == 0
        )
        marks = [row["in_frame"] == "True" for row in rows_of(tmp_path / name / "cells.csv")]
        assert sum(marks) == expected[["white_in_frame", "red_in_frame"]].to_numpy().sum()


def test_a_summary_of_all_images(model, images, tmp_path, capsys):
    output = tmp_path / "counts.csv"
    arguments = ("count", images, "-m", model, "--pixel-size", 0.1, "--summary", "-o", output)
    assert run(*arguments) == 0
    segmenter = BloodCellSegmenter.load(model).set_params(pixel_size=0.1)
    files = sorted(images.iterdir())
    expected = summarize(segmenter.count(files), segmenter.measure(files))
    rows = rows_of(tmp_path / "counts.summary.csv")
    assert [list(row) for row in rows] == [list(expected)] * 2
    for name in ("images", "red", "red_per_mm2", "red_diameter_cv_percent"):
        assert float(rows[0][name]) == pytest.approx(expected[name][0])
    out = capsys.readouterr().out
    assert expected["images_doubted"][0] == 2  # so that there is a column without them
    assert re.search(r"\nimages +2 +0\n", out)
    assert re.search(rf"\nred +{expected['red'][0]}\b", out)
    assert re.search(rf"\nred per mm2 +{expected['red_per_mm2'][0]:.0f}\b", out)
    assert out.endswith(f"Table: {output}\nSummary: {tmp_path / 'counts.summary.csv'}\n")
    assert run(*arguments) == 2
    assert f"{output} exists" in capsys.readouterr().err


def test_a_summary_counts_in_frames_where_no_size_of_a_pixel_is_known(model, images, tmp_path):
    output = tmp_path / "counts.csv"
    assert run("count", images / "a.png", "-m", model, "--summary", "-o", output) == 0
    assert {"white_in_frame", "red_in_frame"} <= rows_of(output)[0].keys()


def test_a_single_image_has_no_sums_and_sure_ones_no_column_of_their_own():
    row = {"image": "a", "red": 3}
    assert len(list(_count._table([row], ["red"]))) == 2
    assert list(_count._table([row] * 2, ["red"]))[-1].split() == ["6", "2", "images"]
    summed = [{"images": 2, "images_doubted": 0}] * 2
    assert [line.split() for line in _count._in_columns(summed)] == [
        *([], ["images", "2"], ["images", "doubted", "0"]),
    ]


def test_measure_writes_every_format(model, images, tmp_path, capsys):
    out = tmp_path / "out"
    formats = "csv,geojson,coco"
    assert run("measure", images, "-m", model, "-o", out, "--format", formats, "--rois") == 0
    assert sorted(file.name for file in out.iterdir()) == [
        *("a.geojson", "a.rois.zip", "b.geojson", "b.rois.zip", "cells.coco.json", "cells.csv"),
    ]
    table = BloodCellSegmenter.load(model).measure(sorted(images.iterdir()))
    rows = rows_of(out / "cells.csv")
    assert len(rows) == len(table) > 0
    assert [float(row["area"]) for row in rows] == table["area"].tolist()
    assert "outline" not in rows[0]
    features = [
        feature
        for name in "ab"
        for feature in json.loads((out / f"{name}.geojson").read_text())["features"]
    ]
    assert len(features) == len(table)
    assert sum(len(roifile.roiread(out / f"{name}.rois.zip")) for name in "ab") == len(table)
    coco = json.loads((out / "cells.coco.json").read_text())
    assert [each["height"] for each in coco["images"]] == [96, 96]
    assert len(coco["annotations"]) == len(table)
    assert f"{len(table)} cells in 2 images, 0 failed" in capsys.readouterr().out


def test_rois_need_their_package(model, images, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "roifile", None)
    assert run("measure", images, "-m", model, "-o", tmp_path / "out", "--rois") == 2
    assert "need the package roifile: pip install 'bloodseg[imagej]'." in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_label_maps_keep_the_size_of_a_pixel(model, tmp_path):
    image = SMEARS.images[0]
    resolution = {"resolution": (1e5, 5e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "s.tif", image, **resolution)
    assert run("predict", tmp_path / "s.tif", "-m", model, "-o", tmp_path / "out") == 0
    for kind in ("mask", "overlay"):
        sides = open_slide(tmp_path / f"out/s_{kind}.png").pixel_sides
        assert sides == pytest.approx((0.2, 0.1), rel=1e-5)


def test_a_table_without_cells_keeps_its_columns(model, tmp_path):
    Image.new("RGB", (96, 96), "white").save(tmp_path / "empty.png")
    assert run("measure", tmp_path / "empty.png", "-m", model, "-o", tmp_path / "out") == 0
    table = pd.read_csv(tmp_path / "out/cells.csv")
    assert len(table) == 0
    assert list(table) == list(BloodCellSegmenter.load(model).measure(SMEARS.images))


def test_slides_are_inputs_too(model, tmp_path):
    image = SMEARS.images[2]
    tifffile.imwrite(tmp_path / "s.tif", image, resolution=(5e4, 5e4), resolutionunit="CENTIMETER")
    zarr.open_array(str(tmp_path / "s.zarr"), mode="w", shape=image.shape, dtype="u1")[:] = image
    out = tmp_path / "out"
    inputs = [tmp_path / "s.tif", tmp_path / "s.zarr"]
    assert run("measure", *inputs, "-m", model, "-o", out, "--format", "csv,geojson") == 0
    rows = rows_of(out / "cells.csv")
    units = {row["image"]: row["unit"] for row in rows}
    assert units == {str(inputs[0]): "um", str(inputs[1]): "px"}
    sizes = {
        name: [float(row["area"]) for row in rows if row["image"] == str(name)] for name in inputs
    }
    assert sizes[inputs[0]] == pytest.approx(np.multiply(sizes[inputs[1]], 0.2**2))
    assert (out / "s.geojson").exists()
    assert (out / "s-2.geojson").exists()


def test_predict_takes_slides_as_count_does(model, tmp_path, capsys, monkeypatch):
    image = SMEARS.images[0]
    zarr.open_array(str(tmp_path / "z.zarr"), mode="w", shape=image.shape, dtype="u1")[:] = image
    with tifffile.TiffWriter(tmp_path / "p.ome.tif") as file:
        file.write(image, subifds=1, metadata={"axes": "YXS"})
        file.write(image[::2, ::2], subfiletype=1)
    tifffile.imwrite(tmp_path / "c.ome.tif", np.moveaxis(image, -1, 0), metadata={"axes": "CYX"})
    inputs = [tmp_path / name for name in ("z.zarr", "p.ome.tif", "c.ome.tif")]
    command = ["predict", *inputs, "-m", model, "-o", tmp_path / "out"]
    assert run(*command) == 0
    segmenter = BloodCellSegmenter.load(model)
    for file in inputs:
        mask = np.array(Image.open(tmp_path / f"out/{file.stem}_mask.png"))
        # One of them is read whole here and by strips there: ties may fall differently.
        assert np.mean(mask != segmenter.predict([file])[0]) < 1e-3
        drawn = np.array(Image.open(tmp_path / f"out/{file.stem}_overlay.png"))
        (found,) = segmenter.segment([file])
        assert np.mean(drawn != overlay(image, mask, found.cells().labels)) < 1e-2
    monkeypatch.setattr("bloodseg.cli._predict.MAX_PIXELS", 96 * 96 - 1)
    assert run(*command, "--overwrite") == 2
    said = f"{inputs[0]} must have at most 9,215 pixels, for its label map is a PNG file; got 96 x"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["count", "measure"])
def test_bad_inputs_are_reported_and_left_out(command, model, images, tmp_path, capsys):
    (images / "b.png").write_bytes(b"junk")
    arguments = [command, images, tmp_path / "none.png", "-m", model]
    arguments += ["-o", tmp_path / "out"]
    assert run(*arguments) == 1
    error = capsys.readouterr().err
    assert "b.png skipped:" in error
    assert "none.png skipped:" in error
    assert run(*arguments) == 2
    assert "exists. Choose another name, or pass --overwrite." in capsys.readouterr().err
    assert run(*arguments, "--overwrite") == 1
    (images / "a.png").unlink()
    assert run(*arguments, "--overwrite") == 2
    assert f"no image could be {command}d" in capsys.readouterr().err.replace("counted", "countd")


@pytest.mark.parametrize("command", ["count", "measure", "report"])
def test_a_missing_package_costs_the_files_that_need_it(
    command, model, images, tmp_path, capsys, monkeypatch
):
    (tmp_path / "s.zarr").mkdir()
    monkeypatch.setitem(sys.modules, "zarr", None)
    out = tmp_path / "out"
    assert run(command, tmp_path / "s.zarr", images, "-m", model, "-o", out) == 1
    said = "s.zarr skipped: {} is a folder, taken for Zarr, which needs the package zarr: pip"
    assert said.format(tmp_path / "s.zarr") in capsys.readouterr().err
    assert out.exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["measure", "a.png", "-m", "m"], "required: -o/--output"),
        (["measure", "a.png", "-m", "m", "-o", "x", "--format", "xml"], 'formats are "csv", "geo'),
        (["count", "a.png", "-m", "m"], "There is no model file at m. Published models: smears-5."),
    ],
)
def test_wrong_usage(arguments, text, capsys, images, monkeypatch):
    monkeypatch.chdir(images)
    assert main(arguments) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize("command", ["count", "measure", "report", "predict"])
def test_a_damaged_slide_is_left_out(model, images, tmp_path, capsys, spoil_zarr, command):
    tifffile.imwrite(images / "cut.tif", SMEARS.images[0])
    (images / "cut.tif").write_bytes((images / "cut.tif").read_bytes()[:9000])
    image, bad = SMEARS.images[0], tmp_path / "bad.zarr"
    zarr.open_array(str(bad), mode="w", shape=image.shape, dtype="u1")[:] = image
    spoil_zarr(bad)
    output = {"count": "c.csv", "report": "r.html"}.get(command, "out")
    assert run(command, images, bad, "-m", model, "-o", tmp_path / output) == 1
    err = capsys.readouterr().err
    assert "cut.tif skipped: " in err
    assert "bad.zarr skipped: " in err
    assert (tmp_path / output).exists()


_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _images_in(command, output):
    if command == "report":
        page = output.read_text(encoding="utf-8")
        return [name for name in ("a", "b", "z") if f"{name}.png" in page]
    table = output if command == "count" else output / "cells.csv"
    return sorted({Path(row["image"]).stem for row in rows_of(table)})


@pytest.mark.parametrize("command", ["count", "measure", "report"])
@pytest.mark.parametrize("stop", ["Ctrl-C", "SIGTERM", "SIGHUP"])
def test_a_stop_keeps_what_was_done(model, images, tmp_path, monkeypatch, capsys, command, stop):
    segment, calls, kept = BloodCellSegmenter.segment, [], []
    output = tmp_path / {"count": "c.csv", "report": "r.html"}.get(command, "out")

    def stop_at_the_third(self, images):
        calls.append(images)
        if len(calls) == 3:
            kept.extend(_images_in(command, output))  # what a kill now would leave
            if stop == "Ctrl-C":
                raise KeyboardInterrupt
            os.kill(os.getpid(), getattr(signal, stop))
        return segment(self, images)

    Image.fromarray(SMEARS.images[0]).save(images / "z.png")
    monkeypatch.setattr(BloodCellSegmenter, "segment", stop_at_the_third)
    monkeypatch.setattr(_batch, "_KEPT_EVERY", 0)
    monkeypatch.setattr(_batch, "_KEPT_SHARE", 0)
    before = [signal.getsignal(number) for number in _STOPS]
    assert run(command, images, "-m", model, "-o", output) == 130
    assert [signal.getsignal(number) for number in _STOPS] == before
    assert "stopped by Ctrl-C or SIGTERM." in capsys.readouterr().err
    assert kept == _images_in(command, output) == ["a", "b"]


_WRITES = {
    "count": (_count, "write_csv"),
    "measure": (_measure, "write_csv"),
    "report": (_report, "render_report"),
}


@pytest.mark.parametrize("command", ["count", "measure", "report"])
@pytest.mark.parametrize("first", [signal.SIGINT, None])
def test_a_stop_while_results_are_written_waits_for_them(
    model, images, tmp_path, monkeypatch, capsys, command, first, each_segment
):
    output = tmp_path / {"count": "c.csv", "report": "r.html"}.get(command, "out")
    module, name = _WRITES[command]
    write = getattr(module, name)

    def interrupted(*args, **kwargs):
        signal.raise_signal(signal.SIGINT)
        return write(*args, **kwargs)

    if first is not None:
        Image.fromarray(SMEARS.images[0]).save(images / "z.png")
        each_segment(lambda number, image: number == 3 and signal.raise_signal(first))
    monkeypatch.setattr(module, name, interrupted)
    assert run(command, images, "-m", model, "-o", output) == 130
    assert _images_in(command, output) == ["a", "b"]
    assert "stopped by Ctrl-C or SIGTERM." in capsys.readouterr().err


def test_who_keeps_pressing_ctrl_c_is_heard_again(monkeypatch):
    clock = iter([0.0, 2.0, 4.0])
    monkeypatch.setattr(_signals, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with _signals.ended_gently():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)  # the same wish
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def spare(tmp_path, monkeypatch):
    """The system's folder for temporary files."""
    folder = tmp_path / "spare"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("command", ["count", "measure", "report"])
def test_results_whose_folder_has_gone_lie_elsewhere(
    model, images, tmp_path, monkeypatch, capsys, command, each_segment, spare
):
    folder = tmp_path / "out"
    folder.mkdir()
    output = {"count": folder / "c.csv", "report": folder / "r.html"}.get(command, folder)
    monkeypatch.setattr(_batch, "_KEPT_EVERY", 0)
    monkeypatch.setattr(_batch, "_KEPT_SHARE", 0)
    each_segment(lambda number, image: shutil.rmtree(folder, ignore_errors=True))
    assert run(command, images, "-m", model, "-o", output) == 1
    asked = output / "cells.csv" if command == "measure" else output
    (written,) = spare.glob("bloodseg-*/*")
    assert written.name == asked.name
    place = written.parent if command == "measure" else written
    assert _images_in(command, place) == ["a", "b"]
    out, err = capsys.readouterr()
    why = f"bloodseg: The file cannot be written: {asked} lies in {folder}, which is no folder. "
    assert err.count(f"{why}The work goes on, and it is tried again.\n") == 2
    assert err.endswith(f"{why}It is {written} instead: move it to where it is safe.\n")
    assert command == "measure" or f": {written}\n" in out


def test_results_that_can_lie_nowhere_are_printed(
    model, images, tmp_path, capsys, each_segment, spare
):
    folder = tmp_path / "out"
    folder.mkdir()
    spare.rmdir()
    each_segment(lambda number, image: shutil.rmtree(folder, ignore_errors=True))
    assert run("count", images, "-m", model, "-o", folder / "c.csv") == 2
    out, err = capsys.readouterr()
    assert f"bloodseg: error: The file cannot be written: {folder / 'c.csv'} lies in " in err
    assert out.rstrip().endswith("2 images")


def test_what_is_ignored_stays_so(model, images, tmp_path, each_segment):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        each_segment(lambda number, image: signal.raise_signal(signal.SIGHUP))
        assert run("count", images, "-m", model) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_messages_that_nobody_can_read_end_no_work(model, images, tmp_path, monkeypatch):
    (images / "bad.png").write_bytes(b"")
    with open("/dev/full", "w", buffering=1) as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert run("count", images, "-m", model, "-o", tmp_path / "c.csv") == 1
        monkeypatch.undo()
        with suppress(OSError):
            full.close()
    assert _images_in("count", tmp_path / "c.csv") == ["a", "b"]


def test_keeping_takes_a_small_share_of_the_time(monkeypatch):
    now, kept = [0.0], []

    def keep():
        kept.append(now[0])
        now[0] += 5.0  # seconds that it takes

    monkeypatch.setattr(_batch.time, "monotonic", lambda: now[0])
    clock = _batch._NowAndThen(keep)
    while now[0] < 300:
        now[0] += 1.0
        clock.look()
    assert kept == [20.0, 125.0, 230.0]
