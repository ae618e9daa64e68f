"""``bloodseg report``: images in, one page out."""

import base64
import io
import re

import pytest
from PIL import Image

from bloodseg.cli import main
from bloodseg.datasets import make_smears


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, image in zip("ab", make_smears(2, image_size=64, random_state=0).images, strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def command(fitted, tmp_path):
    fitted.save(tmp_path / "cells.safetensors")
    page = tmp_path / "report.html"
    return ["report", "-q", "-m", str(tmp_path / "cells.safetensors"), "-o", str(page)], page


def test_a_page_of_all_images(images, command, fitted, capsys):
    arguments, page = command
    assert main([*arguments, str(images), "--title", "Ward 3", "--predict-ode-tol", "0.1"]) == 0
    assert capsys.readouterr().out == f"2 on the page, 0 failed. Report: {page}\n"
    text = page.read_text(encoding="utf-8")
    assert "<title>Ward 3</title>" in text
    assert re.findall(r'<a href="#smear-\d">(.+?)</a>', text) == ["a.png", "b.png"]
    counts = fitted.count([images / "a.png"]).iloc[0]
    assert f"<td>64 &times; 64</td><td>{counts.red}</td><td>{counts.white}</td>" in text
    for setting, value in (
        ("network", "nodes-unet, width 4"),
        ("ODE-blocks at", "4, 5, 6"),
        ("tolerance in training", "4: 0.001, 5: 0.001, 6: 0.001"),
        ("tolerance in prediction", "4: 0.1, 5: 0.1, 6: 0.1"),
        ("precision", fitted.precision_),
    ):
        assert f"<tr><td>{setting}</td><td>{value}</td></tr>" in text


def test_the_page_opens_where_there_is_a_browser(images, command, capsys, monkeypatch):
    arguments, page = command
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: bool(opened.append(address)))
    assert main([*arguments, str(images), "--open"]) == 0
    assert opened == [page.resolve().as_uri()]
    assert f"no browser could be started. Open {page} in one." in capsys.readouterr().err
    monkeypatch.setattr("webbrowser.open", lambda address: True)
    assert main([*arguments, str(images), "--open", "--overwrite"]) == 0
    assert "browser" not in capsys.readouterr().err


def test_photos_of_many_images_share_a_limit(images, command, monkeypatch):
    arguments, page = command
    monkeypatch.setattr("bloodseg.cli._report._ALL_PIXELS", 64 * 64)
    sizes = []
    for number, least in ((1, 100), (2, 100), (2, 64 * 64)):
        monkeypatch.setattr("bloodseg.cli._report._LEAST_PIXELS", least)
        files = [str(images / f"{name}.png") for name in "ab"[:number]]
        assert main([*arguments, *files, "--overwrite"]) == 0
        text = page.read_text(encoding="utf-8")
        photo = re.search(r'"photo": "data:image/jpeg;base64,([^"]+)"', text)[1]
        sizes.append(Image.open(io.BytesIO(base64.b64decode(photo))).size)
    assert sizes == [(64, 64), (32, 32), (64, 64)]


def test_files_of_one_name_are_told_apart(images, command, tmp_path):
    arguments, page = command
    other = tmp_path / "other"
    other.mkdir()
    (images / "a.png").rename(other / "b.png")
    assert main([*arguments, str(images), str(other)]) == 0
    for folder in (images, other):
        assert f">{folder / 'b.png'}</a>" in page.read_text(encoding="utf-8")


def test_what_cannot_be_read_is_named_and_left_out(images, command, capsys):
    arguments, page = command
    (images / "b.png").write_bytes(b"no image")
    assert main([*arguments, str(images)]) == 1
    captured = capsys.readouterr()
    assert "1 on the page, 1 failed." in captured.out
    assert "b.png skipped: " in captured.err
    text = page.read_text(encoding="utf-8")
    assert "1 image could not be read" in text
    assert re.search(r"<li>\S*b\.png: \S+.*</li>", text)
    assert text.count("b.png") == 2  # its name, and the reason that names it


def test_sizes_are_in_pixels_where_not_all_files_know_theirs(images, command, capsys):
    arguments, page = command
    Image.open(images / "a.png").save(images / "c.tif", dpi=(254_000, 254_000))
    assert main([*arguments, str(images / "c.tif")]) == 0
    assert "per mm²" in page.read_text(encoding="utf-8")
    assert "pixels for all" not in capsys.readouterr().err
    assert main([*arguments, str(images), "--overwrite"]) == 0
    assert "known for some images only, so that sizes are in pixels for all. Give it with " in (
        capsys.readouterr().err
    )
    text = page.read_text(encoding="utf-8")
    rows = re.findall(r'<a href="#smear-\d">.+?</td>(.+?)<td>[\d.]+</td></tr>', text, re.S)
    assert len(rows) == 3
    assert rows[0] == rows[2]  # one picture, with and without the size of its pixels
    assert "per mm²</button>" not in text
    assert "There are no cells per mm²" in text


def test_nothing_to_read_is_an_error(images, command, capsys):
    arguments, page = command
    for file in images.iterdir():
        file.write_bytes(b"no image")
    assert main([*arguments, str(images)]) == 2
    assert "error: no image could be read." in capsys.readouterr().err
    assert not page.exists()


def test_a_page_that_exists_is_kept(images, command, capsys):
    arguments, page = command
    page.write_text("mine")
    assert main([*arguments, str(images)]) == 2
    assert "report.html exists. Choose another name, or pass --overwrite." in (
        capsys.readouterr().err
    )
    assert page.read_text() == "mine"
    assert main([*arguments, str(images), "--overwrite"]) == 0
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
