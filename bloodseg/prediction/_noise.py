"""Noise of a camera that is far beyond what networks are trained with: measured, and smoothed.

It is judged as the network would see it: an image that is made smaller loses noise on the way.
Smoothing comes before the preprocessor, for CLAHE enhances noise as it does cells.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from .._images import middle, scaled_middle, shrink, to_bytes, to_rgb

# Levels of 255. Real fields of seven laboratories have up to 2.7, drawn smears up to 3.5, and JPEG
# does not add to that. From 5 on the published weights are better off with a smoothed image.
_NOISY = 5.0
_SAMPLE = 512  # pixels of the middle that are measured: one place stands for all of a large file
_MEDIAN, _BLUR = 5, 1.0  # side and deviation, in pixels of the network
_LEAST_MEDIAN, _MOST_MEDIAN = 3, 255  # OpenCV counts the pixels of a median in 16 bits
_ROWS = 512  # smoothed at a time

# Blind to slopes, and white noise keeps its deviation: J. Immerkær, Computer Vision and Image
# Understanding 64(2), 1996.
_RESIDUE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
_MEDIAN_OF_NORMAL = 0.6745  # of the absolute values of standard normal noise


def measure_noise(pixels: Any, factor: float) -> float:
    """Return the deviation of the noise in the middle of an image, in levels of 255.

    It is the greater of two: from pixel to pixel, and with pixels twice as wide, for cameras that
    enlarge or compress leave noise of coarser grain.

    Parameters
    ----------
    pixels : array-like of shape (H, W[, C])
        A checked image, or what reads it by rows.
    factor : float
        By how much the network has it scaled. Where it is enlarged, it is measured as it is, for
        what lies between its pixels has no noise of its own.
    """
    if factor < 1:
        sample, _ = scaled_middle(pixels, factor, _SAMPLE)
    else:
        sample = to_rgb(middle(pixels, _SAMPLE))
    levels = sample.astype(np.float32)
    if sample.dtype != np.uint8:
        levels *= 255
    return max(_deviation(levels), _deviation(shrink(levels, 0.5)))


def _deviation(levels: np.ndarray) -> float:
    """Return the deviation of noise from pixel to pixel; the median leaves out edges of cells."""
    residues = np.abs(cv2.filter2D(levels, -1, _RESIDUE, borderType=cv2.BORDER_REPLICATE))
    return float(np.median(residues, axis=(0, 1)).mean()) / _MEDIAN_OF_NORMAL


def is_noisy(pixels: Any, factor: float) -> bool:
    """Return whether an image has so much noise that it is to be smoothed, see `measure_noise`."""
    return measure_noise(pixels, factor) > _NOISY


class SmoothedRows:
    """An image of any size without much of its noise, as RGB, uint8, read by strips of rows.

    A median takes away single pixels, black and white ones too, and a Gaussian what is left. Both
    are as wide as suits the network. Each strip is smoothed with rows around it, so that strips
    equal the whole to the bit.

    Parameters
    ----------
    pixels : array-like of shape (H, W[, C])
        A checked image, or what reads it by rows.
    factor : float
        By how much the network has it scaled.
    """

    def __init__(self, pixels: Any, factor: float):
        self.shape = (*pixels.shape[:2], 3)
        self.name = getattr(pixels, "name", None)
        self._pixels = pixels
        self._deviation = _BLUR / factor
        side = 2 * int(_MEDIAN / factor / 2) + 1
        self._side = min(max(_LEAST_MEDIAN, side), _MOST_MEDIAN)
        self._reach = math.ceil(3 * self._deviation)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return a strip, rows from ``start`` to ``stop``."""
        start, stop, _ = rows.indices(self.shape[0])
        tops = range(start, stop, _ROWS)
        return np.concatenate([self._smooth(top, min(top + _ROWS, stop)) for top in tops])

    def _smooth(self, start: int, stop: int) -> np.ndarray:
        margin = self._side // 2 + self._reach
        first = max(start - margin, 0)
        strip = to_bytes(np.asarray(self._pixels[first : min(stop + margin, self.shape[0])]))
        strip = cv2.medianBlur(np.ascontiguousarray(strip), self._side)
        strip = cv2.GaussianBlur(
            strip, (2 * self._reach + 1,) * 2, self._deviation, borderType=cv2.BORDER_REPLICATE
        )
        return strip[start - first : stop - first]
