"""Slides: read by rows from every kind of file."""

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import PIL
import pytest
import tifffile
from imports import imported_anew
from messages import raises
from PIL import Image
from slides import OME, PER_CM, PIXELS, write_ome_zarr, write_pyramid, write_tiff, write_zarr

from bloodseg import Preprocessor
from bloodseg._files import ArrayFile
from bloodseg.datasets import Slide, make_smears, open_slide, read_image
from bloodseg.preprocessing import EnhancedRows

KINDS = {
    "plain.tif": (write_tiff, None),
    "big-endian.tif": (lambda path: write_tiff(path, byteorder=">"), None),
    "tiled.tif": (
        lambda path: write_tiff(path, tile=(64, 32), compression="zlib", **PER_CM),
        0.1,
    ),
    "jpeg.tif": (lambda path: write_tiff(path, tile=(64, 64), compression="lzw"), None),
    "strips.tif": (
        lambda path: write_tiff(
            path,
            rowsperstrip=16,
            compression="zlib",
            predictor=True,
            resolution=(72, 72),
            resolutionunit="INCH",
        ),
        None,  # no microscope has pixels of a third of a millimetre
    ),
    "a.ome.tif": (lambda path: write_tiff(path, tile=(64, 64), metadata=OME), 0.25),
    "planes.ome.tif": (
        lambda path: write_tiff(
            path, np.moveaxis(PIXELS, -1, 0), photometric="minisblack", metadata={"axes": "CYX"}
        ),
        None,
    ),
    **{
        f"planar-{name}.tif": (
            lambda path, options=options: write_tiff(
                path,
                np.moveaxis(PIXELS, -1, 0),
                photometric="rgb",
                planarconfig="separate",
                **options,
            ),
            None,
        )
        for name, options in {
            "raw": {},
            "strips": {"compression": "zlib", "rowsperstrip": 50},
            "tiles": {"compression": "zlib", "tile": (64, 48)},
        }.items()
    },
    "imagej.tif": (
        lambda path: write_tiff(
            path, imagej=True, resolution=(5, 5), metadata={"unit": "um", "axes": "YXS"}
        ),
        0.2,
    ),
    "pyramid.ome.tif": (write_pyramid, None),
    "a.zarr": (write_zarr, None),
    "ome.zarr": (write_ome_zarr, 0.2),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file(tmp_path, name):
    write, pixel_size = KINDS[name]
    write(tmp_path / name)
    slide = open_slide(tmp_path / name)
    assert slide.shape == PIXELS.shape
    assert slide.dtype == np.uint8
    assert slide.pixel_size == pytest.approx(pixel_size)
    assert slide.name == str(tmp_path / name)
    for rows in (slice(0, 133), slice(10, 11), slice(63, 66), slice(130, 200), slice(None, 5)):
        assert np.array_equal(slide[rows], PIXELS[rows])
        for columns in (
            slice(0, 201),
            slice(47, 65),
            slice(63, 64),
            slice(150, 300),
            slice(None, 9),
        ):
            assert np.array_equal(slide[rows, columns], PIXELS[rows, columns])
    assert np.array_equal(slide[5:90:7, 3:180:5], PIXELS[5:90:7, 3:180:5])
    assert "133 x 201 pixels of uint8" in repr(slide)


def test_grey_16_bit(tmp_path):
    grey = PIXELS[..., 0].astype(np.uint16) * 257
    for name, write in (("a.tif", write_tiff), ("a.zarr", lambda p, g: write_zarr(p, g, (64, 64)))):
        write(tmp_path / name, grey)
        slide = open_slide(tmp_path / name)
        assert slide.shape == (133, 201, 1)
        assert np.array_equal(slide[20:30][..., 0], grey[20:30])
        assert np.array_equal(slide[20:90, 50:70][..., 0], grey[20:90, 50:70])


@pytest.mark.parametrize("name", ["strips.tif", "a.zarr", "a.png"])
def test_slides_go_to_other_processes(tmp_path, monkeypatch, name):
    """As joblib sends them: by where the file lies, from whatever folder it was named."""
    monkeypatch.chdir(tmp_path)
    if name.endswith("png"):
        Image.fromarray(PIXELS).save(name)
    else:
        KINDS[name][0](tmp_path / name)
    slide = open_slide(name)
    sent = pickle.dumps(slide)
    monkeypatch.chdir(tmp_path.parent)
    for _ in range(2):  # and on from there
        again = pickle.loads(sent)
        assert (again.name, again.shape, again.pixel_size) == (name, slide.shape, slide.pixel_size)
        assert np.array_equal(again[30:40], PIXELS[30:40])
        sent = pickle.dumps(again)


def test_slides_of_pixels_in_memory_stay_here():
    slide = Slide(lambda *place: PIXELS[place], PIXELS.shape, "u1", None, "a")
    with raises(
        "<Slide a: 133 x 201 pixels of uint8> cannot be pickled, for it was made of pixels in "
        "memory. Give other processes the array, or save it to a file",
        TypeError,
    ):
        pickle.dumps(slide)


def test_other_images_are_read_whole(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    slide = open_slide(tmp_path / "a.png")
    assert np.array_equal(slide[3:9], PIXELS[3:9])
    assert np.array_equal(slide[3:9, 20:50], PIXELS[3:9, 20:50])


# Before version 13, Pillow cannot read the YCbCr that it writes.
OLD_PILLOW = int(PIL.__version__.split(".")[0]) < 13
YCBCR = pytest.param("YCbCr", marks=pytest.mark.skipif(OLD_PILLOW, reason="old Pillow"))


@pytest.mark.parametrize("mode", ["P", "CMYK", YCBCR, "miniswhite"])
def test_colours_are_those_of_read_image(tmp_path, mode):
    file = tmp_path / "a.tif"
    if mode == "miniswhite":
        write_tiff(file, PIXELS[..., 0], photometric=mode, **PER_CM)
    else:
        Image.fromarray(PIXELS).convert(mode).save(file, dpi=(254_000, 254_000))
    slide = open_slide(file)
    assert slide.pixel_size == pytest.approx(0.1)
    assert np.array_equal(slide[10:20], read_image(file)[10:20])


def test_jpeg_in_tiff_is_read_by_strips(tmp_path):
    file = tmp_path / "a.tif"
    write_tiff(file, PIXELS, photometric="ycbcr", compression="jpeg", tile=(64, 64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bloodseg.datasets._slides.read_image", None)
        rows = open_slide(file)[60:70]
    assert np.abs(rows.astype(int) - read_image(file)[60:70]).max() <= 2  # as decoders differ


def test_pages_of_other_colours_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for _ in range(2):
            file.write(PIXELS[..., 0], photometric="miniswhite")
    with raises("a.tif cannot be read as an image: it holds 2 pages (133 x 201, 133 x 201 pixels)"):
        open_slide(tmp_path / "a.tif")


def test_files_that_are_no_slides(tmp_path):
    with raises("none.tif does not exist.", FileNotFoundError):
        open_slide(tmp_path / "none.tif")
    (tmp_path / "a.tif").write_bytes(b"II*\0junk")
    with raises("a.tif cannot be read as an image"):
        open_slide(tmp_path / "a.tif")
    write_tiff(tmp_path / "stack.tif", np.zeros((5, 20, 30), np.uint8), photometric="minisblack")
    with raises("stack.tif cannot be read as an image: it must hold one image of rows, columns"):
        open_slide(tmp_path / "stack.tif")
    (tmp_path / "folder").mkdir()
    folder = tmp_path / "folder"
    with raises(
        f"{folder} is a folder, and no image in Zarr format. Pass the images in it: "
        f"bloodseg.datasets.list_images('{folder}')."
    ):
        open_slide(folder)
    write_zarr(tmp_path / "five.zarr", np.zeros((5, 20, 30), np.uint8), (5, 20, 30))
    with raises(
        "five.zarr cannot be read as an image: it must hold one image of rows, columns and"
    ):
        open_slide(tmp_path / "five.zarr")


@pytest.mark.parametrize("kind", ["cut off", "cut off in a row", "zlib", "lzw", "zarr"])
def test_damage_is_said_of_the_file(tmp_path, spoil_zarr, kind):
    file = tmp_path / ("a.zarr" if kind == "zarr" else "a.tif")
    if kind == "zarr":
        write_zarr(file)
        spoil_zarr(file)
    else:
        write_tiff(file, compression=None if kind.startswith("cut") else kind)
        with tifffile.TiffFile(file) as tiff:
            start = tiff.pages[0].dataoffsets[0]
        whole = file.read_bytes()
        row = PIXELS.shape[1] * 3
        lengths = {"cut off": 100 * row, "cut off in a row": 100 * row + 7}
        kept = whole[: start + lengths.get(kind, 0)]
        file.write_bytes(kept if kind in lengths else kept + b"\x01junk" * (len(whole) // 5))
    slide = open_slide(file)
    with raises(f"{file} cannot be read from row 90 to 120; it is perhaps damaged: "):
        slide[90:120]


def open_files():
    """Return the files that this process has open."""
    links = [Path("/proc/self/fd", number) for number in os.listdir("/proc/self/fd")]
    return {link.readlink() for link in links if os.path.lexists(link)}


def test_slides_are_open_only_while_they_are_read(tmp_path):
    write_tiff(tmp_path / "a.tif")
    slides = [open_slide(tmp_path / "a.tif") for _ in range(5)]
    assert all(np.array_equal(slide[5:7], PIXELS[5:7]) for slide in slides)
    assert tmp_path / "a.tif" not in open_files()
    with open(tmp_path / "a.tif"):
        assert tmp_path / "a.tif" in open_files()


@pytest.mark.parametrize(("package", "name"), [("zarr", "a.zarr"), ("imagecodecs", "a.tif")])
def test_what_is_missing_is_named_with_its_extra(tmp_path, package, name):
    if package == "zarr":
        write_zarr(tmp_path / name)
    else:
        write_tiff(tmp_path / name, compression="jpeg2000")
    with imported_anew("bloodseg", "tifffile", package):
        sys.modules[package] = None
        from bloodseg.datasets import open_slide

        with raises(f"the package {package}: pip install 'bloodseg[slides]'", ImportError):
            open_slide(tmp_path / name)[0:9]


# ---------------------------------------------------------------- preprocessing by rows


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("shape", [(160, 96), (203, 117), (9, 200), (4, 200), (1, 200)])
@pytest.mark.parametrize("white_balance", [False, True])
def test_rows_are_enhanced_as_the_whole_image(dtype, shape, white_balance):
    image = make_smears(1, image_size=(208, 208), random_state=0, red_cell_diameter=20).images[0]
    image = image[: shape[0], : shape[1]]
    image = (image / 255).astype(dtype) if dtype == np.float32 else image.astype(dtype)
    preprocessor = Preprocessor(3.0, tile_grid_size=(4, 3), white_balance=white_balance)
    (whole,) = preprocessor.transform([image])
    rows = EnhancedRows(preprocessor, image, strip_height=37)
    for top in range(0, shape[0], 50):
        strip, expected = rows[top : top + 50], whole[top : top + 50]
        assert strip.dtype == expected.dtype
        difference = np.abs(strip.astype(float) - expected)
        assert difference.max() <= (1 if dtype == np.uint8 else 1e-6)
        assert (difference > 1e-6).mean() < 0.01


# ---------------------------------------------------------------- arrays in files


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_an_array_in_a_file(rng, dtype):
    expected = rng.integers(0, 100, (40, 30)).astype(dtype)
    array = ArrayFile((40, 30), dtype)
    assert not array[0:40].any()
    array[slice(0, 10), slice(0, 30)] = expected[:10]
    for columns in (slice(0, 13), slice(13, 30)):
        array[slice(10, 40), columns] = expected[10:, columns]
    assert np.array_equal(array[0:40], expected)
    assert np.array_equal(array[7:9], expected[7:9])
    for columns in (slice(0, 30), slice(4, 17), slice(25, 99), slice(3, 3)):
        assert np.array_equal(array[7:19, columns], expected[7:19, columns])
    assert array[35:99].shape == (5, 30)
    for place in np.s_[::2], np.s_[1:9:3, ::7], np.s_[-3:, -4:-1], np.s_[5:2], np.s_[:, 9:9]:
        assert np.array_equal(array[place], expected[place]), place
    assert np.array_equal(np.asarray(array), expected)
    assert np.asarray(array, np.float32).dtype == np.float32


@pytest.mark.parametrize(
    "place", [5, np.s_[::-1], np.s_[:, ::-2], np.s_[1:2, 3], np.s_[0:1, 0:1, 0]]
)
def test_what_is_read_goes_forwards(place, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), np.uint8))
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    for pixels in (ArrayFile((4, 5)), *map(open_slide, (tmp_path / "a.tif", tmp_path / "a.png"))):
        with pytest.raises(IndexError) as error:
            pixels[place]
        assert str(error.value) == (
            "pixels of a file are read by slices that go forwards, [10:20] of rows or [10:20, 5:9] "
            f"of rows and columns; got {place!r}. Read all by [:], and index that."
        )
