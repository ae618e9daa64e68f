"""An image in a file, read by rows and columns; how one that is decoded whole becomes such."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .._files import rectangle
from .._images import check_images, to_rgb
from ._bounds import MAX_IMAGE_BYTES
from ._decoding import decode
from ._files import read_bytes


class Slide:
    """An image in a file, of which only the rows and columns that are asked for are read.

    ``slide[top:bottom]`` are rows, ``slide[top:bottom, left:right]`` a rectangle.

    Made by `open_slide`. What is pickled, for another process, is where the file lies; it is opened
    there anew.

    Attributes
    ----------
    shape : (int, int, int)
        Height, width and channels.
    dtype : dtype
        Of the pixels.
    pixel_sides : (float, float) or None
        Height and width of a pixel in micrometres, where the file says so.
    pixel_size : float or None
        Side of a square pixel of the same area, in micrometres.
    pixel_aspect : float
        Height of a pixel over its width; 1 where they are not known.
    name : str
        The path, as it was given.
    orientation : int
        How viewers turn the pixels to show them, as EXIF has it: from 1, not at all, to 8. Here
        they come as they are stored.
    """

    def __init__(
        self,
        read: Callable[[slice, slice], np.ndarray],
        shape: tuple[int, ...],
        dtype: Any,
        pixel_sides: tuple[float, float] | None,
        name: str,
        orientation: int = 1,
    ):
        self.read = read
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.pixel_sides = pixel_sides
        self.name = name
        self.orientation = orientation
        self._open_again: Callable[[], Slide] | None = None

    def __reduce__(self) -> Any:
        if self._open_again is None:
            raise TypeError(
                f"{self!r} cannot be pickled, for it was made of pixels in memory. Give other "
                "processes the array, or save it to a file and open that by open_slide."
            )
        return self._open_again, ()

    @property
    def pixel_size(self) -> float | None:
        """Side of a square pixel of the same area, in micrometres."""
        if self.pixel_sides is None:
            return None
        height, width = self.pixel_sides
        return height if height == width else math.sqrt(height * width)

    @property
    def pixel_aspect(self) -> float:
        """Height of a pixel over its width; 1 where they are not known."""
        height, width = self.pixel_sides or (1.0, 1.0)
        return height / width

    def __getitem__(self, place: slice | tuple[slice, slice]) -> np.ndarray:
        """Return rows, or rows and columns, as an array (h, w, C).

        Raises
        ------
        IndexError
            If they are no slices that go forwards.
        ValueError
            If the file is damaged there.
        """
        rows, columns = rectangle(place, self.shape)
        try:
            pixels = self.read(slice(rows.start, rows.stop), slice(columns.start, columns.stop))
        except (ImportError, MemoryError):
            raise
        except Exception as error:  # of damaged files decoders raise nearly anything
            raise ValueError(
                f"{self.name} cannot be read from row {rows.start} to {rows.stop}; it is perhaps "
                f"damaged: {error}"
            ) from error
        return pixels[:: rows.step, :: columns.step]

    def __repr__(self) -> str:
        height, width = self.shape[:2]
        return f"<Slide {self.name}: {height} x {width} pixels of {self.dtype}>"


def read_whole(file: Path, name: str, pixel_sides: tuple[float, float] | None = None) -> Slide:
    """Return an image that is decoded here and now, as RGB, or RGBA where some is transparent."""
    pixels, sides, orientation = decode(read_bytes(file, limit=MAX_IMAGE_BYTES))
    if not is_transparent(pixels):
        pixels = as_rgb(pixels)
    return Slide(
        lambda rows, columns: pixels[rows, columns],
        pixels.shape,
        pixels.dtype,
        sides if pixel_sides is None else pixel_sides,
        name,
        orientation,
    )


def is_transparent(pixels: np.ndarray) -> bool:
    """Tell whether any decoded pixel is less than opaque."""
    if pixels.ndim != 3 or pixels.shape[2] != 4:
        return False
    opaque = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    return bool((pixels[..., 3] < opaque).any())


def as_rgb(pixels: np.ndarray) -> np.ndarray:
    """Return decoded pixels as RGB, in an array of their own."""
    check_images([pixels], name="pixels")
    return np.require(to_rgb(pixels), requirements=["C", "W"])


def unknown_layout(shape: Any, axes: str = "") -> ValueError:
    """Return the error for what is not one image."""
    return ValueError(
        "it must hold one image of rows, columns and 1, 3 or 4 channels; got shape "
        f"{tuple(shape)}{f', axes {axes}' if axes else ''}. Save the image you want on its own."
    )
