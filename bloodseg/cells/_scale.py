"""How large the red cells of a class map are, found from the map itself."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from scipy.spatial import KDTree

from .._images import CLASS_NAMES

WHITE, RED = CLASS_NAMES.index("white"), CLASS_NAMES.index("red")
WHITE_OVER_RED = 1.7  # radii of white cells over those of red ones (smear256/train: 45 and 27)

_MAX_RADIUS = 128  # pixels; what is wider is not taken for a cell
_BIN = 1 / 8  # pixels
_NOISE = 2  # pixels; what is thinner is a rim or a strand
_WEIGHT, _QUANTILE = 1.5, 0.5  # how peaks are weighed, chosen on smear256/train


def typical_radius(class_map: Any) -> float | None:
    """Return the radius of a typical red cell in pixels, or None where there is no cell.

    The peaks of the distance to the background are the radii of inscribed circles. Those inside of
    a larger circle stand on rims and rough outlines; of the others, the median, the larger ones
    weighing more. Where there is no red cell, the white ones tell.

    Parameters
    ----------
    class_map : array-like of shape (H, W)
        Labels, read in strips of rows.
    """
    peaks = np.zeros((2, int(_MAX_RADIUS / _BIN) + 1))
    height = class_map.shape[0]
    step, margin = 8 * _MAX_RADIUS, 2 * _MAX_RADIUS + 1
    for top in range(0, height, step):
        first = max(top - margin, 0)
        strip = np.asarray(class_map[first : min(top + step + margin, height)])
        for index, label in enumerate((RED, WHITE)):
            rows, radii = _circles(strip == label)
            inner = (rows >= top - first) & (rows < top - first + step)
            bins = np.rint(radii[inner] / _BIN).astype(np.intp)
            peaks[index] += np.bincount(bins, minlength=peaks.shape[1])
    for counts, ratio in zip(peaks, (1, WHITE_OVER_RED), strict=True):
        if counts.any():
            weights = np.cumsum(counts * np.arange(counts.size) ** _WEIGHT)
            return float(np.searchsorted(weights, _QUANTILE * weights[-1]) * _BIN / ratio)
    return None


def _circles(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return row and radius of the inscribed circles whose middle lies in no larger one."""
    distance = distance_inside(mask, _MAX_RADIUS)
    peak = distance == cv2.dilate(distance, np.ones((3, 3), np.uint8))
    # What is farther inside is no cell: a field that is all one class has no cell to be seen.
    peak &= (distance > _NOISE) & (distance < _MAX_RADIUS)
    middles, radii = np.argwhere(peak), distance[peak]
    kept = np.ones(len(radii), bool)
    if len(radii):
        inside = KDTree(middles).query_ball_point(middles, radii)
        circle = np.repeat(np.arange(len(radii)), [len(each) for each in inside])
        other = np.concatenate([*inside]).astype(np.intp)
        larger = radii[circle] > radii[other]
        larger |= (radii[circle] == radii[other]) & (circle < other)
        kept[other[larger]] = False
    return middles[kept, 0], radii[kept]


def distance_inside(mask: np.ndarray, limit: float) -> np.ndarray:
    """Return each pixel's distance to the nearest one outside the mask, at most ``limit``.

    Beyond the image's border nothing is outside: a cell that the border cuts keeps its size.
    """
    distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.minimum(distance, np.float32(limit))
