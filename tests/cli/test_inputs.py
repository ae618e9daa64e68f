"""One bad input costs no other: names, links, defects, and what libraries say of files."""

import io
import json
import logging
import os
import struct
import sys
import warnings
from pathlib import Path

import joblib
import pytest
import tifffile
from PIL import Image
from shell import rows_of

from bloodseg import BloodCellSegmenter
from bloodseg.cli import main
from bloodseg.cli._output import CommandError, reported, say
from bloodseg.cli._tables import from_cell
from bloodseg.ode import SolverWarning
from bloodseg.prediction import Segmented

COMMANDS = ["count", "measure", "predict", "report"]


@pytest.fixture
def run(model_path, tmp_path, monkeypatch):
    """Return a function that runs a command in tmp_path and returns its exit code and output."""
    monkeypatch.chdir(tmp_path)

    def run(command, *inputs, options=()):
        output = {"count": "c.csv", "report": "r.html"}.get(command, f"{command}ed")
        given = [command, *inputs, "-q", "-m", model_path, "-o", output, *options]
        return main(list(map(str, given))), tmp_path / output

    return run


def shows(output, name):
    """Return whether results have come of an image."""
    if output.suffix == ".html":
        return f">{name}.png</a>" in output.read_text(encoding="utf-8")
    if output.suffix == ".csv":
        return any(name in row["image"] for row in rows_of(output))
    return any(file.name.startswith(f"{name}_mask") for file in output.iterdir()) or (
        (output / "cells.csv").exists()
    )


def test_where_only_subfolders_hold_images_the_option_is_named(run, save_smear, tmp_path, capsys):
    save_smear(tmp_path / "photos/slide 1/a.png")
    assert run("count", "photos")[0] == 2
    err = capsys.readouterr().err
    assert "photos has none, but slide 1 (subfolders are not searched)." in err
    assert "error: none of the inputs is an image. Pass --recursive to search subfolders.\n" in err
    assert run("count", "nowhere")[0] == 2
    assert capsys.readouterr().err.endswith("error: none of the inputs is an image.\n")
    assert run("count", "photos", options=["--recursive"])[0] == 0


@pytest.mark.parametrize(
    ("command", "options", "method", "first"),
    [
        ("predict", ["--no-overlay"], "write_bytes", "a_mask.png"),
        ("measure", ["--format", "geojson"], "write_text", "a.geojson"),
    ],
)
def test_a_full_disk_ends_the_work(
    command, options, method, first, run, save_smear, tmp_path, monkeypatch, capsys
):
    for name in "abc":
        save_smear(tmp_path / f"photos/{name}.png")
    write, written = getattr(Path, method), []

    def write_one(path, content, **settings):
        written.append(path)
        if len(written) > 1:
            raise OSError(28, "No space left on device")
        return write(path, content, **settings)

    monkeypatch.setattr(Path, method, write_one)
    code, output = run(command, "photos", options=options)
    assert code == 2
    second = first.replace("a", "b", 1)
    assert capsys.readouterr().err == (
        f"bloodseg: error: [Errno 28] No space left on device: '{output.name}/{second}'. What was "
        "written before is kept; make room, and run the rest again.\n"
    )
    assert len(written) == 2  # the third was not begun
    assert (output / first).exists()
    assert not (output / second).exists()


@pytest.mark.parametrize(("given", "expected"), [((), 1), (("--processes", "3"), 3)])
def test_processes_that_share_the_work(given, expected, monkeypatch, tmp_path):
    found = []
    monkeypatch.setattr(
        "bloodseg.cli._count.run", lambda _: found.append(joblib.effective_n_jobs(None)) or 0
    )
    assert main(["count", str(tmp_path), *given]) == 0
    assert found == [expected]


@pytest.mark.parametrize("given", ["0", "-2", "two"])
def test_processes_that_are_none(given, capsys):
    assert main(["count", "x", f"--processes={given}"]) == 2
    text = f"processes are a whole number from 1 on, or -1 for one a core; got '{given}'"
    assert text in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_an_input_that_cannot_be_read_costs_no_other(command, run, save_smear, tmp_path, capsys):
    save_smear(tmp_path / "good.png")
    group = tmp_path / "bad.zarr/0"  # a group where an array should be
    group.mkdir(parents=True)
    for place in (group, group.parent):
        (place / ".zgroup").write_text('{"zarr_format": 2}')
    attributes = {"multiscales": [{"datasets": [{"path": "0"}]}]}
    (group.parent / ".zattrs").write_text(json.dumps(attributes))
    (tmp_path / "loop.png").symlink_to("loop.png")
    inputs = ["bad.zarr", "loop.png", "n" * 300 + ".png", "~nobody-here/a.png", "good.png"]
    code, output = run(command, *inputs)
    err = capsys.readouterr().err
    assert code == 1
    assert shows(output, "good")
    for name in inputs[:-1]:
        assert f"bloodseg: {name} skipped: " in err
    assert all(line.startswith("bloodseg: ") for line in err.splitlines())


@pytest.mark.parametrize("command", COMMANDS)
def test_names_of_all_kinds_are_read(command, run, save_smear, tmp_path, capsys, monkeypatch):
    names = ["~x.png", "a\udcff.png", "a\nb.png", "=1+1.png", "血.png", "z.png"]
    for name in names:
        save_smear(tmp_path / name)
    ascii_terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_terminal)
    code, output = run(command, *names)
    ascii_terminal.flush()
    printed = ascii_terminal.buffer.getvalue().decode("ascii")
    assert code == 0
    assert shows(output, "z")
    assert output.name in printed
    assert capsys.readouterr().err == (
        "bloodseg: names that are no text, such as a\\udcff.png (of 1), are shown and written "
        "escaped.\n"
    )
    for table in tmp_path.rglob("*.csv"):
        cells = [row["image"] for row in rows_of(table)]  # which must be UTF-8
        assert not any(cell.startswith("=") or "\n" in cell for cell in cells)
        if command in ("count", "predict"):
            found = {os.path.realpath(from_cell(cell)) for cell in cells}
            assert found == {os.path.realpath(name) for name in names}


def test_notes_of_libraries_name_the_image(run, tmp_path, smears, capsys):
    """A TIFF whose description lies outside of the file, which tifffile logs."""
    data = io.BytesIO()
    tifffile.imwrite(data, smears.images[0], photometric="rgb")
    raw = bytearray(data.getvalue())
    start = struct.unpack("<I", raw[4:8])[0]
    for place in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", raw, start)[0], 12):
        if struct.unpack_from("<H", raw, place)[0] == 270:
            struct.pack_into("<I", raw, place + 4, 2**30)
    (tmp_path / "a.tif").write_bytes(raw)
    run("count", "a.tif")
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("bloodseg: ") for line in lines)


def test_warnings_are_sentences(run, save_smear, tmp_path, capsys, monkeypatch):
    def doubts(self):
        warnings.warn("block 5: gave\nup.", SolverWarning, stacklevel=1)
        warnings.warn("overflow", RuntimeWarning, stacklevel=1)
        logging.getLogger("tifffile").warning("odd tag %d", 7)
        return []

    monkeypatch.setattr(Segmented, "doubts", doubts)
    save_smear(tmp_path / "a.png")
    assert run("count", "a.png")[0] == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "bloodseg: warning: block 5: gave up."
    assert said[1].startswith("bloodseg: warning: a.png: overflow (RuntimeWarning, test_inputs.py")
    assert said[2] == "bloodseg: warning: a.png: odd tag 7 (tifffile)"


def test_what_is_said_shows_nothing_but_text(capsys):
    say("a\x1b[2Jb", "c")
    assert capsys.readouterr().out == "a\\x1b[2Jb\nc\n"


@pytest.mark.parametrize("command", [*COMMANDS, "evaluate"])
def test_strict_tells_of_doubtful_images(command, run, save_smear, tmp_path, smears, monkeypatch):
    monkeypatch.setattr(Segmented, "doubts", lambda self: ["it is grey", "it is blurred"])
    save_smear(tmp_path / "d/images/a.png")
    if command == "evaluate":
        (tmp_path / "d/masks").mkdir()
        Image.fromarray(smears.masks[0]).save(tmp_path / "d/masks/a.png")
    inputs = "d" if command == "evaluate" else "d/images"
    assert run(command, inputs)[0] == 0
    code, output = run(command, inputs, options=["--strict", "--overwrite"])
    assert code == 1
    table = {
        "predict": output / "predictions.csv",
        "count": output,
        "evaluate": output / "metrics.csv",
    }
    if command in table:
        assert rows_of(table[command])[-1]["doubts"] == "it is grey; it is blurred"


def test_a_defect_outside_of_the_inputs_keeps_its_traceback(run, save_smear, tmp_path, monkeypatch):
    monkeypatch.setattr("bloodseg.cli._count._table", None)
    save_smear(tmp_path / "a.png")
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        run("count", "a.png")


@pytest.mark.parametrize("device", ["meta", "hpu", "cuda:99", "no such", ""])
def test_a_device_that_is_not_there_is_one_sentence(device, run, save_smear, tmp_path, capsys):
    save_smear(tmp_path / "a.png")
    assert run("count", "a.png", options=["--device", device])[0] == 2
    err = capsys.readouterr().err
    assert err.startswith("bloodseg: error: device must be 'auto' or a device that torch reaches")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_prediction_reach_the_model(command, run, save_smear, tmp_path, monkeypatch):
    seen, segment = [], BloodCellSegmenter.segment

    def spy(self, images):
        seen.append(self.get_params())
        return segment(self, images)

    monkeypatch.setattr(BloodCellSegmenter, "segment", spy)
    save_smear(tmp_path / "a.png")
    options = ["--tile-size", "64", "--compile", "no", "--predict-ode-tol", "none"]
    assert run(command, "a.png", options=options)[0] == 0
    wanted = {"tile_size": 64, "compile": False, "predict_ode_tol": None, "device": "auto"}
    assert {name: seen[0][name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (("--tile-size", "70"), "tile_size must be 'auto', None, or a multiple of 16 of at least"),
        (("--pixel-size", "0"), "The 'pixel_size' parameter of BloodCellSegmenter must be"),
        (("--predict-ode-tol", "-1"), "predict_ode_tol must be positive and finite; got -1.0."),
        (("--red-cell-diameter", "2000"), "The 'red_cell_diameter' parameter of BloodCellSegment"),
    ],
)
def test_options_out_of_range_end_the_command(option, text, run, save_smear, tmp_path, capsys):
    save_smear(tmp_path / "a.png")
    code, output = run("count", "a.png", options=option)
    assert code == 2
    assert f"bloodseg: error: {text}" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize(
    ("filename", "said"),
    [
        (None, "No space left on device"),
        ("out.csv", "No space left on device"),
        ("other.csv", "[Errno 28] No space left on device: 'other.csv'"),
    ],
)
def test_an_error_about_another_file_names_it(filename, said):
    with pytest.raises(CommandError) as error, reported(Path("out.csv")):
        raise OSError(28, "No space left on device", filename)
    assert str(error.value) == f"out.csv cannot be written: {said}"
