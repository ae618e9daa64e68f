"""``bloodseg predict``: maps, overlays and their table, and what costs one image only."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shell import SMEARS, rows_of, visible

from bloodseg import BloodCellSegmenter
from bloodseg._images import CLASS_NAMES, colours_of
from bloodseg.cli import main
from bloodseg.datasets import open_slide
from bloodseg.plotting._pictures import overlay, shades

COLOURS = colours_of(CLASS_NAMES)


def test_predict_writes_masks_overlays_and_table(data, model, tmp_path, capsys):
    out = tmp_path / "new/out"
    assert main(["predict", str(data / "images"), "-m", str(model), "-o", str(out)]) == 0
    names = {f"{name}_{kind}.png" for name in "abcd" for kind in ("mask", "overlay")}
    assert visible(out) == names | {"predictions.csv"}
    segmenter = BloodCellSegmenter.load(model)
    expected = segmenter.predict(SMEARS.images)
    rows = rows_of(out / "predictions.csv")
    for index, (name, row) in enumerate(zip("abcd", rows, strict=True)):
        with Image.open(out / f"{name}_mask.png") as file:
            assert file.mode == "L"
            np.testing.assert_array_equal(np.array(file), expected[index])
        with Image.open(out / f"{name}_overlay.png") as file:
            assert (file.mode, file.size) == ("RGB", (64, 64))
        assert row["image"] == str(data / f"images/{name}.png")
        assert row["mask"] == f"{name}_mask.png"
        for label, kind in enumerate(("background", "white", "red")):
            assert float(row[f"share_{kind}"]) == np.mean(expected[index] == label)
        for position in (4, 5, 6):
            count = segmenter.n_function_evaluations_[position][index]
            assert row[f"evaluations_{position}"] == str(count)
    captured = capsys.readouterr()
    assert captured.out.startswith("4 labelled, 0 skipped, 0 failed.")
    assert captured.err == ""  # no bar where nobody sees it


def test_predict_at_another_magnification(data, model, tmp_path):
    image = np.array(Image.open(data / "images/a.png"))
    Image.fromarray(image.repeat(2, 0).repeat(2, 1)).save(tmp_path / "large.png")
    segmenter = BloodCellSegmenter.load(model)
    command = ["predict", "-q", str(tmp_path / "large.png"), "-m", str(model), "--no-overlay"]
    for given, value in (("auto", "auto"), ("80", 80.0), ("none", None)):
        segmenter.set_params(red_cell_diameter=value)
        expected = segmenter.predict([image.repeat(2, 0).repeat(2, 1)])[0]
        assert main([*command, "-o", str(tmp_path / given), "--red-cell-diameter", given]) == 0
        assert np.array_equal(Image.open(tmp_path / given / "large_mask.png"), expected)


def test_maps_and_overlays_know_the_size_of_their_pixels(model, tmp_path):
    image, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(SMEARS.images[0]).save(image, dpi=(25_400 / 0.1, 25_400 / 0.2))
    assert main(["predict", str(image), "-m", str(model), "-o", str(out)]) == 0
    for kind in ("mask", "overlay"):
        sides = open_slide(out / f"a_{kind}.png").pixel_sides
        assert sides == pytest.approx((0.2, 0.1), rel=1e-3)


def test_predict_skips_what_it_cannot_read(broken, model, tmp_path, capsys):
    inputs = [str(broken / "images"), str(tmp_path / "none.png")]
    out = tmp_path / "out"
    options = ["-q", "--no-overlay", "--predict-ode-tol", "1e-1"]
    assert main(["predict", *inputs, "-m", str(model), "-o", str(out), *options]) == 1
    captured = capsys.readouterr()
    assert "images/b.png skipped: " in captured.err
    assert "cannot be read as an image" in captured.err
    assert "none.png skipped: path must be a folder with images" in captured.err
    assert captured.out.startswith("3 labelled, 0 skipped, 2 failed.")
    assert {file.name for file in out.glob("*.png")} == {f"{name}_mask.png" for name in "acd"}


def test_predict_keeps_what_exists(data, model, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["predict", "-q", "-m", str(model), "-o", str(out), "--no-overlay"]
    assert main([*command, str(data / "images/a.png"), str(data / "images/b.png")]) == 0
    (out / "a_mask.png").write_bytes(b"mine")
    (out / "b_mask.png").unlink()
    assert main([*command, str(data / "images")]) == 1
    captured = capsys.readouterr()
    assert "a_mask.png exists. Pass --overwrite to replace it." in captured.err
    assert "3 labelled, 1 skipped, 0 failed." in captured.out
    assert (out / "a_mask.png").read_bytes() == b"mine"
    names = [row["mask"] for row in rows_of(out / "predictions.csv")]
    assert sorted(names) == [f"{name}_mask.png" for name in "abcd"]
    assert main([*command, str(data / "images"), "--overwrite"]) == 0
    assert (out / "a_mask.png").read_bytes() != b"mine"
    assert len(rows_of(out / "predictions.csv")) == 4


def test_predict_gives_images_of_one_stem_names_of_their_own(model, tmp_path):
    names = ("x/a.png", "y/a.png", "y/a-2.png", "z/a.bmp")
    for name, pixels in zip(names, SMEARS.images, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    folders = [str(tmp_path / name) for name in "xyz"]
    again = str(tmp_path / "x/a.png")  # given twice, labelled once
    out = tmp_path / "out"
    assert main(["predict", *folders, again, "-q", "-m", str(model), "-o", str(out)]) == 0
    table = {row["image"]: row["mask"] for row in rows_of(out / "predictions.csv")}
    assert table == {
        str(tmp_path / "x/a.png"): "a_mask.png",
        str(tmp_path / "y/a-2.png"): "a-2_mask.png",
        str(tmp_path / "y/a.png"): "a-3_mask.png",
        str(tmp_path / "z/a.bmp"): "a-4_mask.png",
    }


def test_predict_keeps_apart_images_of_one_stem_over_several_runs(
    model, tmp_path, capsys, monkeypatch
):
    for name, pixels in zip(("x/a.png", "y/a.png", "z/a.png"), SMEARS.images, strict=False):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "x/link.png").symlink_to(tmp_path / "x/a.png")
    out = tmp_path / "out"
    command = ["predict", "-q", "-m", str(model), "-o", str(out), "--no-overlay"]

    def table():
        return {row["image"]: row["mask"] for row in rows_of(out / "predictions.csv")}

    for folder in "xy":  # one path, two images
        monkeypatch.chdir(tmp_path / folder)
        assert main([*command, "a.png"]) == 0
    expected = {
        str(tmp_path / "x/a.png"): "a_mask.png",
        str(tmp_path / "y/a.png"): "a-2_mask.png",
    }
    assert table() == expected
    first = (out / "a_mask.png").read_bytes()
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    assert main([*command, "y/a.png", "x/link.png", "z"]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("1 labelled, 2 skipped, 0 failed.")
    assert "y/a.png skipped: " in captured.err
    assert "a-2_mask.png exists" in captured.err
    assert table() == {**expected, str(tmp_path / "z/a.png"): "a-3_mask.png"}
    assert main([*command, "y/a.png", "--overwrite"]) == 0
    assert len(table()) == 3
    assert (out / "a_mask.png").read_bytes() == first
    (out / "a_mask.png").unlink()  # its name is free again
    assert main([*command, "z/a.png", "y/a.png", "x/a.png"]) == 1
    assert table()[str(tmp_path / "x/a.png")] == "a_mask.png"


def test_predict_takes_no_path_from_a_table(data, model, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "mine_mask.png").write_bytes(b"mine")
    image = data / "images/a.png"
    (out / "predictions.csv").write_text(f"image,mask\n{image},../mine_mask.png\nb,\n")
    command = ["predict", str(image), "-q", "-m", str(model), "-o", str(out), "--overwrite"]
    assert main(command) == 0
    assert (tmp_path / "mine_mask.png").read_bytes() == b"mine"
    assert (out / "a_mask.png").exists()


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_memory_that_runs_out_costs_one_image(command, data, model, tmp_path, capsys, each_segment):
    def run_out(number, image):
        if number == 2:
            raise MemoryError("the image is too large for the memory. Cut it into parts.")

    each_segment(run_out)
    inputs = data / "images" if command == "predict" else data
    out = tmp_path / "out"
    assert main([command, str(inputs), "-q", "-m", str(model), "-o", str(out)]) == 1
    name = data / "images/b.png" if command == "predict" else "b"
    assert capsys.readouterr().err == (
        f"bloodseg: {name} skipped: the image is too large for the memory. Cut it into parts.\n"
    )
    table = "predictions.csv" if command == "predict" else "metrics.csv"
    assert len(rows_of(out / table)) == 3 + (command == "evaluate")


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_warnings_name_the_image(command, data, model, tmp_path, capsys, each_segment):
    each_segment(lambda _, image: warnings.warn(f"{image.name} looks odd.", stacklevel=1))
    inputs = data / "images" if command == "predict" else data
    assert main([command, str(inputs), "-q", "-m", str(model), "-o", str(tmp_path / "out")]) == 0
    names = [data / f"images/{name}.png" if command == "predict" else name for name in "abcd"]
    assert capsys.readouterr().err.splitlines() == [
        f"bloodseg: warning: {name} looks odd." for name in names
    ]


def test_predict_refuses_what_cannot_be_done(data, model, tmp_path, capsys):
    images, out = str(data / "images"), str(tmp_path / "out")
    (tmp_path / "file").touch()
    (tmp_path / "b.png").write_bytes(b"not an image")
    for inputs, arguments, message in (
        (images, ["-m", "none.safetensors", "-o", out], "There is no model file at none"),
        (images, ["-m", f"{tmp_path}/file", "-o", out], "cannot be read as a model file"),
        (
            images,
            ["-m", str(model), "-o", f"{tmp_path}/file"],
            "is a file, where a folder is wanted",
        ),
        (images, ["-m", str(model), "-o", images], "images is an input: the next run"),
        (images, ["-m", str(model), "-o", out, "--device", "x"], "device must be 'auto'"),
        (images, ["-m", str(model), "-o", out, "--predict-ode-tol", "0"], "must be positive"),
        (
            images,
            ["-m", str(model), "-o", out, "--red-cell-diameter", "2"],
            "The 'red_cell_diameter' parameter of BloodCellSegmenter must be a float in the range",
        ),
        ("none", ["-m", str(model), "-o", out], "none of the inputs is an image."),
        (f"{tmp_path}/b.png", ["-m", str(model), "-o", out], "no image could be labelled."),
    ):
        assert main(["predict", inputs, "-q", *arguments]) == 2
        err = capsys.readouterr().err
        assert err.splitlines()[-1].startswith("bloodseg: error: ")
        assert message in err


def test_predict_leaves_a_strange_table_alone(data, model, tmp_path, capsys):
    (tmp_path / "predictions.csv").write_text("shopping\nmilk\n")
    command = ["predict", str(data / "images"), "-q", "-m", str(model), "-o", str(tmp_path)]
    assert main(command) == 2
    assert "predictions.csv is no table of this command" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert len(rows_of(tmp_path / "predictions.csv")) == 4


def test_ctrl_c_keeps_the_table_of_what_was_done(data, model, tmp_path, each_segment, capsys):
    def interrupt(number, image):
        if number == 3:
            raise KeyboardInterrupt

    each_segment(interrupt)
    command = ["predict", str(data / "images"), "-q", "-m", str(model), "-o", str(tmp_path)]
    assert main(command) == 130
    assert capsys.readouterr().err == "bloodseg: stopped by Ctrl-C or SIGTERM.\n"
    assert [row["mask"] for row in rows_of(tmp_path / "predictions.csv")] == [
        "a_mask.png",
        "b_mask.png",
    ]


def test_a_defect_costs_one_image_and_asks_to_be_reported(
    data, model, tmp_path, each_segment, capsys
):
    def fail(number, image):
        if number == 1:
            raise TypeError("a defect")

    each_segment(fail)
    command = ["predict", str(data / "images"), "-q", "-m", str(model), "-o", str(tmp_path)]
    assert main(command) == 1
    said = (
        r"bloodseg: \S+/a.png skipped: TypeError: a defect \(test_predict_cli.py, line \d+\)\. "
        "That is a defect of bloodseg, not of the image: please report this line.\n"
    )
    assert re.fullmatch(said, capsys.readouterr().err)
    assert len(rows_of(tmp_path / "predictions.csv")) == 3


def test_files_are_written_whole_or_not_at_all(data, model, tmp_path, monkeypatch, capsys):
    def full(self, content):
        self.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    out = tmp_path / "out"
    assert main(["predict", str(data / "images"), "-q", "-m", str(model), "-o", str(out)]) == 2
    said = f"error: [Errno 28] No space left on device: '{out / 'a_mask.png'}'. What was written"
    assert said in capsys.readouterr().err
    assert visible(out) == set()
    assert not list(out.glob("*.tmp"))


def test_overlay_outlines_the_cells_and_changes_nothing_else():
    image = np.full((40, 40, 3), 200, np.uint8)
    mask = np.zeros((40, 40), np.uint8)
    mask[5:15, 5:15], mask[20:35, 20:40] = 1, 2
    (dark_blue, light_blue), (brown, cream) = (shades(COLOURS[name]) for name in ("white", "red"))
    before = image.copy()
    picture = overlay(image, mask)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(picture[mask == 0], 200)
    np.testing.assert_array_equal(picture[10, [5, 6]], [dark_blue, light_blue])
    np.testing.assert_array_equal(picture[25, [20, 21]], [brown, cream])
    assert not (picture[28, 36:] == brown).all(axis=-1).any()  # the image's border is no outline
    assert 180 < picture[30, 30].mean() < 200
    np.testing.assert_array_equal(overlay(image.astype(np.float32) / 255, mask), picture)
