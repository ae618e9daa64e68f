"""One front door for all images in files: what they are, how many, and how large."""

import gzip
import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
import zarr
from messages import raises
from numcodecs import get_codec
from PIL import Image

from bloodseg.datasets import list_images, list_passed_over, open_slide, read_image
from bloodseg.datasets._bounds import PACKINGS, check_unpacked

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
SMALL = PIXELS[::4, ::4]


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "jpg", "svs", "dat", ""])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_a_file_is_what_its_first_bytes_say(tmp_path, kind, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(path, format=kind)
    assert np.array_equal(open_slide(path)[:], PIXELS)
    assert np.array_equal(read_image(path), PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "JPEG"])
def test_pixels_are_decoded_once(tmp_path, monkeypatch, kind):
    """To look into a PNG file for its orientation is to decode it."""
    Image.fromarray(PIXELS).save(tmp_path / "a", format=kind, dpi=(50_000, 50_000))
    opened = []
    monkeypatch.setattr(
        Image, "open", lambda *a, open=Image.open, **k: opened.append(a) or open(*a, **k)
    )
    slide = open_slide(tmp_path / "a")
    assert len(opened) == 1
    assert slide.orientation == 1
    assert slide.pixel_size == pytest.approx(25_400 / 50_000, rel=1e-3)


def test_whatever_is_opened_is_read_whole_too(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        file.write(PIXELS, subifds=1, tile=(16, 16), metadata={"axes": "YXS"})
        file.write(SMALL, subfiletype=1)
    zarr.open_array(str(tmp_path / "a.zarr"), mode="w", shape=PIXELS.shape, dtype="u1")[:] = PIXELS
    for name in ("a.ome.tif", "a.zarr"):
        assert np.array_equal(read_image(tmp_path / name), PIXELS)
        assert read_image(tmp_path / name).flags.writeable


@pytest.mark.parametrize(
    ("start", "named"),
    [
        (b"GIF89a", "but GIF. Save it as JPEG, PNG or TIFF."),
        (b"RIFF\0\0\0\0WEBPVP8 ", "but WebP."),
        (b"\0\0\0\x18ftypqt  ", "but a video or a sequence of images."),
        (b"ZISRAWFILE", "but Zeiss CZI."),
        (b"junk", "HEIC file."),
        (b"", "HEIC file, but empty. Copy it again from where it came."),
    ],
)
def test_other_formats_are_named(tmp_path, start, named):
    (tmp_path / "a.tif").write_bytes(start + bytes(200) if start else b"")
    for read in (open_slide, read_image):
        with raises(
            "a.tif cannot be read as an image: it is not a PNG, JPEG, TIFF, BMP or HEIC file"
        ):
            read(tmp_path / "a.tif")
        with raises(named):
            read(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["pipe.tif", "pipe.png", "device.tif"])
def test_pipes_and_devices_are_not_opened(tmp_path, name):
    if name.startswith("pipe"):
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("/dev/zero")
    for read in (open_slide, read_image):
        with raises(f"{name} is not a file.", FileNotFoundError):
            read(tmp_path / name)


def test_names_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PIXELS).save("~x.png")
    assert np.array_equal(open_slide("~x.png")[:], PIXELS)
    with raises("~y.png does not exist.", FileNotFoundError):
        open_slide("~y.png")


def test_a_folder_tells_what_it_leaves_out(tmp_path):
    for name in ("a.PNG", "b", "c.svs"):
        Image.fromarray(PIXELS).save(tmp_path / name, format="PNG" if name != "c.svs" else "TIFF")
    Image.fromarray(PIXELS).save(tmp_path / "d.webp")
    (tmp_path / "e.czi").write_bytes(b"ZISRAWFILE")
    (tmp_path / "f.txt").write_text("x")
    (tmp_path / ".hidden.webp").touch()
    (tmp_path / "g").mkdir()
    (tmp_path / "h.png").symlink_to("h.png")
    (tmp_path / "i.tif").touch()
    zarr.open_array(str(tmp_path / "j"), mode="w", shape=PIXELS.shape, dtype="u1")
    assert [file.name for file in list_images(tmp_path)] == ["a.PNG", "b", "c.svs", "i.tif", "j"]
    assert {file.name: why for file, why in list_passed_over(tmp_path)} == {
        "d.webp": "WebP is not read",
        "e.czi": "Zeiss CZI is not read",
        "f.txt": "it is no image",
        "g": "subfolders are not searched",
        "h.png": "it is no file, or a link to none",
    }
    assert list_images(tmp_path / "j") == [tmp_path / "j"]
    assert list_passed_over(tmp_path / "d.webp") == []


def test_subfolders_are_searched_where_that_is_asked_for(tmp_path):
    for name in ("b/a.png", "b/c/a.png", "a.png", ".hidden/a.png", "b/.c/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PIXELS).save(tmp_path / name)
    (tmp_path / "b/c/notes.txt").write_text("x")
    (tmp_path / "round").symlink_to(tmp_path)
    zarr.open_array(str(tmp_path / "b/z.zarr"), mode="w", shape=PIXELS.shape, dtype="u1")
    found = [
        file.relative_to(tmp_path).as_posix() for file in list_images(tmp_path, recursive=True)
    ]
    assert found == ["a.png", "b/a.png", "b/c/a.png", "b/z.zarr"]
    left_out = {
        file.relative_to(tmp_path).as_posix(): why
        for file, why in list_passed_over(tmp_path, recursive=True)
    }
    assert left_out == {
        "b/c/notes.txt": "it is no image",
        "round": "links to folders are not searched",
    }
    assert [file.name for file in list_images(tmp_path)] == ["a.png"]


def test_a_folder_without_images_names_what_there_is(tmp_path):
    (tmp_path / "a.webp").write_bytes(b"RIFF\0\0\0\0WEBPVP8 ")
    with raises("has none, but a.webp (WebP is not read).", FileNotFoundError):
        list_images(tmp_path)


def test_an_animated_png_is_refused(tmp_path):
    frame = Image.fromarray(PIXELS)
    frame.save(tmp_path / "a.png", save_all=True, append_images=[Image.fromarray(255 - PIXELS)])
    with raises("a.png cannot be read as an image: it holds 2 pages."):
        open_slide(tmp_path / "a.png")


def png_of(width, height, raw):
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", raw),
        (b"IEND", b""),
    ):
        data += (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )
    return data


@pytest.mark.parametrize("size", [(2**27, 1), (1, 2**27), (2**17, 2**9)])
def test_rows_too_long_to_be_read(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_of(*size, b""))
    with raises(f"it declares {size[1]} x {size[0]} pixels and at most 134,217,728 are read"):
        open_slide(tmp_path / "a.png")


@pytest.mark.parametrize("packing", PACKINGS)
def test_what_unpacks_to_more_than_its_shape(packing):
    data = np.zeros(2**20, np.uint8)
    packed = bytes(get_codec({"id": packing}).encode(data))
    check_unpacked(packing, packed, len(packed), len(data))
    with pytest.MonkeyPatch.context() as patch, raises("it has more bytes than the 100,000"):
        patch.setattr("bloodseg.datasets._bounds._MUCH", 0)
        check_unpacked(packing, packed, len(packed), 100_000)
    with raises("it has more bytes than the 1,000"):
        check_unpacked(packing, packed, 100_000, 1_000)


def test_streams_one_after_the_other_are_counted_together():
    packed = gzip.compress(bytes(2**20)) * 4
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bloodseg.datasets._bounds._MUCH", 0)
        check_unpacked("gzip", packed, len(packed), 2**22)
        with raises("it has more bytes"):
            check_unpacked("gzip", packed, len(packed), 2**21)


@pytest.mark.parametrize(
    ("name", "dpi", "expected"),
    [
        ("a.png", (254000, 127000), (0.2, 0.1)),
        ("a.jpg", (50800, 50800), (0.5, 0.5)),
        ("a.bmp", (254000, 254000), (0.1, 0.1)),
        ("a.png", (72, 72), None),  # of a screen
        ("a.jpg", (300, 300), None),  # of a printer
    ],
)
def test_pixel_sizes_of_pictures(tmp_path, name, dpi, expected):
    Image.fromarray(PIXELS).save(tmp_path / name, dpi=dpi)
    assert open_slide(tmp_path / name).pixel_sides == (expected and pytest.approx(expected))


def test_a_picture_with_damaged_metadata_has_no_pixel_size(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png", dpi=(254000, 254000))
    data = bytearray((tmp_path / "a.png").read_bytes())
    place = data.index(b"pHYs") + 4
    data[place : place + 8] = bytes(8)
    data[place + 9 : place + 13] = zlib.crc32(data[place - 4 : place + 9]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
