"""What a page shows of one image: what was found in it, and its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from .._images import CLASS_NAMES, every_nth, turned, turned_corners, turned_shape
from ..cells import EXCLUDED_SIDES, outlines_of
from ..plotting import overlay
from ._view import MAX_PIXELS, make_photo, to_jpeg, trace_all

_MAX_SIDE = 1000  # of a picture in the page, pixels
_JPEG_QUALITY = 88
_OUTLINED_PIXELS = 2**22  # of larger images, only a small copy is kept, without single outlines


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class ImageResult:
    """What was found in one image.

    Attributes
    ----------
    name : str
        What the page calls the image.
    image : ndarray of shape (H, W, 3), or None
        The image, or a smaller copy of it: uint8 or floating point in [0, 1]; None once its picture
        is drawn.
    class_map : ndarray of shape (H, W), or None
        Labels of its pixels, places in ``classes``.
    labels : ndarray of shape (H, W), or (n,) once drawn, optional
        A number for each cell, so that each gets an outline of its own; once drawn, the numbers of
        the cells that have one, in the order of ``outlines``.
    cells : DataFrame
        One row a cell, as `bloodseg.BloodCellSegmenter.measure` gives them: columns class,
        diameter, unit, confidence and touches_border.
    shape : tuple of int
        Height and width of the whole image in pixels.
    seconds : float
        What the prediction took.
    pixel_size : float, optional
        Micrometres a pixel, where it is known.
    doubts : sequence of str
        Why what was found is perhaps wrong, in words.
    picture : bytes, optional
        JPEG file of the image with its cells outlined, at most 1000 pixels wide and high, as `draw`
        makes it.
    photo : bytes, optional
        JPEG file of the image itself, to zoom into, likewise.
    outlines : sequence of (str, str)
        Class of each cell, and its outline as a path of SVG, likewise.
    classes : tuple of str
        Names of the labels.
    counts : mapping, optional
        The image's row of `bloodseg.BloodCellSegmenter.count`, counting frame included; without it
        all cells count, over the whole image.
    """

    name: str
    image: np.ndarray | None
    class_map: np.ndarray | None
    labels: np.ndarray | None
    cells: pd.DataFrame
    shape: tuple[int, int]
    seconds: float
    pixel_size: float | None = None
    doubts: Sequence[str] = ()
    picture: bytes | None = None
    photo: bytes | None = None
    outlines: Sequence[tuple[str, str]] = ()
    classes: tuple[str, ...] = CLASS_NAMES
    counts: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls, segmented: Any, name: str, seconds: float, *, max_pixels: int = MAX_PIXELS
    ) -> ImageResult:
        """Return what was found in an image of any size, its pictures drawn.

        They are turned as the EXIF data of the image's file say, as other viewers show it; tables
        and files have the coordinates of the pixels as they are stored.

        Parameters
        ----------
        segmented : Segmented
            One of what `bloodseg.BloodCellSegmenter.segment` yields.
        name : str
            What the page calls the image.
        seconds : float
            What the prediction took.
        max_pixels : int, default=2**24
            Pixels of the photo to zoom into; a larger one is shrunk, and so is the page.
        """
        height, width = shape = segmented.class_map.shape
        whole = height * width <= _OUTLINED_PIXELS
        step = 1 if whole else -(-max(height, width) // _MAX_SIDE)
        cells, orientation = segmented.measure(outlines=True), segmented.orientation
        paths = trace_all(
            turned_corners(outline, shape, orientation) for outline in cells["outline"]
        )
        picture = _draw(
            every_nth(segmented.image, height, step),
            every_nth(segmented.class_map, height, step),
            segmented.cells().labels if whole else None,
            segmented.classes,
            orientation,
        )
        return cls(
            name=name,
            image=None,
            class_map=None,
            labels=cells["label"].to_numpy()[: len(paths)],
            cells=cells.drop(columns="outline"),
            shape=turned_shape(shape, orientation),
            seconds=seconds,
            pixel_size=segmented.pixel_size,
            doubts=segmented.doubts(),
            picture=picture,
            photo=make_photo(segmented.image, shape, max_pixels, orientation),
            outlines=tuple(zip(cells["class"], paths, strict=False)),
            classes=segmented.classes,
            counts=segmented.count(excluded_sides=EXCLUDED_SIDES),
        )

    def draw(self) -> ImageResult:
        """Return the same with pictures in place of the arrays, which take far more memory."""
        if self.picture is not None:
            return self
        if self.image is None or self.class_map is None:
            raise ValueError(f"image and class_map of {self.name} must be there to draw a picture.")
        shape = self.image.shape[:2]
        drawn = replace(
            self,
            picture=_draw(self.image, self.class_map, self.labels, self.classes),
            photo=make_photo(self.image, shape, MAX_PIXELS),
            image=None,
            class_map=None,
            labels=None,
        )
        # Of a smaller copy, outlines would not lie where the cells of the whole image are.
        if self.labels is None or shape != tuple(self.shape):
            return drawn
        of_label = np.zeros(int(self.labels.max()) + 1, int)
        of_label[self.labels] = self.class_map
        numbers = np.unique(self.labels[self.labels > 0])
        in_order = np.where(self.labels > 0, np.searchsorted(numbers, self.labels) + 1, 0)
        paths = trace_all(outlines_of(in_order, len(numbers)))
        names = (self.classes[of_label[number]] for number in numbers)
        return replace(
            drawn,
            labels=numbers[: len(paths)],
            outlines=tuple(zip(names, paths, strict=False)),
        )

    def in_pixels(self) -> ImageResult:
        """Return the same with sizes in pixels, to stand beside images of unknown pixel size."""
        if self.pixel_size is None:
            return self
        diameters = self.cells["diameter"] / self.pixel_size
        # Other sizes are not on the page, and must not stay in another unit.
        kept = ["label", "class", "confidence", "touches_border"]
        cells = self.cells[self.cells.columns.intersection(kept)]
        cells = cells.assign(diameter=diameters, unit="px")
        counts = self.counts and {k: v for k, v in self.counts.items() if not k.endswith("mm2")}
        return replace(self, cells=cells, pixel_size=None, counts=counts)

    @property
    def area(self) -> float:
        """Square millimetres; NaN where the size of a pixel is not known."""
        side = np.nan if self.pixel_size is None else self.pixel_size / 1000
        return float(np.prod(self.shape)) * side**2


def _draw(
    image: np.ndarray,
    class_map: np.ndarray,
    labels: np.ndarray | None,
    classes: Sequence[str],
    orientation: int = 1,
) -> bytes:
    """Return an image with its cells outlined, as a JPEG file of a size fit for the page."""
    step = -(-max(image.shape[:2]) // _MAX_SIDE)
    picture = Image.fromarray(overlay(image, class_map, labels, classes=classes))
    if step > 1:
        picture = picture.reduce(step)
    return to_jpeg(turned(np.asarray(picture), orientation), _JPEG_QUALITY)
