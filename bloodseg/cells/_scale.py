"""How large the red cells of a class map are, found from the map itself."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from .._images import CLASS_NAMES

WHITE, RED = CLASS_NAMES.index("white"), CLASS_NAMES.index("red")
WHITE_OVER_RED = 1.7  # radii of white cells over those of red ones (smear256/train: 45 and 27)

_MAX_RADIUS = 128  # pixels; larger cells are taken for ones of this radius
_BIN = 1 / 8  # pixels
_NOISE = 2  # pixels; what is thinner is a rim or a strand
_QUANTILE = 0.45  # of the peaks, each counted by its height squared; chosen on smear256/train


def typical_radius(class_map: Any) -> float | None:
    """Return the radius of a typical red cell in pixels, or None where there is no cell.

    The peaks of the distance to the background are the radii of inscribed circles. Low ones stand
    on rims and necks, high ones in clumps, so a quantile of them is taken. Where there is no red
    cell, the white ones tell.

    Parameters
    ----------
    class_map : array-like of shape (H, W)
        Labels, read in strips of rows.
    """
    peaks = np.zeros((2, int(_MAX_RADIUS / _BIN) + 1))
    height = class_map.shape[0]
    step, margin = 4 * _MAX_RADIUS, _MAX_RADIUS + 1
    for top in range(0, height, step):
        first = max(top - margin, 0)
        strip = np.asarray(class_map[first : min(top + step + margin, height)])
        inner = slice(top - first, min(top + step, height) - first)
        for index, label in enumerate((RED, WHITE)):
            peaks[index] += _peaks(strip == label, inner)
    for heights, ratio in zip(peaks, (1, WHITE_OVER_RED), strict=True):
        if heights.any():
            weights = np.cumsum(heights * np.arange(heights.size) ** 2.0)
            return float(np.searchsorted(weights, _QUANTILE * weights[-1]) * _BIN / ratio)
    return None


def _peaks(mask: np.ndarray, inner: slice) -> np.ndarray:
    """Return how many peaks of each height the distance to the background has."""
    distance = distance_inside(mask, _MAX_RADIUS)
    peak = (distance == cv2.dilate(distance, np.ones((3, 3), np.uint8))) & (distance > _NOISE)
    bins = np.rint(distance[inner][peak[inner]] / _BIN).astype(np.intp)
    return np.bincount(bins, minlength=int(_MAX_RADIUS / _BIN) + 1)


def distance_inside(mask: np.ndarray, limit: float) -> np.ndarray:
    """Return each pixel's distance to the nearest one outside the mask, at most ``limit``.

    Beyond the image's border nothing is outside: a cell that the border cuts keeps its size.
    """
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.minimum(distance, np.float32(limit))
