"""The command line."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bloodseg
from bloodseg import BloodCellSegmenter
from bloodseg._images import CLASS_NAMES, colours_of
from bloodseg.cells import Cells
from bloodseg.cli import main
from bloodseg.cli._arguments import make_parser
from bloodseg.cli._evaluate import Evaluation
from bloodseg.cli._train import HistoryFile, ended_early
from bloodseg.cli._values import class_weights, diameter, positions, tolerances
from bloodseg.datasets import TrueCells, make_smears
from bloodseg.metrics import cell_report, mean_iou
from bloodseg.models import list_models
from bloodseg.plotting._pictures import overlay, shades
from bloodseg.training import _callbacks

COLOURS = colours_of(CLASS_NAMES)
SMEARS = make_smears(4, image_size=64, random_state=0, red_cell_diameter=16)
TINY = ["--width", "4", "--max-epochs", "1", "--crop-size", "32", "--random-state", "0", "-q"]


def save_smears(folder, names="abcd"):
    for kind, pictures in (("images", SMEARS.images), ("masks", SMEARS.masks)):
        (folder / kind).mkdir(parents=True)
        for name, picture in zip(names, pictures, strict=False):
            Image.fromarray(picture).save(folder / kind / f"{name}.png")
    return folder


def visible(folder):
    return {file.name for file in folder.iterdir() if not file.name.startswith(".")}


def rows_of(file):
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return save_smears(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def model(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("model") / "cells.safetensors"
    assert main(["train", str(data), "-o", str(path), *TINY]) == 0
    return path


@pytest.fixture
def broken(tmp_path):
    """Make a folder of four smears in which three names are bad in three ways."""
    folder = save_smears(tmp_path / "broken")
    (folder / "images/b.png").write_bytes(b"not an image")
    (folder / "masks/c.png").unlink()
    Image.fromarray(SMEARS.masks[3][:32]).save(folder / "masks/d.png")
    return folder


# Parsing


def test_version_and_help_end_well(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bloodseg {bloodseg.__version__}\n"
    for command in ([], ["train"], ["predict"], ["evaluate"], ["demo"]):
        assert main([*command, "--help"]) == 0
        out = capsys.readouterr().out
        assert "exit codes:\n  0    all done\n  1    done in part" in out


def test_what_is_not_given_is_left_to_the_estimator(capsys):
    parsed = vars(make_parser("train").parse_args(["train", "x", "-o", "y"]))
    assert not parsed.keys() & BloodCellSegmenter().get_params().keys()
    main(["train", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert f"of the first stage (default: {BloodCellSegmenter().width})" in out
    assert "makes a U-Net (default: 4,5,6)" in out
    assert "how much images are shrunk before (default: 0.5)" in out


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (positions, "4,5,6", (4, 5, 6)),
        (positions, "5", (5,)),
        (positions, "", ()),
        (positions, "none", ()),
        (tolerances, "1e-2", 1e-2),
        (tolerances, "paper", "paper"),
        (tolerances, "4=1e-2, 5=1e-3", {4: 1e-2, 5: 1e-3}),
        (tolerances, "1e-2,1e-3", (1e-2, 1e-3)),
        (class_weights, "balanced", "balanced"),
        (class_weights, "1,3,1", (1, 3, 1)),
        (class_weights, "white=3", {"white": 3}),
        (diameter, "auto", "auto"),
        (diameter, "72.5", 72.5),
    ],
)
def test_short_forms_of_values(parse, text, value):
    assert parse(text) == value


def test_every_default_can_be_typed_as_it_is_shown():
    defaults = BloodCellSegmenter().get_params()
    parser = make_parser("train")
    (options,) = (each.choices["train"] for each in parser._actions if each.choices)
    shown = {
        action.dest: re.search(r"\(default: (.+)\)$", action.help)[1]
        for action in options._actions
        if action.dest in defaults and action.nargs != 0
    }
    typed = [f"--{name.replace('_', '-')}={text}" for name, text in shown.items()]
    parsed = vars(parser.parse_args(["train", "x", "-o", "y", *typed]))
    assert len(shown) > 20
    assert {name: parsed[name] for name in shown} == {name: defaults[name] for name in shown}


def test_the_home_folder_is_found_in_every_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for command in (
        ["train", "~/d", "-o=~/d", "--pretrained=~/d", "--checkpoint-dir=~/d"],
        ["predict", "~/d", "--output=~/d", "-m", "~/d"],
        ["evaluate", "~/d", "-o=~/d", "--model=~/d"],
        ["demo", "-o=~/d"],
    ):
        parsed = vars(make_parser(command[0]).parse_args(command))
        assert "~" not in str(parsed)
        values = [*parsed.values(), *parsed.get("images", ())]
        assert values.count(tmp_path / "d") == str(command).count("~")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND. See `bloodseg --help`."),
        (["trane"], "argument COMMAND: invalid choice: 'trane'"),
        (["train", "x"], "arguments are required: -o/--output. See `bloodseg train --help`."),
        (["train", "x", "-o", "y", "--ode-positions", "a"], 'positions are written as "4,5,6"'),
        (["train", "x", "-o", "y", "--ode-tol", "a"], 'tolerances are written as "1e-3", "4=1e-2'),
        (["train", "x", "-o", "y", "--class-weight", "a"], 'weights are written as "1,3,1"'),
        (
            ["count", "x", "-m", "y", "--red-cell-diameter", "wide"],
            'a diameter is written as "auto", a number of pixels or "none"; got',
        ),
        (
            ["train", "x", "-o", "y", "--validation-fraction", "a"],
            "not a number, nor \"none\": 'a'",
        ),
        (
            ["train", "x", "-o", "y", "--n-jobs", "1.5"],
            "argument --n-jobs: not a whole number, nor \"none\": '1.5'",
        ),
        (["train", "x", "-o", "y", "--ode-tol", "none"], 'tolerances are written as "1e-3", "4='),
        (["train", "x", "-o", "y", "--clip-limit", "1", "--no-preprocessor"], "not allowed with"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("bloodseg: error: ")
    assert err.count("\n") == 1
    assert message in err


# train


def test_train_writes_model_and_history_and_prints_the_best_epoch(data, tmp_path, capsys):
    path = tmp_path / "m.safetensors"
    options = ["--ode-tol", "4=1e-2,5=1e-3,6=1e-2", "--clip-limit", "3", "--augment", "no"]
    assert main(["train", str(data), "-o", str(path), *TINY, *options]) == 0
    segmenter = BloodCellSegmenter.load(path)
    assert segmenter.ode_tol_ == {4: 1e-2, 5: 1e-3, 6: 1e-2}
    assert segmenter.preprocessor_.clip_limit == 3
    assert segmenter.augment is False
    (row,) = rows_of(tmp_path / "m.history.csv")
    assert row["epoch"] == "1"
    assert float(row["valid_loss"]) == segmenter.history_[0]["valid_loss"]
    captured = capsys.readouterr()
    assert captured.out.startswith("Epoch 1 of 1 kept: validation loss ")
    assert f"Model: {path}" in captured.out
    assert captured.err == ""
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.history.csv", "m.safetensors"]


def test_train_shows_a_bar_and_passes_on_groups(data, tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(data, tmp_path / "data")
    (folder / "groups.csv").write_text("image,group\na,1\nb,1\nc,2\nd,2\n")
    given = {}
    fit = BloodCellSegmenter.fit

    def spy(self, images, masks, *, groups=None):
        given["groups"] = list(groups)
        return fit(self, images, masks, groups=groups)

    monkeypatch.setattr(BloodCellSegmenter, "fit", spy)
    path = tmp_path / "m.safetensors"
    assert main(["train", str(folder), "-o", str(path), *TINY[:-1], "--ode-positions", ""]) == 0
    assert given["groups"] == ["1", "1", "2", "2"]
    assert "training: 100%" in capsys.readouterr().err
    assert BloodCellSegmenter.load(path).ode_positions == ()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("missing/m.safetensors", "there is no folder {0}/missing to write into. Make it first."),
        ("", "{0} is a folder; name a file."),
        ("old.safetensors", "old.safetensors exists. Choose another name, or pass --overwrite."),
        ("kept.safetensors", "kept.history.csv exists. Choose another name"),
        ("m.csv", "MODEL must not be a .csv file"),
    ],
)
def test_train_checks_its_outputs_before_it_reads_data(output, message, tmp_path, capsys):
    for name in ("old.safetensors", "kept.history.csv"):
        (tmp_path / name).touch()
    assert main(["train", "no-such-folder", "-o", f"{tmp_path}/{output}"]) == 2
    assert message.format(tmp_path) in capsys.readouterr().err


def test_train_reports_bad_data_and_bad_values(data, broken, tmp_path, capsys):
    output = ["-o", str(tmp_path / "m.safetensors")]
    assert main(["train", "no-such-folder", *output]) == 2
    assert "error: path must be a folder of annotated images" in capsys.readouterr().err
    assert main(["train", str(broken), *output]) == 2
    assert "c.png has no label map" in capsys.readouterr().err
    assert main(["train", str(data), *output, "--width", "0"]) == 2
    assert "bloodseg: error: The 'width' parameter" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["train", str(data), *output, "--checkpoint-dir", str(tmp_path / "file")]) == 2
    assert "file cannot be made (File exists)" in capsys.readouterr().err
    assert not (tmp_path / "m.safetensors").exists()


def test_train_overwrites_when_told_to(data, model, tmp_path):
    path = tmp_path / "m.safetensors"
    path.touch()
    pretrained = ["--pretrained", str(model), "--overwrite"]
    assert main(["train", str(data), "-o", str(path), *TINY, *pretrained]) == 0
    assert BloodCellSegmenter.load(path).width == 4


def test_training_goes_on_with_the_parameters_of_a_model(data, model, tmp_path):
    path = tmp_path / "m.safetensors"
    command = ["train", str(data), "-o", str(path), "-q", "--pretrained", str(model)]
    assert main([*command, "--learning-rate", "1e-5"]) == 0
    loaded = BloodCellSegmenter.load(path)
    assert (loaded.width, loaded.max_epochs, loaded.crop_size) == (4, 1, 32)
    assert loaded.learning_rate == 1e-5


def test_a_published_model_is_fine_tuned_with_care(data, tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(BloodCellSegmenter, "fit", lambda self, *_, **__: seen.append(self))
    with pytest.raises(AttributeError):  # of a fit that did nothing
        main(["train", str(data), "-o", str(tmp_path / "m"), "-q", "--pretrained", "smears-3"])
    expected = BloodCellSegmenter.from_pretrained("smears-3").get_params()
    found = seen[0].get_params()
    (history,) = found.pop("callbacks")  # the shell's own: the table beside the model
    assert isinstance(history, HistoryFile)
    assert expected.pop("callbacks") is None
    assert {name: str(value) for name, value in found.items()} == {
        name: str(value) for name, value in expected.items()
    }
    missing = ["train", str(data), "-o", str(tmp_path / "m"), "--pretrained", "smears-0"]
    assert main(missing) == 2
    assert "--pretrained: There is no model file at smears-0" in capsys.readouterr().err


def _interrupt_in_epoch(monkeypatch, epoch):
    original = _callbacks.EpochNumber.on_epoch_begin

    def interrupt(self, net, **kwargs):
        if len(net.history) == epoch:
            raise KeyboardInterrupt
        original(self, net, **kwargs)

    monkeypatch.setattr(_callbacks.EpochNumber, "on_epoch_begin", interrupt)


def test_ctrl_c_in_training_saves_the_best_weights(data, tmp_path, capsys, monkeypatch):
    _interrupt_in_epoch(monkeypatch, 2)
    path = tmp_path / "m.safetensors"
    assert main(["train", str(data), "-o", str(path), *TINY, "--max-epochs", "9"]) == 1
    captured = capsys.readouterr()
    assert captured.err == (
        "bloodseg: warning: Training was interrupted after 1 of 9 epochs; the model keeps the "
        "weights of epoch 1.\n"
    )
    assert "Epoch 1 of 1 kept" in captured.out
    assert len(BloodCellSegmenter.load(path).history_) == 1
    assert len(rows_of(tmp_path / "m.history.csv")) == 1


def test_ctrl_c_in_the_first_epoch_saves_nothing(data, tmp_path, capsys, monkeypatch):
    _interrupt_in_epoch(monkeypatch, 1)
    path = tmp_path / "m.safetensors"
    assert main(["train", str(data), "-o", str(path), *TINY]) == 130
    err = capsys.readouterr().err
    assert "bloodseg: training was stopped: no model was written.\n" in err
    assert err.endswith("bloodseg: stopped by Ctrl-C or SIGTERM.\n")
    assert list(tmp_path.iterdir()) == []


def _raiser(error):
    def raise_it(*args, **kwargs):
        raise error

    return raise_it


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "[Errno 28] No space left on device"),
        (ValueError("network is a function,\nwhich JSON can't hold."), "network is a function, "),
    ],
)
def test_a_model_that_cannot_be_saved_is_reported(error, said, data, tmp_path, capsys, monkeypatch):
    def fit(self, images, masks, *, groups=None):
        self.history_ = [{}]

    monkeypatch.setattr(BloodCellSegmenter, "fit", fit)
    monkeypatch.setattr(BloodCellSegmenter, "save", _raiser(error))
    path = tmp_path / "m.safetensors"
    assert main(["train", str(data), "-o", str(path), *TINY]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"bloodseg: error: {path} cannot be written: {said}")
    assert err.count("\n") == 1


def test_a_history_that_cannot_be_written_is_reported(data, tmp_path, capsys, monkeypatch):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("bloodseg.cli._train.write_csv", _raiser(full))
    path = tmp_path / "m.safetensors"
    assert main(["train", str(data), "-o", str(path), *TINY]) == 2
    assert capsys.readouterr().err == (
        f"bloodseg: error: {tmp_path / 'm.history.csv'} cannot be written: [Errno 28] No space "
        f"left on device. The model is in {path}.\n"
    )
    assert path.exists()


@pytest.mark.parametrize("kind", [MemoryError, FloatingPointError, ImportError])
def test_what_ends_a_training_is_reported(data, tmp_path, capsys, monkeypatch, kind):
    monkeypatch.setattr(BloodCellSegmenter, "fit", _raiser(kind("Lower batch_size.")))
    assert main(["train", str(data), "-o", str(tmp_path / "m.safetensors"), *TINY]) == 2
    assert capsys.readouterr().err == "bloodseg: error: Lower batch_size.\n"


@pytest.mark.parametrize(
    ("reason", "early"),
    [("epochs", False), ("patience", False), ("interrupted", True), ("broke down", True)],
)
def test_ended_early_tells_ctrl_c_from_patience(reason, early):
    segmenter = BloodCellSegmenter()
    segmenter.end_reason_ = reason
    assert ended_early(segmenter) is early


# predict


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


@pytest.fixture
def each_segment(monkeypatch):
    """Return a function that lets a hook see the number of each image before it is predicted."""

    def hook(before):
        segment, calls = BloodCellSegmenter.segment, []

        def segment_after(self, images):
            calls.append(images)
            before(len(calls), images[0])
            return segment(self, images)

        monkeypatch.setattr(BloodCellSegmenter, "segment", segment_after)

    return hook


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
        (images, ["-m", str(model), "-o", f"{tmp_path}/file"], "cannot be made (File exists)"),
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
        r"bloodseg: \S+/a.png skipped: TypeError: a defect \(test_cli.py, line \d+\)\. That is a "
    )
    said += "defect of bloodseg, not of the image: please report this line.\n"
    assert re.fullmatch(said, capsys.readouterr().err)
    assert len(rows_of(tmp_path / "predictions.csv")) == 3


def test_files_are_written_whole_or_not_at_all(data, model, tmp_path, monkeypatch, capsys):
    def full(self, content):
        self.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    out = tmp_path / "out"
    assert main(["predict", str(data / "images"), "-q", "-m", str(model), "-o", str(out)]) == 2
    assert "a.png skipped: [Errno 28] No space left on device" in capsys.readouterr().err
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


# evaluate


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
    # The same from a table of boxes.
    (folder / "instances").rename(folder / "other")
    (folder / "boxes.csv").write_text("image,class,xmin,ymin,xmax,ymax\na,RBC,1,2,9,9\n")
    assert main([*command, "--overwrite"]) == 0
    assert "cells, IoU of boxes at least 0.5" in capsys.readouterr().out
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
    result = Evaluation(classes)
    result.add_cells(boxes, found)
    assert [(row["class"], row["tp"], row["fp"]) for row in result.cell_rows] == [
        ("red", 1, 0),
        ("all", 1, 0),
    ]
    result = Evaluation(classes)
    result.add_cells(boxes, found)
    result.add_cells(platelet, found)
    rows = {row["class"]: row for row in result.cell_rows}
    assert (rows["platelet"]["tp"], rows["platelet"]["fp"]) == (1, 1)


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
    assert "3 left out, see the messages." in captured.out
    report = json.loads((out / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert report["scores"]["cpa_white"] is None
    assert set(report["failed"]) == set("bcd")
    assert rows_of(out / "metrics.csv")[0]["cpa_white"] == ""


def test_results_that_cannot_be_written_are_reported(data, model, tmp_path, capsys, monkeypatch):
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("bloodseg.cli._evaluate.write_csv", _raiser(full))
    command = ["evaluate", str(data), "-q", "-m", str(model), "-o", str(tmp_path)]
    assert main(command) == 2
    assert capsys.readouterr().err == (
        f"bloodseg: error: {tmp_path / 'metrics.csv'} cannot be written: [Errno 28] No space left "
        "on device\n"
    )


def test_evaluate_refuses_what_cannot_be_done(broken, model, tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "none"), "-m", str(model)]) == 2
    assert "must be a folder of annotated images" in capsys.readouterr().err
    (broken / "images/a.png").write_bytes(b"")
    assert main(["evaluate", str(broken), "-q", "-m", str(model)]) == 2
    assert "could be evaluated." in capsys.readouterr().err


# demo


def test_demo_draws_trains_and_shows(tmp_path, capsys):
    command = ["demo", "--quick", "-q", "-o", str(tmp_path / "demo")]
    assert main(command) == 0
    files = {"overview.png", "metrics.csv", "metrics.json", "model.safetensors"}
    assert {file.name for file in (tmp_path / "demo").iterdir()} == files
    out = capsys.readouterr().out
    assert "overview.png" in out
    at_once, trained = out.split("Trained here: ")
    assert at_once.startswith(f"The published weights, {list_models()[0]}, on 4 smears not trained")
    for text in (at_once, trained):
        assert re.search(r"^panoptic quality \(PQ\) ", text, re.MULTILINE)
    scores = json.loads((tmp_path / "demo/metrics.json").read_text())
    assert scores["published"]["model"] == list_models()[0]
    assert scores["published"]["scores"]["mean_iou"] > 0.9 > scores["scores"]["mean_iou"]
    assert {row["class"] for row in scores["published"]["cells"]} >= {"white", "red"}
    with Image.open(tmp_path / "demo/overview.png") as sheet:
        assert sheet.width > 5 * 64
        assert sheet.height > 4 * 64
    assert main(command) == 2
    assert "overview.png exists" in capsys.readouterr().err


# The process itself


def run_process(*arguments, **settings):
    return subprocess.run(
        [sys.executable, "-m", "bloodseg", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        **settings,
    )


def test_process_ends_with_the_exit_code_and_without_a_traceback(data):
    done = run_process("evaluate", data, "-m", "none.safetensors")
    assert done.returncode == 2
    assert done.stderr == "bloodseg: error: There is no model file at none.safetensors.\n"


def test_help_does_without_torch():
    code = "import sys; from bloodseg.cli import main; main(['--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "bloodseg.cli" in done.stdout.split()
    assert "torch" not in done.stdout.split()


def test_a_closed_pipe_is_no_error(data, model):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "bloodseg", "evaluate", str(data), "-m", str(model), "-q"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.stderr == ""
    assert done.returncode == 0


def test_ctrl_c_on_a_training_process_leaves_a_model(data, tmp_path):
    path, checkpoints = tmp_path / "m.safetensors", tmp_path / "checkpoints"
    command = [sys.executable, "-m", "bloodseg", "train", str(data), "-o", str(path), *TINY]
    command += ["--max-epochs", "100000", "--checkpoint-dir", str(checkpoints)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs, and what they start, ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not list(checkpoints.glob("*.pt")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 1
    assert "warning: Training was interrupted after" in err
    assert "Traceback" not in err
    assert len(BloodCellSegmenter.load(path).history_) >= 1
