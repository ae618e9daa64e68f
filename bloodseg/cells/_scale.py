"""How large the cells of a class map are, found from the map itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Real
from typing import Any

import cv2
import numpy as np
from scipy.spatial import KDTree

from .._images import RED, WHITE
from ._outline import Outline
from ._shapes import Regions, distance_inside, is_convex, without_holes

WHITE_OVER_RED = 1.7  # radii of white cells over those of red ones (smear256/train: 45 and 27)

LEAST, MOST = 4, 1000  # pixels: the diameters of red cells that may be given

LARGEST_HOLE = 0.1  # in areas of a cell: pallor taken for background

_MAX_RADIUS = 128  # pixels; what is wider is not taken for a cell, unless expected
_COARSE = 4  # one pixel of so many is enough for cells that are wider than that
_LEAST_RED, _LITTLE_RED = 0.25, 0.05  # radius, and area of all, over those of white cells
_BIN = 1 / 8  # pixels
_NOISE = 2  # pixels; what is thinner is a rim or a strand
_WEIGHT, _QUANTILE = 1.5, 0.5  # how peaks are weighed
_CANDIDATES = np.geomspace(0.65, 1.5, 10)  # radii tried, of the first guess
_OVAL = 1.1  # radius of a disc of a cell's area, over half the short side: less is round
_LEAST_FREE, _MOST_FREE = 3, 100  # cells that tell it, in a strip at most
_BLUR = 0.18  # of a radius, of votes
_ALIKE = 0.05  # what differs by less is left as it is: networks bear more, resampling costs detail
_ENOUGH = 2**24  # pixels that tell the scale well; of larger maps, strips of about so many

# The numbers above were chosen on smear256/train: label maps, and those of two networks.


@dataclass(frozen=True)
class Radii:
    """Radii of typical cells, in pixels."""

    red: float
    white: float

    @property
    def widest(self) -> float:
        """Pixels that a cell is wide at most."""
        return max(10 * self.red, 4 * self.white)

    @property
    def reach(self) -> float:
        """Pixels beyond which nothing acts on a cell, its own extent included."""
        return self.widest + max(4 * self.red, 2 * self.white)


def typical_radius(class_map: Any, expected_diameter: float | None = None) -> float | None:
    """Return the radius of a typical red cell in pixels, or None where there is no cell.

    See `typical_radii`.
    """
    radii = typical_radii(class_map, expected_diameter)
    return None if radii is None else radii.red


def typical_radii(
    class_map: Any, expected_diameter: float | None = None, *, red: float | None = None
) -> Radii | None:
    """Return the radii of typical cells, or None where there is no cell.

    Of red cells a first guess comes from inscribed circles; of the radii about it, the one at which
    most votes of the outlines meet is taken (see `_outline`). White cells are no smaller than
    is usual; larger where their inscribed circles are. Where there is no red cell, or what is red
    is too small for one, the white ones tell.

    Parameters
    ----------
    class_map : array-like of shape (H, W)
        Labels, read in strips of rows.
    expected_diameter : float, optional
        About how wide red cells are, if known. Large ones are measured in a thinned map.
    red : float, optional
        Radius of red cells, if known.
    """
    if red is not None:
        expected_diameter = 2 * red
    every = 1
    while expected_diameter is not None and expected_diameter / every > _MAX_RADIUS:
        every *= 2
    radii = _radii(class_map, every, red)
    if radii is None and expected_diameter is None:
        radii = _radii(class_map, _COARSE, red)
    return radii


def _radii(class_map: Any, every: int, red: float | None) -> Radii | None:
    """Return typical radii, measured in one pixel of so many along each side."""
    thinned = _Thinned(class_map, every) if every > 1 else class_map
    # At the border, nothing tells a large cell from a field that is all one class.
    white = _inscribed_radius(thinned, WHITE, whole=every == _COARSE)
    white = None if white is None else every * white
    if red is None:
        guess = _inscribed_radius(thinned, RED, whole=every == _COARSE)
        if guess is not None:
            red = every * _red_radius(thinned, guess)
        if white is not None and (red is None or _are_specks(thinned, red / white)):
            red = white / WHITE_OVER_RED
    if red is None:
        return None
    return Radii(red, max(WHITE_OVER_RED * red, white or 0))


def _are_specks(class_map: Any, red_over_white: float) -> bool:
    """Return whether what is red is too small for cells, and too little to have a say."""
    if red_over_white > _LEAST_RED:
        return False
    red, white = (
        sum(np.count_nonzero(mask[inner]) for mask, inner in _strips(class_map, label, 0))
        for label in (RED, WHITE)
    )
    return bool(red < _LITTLE_RED * white)


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


def _inscribed_radius(class_map: Any, label: int, *, whole: bool = False) -> float | None:
    """Return the median radius of inscribed circles, the larger ones weighing more.

    Of ``whole`` ones, all of which lie in the image, or of all.
    """
    counts = np.zeros(int(_MAX_RADIUS / _BIN) + 1)
    for mask, inner in _strips(class_map, label, 2 * _MAX_RADIUS + 1):
        rows, columns, radii = _circles(without_holes(mask, 0))
        if whole:
            room = np.minimum.reduce(
                [rows, mask.shape[0] - 1 - rows, columns, mask.shape[1] - 1 - columns]
            )
            rows, radii = rows[room >= radii - 1], radii[room >= radii - 1]
        found = radii[(rows >= inner.start) & (rows < inner.stop)]
        counts += np.bincount(np.rint(found / _BIN).astype(np.intp), minlength=len(counts))
    if not counts.any():
        return None
    weights = np.cumsum(counts * np.arange(len(counts)) ** _WEIGHT)
    return float(np.searchsorted(weights, _QUANTILE * weights[-1]) * _BIN)


def _red_radius(class_map: Any, guess: float) -> float:
    """Return the radius at which the votes of outlines meet best.

    Oval cells vote for less; where most of those that lie free are oval, their areas tell.
    """
    radii = guess * _CANDIDATES
    squares, numbers = np.zeros(len(radii)), np.zeros(len(radii))
    free: list[tuple[float, float]] = []
    margin = int(np.ceil((1 + 4 * _BLUR) * radii[-1]))
    for mask, inner in _strips(class_map, RED, margin):
        filled = without_holes(mask, LARGEST_HOLE * np.pi * guess**2)
        free += _free_cells(filled, inner, guess)
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
    voted = float(radii[best] * (_CANDIDATES[1] / _CANDIDATES[0]) ** np.clip(shift, -1, 1))
    if len(free) >= _LEAST_FREE:
        radius, short = np.median(free, axis=0)
        if radius > _OVAL * short:
            return max(voted, float(radius))
    return voted


def _free_cells(mask: np.ndarray, inner: slice, guess: float) -> list[tuple[float, float]]:
    """Return radii of discs of equal area, and half the short sides, of free convex cells."""
    regions = Regions.of(mask)
    top = regions.boxes[:, 1]
    chosen = regions.whole & (top >= inner.start) & (top < inner.stop)
    chosen &= (regions.areas > 0.5 * np.pi * guess**2) & (regions.sides < 8 * guess)
    found = []
    for region in np.flatnonzero(chosen)[:_MOST_FREE]:
        _, shape = regions.cut_out(region)
        if is_convex(shape):
            radius = float(np.sqrt(regions.areas[region] / np.pi))
            found.append((radius, _short_half(shape)))
    return found


def _short_half(shape: np.ndarray) -> float:
    """Return half the short side of the ellipse of the same second moments."""
    moments = cv2.moments(shape.astype(np.uint8), binaryImage=True)
    down, right, both = (moments[key] / moments["m00"] for key in ("mu02", "mu20", "mu11"))
    return float(2 * np.sqrt((down + right - np.hypot(down - right, 2 * both)) / 2))


def peak_shift(before: float, at: float, after: float) -> float:
    """Return how far from the middle one of three values their parabola peaks, in steps."""
    bend = before - 2 * at + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0


def _circles(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, column and radius of the inscribed circles whose middle lies in no larger one.

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
    return middles[kept, 0], middles[kept, 1], radii[kept]


def scale_to(diameter: float, wanted: float) -> float:
    """Return by how much to scale an image whose red cells have a diameter; 1 where it is near."""
    factor = wanted / diameter
    return 1.0 if abs(np.log(factor)) < _ALIKE else factor


def is_diameter(given: Any) -> bool:
    """Return whether a parameter is a diameter of red cells in pixels."""
    number = isinstance(given, Real) and not isinstance(given, bool)
    return bool(number and LEAST <= given <= MOST)
