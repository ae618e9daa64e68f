"""One front door for all images in files: what they are, how many, how large, and whose pixels."""

import gzip
import json
import os
import pickle
import re
import struct
import zlib

import numpy as np
import pytest
import tifffile
import zarr
from numcodecs import get_codec
from PIL import Image

from bloodseg.datasets import list_images, list_passed_over, open_slide, read_image
from bloodseg.datasets._bounds import PACKINGS, check_unpacked

VERSIONS = [2, 3][: 1 if zarr.__version__.startswith("2.") else 2]
needs_zarr_3 = pytest.mark.skipif(3 not in VERSIONS, reason="zarr 2 does not read Zarr 3")

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (60, 80, 3)).astype(np.uint8)
SMALL = PIXELS[::4, ::4]


def raises(text, error=ValueError):
    return pytest.raises(error, match=re.escape(text))


def write_pages(path, *pages, **settings):
    with tifffile.TiffWriter(path, **settings) as file:
        for pixels, options in pages:
            file.write(pixels, photometric="rgb", **{"metadata": None, **options})


# ---------------------------------------------------------------- what a file is


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp", "jpg", "svs", "dat", ""])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_a_file_is_what_its_first_bytes_say(tmp_path, kind, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(path, format=kind)
    assert np.array_equal(open_slide(path)[:], PIXELS)
    assert np.array_equal(read_image(path), PIXELS)


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
        (b"GIF89a", "but GIF. Save it as PNG or TIFF."),
        (b"RIFF\0\0\0\0WEBPVP8 ", "but WebP."),
        (b"\0\0\0\x18ftypheic", "but HEIC or a video."),
        (b"ZISRAWFILE", "but Zeiss CZI."),
        (b"junk", "BMP file."),
    ],
)
def test_other_formats_are_named(tmp_path, start, named):
    (tmp_path / "a.tif").write_bytes(start + bytes(200))
    for read in (open_slide, read_image):
        with raises("a.tif cannot be read as an image: it is not a PNG, JPEG, TIFF or BMP file"):
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


# ---------------------------------------------------------------- how many images a TIFF holds

SEVERAL = {
    "stack.tif": lambda path: write_pages(path, *[(PIXELS, {})] * 3),
    "four.tif": lambda path: write_pages(path, *[(PIXELS, {})] * 4),
    "sizes.tif": lambda path: write_pages(path, (PIXELS, {}), (PIXELS[:30, :40], {})),
    "shaped.tif": lambda path: write_pages(path, *[(PIXELS, {"metadata": {}})] * 2),
    "a.ome.tif": lambda path: write_pages(path, *[(PIXELS, {"metadata": {}})] * 2, ome=True),
    "imagej.tif": lambda path: tifffile.imwrite(
        path, np.stack([PIXELS] * 3), imagej=True, metadata={"axes": "ZYXS"}
    ),
    "one-page.tif": lambda path: tifffile.imwrite(
        path, np.stack([PIXELS[..., 0]] * 5), imagej=True, truncate=True, metadata={"axes": "TYX"}
    ),
    "one-page-rgb.tif": lambda path: tifffile.imwrite(
        path, np.stack([PIXELS] * 3), imagej=True, truncate=True, metadata={"axes": "ZYXS"}
    ),
    "one-page-shaped.tif": lambda path: tifffile.imwrite(
        path, np.stack([PIXELS] * 3), photometric="rgb", truncate=True
    ),
    "reduced-only.tif": lambda path: write_pages(path, (PIXELS, {"subfiletype": 1})),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_a_tiff_of_several_images_is_refused(tmp_path, name):
    SEVERAL[name](tmp_path / name)
    for read in (open_slide, read_image):
        with raises(f"{name} cannot be read as an image: it ") as caught:
            read(tmp_path / name)
        assert "on its own" in str(caught.value) or "of its own" in str(caught.value)


APERIO = "Aperio Image Library v12\n80x60 (16x16)|AppMag = 40|MPP = 0.2500"
ONE = {
    "thumbnail-first.tif": [(SMALL, {"subfiletype": 1}), (PIXELS, {})],
    "thumbnail-last.tif": [(PIXELS, {}), (SMALL, {"subfiletype": 1})],
    "pages.tif": [(PIXELS, {"tile": (16, 16)}), (PIXELS[::2, ::2], {"subfiletype": 1})],
    "a.svs": [
        (PIXELS, {"tile": (16, 16), "description": APERIO}),
        (SMALL, {"description": "Aperio thumbnail"}),
        (PIXELS[::2, ::2], {"tile": (16, 16), "description": "Aperio"}),
        (SMALL, {"subfiletype": 1, "description": "Aperio label"}),
        (SMALL, {"subfiletype": 9, "description": "Aperio macro"}),
    ],
}


@pytest.mark.parametrize("name", ONE)
def test_what_lies_beside_the_image_is_left_out(tmp_path, name):
    write_pages(tmp_path / name, *ONE[name])
    slide = open_slide(tmp_path / name)
    assert np.array_equal(slide[:], PIXELS)
    assert slide.pixel_size == (0.25 if name == "a.svs" else None)


def test_label_and_macro_of_an_ome_tiff_are_left_out(tmp_path):
    size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as file:
        file.write(SMALL, photometric="rgb", metadata={"Name": "label image"})
        file.write(PIXELS, photometric="rgb", metadata={"Name": "slide", **size})
        file.write(SMALL[:9], photometric="rgb", metadata={"Name": "macro image"})
    slide = open_slide(tmp_path / "a.ome.tif")
    assert np.array_equal(slide[:], PIXELS)
    assert slide.pixel_size == 0.5


def test_an_animated_png_is_refused(tmp_path):
    frame = Image.fromarray(PIXELS)
    frame.save(tmp_path / "a.png", save_all=True, append_images=[Image.fromarray(255 - PIXELS)])
    with raises("a.png cannot be read as an image: it holds 2 pages."):
        open_slide(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["RGB", "P", "CMYK", "L"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_a_turned_tiff_comes_as_it_is_stored(tmp_path, mode, orientation):
    """Pillow turns TIFFs as it loads them, tifffile does not; both read here."""
    picture = Image.fromarray(PIXELS).convert(mode)
    picture.save(tmp_path / "stored.tif")
    picture.save(tmp_path / "turned.tif", tiffinfo={274: orientation})
    expected = read_image(tmp_path / "stored.tif")
    assert np.array_equal(read_image(tmp_path / "turned.tif"), expected)
    quarter_turns = {3: 2, 6: 3}[orientation]
    upright = read_image(tmp_path / "turned.tif", upright=True)
    assert np.array_equal(upright, np.rot90(expected, quarter_turns))


# ---------------------------------------------------------------- whose pixels

XML = """<?xml version="1.0"?>{doctype}
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:0"><Image ID="I">
<Pixels ID="P" SizeX="80" SizeY="60" SizeC="3" SizeZ="1" SizeT="1" DimensionOrder="XYCZT"
 Type="uint8" {sizes}><Channel ID="c" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1">
<UUID FileName="{name}">urn:uuid:1</UUID></TiffData></Pixels></Image></OME>"""


def write_ome(path, name="b.tif", sizes="", doctype="", pages=1):
    text = XML.format(name=name, sizes=sizes, doctype=doctype).encode()
    write_pages(path, *[(PIXELS, {"description": text})] * pages)


@pytest.mark.parametrize("name", ["b.tif", "../b.tif", "{folder}/b.tif", "none.tif", "a.ome.tif"])
def test_an_ome_tiff_shows_its_own_pixels_only(tmp_path, name):
    (tmp_path / "in").mkdir()
    for place in (tmp_path, tmp_path / "in"):
        write_pages(place / "b.tif", (255 - PIXELS, {}))
    path = tmp_path / "in" / "a.ome.tif"
    write_ome(path, name.format(folder=tmp_path))
    assert np.array_equal(open_slide(path)[:], PIXELS)
    write_ome(path, name.format(folder=tmp_path), pages=2)
    with raises("a.ome.tif cannot be read as an image: it "):
        open_slide(path)


def test_entities_in_ome_xml_are_refused(tmp_path):
    for pages in (1, 2):
        write_ome(tmp_path / "a.ome.tif", doctype='<!DOCTYPE a [<!ENTITY b "c">]>', pages=pages)
        with raises("its OME-XML must not declare a document type or entities"):
            open_slide(tmp_path / "a.ome.tif")


# ---------------------------------------------------------------- sizes of pixels


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ('PhysicalSizeX="0.1" PhysicalSizeY="0.4"', (0.4, 0.1)),
        ('PhysicalSizeX="100" PhysicalSizeXUnit="nm" PhysicalSizeY="0.1"', (0.1, 0.1)),
        ('PhysicalSizeX="1e-4" PhysicalSizeXUnit="mm"', (0.1, 0.1)),
        ('PhysicalSizeX="2000" PhysicalSizeXUnit="Å"', (0.2, 0.2)),
        ('PhysicalSizeY="0.3"', (0.3, 0.3)),
        ('PhysicalSizeX="0.3" PhysicalSizeXUnit="pixel"', None),
        *((f'PhysicalSizeX="{each}"', None) for each in ("0", "-1", "nan", "inf", "x", "1e-200")),
        ('PhysicalSizeX="354"', None),  # a screen's 72 pixels an inch
    ],
)
def test_pixel_sizes_of_ome(tmp_path, sizes, expected):
    write_ome(tmp_path / "a.ome.tif", "a.ome.tif", sizes)
    slide = open_slide(tmp_path / "a.ome.tif")
    assert slide.pixel_sides == (None if expected is None else pytest.approx(expected))
    area = None if expected is None else expected[0] * expected[1]
    assert (slide.pixel_size and slide.pixel_size**2) == pytest.approx(area)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resolution": (1e5, 5e4), "resolutionunit": "CENTIMETER"}, (0.2, 0.1)),
        ({"resolution": (254000, 254000), "resolutionunit": "INCH"}, (0.1, 0.1)),
        ({"resolution": (1e5, 1e5), "resolutionunit": "NONE"}, None),
        ({"resolution": (0, 1e5), "resolutionunit": "CENTIMETER"}, (0.1, 0.1)),
        ({"resolution": (5, 4), "imagej": True, "metadata": {"unit": "um"}}, (0.25, 0.2)),
        ({"resolution": (0.005, 0.005), "imagej": True, "metadata": {"unit": "nm"}}, (0.2, 0.2)),
        ({"resolution": (5, 5), "imagej": True, "metadata": {"unit": "pixel"}}, None),
    ],
)
def test_pixel_sizes_of_tiff(tmp_path, options, expected):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="rgb", **options)
    slide = open_slide(tmp_path / "a.tif")
    assert slide.pixel_sides == (None if expected is None else pytest.approx(expected))


# ---------------------------------------------------------------- work


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


def test_a_tiff_that_declares_far_more_than_it_has(tmp_path):
    tile = np.zeros((256, 256, 3), np.uint8)
    tiles = (None if index else tile for index in range(2**16))
    tifffile.imwrite(
        tmp_path / "a.tif",
        tiles,
        shape=(2**16, 2**16, 3),
        dtype=np.uint8,
        photometric="rgb",
        tile=(256, 256),
        compression="zlib",
    )
    os.truncate(tmp_path / "a.tif", 900_000)
    with raises("it declares 65536 x 65536 pixels, but has only 900,000 bytes."):
        open_slide(tmp_path / "a.tif")


def test_a_file_of_many_pages(tmp_path):
    """A few of them do to see that they are not counted."""
    tifffile.imwrite(tmp_path / "a.tif", PIXELS[:1, :1], photometric="rgb", metadata=None)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    (start,) = struct.unpack("<I", data[4:8])
    (n_tags,) = struct.unpack("<H", data[start : start + 2])
    tags = bytes(data[start : start + 2 + 12 * n_tags])
    place = start + len(tags)
    pages = bytearray()
    for index in range(20_000):
        pages += tags + struct.pack("<I", len(data) + (index + 1) * (len(tags) + 4))
    data[place : place + 4] = struct.pack("<I", len(data))
    (tmp_path / "a.tif").write_bytes(data + pages)
    for read in (open_slide, read_image):
        with raises("it holds more than 256 images."):
            read(tmp_path / "a.tif")


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


# ---------------------------------------------------------------- Zarr

META = {
    "zarr_format": 2,
    "shape": [60, 80, 3],
    "chunks": [60, 80, 3],
    "dtype": "|u1",
    "compressor": None,
    "fill_value": 0,
    "order": "C",
    "filters": None,
}
META_3 = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [60, 80, 3],
    "data_type": "uint8",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [60, 80, 3]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 0,
    "codecs": [{"name": "bytes"}],
    "attributes": {},
}


def write_zarr(path, chunk=None, *, version=2, **metadata):
    """Write an array by hand, as zarr would not: its metadata, and its first chunk if any."""
    path.mkdir()
    name, meta = (".zarray", META) if version == 2 else ("zarr.json", META_3)
    (path / name).write_text(json.dumps(meta | metadata))
    if chunk is not None:
        numbers = ["0"] * len((meta | metadata)["shape"])
        file = path / (".".join(numbers) if version == 2 else "c/" + "/".join(numbers))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chunk)


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (self.mark,)


SHARDED = {
    "name": "sharding_indexed",
    "configuration": {
        "chunk_shape": [60, 80, 3],
        "codecs": [{"name": "bytes"}],
        "index_codecs": [{"name": "bytes"}],
    },
}
HOSTILE = {
    "filter": {"filters": [{"id": "pickle"}]},
    "compressor": {"compressor": {"id": "pickle"}},
    "two filters": {"filters": [{"id": "shuffle"}, {"id": "pickle"}]},
    "objects": {"dtype": "|O", "filters": [{"id": "vlen-utf8"}, {"id": "pickle"}]},
    "json": {"filters": [{"id": "json2"}]},
    "raw lzma": {"compressor": {"id": "lzma", "format": 3}},
    "no name": {"compressor": {}},
    "3": {"codecs": [{"name": "bytes"}, {"name": "numcodecs.pickle"}]},
    "3 first": {"codecs": [{"name": "numcodecs.pickle"}, {"name": "bytes"}]},
    "3 text": {"data_type": "string", "codecs": [{"name": "vlen-utf8"}]},
    "3 alone": {"codecs": ["vlen-bytes"]},
    "3 twice": {"codecs": [{"name": "bytes"}, {"name": "gzip"}, {"name": "zstd"}]},
    "3 transformers": {"storage_transformers": [{"name": "pickle"}]},
    **{
        f"sharding, {where}": {
            "codecs": [
                SHARDED
                | {
                    "configuration": SHARDED["configuration"]
                    | {where: [{"name": "bytes"}, {"name": "numcodecs.pickle"}]}
                }
            ]
        }
        for where in ("codecs", "index_codecs")
    },
    "packed shards": {"codecs": [SHARDED, {"name": "gzip"}]},
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_codecs_that_may_run_code_are_refused_before_any_is_called(tmp_path, monkeypatch, kind):
    from numcodecs import pickles

    def decode(self, buf, out=None):
        return pickle.loads(bytes(buf))

    monkeypatch.setattr(pickles.Pickle, "decode", decode)
    mark = tmp_path / "executed"
    version = 3 if "3" in kind or "shard" in kind else 2
    chunk = pickle.dumps(Evil(str(mark)))
    write_zarr(tmp_path / "a.zarr", chunk, version=version, **HOSTILE[kind])
    with raises("a.zarr cannot be read as an image: "):
        open_slide(tmp_path / "a.zarr")
    assert not mark.exists()


GZIP = {"name": "gzip", "configuration": {"level": 5}}


@needs_zarr_3
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["plain", "gzip", "blosc", "zstd", "shards"])
def test_zarr_3_as_it_is_written(tmp_path, kind, order):
    codecs = zarr.codecs
    options = {
        "plain": {},
        "gzip": {"compressors": codecs.GzipCodec()},
        "blosc": {"compressors": codecs.BloscCodec()},
        "zstd": {"compressors": codecs.ZstdCodec(checksum=True)},
        "shards": {"shards": (60, 80, 3), "chunks": (20, 40, 3)},
    }[kind]
    filters = [codecs.TransposeCodec(order=(2, 1, 0))] if order == "F" else []
    array = zarr.create_array(
        str(tmp_path / "a.zarr"),
        shape=PIXELS.shape,
        dtype="u1",
        zarr_format=3,
        filters=filters,
        **{"chunks": (16, 80, 3), **options},
    )
    array[:] = PIXELS
    slide = open_slide(tmp_path / "a.zarr")
    for rows in (slice(0, 60), slice(19, 41), slice(59, 60)):
        assert np.array_equal(slide[rows], PIXELS[rows])


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("packing", [None, *PACKINGS])
def test_zarr_2_as_it_is_written(tmp_path, packing, separator):
    delta = get_codec({"id": "delta", "dtype": "|u1"})
    codec = None if packing is None else get_codec({"id": packing})
    write_zarr(
        tmp_path / "a.zarr",
        chunks=[16, 32, 3],
        compressor=codec and codec.get_config(),
        filters=[delta.get_config()],
        dimension_separator=separator,
    )
    padded = np.zeros((64, 96, 3), np.uint8)
    padded[:60, :80] = PIXELS
    for row, column in np.ndindex(4, 3):
        chunk = padded[16 * row :, 32 * column :][:16, :32]
        chunk = delta.encode(np.ascontiguousarray(chunk).ravel())
        file = tmp_path / "a.zarr" / separator.join(map(str, (row, column, 0)))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(chunk if codec is None else codec.encode(chunk)))
    assert np.array_equal(open_slide(tmp_path / "a.zarr")[5:50], PIXELS[5:50])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_chunk_that_unpacks_to_more_than_its_shape(tmp_path, version):
    if version == 2:
        packed, how = zlib.compress(bytes(2**26)), {"compressor": {"id": "zlib", "level": 1}}
    else:
        packed, how = gzip.compress(bytes(2**26)), {"codecs": [{"name": "bytes"}, GZIP]}
    write_zarr(tmp_path / "a.zarr", packed, version=version, **how)
    with raises("it has more bytes than the 14,400 that its size and type make"):
        open_slide(tmp_path / "a.zarr")[:1]


@needs_zarr_3
def test_a_shard_with_more_than_its_shape(tmp_path):
    packed = gzip.compress(bytes(2**26))
    inner = SHARDED["configuration"] | {"codecs": [{"name": "bytes"}, GZIP]}
    for name, offset, length, text in (
        ("a", 0, len(packed), "it has more bytes than the 14,400"),
        ("b", 2**40, 9, "one of its shards is cut off."),
    ):
        shard = packed + struct.pack("<QQ", offset, length)
        codecs = [SHARDED | {"configuration": inner}]
        write_zarr(tmp_path / name, shard, version=3, codecs=codecs)
        with raises(text):
            open_slide(tmp_path / name)[:1]


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({"chunks": [2**15, 2**15, 3]}, "its chunks have 3,221,225,472 bytes unpacked"),
        ({"chunks": [0, 80, 3]}, "its shape, and that of its chunks, must be above zero"),
        ({"shape": [2**20, 8, 3]}, "it declares 1048576 x 8 pixels and at most 524,288 a side"),
        ({"shape": [2**18, 2**18, 3]}, "it declares 262144 x 262144 pixels, but has only"),
        ({"dtype": [["a", "|u1"]]}, "its pixels must be numbers"),
        ({"shape": [60, 80, 2]}, "it must hold one image of rows, columns and"),
    ],
)
def test_zarr_metadata_that_cannot_be_worth_it(tmp_path, metadata, text):
    write_zarr(tmp_path / "a.zarr", **metadata)
    with raises(text):
        open_slide(tmp_path / "a.zarr")


@pytest.mark.parametrize("kind", ["other file", "device", "pipe"])
def test_chunks_that_are_no_files_of_the_folder(tmp_path, kind):
    write_zarr(tmp_path / "a.zarr", bytes(14_400))
    chunk = tmp_path / "a.zarr" / "0.0.0"
    assert open_slide(tmp_path / "a.zarr")[:1].shape == (1, 80, 3)
    chunk.rename(tmp_path / "secret")
    if kind == "pipe":
        os.mkfifo(chunk)
    else:
        chunk.symlink_to("/dev/zero" if kind == "device" else tmp_path / "secret")
    with raises("its chunk 0.0.0 is no file of its folder."):
        open_slide(tmp_path / "a.zarr")[:1]


def group_of(path, attributes, *, version=2, **children):
    path.mkdir(exist_ok=True)
    if version == 2:
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps(attributes))
    else:
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": attributes}}
        (path / "zarr.json").write_text(json.dumps(group))
    for name, shape in children.items():
        grid = {"name": "regular", "configuration": {"chunk_shape": shape}}
        chunks = {"chunks": shape} if version == 2 else {"chunk_grid": grid}
        write_zarr(path / name, version=version, shape=shape, **chunks)


def scales(path="s0", axes="yxc", **more):
    return [{"axes": [{"name": name} for name in axes], "datasets": [{"path": path}], **more}]


@pytest.mark.parametrize("version", VERSIONS)
def test_groups_of_known_layouts(tmp_path, version):
    path = tmp_path / "a.zarr"
    shape = PIXELS.shape
    group_of(path, {"bioformats2raw.layout": 3}, version=version)
    group_of(path / "0", {"multiscales": scales()}, version=version, s0=shape)
    (path / "OME").mkdir()
    assert open_slide(path).shape == shape
    group_of(path / "1", {"multiscales": scales()}, version=version, s0=shape)
    with raises(f"Give the one you want, perhaps {path}/0, {path}/1."):
        open_slide(path)
    assert open_slide(path / "1").shape == shape
    group_of(tmp_path / "well", {"well": {"images": [{"path": "0"}]}}, version=version)
    group_of(tmp_path / "well/0", {"multiscales": scales()}, version=version, s0=shape)
    assert open_slide(tmp_path / "well").shape == shape


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({}, "Give the one you want, perhaps {path}/link, {path}/s0, {path}/s1, {path}/t."),
        ({"plate": {"wells": [{"path": "A/1"}]}}, "perhaps {path}/A/1/0."),
        ({"multiscales": scales("s0") + scales("s1")}, "perhaps {path}/s0, {path}/s1."),
        ({"multiscales": scales("../b.zarr")}, "the path '../b.zarr' leads out of its folder."),
        ({"multiscales": scales("link")}, "the path 'link' leads out of its folder."),
        ({"multiscales": scales("t")}, "its first level 't' is no array."),
        ({"multiscales": scales("s0", "zyx")}, "it must hold one image of rows, columns"),
        ({"multiscales": scales("s0", "yx")}, "it must hold one image of rows, columns"),
        ({"multiscales": [{}]}, "cannot be read as an image: "),
        ({"multiscales": 3}, "cannot be read as an image: "),
    ],
)
def test_groups_that_hold_no_one_image(tmp_path, attributes, text):
    path = tmp_path / "a.zarr"
    group_of(path, attributes, s0=PIXELS.shape, s1=(60, 80, 2))
    write_zarr(tmp_path / "b.zarr")
    (path / "link").symlink_to(tmp_path / "b.zarr")
    (path / "t").mkdir()
    (path / "t" / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".hidden").mkdir()
    with raises(text.format(path=path)):
        open_slide(path)


def test_an_empty_zarr_folder(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with raises("there is no Zarr array or group in"):
        open_slide(tmp_path / "a.zarr")


def test_axes_of_ome_zarr_are_what_they_are_called(tmp_path):
    first = np.ascontiguousarray(np.moveaxis(PIXELS[:, :4], -1, 0))
    for name, axes, chunk in (("a", "cyx", first), ("b", "xy", PIXELS[..., 0].T)):
        group_of(tmp_path / name, {"multiscales": scales(axes=axes)})
        shape = {"shape": chunk.shape, "chunks": chunk.shape}
        write_zarr(tmp_path / name / "s0", chunk.tobytes(), **shape)
    assert np.array_equal(open_slide(tmp_path / "a")[3:9], PIXELS[3:9, :4])
    assert np.array_equal(open_slide(tmp_path / "b")[3:9][..., 0], PIXELS[3:9, :, 0])


def test_pixel_sizes_of_ome_zarr(tmp_path):
    axes = [{"name": "y", "unit": "nanometer"}, {"name": "x", "unit": "micrometer"}]
    level = {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [200, 0.05]}]}
    whole = [{"type": "scale", "scale": [2, 2]}, {"type": "translation", "translation": [1, 1]}]
    multiscales = [{"axes": axes, "datasets": [level], "coordinateTransformations": whole}]
    group_of(tmp_path / "a", {"multiscales": multiscales}, s0=(60, 80))
    assert open_slide(tmp_path / "a").pixel_sides == pytest.approx((0.4, 0.1))


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
    assert open_slide(tmp_path / "a.png").pixel_size is None


@pytest.mark.parametrize("suffix", ["svs", "ndpi", "scn", "bif", "btf", "qptiff"])
def test_a_tiff_is_read_whatever_scanner_its_name_speaks_of(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    metadata = {"resolution": (1e5, 1e5), "resolutionunit": "CENTIMETER", "tile": (16, 16)}
    tifffile.imwrite(file, PIXELS, photometric="rgb", **metadata)
    slide = open_slide(file)
    assert np.array_equal(slide[:], PIXELS)
    assert slide.pixel_size == pytest.approx(0.1)
    assert list_images(tmp_path) == [file]
