"""What of an image is picture: the rest is hidden from ruler, preprocessor and network.

Surrounds and transparent pixels are background and are not counted. What is shown there in their
place is the picture, mirrored at its edge as at the border of an image, for to the network a cell
that light cuts is another shape; farther off, and in large files, it is the colour of the light.
Scale bars and writing lie over cells: they are painted over from what is around them, and what the
network says of the cells below stands.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from .._files import rectangle
from .._images import every_nth, find_marks, find_surround, levels, paint_over, to_rgb
from ..datasets import Slide
from ..preprocessing import light_of

_VIEW = 1024  # pixels a side: what large files are looked at in
_MIRRORED = 128  # pixels beyond the picture's edge that mirror it


@dataclass(frozen=True)
class Picture:
    """An image without what is no picture.

    Attributes
    ----------
    pixels : array-like of shape (H, W[, C])
        To be looked at; where all is picture, those of the image itself.
    outside : array-like of shape (H, W), bool, or None
        What surrounds the picture; of a large file, read by strips of rows.
    share_left_out : float
        Share of the pixels that are no picture, marks too.
    """

    pixels: Any
    outside: Any = None
    share_left_out: float = 0.0


def find_picture(pixels: np.ndarray | Slide) -> Picture:
    """Return a checked image without what is no picture.

    Of a large file, which is read by rows, only the surround is looked for, in one pixel of
    several; it is read once for that.
    """
    if isinstance(pixels, Slide):
        return _find_in_rows(pixels)
    if pixels.dtype == bool:
        return Picture(pixels)
    if pixels.shape[2:] == (4,) and not pixels[..., 3].any():
        pixels = pixels[..., :3]  # alpha as broken writers leave it: laid over white, all is white
    outside = find_surround(pixels)
    marks = find_marks(levels(pixels), None if outside is None else ~outside)
    if (outside is None and marks is None) or _has_two_levels(pixels):
        return Picture(pixels)
    rgb = to_rgb(pixels)
    if outside is not None:
        rgb = _mirror(_fill(rgb, outside, light_of(rgb[~outside][np.newaxis])), outside)
    if marks is None:
        return Picture(rgb, outside, float(outside.mean()))  # type: ignore[union-attr]
    left_out = marks if outside is None else marks | outside
    return Picture(paint_over(rgb, marks), outside, float(left_out.mean()))


def _has_two_levels(pixels: np.ndarray) -> bool:
    """Return whether an image is black and white, so that all of it looks like writing, or none."""
    return bool(((pixels == pixels.min()) | (pixels == pixels.max())).all())


def _find_in_rows(slide: Slide) -> Picture:
    height, width = slide.shape[:2]
    every = -(-max(height, width) // _VIEW)
    view = every_nth(slide, height, every)
    outside = find_surround(view)
    if outside is None:
        return Picture(slide)
    rgb = to_rgb(view)
    rows = _Outside(outside, every, (height, width))
    filled = _Filled(slide, rows, light_of(rgb[~outside][np.newaxis]))
    return Picture(filled, rows, float(outside.mean()))


def _fill(rgb: np.ndarray, outside: np.ndarray, light: np.ndarray) -> np.ndarray:
    filled = rgb.copy()
    filled[outside] = np.rint(light) if rgb.dtype == np.uint8 else light
    return filled


def _mirror(rgb: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Mirror the picture at its edge, where what is outside lies near to it."""
    distance, numbers = cv2.distanceTransformWithLabels(
        outside.astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    seen = np.flatnonzero(~outside)
    places = np.zeros(numbers.max() + 1, np.intp)
    places[numbers.ravel()[seen]] = seen
    rows, columns = np.nonzero(outside & (distance <= _MIRRORED))
    edge_rows, edge_columns = np.divmod(places[numbers[rows, columns]], outside.shape[1])
    from_rows, from_columns = 2 * edge_rows - rows, 2 * edge_columns - columns
    shown = (from_rows >= 0) & (from_rows < outside.shape[0])
    shown &= (from_columns >= 0) & (from_columns < outside.shape[1])
    shown[shown] = ~outside[from_rows[shown], from_columns[shown]]
    mirrored = rgb.copy()
    mirrored[rows[shown], columns[shown]] = rgb[from_rows[shown], from_columns[shown]]
    return mirrored


class _Outside:
    """What surrounds the picture of a large file, from a small view of it; read by rectangles."""

    def __init__(self, view: np.ndarray, every: int, shape: tuple[int, int]):
        self.shape = shape
        self._view, self._every = view, every

    def __getitem__(self, place: slice | tuple[slice, slice]) -> np.ndarray:
        down, right = (
            np.arange(each.start, each.stop, each.step) // self._every
            for each in rectangle(place, self.shape)
        )
        return self._view[down[:, np.newaxis], right]


class _Filled:
    """A large file whose surround has the colour of the light, as RGB; read by rectangles."""

    def __init__(self, slide: Slide, outside: _Outside, light: np.ndarray):
        self.shape = (*slide.shape[:2], 3)
        self.name = slide.name
        self._slide, self._outside, self._light = slide, outside, light

    def __getitem__(self, place: slice | tuple[slice, slice]) -> np.ndarray:
        return _fill(to_rgb(self._slide[place]), self._outside[place], self._light)
