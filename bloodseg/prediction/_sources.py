"""What callers may pass as the images of a prediction: arrays, files, open slides."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from .._files import expanded
from .._images import as_image, check_image, check_images
from .._typing import Images
from ..datasets import Slide, open_slide
from ..ode import warn_caller
from ..preprocessing import EnhancedRows, Preprocessor

_File: TypeAlias = str | os.PathLike | Slide

Sources: TypeAlias = Images | _File | Iterable[np.ndarray | _File]
"""What a prediction takes: images, the path of one, an open slide, or any number of these."""

# Pixels up to which a file is read at once: then it gives what the same image gives as an array.
_READ_WHOLE = 2**24


@dataclass(frozen=True)
class Source:
    """One image as the caller passed it.

    Attributes
    ----------
    name : str or int
        What tables call it: the path as it was given, or its place in the batch.
    given : ndarray, Slide or Path
        Checked pixels, a slide, or a file that is there but not opened yet.
    """

    name: str | int
    given: np.ndarray | Slide | Path

    @property
    def label(self) -> str:
        """What messages call the image."""
        return self.name if isinstance(self.name, str) else f"images[{self.name}]"

    def open(self) -> OpenImage:
        """Return the image; a file is opened only now, and read where it is not large."""
        if isinstance(self.given, np.ndarray):
            return OpenImage(self, self.given, None)
        slide = self.given
        if isinstance(slide, Path):
            slide = _check_slide(open_slide(slide))
        height, width = slide.shape[:2]
        pixels: Any = slide
        if height * width <= _READ_WHOLE:
            pixels = _read_whole(slide)
        return OpenImage(
            self, pixels, slide.pixel_size, slide.pixel_aspect, orientation=slide.orientation
        )

    def read(self) -> np.ndarray:
        """Return the checked pixels, however large the image."""
        pixels = self.open().pixels
        return pixels if isinstance(pixels, np.ndarray) else _read_whole(pixels)


@dataclass(frozen=True)
class OpenImage:
    """An image whose turn has come.

    Attributes
    ----------
    source : Source
        Whence it comes, and what it is called.
    pixels : ndarray of shape (H, W[, C]), or Slide
        Checked pixels; of a large file, what reads them by strips of rows.
    pixel_size : float or None
        Side of a pixel in micrometres, as the file says.
    pixel_aspect : float
        Its height over its width.
    orientation : int
        How viewers turn the pixels to show them, as EXIF has it.
    """

    source: Source
    pixels: np.ndarray | Slide
    pixel_size: float | None
    pixel_aspect: float = 1.0
    orientation: int = 1


def check_sources(images: Sources, *, name: str = "images") -> list[Source]:
    """Return the images that a caller passed, checked; of files, that they are there.

    ``name`` is what messages call the argument.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If an array is no image.
    """
    if isinstance(images, (str, os.PathLike, Slide)):
        images = [images]
    of_numbers = isinstance(images, np.ndarray) and images.dtype.kind in "buif"
    several = hasattr(images, "__len__") and not isinstance(images, (bytes, Mapping, Set))
    if isinstance(images, Iterator) or (several and not of_numbers):
        images = list(images)  # also arrays and series of paths, or what Path.glob gives
    if of_numbers or not isinstance(images, list) or not any(map(_is_file, images)):
        return [Source(place, array) for place, array in enumerate(check_images(images, name=name))]
    return [_check_source(place, image, name) for place, image in enumerate(images)]


def _check_source(place: int, image: Any, name: str) -> Source:
    if not _is_file(image):
        array = as_image(image, name=f"{name}[{place}]")
        check_image(array, name=f"{name}[{place}]")
        return Source(place, array)
    if isinstance(image, Slide):
        return Source(image.name, _check_slide(image))
    if expanded(image).exists():
        return Source(str(image), Path(image))
    raise FileNotFoundError(f"{image} does not exist.")


def _check_slide(slide: Slide) -> Slide:
    check_image(slide[:1], name=slide.name)  # what it holds; the rest as it is read
    return slide


def _read_whole(slide: Slide) -> np.ndarray:
    pixels = slide[: slide.shape[0]]
    check_image(pixels, name=slide.name)
    return pixels


def _is_file(item: Any) -> bool:
    return isinstance(item, (str, os.PathLike, Slide))


def preprocess_rows(preprocessor: Any, slide: Any) -> Any:
    """Return a slide, or what is read like one, as the preprocessor gives it by strips of rows."""
    if preprocessor is None:
        return slide
    if type(preprocessor) is Preprocessor:
        return EnhancedRows(preprocessor, slide)
    warn_caller(
        f"{type(preprocessor).__name__} sees {slide.name} strip by strip, for it is read so; where "
        "it depends on the whole image, results differ from those for the image as an array."
    )
    return _TransformedRows(preprocessor, slide)


class _TransformedRows:
    """A slide through any transformer of images, strip by strip."""

    def __init__(self, transformer: Any, slide: Any):
        self.shape = slide.shape
        self._transformer = transformer
        self._slide = slide

    def __getitem__(self, rows: slice) -> np.ndarray:
        return check_images(self._transformer.transform([self._slide[rows]]))[0]
