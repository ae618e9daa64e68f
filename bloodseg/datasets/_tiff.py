"""TIFF and OME-TIFF, read by rows and columns from the tiles that hold them."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import tifffile

from .._images import check_orientation
from ._bounds import check_part, check_size, check_unpacked
from ._pixel_size import in_micrometres, pixel_sides, sides_of_aperio
from ._slide import Slide, read_whole, unknown_layout
from ._xml import parse_xml

_MOST_PAGES = 256
_REDUCED, _MASK = 1, 4  # bits of the tag NewSubfileType
_BESIDE_THE_IMAGE = re.compile("thumbnail|label|macro|overview|map|probability", re.IGNORECASE)
_SCANNERS = ("svs", "ndpi", "scn", "bif", "qpi", "philips")
_PACKINGS = {8: "zlib", 32946: "zlib", 34925: "lzma"}
# Strips of rows that are read one after the other share tiles: a row of those of most slides.
_KEPT_BYTES = 2**27
# What tifffile unpacks without imagecodecs: nothing, PackBits, and what Python itself can.
_PLAIN = {1, 8, 32773, 32946, 34925}


def open_tiff(file: Path, name: str) -> Slide:
    """Open the one image of a TIFF; of what only Pillow knows the colours, decode it."""
    with _open(file) as tiff:
        pages = _pages_of(tiff)
        index, planes, axes, shape = _the_image(tiff, pages)
        page = planes[0]
        sides = _sides_of(tiff, page, index)
        orientation = check_orientation(page.tags.valueof("Orientation"))
        check_size(page.imagelength, page.imagewidth, file.stat().st_size)
    if not _decodes_to_colours(page):
        return read_whole(file, name, sides)
    separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    channels_last = page.axes[-1] == "S"
    if len(planes) == 1 and separate and page.ndim == 3:
        n_channels, *size = page.shape
        readers = [_SegmentReader(page, name, plane) for plane in range(n_channels)]
    elif len(planes) == 1 and not separate and page.ndim == 2 + channels_last:
        size, n_channels = page.shape[:2], page.samplesperpixel
        readers = [_SegmentReader(page, name)]
    elif len(planes) == 3 and axes.replace("Q", "")[:1] == "C" and page.ndim == 2:
        size, n_channels = page.shape, 3
        readers = [_SegmentReader(each, name) for each in planes]
    else:
        raise unknown_layout(shape, axes)
    if n_channels == 4 and page.extrasamples[:1] == (tifffile.EXTRASAMPLE.UNSPECIFIED,):
        n_channels = 3  # near infrared, a stain of its own: anything but alpha
    if not _can_be_unpacked(page):
        try:
            return read_whole(file, name, sides)
        except ValueError:  # Pillow cannot unpack it either; reading says which package can
            pass
    lock = Lock()

    def read(rows: slice, columns: slice) -> np.ndarray:
        # Closed in between: a list of slides would use up the files that a process may open.
        with lock:
            page.parent.filehandle.open()
            try:
                planes = [reader.read(rows, columns) for reader in readers]
            finally:
                page.parent.filehandle.close()
        pixels = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)
        return pixels[..., :n_channels]

    return Slide(read, (*size, n_channels), page.dtype, sides, name, orientation)


def _open(file: Path) -> tifffile.TiffFile:
    """Open a TIFF for its own pixels only: the metadata of an OME-TIFF may name any other file.

    Whether it is Hamamatsu's, with longer offsets, its first page says, not its name.
    """
    tiff = tifffile.TiffFile(file, _multifile=False, is_ndpi=False)
    try:
        is_ndpi = tiff.pages[0].aspage().is_ndpi
    except IndexError:
        is_ndpi = False  # there is no page
    if not is_ndpi:
        return tiff
    tiff.close()
    return tifffile.TiffFile(file, _multifile=False, is_ndpi=True)


def _pages_of(tiff: tifffile.TiffFile) -> list[tifffile.TiffPage]:
    """Return the pages of a file, of which not more are looked for than there may be."""
    pages: list[Any] = []
    while True:
        try:
            page = tiff.pages[len(pages)]
        except IndexError:
            return pages
        if len(pages) == _MOST_PAGES:
            raise ValueError(
                f"it holds more than {_MOST_PAGES} images. Save the image you want on its own."
            )
        pages.append(page.aspage())


def _the_image(
    tiff: tifffile.TiffFile, pages: list[tifffile.TiffPage]
) -> tuple[int, Sequence[Any], str, tuple[int, ...]]:
    """Return the one image of a file: its number, its pages, their axes and shape."""
    whole = [page for page in pages if not page.subfiletype & (_REDUCED | _MASK)]
    if not whole:
        raise ValueError("it holds only reduced images. Save the whole image on its own.")
    if len(whole) == 1:
        _check_is_all(tiff, pages, whole[0])
        return 0, whole, whole[0].axes, whole[0].shape
    scanned = any(getattr(tiff, f"is_{each}", False) for each in _SCANNERS)
    if not (scanned or tiff.is_ome or tiff.is_imagej or tiff.is_shaped):
        raise _several(whole)
    if tiff.is_ome:
        parse_xml(_ome_of(tiff), name="its OME-XML")  # before a parser that expands entities
    planes = [[page.aspage() for page in each.pages if page is not None] for each in tiff.series]
    found = [
        index
        for index, series in enumerate(tiff.series)
        if not (_BESIDE_THE_IMAGE.search(series.name or "") or series.keyframe.is_reduced)
    ]
    if len(found) != 1 or (not scanned and sum(map(len, planes)) < len(whole)):
        raise _several(whole)
    series = tiff.series[found[0]]
    return found[0], planes[found[0]], series.axes, series.shape


def _check_is_all(
    tiff: tifffile.TiffFile, pages: list[tifffile.TiffPage], page: tifffile.TiffPage
) -> None:
    """Raise where a page is followed by images that have no page, as ImageJ writes large stacks."""
    if len(pages) > 1 or not (tiff.is_imagej or tiff.is_shaped or tiff.is_stk):
        return
    series = tiff.series[0]
    if series.size > np.prod(page.shape, dtype=object):
        raise unknown_layout(series.shape, series.axes)


def _several(pages: Sequence[tifffile.TiffPage]) -> ValueError:
    sizes = ", ".join(f"{page.imagelength} x {page.imagewidth}" for page in pages[:4])
    return ValueError(
        f"it holds {len(pages)} pages ({sizes}{', ...' if len(pages) > 4 else ''} pixels) that are "
        "not known to be one image. Save the page you want as a file of its own."
    )


def _decodes_to_colours(page: tifffile.TiffPage) -> bool:
    """Return whether the values of a page, as tifffile decodes them, are shades of grey or RGB."""
    if page.photometric == tifffile.PHOTOMETRIC.YCBCR:  # which only JPEG decoders turn into RGB
        return page.compression in (tifffile.COMPRESSION.OJPEG, tifffile.COMPRESSION.JPEG)
    if page.bitspersample not in (8, 16, 32, 64):
        return False
    if page.photometric == tifffile.PHOTOMETRIC.RGB:
        return page.samplesperpixel in (3, 4)
    return page.photometric == tifffile.PHOTOMETRIC.MINISBLACK and page.samplesperpixel != 2


def _can_be_unpacked(page: tifffile.TiffPage) -> bool:
    plain = page.compression in _PLAIN and page.predictor in (1, 2)
    return plain or find_spec("imagecodecs") is not None


class _SegmentReader:
    """Pixels of a page, or of one of its colours, decoded from its tiles or strips."""

    def __init__(self, page: tifffile.TiffPage, name: str, plane: int | None = None):
        self._page = page
        self._name = name
        self._plane = plane or 0
        self._n_samples = page.samplesperpixel if plane is None else 1
        self._height = (
            page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength)
        )
        self._width = page.tilewidth if page.is_tiled else page.imagewidth
        n_values = self._height * self._width * self._n_samples
        self.n_bytes = n_values * np.dtype(page.dtype).itemsize
        self._checked: set[int] = set()
        if not page.is_memmappable:
            check_part(self.n_bytes, "tiles or strips")

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        page = self._page
        size = rows.stop - rows.start, columns.stop - columns.start
        result = np.zeros((*size, self._n_samples), page.dtype)
        if page.is_memmappable:  # uncompressed: a single strip may be the whole image
            self._read_raw(rows, columns, result)
            return result
        across = -(-page.imagewidth // self._width)
        first_index = self._plane * across * -(-page.imagelength // self._height)
        for down, right in product(_covering(rows, self._height), _covering(columns, self._width)):
            index = first_index + down * across + right
            segment, (_, _, top, left, _), shape = _recent.segment(self, index)
            if segment is None:  # left out: nothing but the fill value
                continue
            first, last = max(rows.start, top), min(rows.stop, top + shape[1])
            near, far = max(columns.start, left), min(columns.stop, left + shape[2])
            piece = segment[0, first - top : last - top, near - left : far - left]
            place = slice(near - columns.start, far - columns.start)
            result[first - rows.start : last - rows.start, place] = piece
        return result

    def _read_raw(self, rows: slice, columns: slice, result: np.ndarray) -> None:
        page, handle = self._page, self._page.parent.filehandle
        dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
        pixel = self._n_samples * dtype.itemsize
        first_row = self._plane * page.imagelength
        for row, line in enumerate(result, start=first_row + rows.start):
            start = row * page.imagewidth + columns.start
            handle.seek(page.dataoffsets[0] + start * pixel)
            data = handle.read(len(line) * pixel)
            if len(data) < len(line) * pixel:
                raise ValueError("it is cut off.")
            line[:] = np.frombuffer(data, dtype).reshape(line.shape)

    def decode(self, index: int) -> Any:
        """Return a tile or strip as tifffile does: its pixels, their place, and their shape."""
        page = self._page
        data = None
        if page.databytecounts[index]:
            handle = page.parent.filehandle
            handle.seek(page.dataoffsets[index])
            # No more than there is: memory for what the header declares would be had first.
            data = handle.read(min(page.databytecounts[index], handle.size))
            packing = _PACKINGS.get(page.compression)
            if packing and index not in self._checked:
                check_unpacked(packing, data, len(data), self.n_bytes)
                self._checked.add(index)
        try:
            return page.decode(data, index, jpegtables=page.jpegtables)
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise ImportError(
                f"{self._name} is compressed in a way that needs the package imagecodecs: "
                "pip install 'bloodseg[slides]'."
            ) from error


def _covering(pixels: slice, side: int) -> range:
    """Return the tiles along an axis that hold any of these pixels."""
    return range(pixels.start // side, -(-pixels.stop // side))


class _RecentSegments:
    """The tiles and strips that were decoded last, of all slides together: a list may hold many."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[tuple[_SegmentReader, int], Any] = OrderedDict()
        self._n_bytes = 0

    def segment(self, reader: _SegmentReader, index: int) -> Any:
        """Return a segment, decoded again only if it is not among the last ones."""
        key = reader, index
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        segment = reader.decode(index)  # other slides may be read meanwhile
        with self._lock:
            if key not in self._kept:  # another thread may have been faster
                self._kept[key] = segment
                self._n_bytes += reader.n_bytes
            while self._n_bytes > _KEPT_BYTES:
                (oldest, _), _ = self._kept.popitem(last=False)
                self._n_bytes -= oldest.n_bytes
        return segment


_recent = _RecentSegments()


def _sides_of(
    tiff: tifffile.TiffFile, page: tifffile.TiffPage, index: int
) -> tuple[float, float] | None:
    """Return height and width of the pixels of an image, the file's ``index``-th."""
    if tiff.is_ome and tiff.ome_metadata:
        sides = _sides_of_ome(tiff, index)
        if sides is not None:
            return sides
    if tiff.is_svs:
        sides = sides_of_aperio(page.description)
        if sides is not None:
            return sides
    unit = {2: "inch", 3: "cm"}.get(int(page.tags.valueof("ResolutionUnit") or 0), "")
    if tiff.is_imagej and tiff.imagej_metadata:
        unit = str(tiff.imagej_metadata.get("unit", unit)).replace("\\u00B5", "µ")
    return pixel_sides(*(_side(page.tags.valueof(f"{axis}Resolution"), unit) for axis in "YX"))


def _side(resolution: Any, unit: str) -> float | None:
    """Return the side of a pixel from how many there are to a unit, a fraction."""
    if not resolution or not all(resolution):
        return None
    numerator, denominator = resolution
    return in_micrometres(denominator / numerator, unit)


def _ome_of(tiff: tifffile.TiffFile) -> bytes:
    return str(tiff.ome_metadata).encode()


def _sides_of_ome(tiff: tifffile.TiffFile, index: int) -> tuple[float, float] | None:
    root = parse_xml(_ome_of(tiff), name="its OME-XML")
    found = [each for each in root.iter() if each.tag.endswith("}Pixels")]
    if not index < len(found):
        return None
    given = found[index].attrib
    return pixel_sides(
        *(
            in_micrometres(
                given.get(f"PhysicalSize{axis}"), given.get(f"PhysicalSize{axis}Unit", "µm")
            )
            for axis in "YX"
        )
    )
