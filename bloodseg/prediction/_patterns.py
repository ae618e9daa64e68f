"""Patterns that no smear has: rows that differ in turn, straight lines, a raster.

The numbers leave a margin about what the fields named in `_stain` show, as those there do.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy import fft, ndimage

_COMBED = 1.2  # difference of neighbouring rows over that of next but one (0.42; noise 1)
_LINE, _STEP = 3.0, 0.12  # diameters that a line is long; contrast of red cells, of its step
_STRAIGHT = 0.8  # share of a line whose pixels step the same way (0.64)
_BORDER = 4  # pixels: cameras and resampling leave lines there
_MIDDLE = 512  # pixels a side that are looked at for a raster
_PERIODS = 1, 14  # of a raster, to a red cell; compression leaves finer ones
_AXES = 4  # frequencies beside the axes, where compression, lines and edges are
_SIDES, _ALONE = (15, 5), 20  # frequencies around a peak, and of it; their powers (motion 8)
_PEAK = 230  # power of a raster over the median of as fine patterns (42; heavy compression 200)


def check_patterns(
    green: np.ndarray, seen: np.ndarray, contrast: float | None, radius: float
) -> list[str]:
    """Return what patterns an image has that no smear has: a text a kind, "" for none.

    Parameters
    ----------
    green : ndarray of shape (H, W)
        Optical density for green light.
    seen : ndarray of shape (H, W), bool
        What is picture.
    contrast : float or None
        Density of red cells over that of the field; None where there are none.
    radius : float
        Of a typical red cell in pixels.
    """
    lined = contrast is not None and _has_lines(green, seen, contrast, radius)
    return [
        "its odd and even rows differ, as those of interlaced video do"
        if _is_combed(green)
        else "",
        "a straight line runs through it; perhaps the edge of a frame, a seam or a band"
        if lined
        else "",
        "a fine pattern covers it; perhaps it shows a print, a screen or a grid"
        if _has_raster(green, radius)
        else "",
    ]


def _is_combed(green: np.ndarray) -> bool:
    """Return whether rows, or columns, are more like the next but one than like their neighbours.

    By the squares of their differences, for which noise of any strength comes to 1 at most.
    """
    for lines in (green, green.T):
        beside = np.square(np.diff(lines, axis=0))
        apart = np.square(lines[2:] - lines[:-2])
        if len(apart) and beside.mean() > _COMBED * apart.mean():
            return True
    return False


def _has_lines(green: np.ndarray, seen: np.ndarray, contrast: float, radius: float) -> bool:
    """Return whether a row, or column, differs from the next in one way for several cells' length.

    Outlines of cells are round: along a row, brightness steps up in one place and down in another.
    """
    length = round(2 * _LINE * radius)
    for lines, inside in ((green, seen), (green.T, seen.T)):
        if lines.shape[1] < length or lines.shape[0] <= 2 * _BORDER + 1:
            continue
        steps = np.diff(lines, axis=0)
        ways = (steps > _STEP * contrast).astype(np.float32) - (steps < -_STEP * contrast)
        near = cv2.erode(inside.astype(np.uint8), np.ones((2 * _BORDER + 1,) * 2)) > 0
        ways[~(near[1:] & near[:-1])] = 0
        sums = np.cumsum(np.pad(ways, ((0, 0), (1, 0))), axis=1)[_BORDER:-_BORDER]
        if np.abs(sums[:, length:] - sums[:, :-length]).max() > _STRAIGHT * length:
            return True
    return False


def _has_raster(green: np.ndarray, radius: float) -> bool:
    """Return whether one frequency stands out from all that are as fine, as cells lie anyhow."""
    height, width = sides = [min(length, _MIDDLE) for length in green.shape]
    top, left = ((length - side) // 2 for length, side in zip(green.shape, sides, strict=True))
    middle = green[top : top + height, left : left + width]
    middle = (middle - middle.mean()) * np.outer(np.hanning(height), np.hanning(width))
    power = np.square(np.abs(fft.rfft2(middle.astype(np.float32))))
    down, right = np.abs(fft.fftfreq(height))[:, np.newaxis], fft.rfftfreq(width)
    fineness = np.hypot(down, right)
    periods = 2 * radius * fineness
    asked = (down * height >= _AXES) & (right * width >= _AXES) & (fineness < 0.5)
    asked &= (periods > _PERIODS[0]) & (periods < _PERIODS[1])
    if not asked.any():
        return False
    rings = (fineness[asked] * min(sides) / 2).astype(np.intp)
    usual = np.zeros(rings.max() + 1)
    present = np.unique(rings)
    usual[present] = ndimage.median(power[asked], rings, present)
    # A ridge, as of an image that is blurred along one direction, stands out together.
    around, peak = (
        side**2 * cv2.blur(power, (side, side), borderType=cv2.BORDER_REPLICATE) for side in _SIDES
    )
    beside = (around - peak) / (_SIDES[0] ** 2 - _SIDES[1] ** 2)
    stands_out = power[asked] > _ALONE * beside[asked]
    return bool((stands_out & (power[asked] > _PEAK * usual[rings])).any())
