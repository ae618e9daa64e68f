"""How large the red cells of a class map are, found from the map itself."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from typing import Any

import cv2
import numpy as np
from scipy.spatial import KDTree

from .._images import RED, WHITE
from ._outline import Outline

WHITE_OVER_RED = 1.7  # radii of white cells over those of red ones (smear256/train: 45 and 27)

LEAST, MOST = 4, 1000  # pixels: the diameters of red cells that may be given

LARGEST_HOLE = 0.1  # in areas of a cell: pallor taken for background

_MAX_RADIUS = 128  # pixels; what is wider is not taken for a cell, unless expected
_BIN = 1 / 8  # pixels
_NOISE = 2  # pixels; what is thinner is a rim or a strand
_WEIGHT, _QUANTILE = 1.5, 0.5  # how peaks are weighed
_CANDIDATES = np.geomspace(0.65, 1.5, 10)  # radii tried, of the first guess
_BLUR = 0.18  # of a radius, of votes
_ALIKE = 0.05  # what differs by less is left as it is: networks bear more, resampling costs detail
_ENOUGH = 2**24  # pixels that tell the scale well; of larger maps, strips of about so many

# The numbers above were chosen on smear256/train: label maps, and those of two networks.


def typical_radius(class_map: Any, expected_diameter: float | None = None) -> float | None:
    """Return the radius of a typical red cell in pixels, or None where there is no cell.

    A first guess comes from inscribed circles; of the radii about it, the one at which most votes
    of the outlines meet is taken (see `_outline`). Where there is no red cell, the white ones tell.

    Parameters
    ----------
    class_map : array-like of shape (H, W)
        Labels, read in strips of rows.
    expected_diameter : float, optional
        About how wide red cells are, if known. Large ones are measured in a thinned map.
    """
    every = 1
    while expected_diameter is not None and expected_diameter / every > _MAX_RADIUS:
        every *= 2
    if every > 1:
        class_map = _Thinned(class_map, every)
    for label, ratio in ((RED, 1), (WHITE, WHITE_OVER_RED)):
        guess = _inscribed_radius(class_map, label)
        if guess is not None:
            return every * _voted_radius(class_map, label, guess) / ratio
    return None


class _Thinned:
    """One pixel of so many along each side of a class map, read by rows."""

    def __init__(self, class_map: Any, every: int):
        self.shape = tuple(-(-side // every) for side in class_map.shape)
        self._class_map, self._every = class_map, every

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        strip = self._class_map[start * self._every : stop * self._every]
        return np.asarray(strip)[:: self._every, :: self._every]


def _strips(class_map: Any, label: int, margin: int) -> Iterator[tuple[np.ndarray, slice]]:
    """Yield the mask of a class by strips with a margin, and the rows that are no margin."""
    height, width = class_map.shape
    step = 8 * _MAX_RADIUS
    tops = range(0, height, step)
    every = max(1, len(tops) * step * width // _ENOUGH)
    for top in tops[::every]:
        first = max(top - margin, 0)
        strip = np.asarray(class_map[first : min(top + step + margin, height)])
        yield strip == label, slice(top - first, min(top + step, height) - first)


def _inscribed_radius(class_map: Any, label: int) -> float | None:
    """Return the median radius of inscribed circles, the larger ones weighing more."""
    counts = np.zeros(int(_MAX_RADIUS / _BIN) + 1)
    for mask, inner in _strips(class_map, label, 2 * _MAX_RADIUS + 1):
        rows, radii = _circles(mask)
        found = radii[(rows >= inner.start) & (rows < inner.stop)]
        counts += np.bincount(np.rint(found / _BIN).astype(np.intp), minlength=len(counts))
    if not counts.any():
        return None
    weights = np.cumsum(counts * np.arange(len(counts)) ** _WEIGHT)
    return float(np.searchsorted(weights, _QUANTILE * weights[-1]) * _BIN)


def _voted_radius(class_map: Any, label: int, guess: float) -> float:
    """Return the radius at which the votes of outlines meet best."""
    radii = guess * _CANDIDATES
    squares, numbers = np.zeros(len(radii)), np.zeros(len(radii))
    margin = int(np.ceil((1 + 4 * _BLUR) * radii[-1]))
    for mask, inner in _strips(class_map, label, margin):
        filled = without_holes(mask, LARGEST_HOLE * np.pi * guess**2)
        outline = Outline.of(filled, guess)
        for index, radius in enumerate(radii):
            votes = outline.votes(radius)
            numbers[index] += votes[inner].sum()
            blurs = cv2.GaussianBlur(votes.astype(np.float32), (0, 0), _BLUR * radius)
            squares[index] += np.square(blurs[inner], dtype=np.float64).sum()
    # How many votes meet where a vote falls, in shares of a circle's.
    shares = radii * squares / np.maximum(numbers, 1)
    best = int(np.clip(shares.argmax(), 1, len(radii) - 2))
    shift = peak_shift(*shares[best - 1 : best + 2])
    return float(radii[best] * (_CANDIDATES[1] / _CANDIDATES[0]) ** np.clip(shift, -1, 1))


def peak_shift(before: float, at: float, after: float) -> float:
    """Return how far from the middle one of three values their parabola peaks, in steps."""
    bend = before - 2 * at + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0


def _circles(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return row and radius of the inscribed circles whose middle lies in no larger one.

    Those in a larger one stand on rims and rough outlines.
    """
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


def without_holes(mask: np.ndarray, largest: float) -> np.ndarray:
    """Fill the holes of at most this many pixels; what touches the window's border is none."""
    _, places, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    left, top, width, height, area = stats.T
    inside = (left > 0) & (top > 0)
    inside &= (left + width < mask.shape[1]) & (top + height < mask.shape[0])
    holes = inside & (area <= largest)
    holes[0] = False  # the mask itself
    return mask | holes[places] if holes.any() else mask


def scale_to(diameter: float, wanted: float) -> float:
    """Return by how much to scale an image whose red cells have a diameter; 1 where it is near."""
    factor = wanted / diameter
    return 1.0 if abs(np.log(factor)) < _ALIKE else factor


def is_diameter(given: Any) -> bool:
    """Return whether a parameter is a diameter of red cells in pixels."""
    number = isinstance(given, Real) and not isinstance(given, bool)
    return bool(number and LEAST <= given <= MOST)
