"""Names of inputs and outputs that are no common ones, and files that are left out."""

import os
from argparse import Namespace
from pathlib import Path

import pytest
from PIL import Image

from bloodseg import BloodCellSegmenter
from bloodseg.cli import main
from bloodseg.cli._batch import find_images
from bloodseg.cli._measure import _outline_files
from bloodseg.cli._output import PAGE, TABLE, check_output
from bloodseg.datasets import make_smears

SMEARS = make_smears(2, image_size=64, random_state=0, red_cell_diameter=20)
NO_TEXT = os.fsdecode(b"a\xff.png")
NAMES = [
    NO_TEXT,
    "n" * 251 + ".png",
    "n" * 250 + "m.png",
    "血.png",
    "~x.png",
    "\x1b[31m.png",
    "z.png",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    segmenter = BloodCellSegmenter(network="unet", width=4, max_epochs=1, crop_size=32)
    segmenter.fit(SMEARS.images, SMEARS.masks).save(path)
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Go to a folder of pictures with all kinds of names."""
    (tmp_path / "in").mkdir()
    for name in NAMES:
        Image.fromarray(SMEARS.images[0]).save(tmp_path / "in" / name, format="PNG")
    monkeypatch.chdir(tmp_path / "in")
    return tmp_path


def run(*arguments):
    return main([*map(str, arguments), "-q"])


def test_no_name_costs_a_result(folder, model, capsys):
    assert run("count", ".", "-m", model, "-o", folder / "c.csv") == 0
    assert len((folder / "c.csv").read_bytes().splitlines()) == len(NAMES) + 1
    assert run("predict", ".", "-m", model, "-o", folder / "p", "--no-overlay") == 0
    assert len(list((folder / "p").glob("*_mask.png"))) == len(NAMES)
    formats = "csv,geojson,coco"
    assert run("measure", ".", "-m", model, "-o", folder / "m", "--format", formats) == 0
    assert len(os.listdir(folder / "m")) == len(NAMES) + 2
    assert run("report", ".", "-m", model, "-o", folder / "r.html") == 0
    assert b"z.png" in (folder / "r.html").read_bytes()
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "\\udcff" in printed.out
    assert "\\x1b[31m.png" in printed.out


def test_a_name_may_begin_with_a_tilde(folder, model, capsys):
    assert run("count", "~x.png", "z.png", "-m", model) == 0
    assert run("count", "z.png", "-m", "~no-such-user/m.safetensors") == 2
    assert "There is no model file at ~no-such-user/m.safetensors" in capsys.readouterr().err


def test_what_is_left_out_of_a_folder_is_said(folder, model, capsys):
    Image.fromarray(SMEARS.images[0]).save("b.webp")
    (folder / "in" / "loop.png").symlink_to("loop.png")
    (folder / "in" / "sub").mkdir()
    assert run("count", ".", "-m", model) == 0
    said = "left out of .: b.webp (WebP is not read), loop.png (it is no file, or a link to none), "
    assert said + "sub (subfolders are not searched)." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a" * 300 + ".csv", "pipe"])
def test_outputs_that_cannot_be_are_refused_before_any_work(folder, name, capsys):
    os.mkfifo("pipe")
    assert run("count", "z.png", "-m", "none", "-o", name, "--overwrite") == 2
    assert f"The output cannot be written: {name} " in capsys.readouterr().err
    assert not os.path.isfile("pipe")


def test_a_folder_that_cannot_be_made_is_refused(folder, model, capsys):
    assert run("predict", "z.png", "-m", model, "-o", "a" * 300) == 2
    assert "a cannot be made (File name too long). Choose another." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "name", "endings"),
    [("count", "c.xlsx", ".csv or .txt"), ("report", "r.pdf", ".html or .htm")],
)
def test_an_output_is_called_by_what_it_is(command, name, endings, folder, capsys):
    assert run(command, "z.png", "-m", "none", "-o", name) == 2
    assert f"must be called by what it is, {endings}; got {name}." in capsys.readouterr().err


def test_endings_may_be_in_capitals(tmp_path):
    check_output(tmp_path / "c.CSV", overwrite=False, endings=TABLE)
    check_output(tmp_path / "r.Html", overwrite=False, endings=PAGE)


def test_a_number_behind_a_name_is_no_name_of_another_image():
    stems = {Path("a.png"): "a", Path("a.jpg"): "a", Path("a-2.png"): "a-2"}
    arguments = Namespace(formats=("geojson",), rois=False, output=Path("out"))
    files = [each["geojson"].name for each in _outline_files(arguments, stems).values()]
    assert files == ["a.geojson", "a-3.geojson", "a-2.geojson"]


@pytest.mark.parametrize("command", ["count", "report"])
def test_an_image_is_not_replaced_by_an_output(command, folder, capsys):
    before = Path("z.png").read_bytes()
    # As shells write `-o *.png`.
    assert run(command, "-o", "z.png", "~x.png", "-m", "none", "--overwrite") == 2
    assert "z.png is an image, which is not replaced. Choose another name." in (
        capsys.readouterr().err
    )
    assert Path("z.png").read_bytes() == before


def test_an_image_that_is_given_twice_goes_by_its_first_name(folder):
    link = folder / "link.png"
    link.symlink_to(folder / "in/z.png")
    assert find_images([Path("z.png"), link]) == ({Path("z.png"): "z"}, {})
    assert find_images([link, Path("z.png")]) == ({link: "link"}, {})


@pytest.mark.parametrize(("n_files", "more"), [(20, ""), (21, " and 1 more")])
def test_what_is_left_out_of_a_folder_is_named_up_to_a_number(n_files, more, tmp_path, capsys):
    Image.fromarray(SMEARS.images[0]).save(tmp_path / "a.png")
    for number in range(n_files):
        (tmp_path / f"{number}.txt").touch()
    find_images([tmp_path])
    assert capsys.readouterr().err.endswith(f".txt (it is no image){more}.\n")


@pytest.fixture
def wards(tmp_path):
    """A folder of two wards' pictures, of the same names."""
    for place in ("in/a.png", "in/east/a.png", "in/west/1/a.png"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(SMEARS.images[0]).save(tmp_path / place)
    return tmp_path


def test_files_of_subfolders_keep_their_paths(wards, model, capsys):
    inputs, out = wards / "in", wards / "p"
    assert run("predict", inputs, "-m", model, "-o", out) == 0
    assert [file.name for file in out.rglob("*_mask.png")] == ["a_mask.png"]
    left_out = "east (subfolders are not searched), west (subfolders are not searched)"
    assert f"left out of {inputs}: {left_out}." in capsys.readouterr().err
    assert run("predict", inputs, "-r", "-m", model, "-o", out) == 1
    assert "2 labelled, 1 skipped, 0 failed" in capsys.readouterr().out
    for kind in ("mask", "overlay"):
        found = {file.relative_to(out).as_posix() for file in out.rglob(f"*_{kind}.png")}
        assert found == {f"{place}_{kind}.png" for place in ("a", "east/a", "west/1/a")}
    rows = (out / "predictions.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:2] for row in rows] == [
        [str(inputs / f"{place}.png"), f"{place}_mask.png"] for place in ("a", "east/a", "west/1/a")
    ]
    assert run("predict", inputs, "--recursive", "-m", model, "-o", out) == 1
    assert "0 labelled, 3 skipped, 0 failed" in capsys.readouterr().out
    arguments = ["--recursive", "-m", model, "-o", wards / "m", "--format", "geojson"]
    assert run("measure", inputs, *arguments) == 0
    found = {file.relative_to(wards / "m").as_posix() for file in (wards / "m").rglob("*.geojson")}
    assert found == {"a.geojson", "east/a.geojson", "west/1/a.geojson"}
    assert run("count", inputs, "-r", "-m", model, "-o", wards / "c.csv") == 0
    assert len((wards / "c.csv").read_text().splitlines()) == 4


def test_maps_do_not_become_inputs(wards, model, capsys):
    inputs = wards / "in"
    assert run("predict", inputs, "-r", "-m", model, "-o", inputs / "p") == 2
    said = f"the output folder {inputs / 'p'} lies in the input {inputs}: the next run would take"
    assert said in capsys.readouterr().err
    assert not (inputs / "p").exists()
    assert run("predict", inputs, "-m", model, "-o", inputs / "p") == 0


def test_a_table_does_not_lead_out_of_its_folder(wards, model):
    out = wards / "p"
    out.mkdir()
    image = wards / "in/a.png"
    (out / "predictions.csv").write_text(f"image,mask\n{image},../mine_mask.png\n")
    assert run("predict", image, "-m", model, "-o", out) == 0
    assert (out / "a_mask.png").exists()
    assert not (wards / "mine_mask.png").exists()
