"""Images that need not fit into memory: TIFF, OME-TIFF and Zarr, read by strips of rows."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from ._files import read_image

_TIFF = (".tif", ".tiff")
_ZARR = ("zarr.json", ".zarray", ".zgroup")  # one of them lies in the folder of an array or group
_TO_MICROMETRES = {
    **dict.fromkeys(("µm", "μm", "um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    "inch": 25400.0,
}
_COARSEST = 10  # micrometres: more is no microscope but a screen's "72 pixels an inch"


class Slide:
    """An image in a file, of which only the rows that are asked for are read.

    Made by `open_slide`.

    Attributes
    ----------
    shape : (int, int, int)
        Height, width and channels.
    dtype : dtype
        Of the pixels.
    pixel_size : float or None
        Side of a pixel in micrometres, where the file says so.
    name : str
        The path, as it was given.
    """

    def __init__(
        self,
        read: Callable[[int, int], np.ndarray],
        shape: tuple[int, ...],
        dtype: Any,
        pixel_size: float | None,
        name: str,
    ):
        self._read = read
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.pixel_size = pixel_size
        self.name = name

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return rows as an array (h, W, C); a ValueError where the file is damaged there."""
        start, stop, step = rows.indices(self.shape[0])
        try:
            strip = self._read(start, stop)
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # of damaged files decoders raise nearly anything
            raise ValueError(
                f"{self.name} cannot be read from row {start} to {stop}; it is perhaps damaged: "
                f"{error}"
            ) from error
        return strip[::step]

    def __repr__(self) -> str:
        height, width = self.shape[:2]
        return f"<Slide {self.name}: {height} x {width} pixels of {self.dtype}>"


def open_slide(path: str | os.PathLike) -> Slide:
    """Open an image of any size without reading its pixels.

    Parameters
    ----------
    path : str or path-like
        A TIFF or OME-TIFF (of a pyramid, the finest level), a Zarr array or OME-Zarr folder
        (``*.zarr``), or any image that `read_image` takes, which is then read whole, as are TIFFs
        with a palette or other ways to write colours. Grey, RGB or RGBA, channels first or last.

    Returns
    -------
    Slide
        ``slide[top:bottom]`` are rows of pixels, as the file holds them. TIFFs are open only
        while rows are read.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If a package of the extra ``slides`` is missing.
    ValueError
        If the file is no image, or one of several channels, times or depths; in reading rows, if
        it is damaged there.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np, tifffile
    >>> from bloodseg.datasets import open_slide
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tifffile.imwrite(f"{folder}/a.ome.tif", np.zeros((50, 60, 3), np.uint8),
    ...                      metadata={"PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "µm"})
    ...     slide = open_slide(f"{folder}/a.ome.tif")
    ...     slide[10:20].shape, slide.pixel_size
    ((10, 60, 3), 0.1)
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise FileNotFoundError(f"{path} does not exist.")
    if file.is_dir():
        if file.suffix != ".zarr" and not any((file / name).exists() for name in _ZARR):
            raise ValueError(
                f"{path} is a folder, and no Zarr one. Give its images, for instance those of "
                "bloodseg.datasets.list_images."
            )
        return _open_zarr(file, str(path))
    if file.suffix.lower() in _TIFF:
        return _open_tiff(file, str(path))
    return _read_whole(file, str(path), None)


def _read_whole(file: Path, name: str, pixel_size: float | None) -> Slide:
    pixels = read_image(file)
    return Slide(
        lambda start, stop: pixels[start:stop], pixels.shape, pixels.dtype, pixel_size, name
    )


def _open_tiff(file: Path, name: str) -> Slide:
    try:
        with tifffile.TiffFile(file) as tiff:
            series = tiff.series[0]
            planes = [page.aspage() for page in series.pages if page is not None]
            axes, shape = series.axes, series.shape
            pixel_size = _pixel_size_of_tiff(tiff, planes[0])
    except Exception as error:  # of damaged files, nearly anything
        raise ValueError(f"{name} cannot be read as a TIFF: {error}") from error
    page = planes[0]
    if not _decodes_to_colours(page):
        return _read_whole(file, name, pixel_size)
    separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    channels_last = axes[-1] == "S"
    if len(planes) == 1 and separate and page.ndim == 3:
        n_channels, *sides = page.shape
        readers = [_SegmentReader(page, name, plane) for plane in range(n_channels)]
    elif len(planes) == 1 and not separate and page.ndim == 2 + channels_last:
        sides, n_channels = page.shape[:2], page.samplesperpixel
        readers = [_SegmentReader(page, name)]
    elif len(planes) == 3 and axes[0] == "C" and page.ndim == 2:
        sides, n_channels = page.shape, 3
        readers = [_SegmentReader(each, name) for each in planes]
    else:
        raise _unknown_layout(name, shape, axes)
    lock = Lock()

    def read(start: int, stop: int) -> np.ndarray:
        # Closed in between: a list of slides would use up the files that a process may open.
        with lock:
            page.parent.filehandle.open()
            try:
                strips = [reader.rows(start, stop) for reader in readers]
            finally:
                page.parent.filehandle.close()
        return strips[0] if len(strips) == 1 else np.concatenate(strips, axis=-1)

    return Slide(read, (*sides, n_channels), page.dtype, pixel_size, name)


def _decodes_to_colours(page: tifffile.TiffPage) -> bool:
    """Return whether the values of a page, as tifffile decodes them, are shades of grey or RGB."""
    if page.photometric == tifffile.PHOTOMETRIC.YCBCR:  # which only JPEG decoders turn into RGB
        return page.compression in (tifffile.COMPRESSION.OJPEG, tifffile.COMPRESSION.JPEG)
    return page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)


class _SegmentReader:
    """Rows of a page, or of one of its colours, decoded from the tiles or strips that hold them."""

    def __init__(self, page: tifffile.TiffPage, name: str, plane: int | None = None):
        self._page = page
        self._name = name
        self._plane = plane or 0
        self._n_samples = page.samplesperpixel if plane is None else 1

    def rows(self, start: int, stop: int) -> np.ndarray:
        if self._page.is_memmappable:  # uncompressed: a single strip may be the whole image
            return self._raw_rows(start, stop)
        page = self._page
        height = page.tilelength if page.is_tiled else page.rowsperstrip
        across = -(-page.imagewidth // page.tilewidth) if page.is_tiled else 1
        first_index = self._plane * across * -(-page.imagelength // height)
        result = np.zeros((stop - start, page.imagewidth, self._n_samples), page.dtype)
        for index in range(start // height * across, -(-stop // height) * across):
            segment, (_, _, top, left, _), shape = self._segment(first_index + index)
            if segment is None:  # left out: nothing but the fill value
                continue
            first, last = max(start, top), min(stop, top + shape[1])
            width = min(shape[2], page.imagewidth - left)
            piece = segment[0, first - top : last - top, :width]
            result[first - start : last - start, left : left + width] = piece
        return result

    def _raw_rows(self, start: int, stop: int) -> np.ndarray:
        page = self._page
        dtype = np.dtype(page.dtype).newbyteorder(page.parent.byteorder)
        row = page.imagewidth * self._n_samples * dtype.itemsize
        handle = page.parent.filehandle
        handle.seek(page.dataoffsets[0] + (self._plane * page.imagelength + start) * row)
        data = handle.read((stop - start) * row)
        if len(data) < (stop - start) * row:
            raise ValueError("it is cut off.")
        pixels = np.frombuffer(data, dtype).reshape(-1, page.imagewidth, self._n_samples)
        return pixels.astype(page.dtype, copy=False)

    def _segment(self, index: int) -> Any:
        page = self._page
        data = None
        if page.databytecounts[index]:
            handle = page.parent.filehandle
            handle.seek(page.dataoffsets[index])
            data = handle.read(page.databytecounts[index])
        try:
            return page.decode(data, index, jpegtables=page.jpegtables)
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            raise ImportError(
                f"{self._name} is compressed in a way that needs the package imagecodecs: "
                "pip install 'bloodseg[slides]'."
            ) from error


def _pixel_size_of_tiff(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> float | None:
    if tiff.is_ome and tiff.ome_metadata:
        root = ElementTree.fromstring(tiff.ome_metadata)
        pixels = next((each for each in root.iter() if each.tag.endswith("}Pixels")), None)
        if pixels is not None and "PhysicalSizeX" in pixels.attrib:
            unit = pixels.get("PhysicalSizeXUnit", "µm")
            return _in_micrometres(float(pixels.attrib["PhysicalSizeX"]), unit)
    tags = {name: page.tags.valueof(name) for name in ("XResolution", "ResolutionUnit")}
    if not tags["XResolution"] or not all(tags["XResolution"]):
        return None
    unit = {2: "inch", 3: "cm"}.get(int(tags["ResolutionUnit"] or 0), "")
    if tiff.is_imagej and tiff.imagej_metadata:
        unit = str(tiff.imagej_metadata.get("unit", unit)).replace("\\u00B5", "µ")
    numerator, denominator = tags["XResolution"]
    return _in_micrometres(denominator / numerator, unit)


def _in_micrometres(size: float, unit: str) -> float | None:
    micrometres = size * _TO_MICROMETRES.get(unit.lower(), 0)
    return micrometres if 0 < micrometres <= _COARSEST else None


def _open_zarr(file: Path, name: str) -> Slide:
    try:
        import zarr
    except ImportError as error:
        raise ImportError(
            f"{name} is a folder, taken for Zarr, which needs the package zarr: "
            "pip install 'bloodseg[slides]'."
        ) from error
    try:
        node: Any = zarr.open(str(file), mode="r")
        pixel_size = None
        if not hasattr(node, "shape"):
            attributes = node.attrs.get("ome", node.attrs)
            multiscale = attributes["multiscales"][0]
            pixel_size = _pixel_size_of_zarr(multiscale)
            node = node[multiscale["datasets"][0]["path"]]
    except Exception as error:  # zarr's errors differ from version to version
        raise ValueError(
            f"{name} must be a Zarr array or an OME-Zarr image; zarr says: {error}"
        ) from error
    return _slide_of_zarr(node, pixel_size, name)


def _slide_of_zarr(node: Any, pixel_size: float | None, name: str) -> Slide:
    """Find rows, columns and channels among the axes of an array; others have length 1."""
    if node.ndim < 2:
        raise _unknown_layout(name, node.shape, "")
    if node.ndim == 2:
        rows, columns, channels = 0, 1, None
    elif node.shape[-1] in (1, 3, 4):
        rows, columns, channels = node.ndim - 3, node.ndim - 2, node.ndim - 1
    else:
        rows, columns = node.ndim - 2, node.ndim - 1
        channels = next((axis for axis in range(rows) if node.shape[axis] in (3, 4)), None)
    if any(
        length > 1
        for axis, length in enumerate(node.shape)
        if axis not in (rows, columns, channels)
    ):
        raise _unknown_layout(name, node.shape, "")

    def read(start: int, stop: int) -> np.ndarray:
        place: list[Any] = [0] * node.ndim
        for axis in (rows, columns, channels):
            if axis is not None:
                place[axis] = slice(start, stop) if axis == rows else slice(None)
        strip = np.asarray(node[tuple(place)])
        if channels is None:
            return strip[..., np.newaxis]
        return np.moveaxis(strip, 0, -1) if channels < rows else strip

    n_channels = 1 if channels is None else node.shape[channels]
    shape = (node.shape[rows], node.shape[columns], n_channels)
    return Slide(read, shape, node.dtype, pixel_size, name)


def _pixel_size_of_zarr(multiscale: Any) -> float | None:
    axes = multiscale.get("axes", [])
    for transformation in multiscale["datasets"][0].get("coordinateTransformations", []):
        for axis, scale in zip(axes, transformation.get("scale", []), strict=False):
            if isinstance(axis, dict) and axis.get("name") == "x":
                return _in_micrometres(float(scale), str(axis.get("unit", "")))
    return None


def _unknown_layout(name: str, shape: Any, axes: str) -> ValueError:
    return ValueError(
        f"{name} must hold one image of rows, columns and 1, 3 or 4 channels; got shape "
        f"{tuple(shape)}{f', axes {axes}' if axes else ''}. Save the image you want on its own."
    )
