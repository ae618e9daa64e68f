"""TIFFs: which of their images is the one, whose pixels they show, and how large a pixel is."""

import os
import struct

import numpy as np
import pytest
import tifffile
from messages import raises
from PIL import Image

from bloodseg.datasets import list_images, open_slide, read_image
from bloodseg.datasets._tiff import _RecentSegments, _SegmentReader

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
SMALL = PIXELS[::4, ::4]


def write_pages(path, *pages, **settings):
    with tifffile.TiffWriter(path, **settings) as file:
        for pixels, options in pages:
            file.write(pixels, photometric="rgb", **{"metadata": None, **options})


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


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_strip_that_is_said_to_be_longer_than_the_file(tmp_path, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, bigtiff=True, compression=compression)
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].tags["StripByteCounts"].overwrite(2**60, dtype="Q")
    assert np.array_equal(read_image(path), PIXELS)  # and no MemoryError


@pytest.mark.parametrize("suffix", ["svs", "ndpi", "scn", "bif", "btf", "qptiff"])
def test_a_tiff_is_read_whatever_scanner_its_name_speaks_of(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    metadata = {"resolution": (1e5, 1e5), "resolutionunit": "CENTIMETER", "tile": (16, 16)}
    tifffile.imwrite(file, PIXELS, photometric="rgb", **metadata)
    slide = open_slide(file)
    assert np.array_equal(slide[:], PIXELS)
    assert slide.pixel_size == pytest.approx(0.1)
    assert list_images(tmp_path) == [file]


@pytest.mark.parametrize("compression", [None, "zlib", "packbits"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("fourth", ["unspecified", "unassalpha"])
def test_a_fourth_channel_is_alpha_where_it_is_said_to_be(tmp_path, fourth, planes, compression):
    """Near infrared, or a channel that is empty, would make cells transparent."""
    pixels = np.dstack([PIXELS, np.full(PIXELS.shape[:2], 30, np.uint8)])
    path = tmp_path / "four.tif"
    tifffile.imwrite(
        path,
        pixels if planes == "contig" else np.moveaxis(pixels, -1, 0),
        photometric="rgb",
        planarconfig=planes,
        extrasamples=[fourth],
        compression=compression,
        metadata=None,
    )
    slide = open_slide(path)
    expected = PIXELS if fourth == "unspecified" else pixels
    assert slide.shape == expected.shape
    assert np.array_equal(slide[10:40], expected[10:40])


def test_tiles_that_strips_of_rows_share_are_unpacked_once(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (192, 100, 3)).astype(np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, tile=(64, 64), compression="zlib", photometric="rgb"
    )
    decoded, decode = [], tifffile.TiffPage.decode.func

    def noted(page):
        def note(data, index, **options):
            decoded.append(index)
            return decode(page)(data, index, **options)

        return note

    monkeypatch.setattr(tifffile.TiffPage, "decode", property(noted))
    slide = open_slide(tmp_path / "a.tif")
    for start in range(0, 192, 30):
        assert np.array_equal(slide[start : start + 50], pixels[start : start + 50])
    assert decoded == [0, 1, 2, 3, 4, 5]
    two = [open_slide(tmp_path / "a.tif") for _ in range(2)]
    monkeypatch.setattr("bloodseg.datasets._tiff._KEPT_BYTES", 3 * pixels[:64, :64].nbytes)
    decoded.clear()
    for slide in (*two, *two):  # no more of all slides together
        assert np.array_equal(slide[:64], pixels[:64])
    assert decoded == [0, 1] * 4
    for kept in (0, 3 * pixels[:64, :64].nbytes):  # no more of them than memory set aside holds
        monkeypatch.setattr("bloodseg.datasets._tiff._KEPT_BYTES", kept)
        decoded.clear()
        slide = open_slide(tmp_path / "a.tif")
        for start in (0, 64, 0):
            assert np.array_equal(slide[start : start + 64], pixels[start : start + 64])
        assert decoded == [0, 1, 2, 3, 0, 1]


def test_only_the_tiles_that_hold_a_rectangle_are_decoded(tmp_path, monkeypatch):
    decoded = []
    decode = _SegmentReader.decode
    monkeypatch.setattr(
        _SegmentReader, "decode", lambda self, index: decoded.append(index) or decode(self, index)
    )
    write_pages(tmp_path / "a.tif", (PIXELS, {"tile": (16, 16), "compression": "zlib"}))
    slide = open_slide(tmp_path / "a.tif")
    assert np.array_equal(slide[20:40, 31:33], PIXELS[20:40, 31:33])
    assert decoded == [6, 7, 11, 12]  # of five a row


def test_a_tile_that_two_threads_decode_at_once_is_kept_once(monkeypatch):
    monkeypatch.setattr("bloodseg.datasets._tiff._KEPT_BYTES", 25)
    recent = _RecentSegments()

    class Reader:
        n_bytes = 10
        decoded = ()

        def decode(self, index):
            self.decoded = (*self.decoded, index)
            if self.decoded.count(index) == 1:  # another thread is at it, too, and faster
                recent.segment(self, index)
            return index

    reader = Reader()
    for index in (0, 1, 2, 2, 1):  # two of them fit
        assert recent.segment(reader, index) == index
    assert reader.decoded == (0, 0, 1, 1, 2, 2)
