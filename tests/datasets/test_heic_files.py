"""Photos in HEIC, as iPhones write them."""

import io
import struct
import sys

import numpy as np
import pillow_heif
import pytest
from messages import raises
from PIL import Image, ImageOps

from bloodseg.datasets import (
    list_images,
    list_passed_over,
    load_folder,
    open_slide,
    read_image,
    save_annotated,
)

ROWS, COLUMNS = np.mgrid[0:96, 0:128]
PIXELS = np.stack([ROWS * 2, COLUMNS, 255 - ROWS - COLUMNS], axis=2).astype(np.uint8)
MISSING = "photos in HEIC need the package pillow-heif: pip install 'bloodseg[heic]'"


def heic_of(pixels, mode="RGB", orientation=None):
    file = pillow_heif.from_bytes(mode, pixels.shape[1::-1], pixels.tobytes())
    if orientation is not None:
        file.info["exif"] = exif_of(orientation)
    return saved(file)


def saved(file):
    stream = io.BytesIO()
    file.save(stream, quality=100, chroma=444)
    return stream.getvalue()


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def is_close(read, pixels):
    return read.shape == pixels.shape and np.abs(read.astype(float) - pixels).max() < 4


@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "a.jpg", "a"])
def test_photos(tmp_path, name):
    (tmp_path / name).write_bytes(heic_of(PIXELS))
    assert list_images(tmp_path) == [tmp_path / name]
    slide = open_slide(tmp_path / name)
    assert slide.pixel_size is None
    assert is_close(slide[10:20, 30:], PIXELS[10:20, 30:])
    assert is_close(read_image(tmp_path / name), PIXELS)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_they_are_turned_once(tmp_path, orientation):
    """Cameras say it twice: in the format's own words, which count, and in EXIF data."""
    data = heic_of(PIXELS, orientation=orientation)
    (tmp_path / "a.heic").write_bytes(data)
    shown = Image.fromarray(PIXELS)
    shown.info["exif"] = exif_of(orientation)
    shown = np.asarray(ImageOps.exif_transpose(shown))
    assert is_close(read_image(tmp_path / "a.heic"), shown)
    assert is_close(read_image(tmp_path / "a.heic", upright=True), shown)


def test_more_than_8_bits_a_channel(tmp_path):
    deep = PIXELS * np.uint16(257)
    deep[:8] = 65535
    (tmp_path / "a.heic").write_bytes(heic_of(deep, "RGB;16"))
    read = read_image(tmp_path / "a.heic")
    assert read.dtype == np.float32
    assert np.abs(read - deep / 65535).max() < 0.01
    assert len(np.unique(read[..., 0])) > 256
    assert read[:4].max() == 1


def test_grey_and_transparent_photos(tmp_path):
    grey = np.ascontiguousarray(PIXELS[..., 1])
    (tmp_path / "grey.heic").write_bytes(heic_of(grey, "L"))
    assert is_close(read_image(tmp_path / "grey.heic"), np.repeat(grey[..., None], 3, axis=2))
    clear = np.dstack([PIXELS, np.full(grey.shape, 255, np.uint8)])
    clear[:48, :, 3] = 0
    (tmp_path / "clear.heic").write_bytes(heic_of(clear, "RGBA"))
    read = read_image(tmp_path / "clear.heic")
    assert read[:40].min() > 0.98  # laid over white
    assert is_close(read[56:] * 255, PIXELS[56:])


def test_several_images_are_refused(tmp_path):
    file = pillow_heif.from_bytes("RGB", (128, 96), PIXELS.tobytes())
    file.add_frombytes("RGB", (128, 48), PIXELS[:48].tobytes())
    (tmp_path / "a.heic").write_bytes(saved(file))
    with raises("a.heic cannot be read as an image: it holds 2 pages."):
        open_slide(tmp_path / "a.heic")


@pytest.mark.parametrize("kept", [0, 16, 100, 0.5, -5])
def test_files_cut_off(tmp_path, kept):
    data = heic_of(PIXELS)
    end = int(len(data) * kept) if isinstance(kept, float) else kept
    (tmp_path / "a.heic").write_bytes(data[:end])
    assert list_images(tmp_path) == [tmp_path / "a.heic"]
    with raises("a.heic cannot be read as an image: "):
        open_slide(tmp_path / "a.heic")


def test_the_size_is_checked_before_pixels_are_decoded(tmp_path):
    data = heic_of(PIXELS)
    size = b"ispe" + bytes(4) + struct.pack(">II", 128, 96)
    assert size in data
    data = data.replace(size, b"ispe" + bytes(4) + struct.pack(">II", 20_000, 20_000))
    (tmp_path / "a.heic").write_bytes(data)
    with raises("a.heic cannot be read as an image: it declares 20000 x 20000 pixels"):
        open_slide(tmp_path / "a.heic")


def test_a_folder_for_training(tmp_path, smears):
    save_annotated(smears, tmp_path, "masks")
    for file in (tmp_path / "images").iterdir():
        file.with_suffix(".heic").write_bytes(heic_of(read_image(file)))
        file.unlink()
    train = load_folder(tmp_path)
    assert [mask.shape for mask in train.masks] == [mask.shape for mask in smears.masks]
    assert np.abs(train.images[0].astype(float) - smears.images[0]).mean() < 3


def test_without_the_package(tmp_path, monkeypatch):
    (tmp_path / "a.heic").write_bytes(heic_of(PIXELS))
    (tmp_path / "named.heic").write_bytes(jpeg := jpeg_of(PIXELS))
    (tmp_path / "b.jpg").write_bytes(jpeg)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for read in (open_slide, read_image):
        with raises(MISSING, ImportError):
            read(tmp_path / "a.heic")
    assert list_passed_over(tmp_path) == [(tmp_path / "a.heic", MISSING)]
    assert [file.name for file in list_images(tmp_path)] == ["b.jpg", "named.heic"]


def jpeg_of(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    return stream.getvalue()
