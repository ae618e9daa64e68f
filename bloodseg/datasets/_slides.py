"""The front door for images in files, which need not fit into memory: read by strips of rows."""

from __future__ import annotations

import os
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .._files import expanded
from .._images import turned
from ._bounds import check_whole_size
from ._decoding import format_of
from ._files import check_file, is_zarr, read_start
from ._slide import Slide, as_rgb, read_whole
from ._tiff import open_tiff
from ._zarr import open_zarr

__all__ = ["Slide", "open_slide", "read_as_drawn_on", "read_image"]


def open_slide(path: str | os.PathLike) -> Slide:
    """Open an image of any size without reading its pixels.

    Parameters
    ----------
    path : str or path-like
        A TIFF or OME-TIFF (of a pyramid, the finest level; of a scanner's slide, such as Aperio's
        ``*.svs``, the slide and not its label), a Zarr array or OME-Zarr folder, or a PNG, JPEG,
        BMP or HEIC of at most 2**27 pixels (11,585 x 11,585), which is read whole, as are TIFFs
        with a palette or other ways to write colours. What a file is its first bytes say, not its
        name. Grey, RGB or RGBA, channels first or last.

    Returns
    -------
    Slide
        ``slide[top:bottom]`` are rows of pixels, as the file holds them, and
        ``slide[top:bottom, left:right]`` a rectangle. TIFFs are open only while they are read.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If a package of the extra ``slides`` or ``heic`` is missing.
    ValueError
        If the file is no image, or one of several images, channels, times or depths; or asks for
        more work than a file of its size can be worth; in reading rows, if it is damaged there.

    Notes
    -----
    Files may come from anywhere. An OME-TIFF that names other files shows its own pixels only.
    Zarr is read where its codecs are known to do nothing but unpack, and links do not lead out of
    its folder.

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
    return _open_as(expanded(path), str(path))


def _open_as(file: Path, name: str) -> Slide:
    """Open a slide that messages call by a name."""
    if file.is_dir() and not is_zarr(file):
        raise ValueError(
            f"{name} is a folder, and no image in Zarr format. Pass the images in it: "
            f"bloodseg.datasets.list_images({name!r})."
        )
    start = b"" if file.is_dir() else read_start(file)
    read = open_zarr if file.is_dir() else open_tiff if format_of(start) == "TIFF" else read_whole
    try:
        slide = read(file, name)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # of damaged files decoders raise nearly anything
        raise ValueError(f"{name} cannot be read as an image: {error}") from error
    # Another process may be in another folder.
    slide._open_again = partial(_open_as, file.absolute(), name)
    return slide


def read_image(path: str | os.PathLike, *, upright: bool = False) -> np.ndarray:
    """Read an image file as RGB.

    Grey is repeated, transparency laid over white, palettes are looked up.

    Parameters
    ----------
    path : str or path-like
        What `open_slide` takes, of at most 2**27 pixels (11,585 x 11,585).
    upright : bool
        Turn the image as its EXIF data say it is to be shown. By default pixels come in the order
        in which they are stored, as masks expect.

    Returns
    -------
    ndarray of shape (H, W, 3)
        uint8; or float32 in [0, 1] if the file holds 16 bits a channel or fractions.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If a package of the extra ``slides`` or ``heic`` is missing.
    ValueError
        If the file is not an image, cut off, too large, or holds several images.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from skimage.io import imsave
    >>> from bloodseg.datasets import read_image
    >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
    ...     imsave(file.name, np.full((4, 6), 7, np.uint8), check_contrast=False)
    ...     read_image(file.name).shape
    (4, 6, 3)
    """
    pixels, orientation = _read_as_stored(path)
    return turned(pixels, orientation) if upright else pixels


def _read_as_stored(path: str | os.PathLike) -> tuple[np.ndarray, int]:
    """Return the pixels of an image file as RGB, and how they are turned to be shown."""
    file = expanded(path)
    if not is_zarr(file):
        check_file(file)
    slide = open_slide(path)
    try:
        check_whole_size(*slide.shape[:2])
        whole = slice(0, slide.shape[0]), slice(0, slide.shape[1])
        return as_rgb(slide.read(*whole)), slide.orientation
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # as in open_slide
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def read_as_drawn_on(
    file: Path, size: tuple[Any, Any] | None, *, told_by: Path | None = None
) -> np.ndarray:
    """Read an image as it was when something was drawn on it.

    Tools show images turned as their EXIF data say; earlier ones did not, which the size tells
    that they noted, if turning changes it.

    Parameters
    ----------
    file : Path
        The image.
    size : (int, int) or None
        Height and width, as they were noted.
    told_by : Path, optional
        The file that notes the size, which a warning names where that does not tell; left out for
        tools that are known to turn images.

    Returns
    -------
    ndarray of shape (H, W, 3)
        As from `read_image`; turned where the size does not tell.
    """
    pixels, orientation = _read_as_stored(file)
    shown = turned(pixels, orientation)
    if orientation == 1 or (size == pixels.shape[:2] and size != shown.shape[:2]):
        return pixels
    sure = size == shown.shape[:2] and size != pixels.shape[:2]
    if told_by is not None and not sure:
        warnings.warn(
            f"{file} is to be turned for display, as its EXIF data say, and {told_by} does not "
            "tell whether its annotations were drawn on it so, which is assumed. Save the image "
            "turned, without EXIF data, if they were not.",
            stacklevel=3,
        )
    return shown
