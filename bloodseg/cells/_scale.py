"""How large the cells of a class map are, found from the map itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from numbers import Real
from typing import Any, TypeVar

import cv2
import numpy as np
from scipy.spatial import KDTree

from .._images import CLASS_NAMES, RED, WHITE, cell_labels, label_of
from ._arcs import ellipses_of_arcs
from ._outline import Outline
from ._shapes import distance_inside, without_holes

_T = TypeVar("_T")

WHITE_OVER_RED = 1.7  # radii of white cells over those of red ones (smear256/train: 45 and 27)

LEAST_DIAMETER, MOST_DIAMETER = 4, 1000  # pixels: the diameters of red cells that may be given

LARGEST_HOLE = 0.1  # in areas of a cell: pallor taken for background

_MAX_RADIUS = 128  # pixels; what is wider is not taken for a cell, unless expected
_COARSE = 4  # one pixel of so many is enough for cells that are wider than that
_LEAST_RED, _LITTLE_RED = 0.25, 0.05  # radius, and area of all, over those of white cells
_BIN = 1 / 8  # pixels
_WIDEST_OTHER = 30  # radii: what a cell of a class without rules of its own is wide at most
_NOISE = 2  # pixels; what is thinner is a rim or a strand
_WEIGHT, _QUANTILE = 1.5, 0.5  # how peaks are weighed
_CANDIDATES = np.geomspace(0.65, 1.5, 10)  # radii tried, of the first guess
_OVAL = 1.1  # radius of a disc of an ellipse's area, over half the short side: less is round
_LEAST_ARCS = 5  # that tell it
_LONG, _WIDE = 1.35, 0.8  # where fewer tell it: as `_OVAL`, and the short side over what was voted
_BLUR = 0.18  # of a radius, of votes
_ALIKE = 0.05  # what differs by less is left as it is: networks bear more, resampling costs detail
# Pixels that tell the scale well: of larger maps, strips of so many, so many of them of the class.
_ENOUGH, _ENOUGH_OF_CLASS = 2**24, 2**18

# The numbers above were chosen on smear256/train: label maps, and those of two networks.


@dataclass(frozen=True)
class Radii:
    """Radii of typical cells, in pixels.

    Attributes
    ----------
    red, white : float or None
        Of red and white cells, one of which tells the other's; None where there are neither.
    others : mapping of str to float
        Of further classes, by name; those of which nothing is to be seen are left out.
    """

    red: float | None
    white: float | None
    others: Mapping[str, float] = field(default_factory=dict)

    def of(self, name: str) -> float | None:
        """Return the radius of a class, None where none of its cells is to be seen."""
        known = {RED: self.red, WHITE: self.white, **self.others}
        return known.get(name)

    @property
    def typical(self) -> float:
        """Of red cells; where there are neither red nor white ones, of the largest other class."""
        return max(self.others.values()) if self.red is None else self.red

    @property
    def widest(self) -> float:
        """Pixels that a cell is wide at most."""
        others = (_WIDEST_OTHER * radius for radius in self.others.values())
        return max(10 * (self.red or 0), 4 * (self.white or 0), *others, 0)

    @property
    def reach(self) -> float:
        """Pixels beyond which nothing acts on a cell, its own extent included."""
        others = (4 * radius for radius in self.others.values())
        return self.widest + max(4 * (self.red or 0), 2 * (self.white or 0), *others, 0)


def typical_radius(
    class_map: Any,
    expected_diameter: float | None = None,
    *,
    classes: Sequence[str] = CLASS_NAMES,
) -> float | None:
    """Return the radius of a typical red cell in pixels; None where no red or white one is seen.

    See `typical_radii`.
    """
    blood = _at_some_scale(class_map, expected_diameter, partial(_blood_radii, classes=classes))
    return None if blood is None else blood[0]


def typical_radii(
    class_map: Any,
    expected_diameter: float | None = None,
    *,
    red: float | None = None,
    classes: Sequence[str] = CLASS_NAMES,
) -> Radii | None:
    """Return the radii of typical cells, or None where there is no cell.

    Of red cells a first guess comes from inscribed circles; of the radii about it, the one at which
    most votes of the outlines meet is taken (see `_outline`), or that of oval cells, if they are
    oval (see `_arcs`). White cells are no smaller than
    is usual; larger where their inscribed circles are. Where there is no red cell, or what is red
    is too small for one, the white ones tell. Of any other class, inscribed circles tell.

    Parameters
    ----------
    class_map : array-like of shape (H, W)
        Labels, read in strips of rows.
    expected_diameter : float, optional
        About how wide red cells are, if known. Large ones are measured in a thinned map.
    red : float, optional
        Radius of red cells, if known.
    classes : sequence of str
        Names of the labels.
    """
    if red is not None:
        expected_diameter = 2 * red
    measure = partial(_blood_radii, classes=classes, red=red)
    blood = _at_some_scale(class_map, expected_diameter, measure)
    others = {}
    for name, label in cell_labels(classes).items():
        if name not in (RED, WHITE):
            radius = _at_some_scale(class_map, expected_diameter, partial(_radius, label=label))
            if radius is not None:
                others[name] = radius
    if blood is None and not others:
        return None
    red, white = blood or (None, None)
    return Radii(red, white, others)


def _at_some_scale(
    class_map: Any, expected_diameter: float | None, measure: Callable[[Any, int], _T | None]
) -> _T | None:
    """Return what is measured in a class map, or in one pixel of so many along each side of it."""
    every = 1
    while expected_diameter is not None and expected_diameter / every > _MAX_RADIUS:
        every *= 2
    found = measure(_Thinned(class_map, every) if every > 1 else class_map, every)
    if found is None and expected_diameter is None:
        found = measure(_Thinned(class_map, _COARSE), _COARSE)
    return found


def _radius(thinned: Any, every: int, label: int | None) -> float | None:
    """Return the typical radius of the inscribed circles of a class; None where it has none."""
    if label is None:
        return None
    # At the border, nothing tells a large cell from a field that is all one class.
    radius = _inscribed_radius(thinned, label, whole=every == _COARSE)
    return None if radius is None else every * radius


def _blood_radii(
    thinned: Any, every: int, classes: Sequence[str], red: float | None = None
) -> tuple[float, float] | None:
    """Return the radii of red and white cells, one of which is enough to tell both."""
    labels = label_of(classes, RED), label_of(classes, WHITE)
    white = _radius(thinned, every, labels[1])
    if red is None:
        guess = _radius(thinned, every, labels[0])
        if guess is not None:
            red = every * _red_radius(thinned, guess / every, labels[0])
        if white is not None and (red is None or _are_specks(thinned, red / white, labels)):
            red = white / WHITE_OVER_RED
    return None if red is None else (red, max(WHITE_OVER_RED * red, white or 0))


def _are_specks(class_map: Any, red_over_white: float, labels: Sequence[int | None]) -> bool:
    """Return whether what is red is too small for cells, and too little to have a say."""
    if red_over_white > _LEAST_RED:
        return False
    n_red = n_white = 0
    red, white = labels
    for strip, inner in _strips(class_map, white, 0):
        n_red += np.count_nonzero(strip[inner] == red)
        n_white += np.count_nonzero(strip[inner] == white)
    return n_red < _LITTLE_RED * n_white


class _Thinned:
    """One pixel of so many along each side of a class map, read by rows."""

    def __init__(self, class_map: Any, every: int):
        self.shape = tuple(-(-side // every) for side in class_map.shape)
        self._class_map, self._every = class_map, every

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.shape[0])
        strip = self._class_map[start * self._every : stop * self._every]
        return np.asarray(strip)[:: self._every, :: self._every]


def _strips(class_map: Any, label: int | None, margin: int) -> Iterator[tuple[np.ndarray, slice]]:
    """Yield strips of a class map with a margin, and the rows of each that are no margin.

    Of large maps some of the strips that show the class, spread over the map: at the edges of a
    slide there may be no cell.
    """
    height, width = class_map.shape
    step = 8 * _MAX_RADIUS
    tops = range(0, height, step)
    is_large = height * width > _ENOUGH
    n_pixels = n_of_class = 0
    for top in _spread(tops) if is_large else tops:
        first = max(top - margin, 0)
        strip = np.asarray(class_map[first : min(top + step + margin, height)])
        inner = slice(top - first, min(top + step, height) - first)
        if is_large:
            here = np.count_nonzero(strip[inner] == label)
            if here == 0:
                continue
            n_pixels, n_of_class = n_pixels + strip[inner].size, n_of_class + here
        yield strip, inner
        if n_pixels >= _ENOUGH and n_of_class >= _ENOUGH_OF_CLASS:
            return


def _spread(places: Sequence[int]) -> list[int]:
    """Return places in another order: the middle first, and any first few far from each other."""
    count = len(places)
    order = sorted(range(count), key=lambda index: f"{index:032b}"[::-1])
    return [places[(index + count // 2) % count] for index in order]


def _inscribed_radius(class_map: Any, label: int, *, whole: bool = False) -> float | None:
    """Return the median radius of inscribed circles, the larger ones weighing more.

    Of ``whole`` ones, all of which lie in the image, or of all.
    """
    counts = np.zeros(int(_MAX_RADIUS / _BIN) + 1)
    for strip, inner in _strips(class_map, label, 2 * _MAX_RADIUS + 1):
        mask = strip == label
        if not mask.any():
            continue
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


def _red_radius(class_map: Any, guess: float, label: int | None) -> float:
    """Return the radius at which the votes of outlines meet best.

    Oval cells vote for less; where most arcs of outlines are oval, the areas of their ellipses
    tell, in clumps, too.
    """
    radii = guess * _CANDIDATES
    squares, numbers = np.zeros(len(radii)), np.zeros(len(radii))
    arcs = [np.empty((0, 2))]
    # Votes are counted in blocks, which must be small against the blur.
    every = max(1, min(int(_BLUR * guess / 2), *class_map.shape))
    margin = every * int(np.ceil((1 + 4 * _BLUR) * radii[-1] / every))
    for strip, inner in _strips(class_map, label, margin):
        filled = without_holes(strip == label, LARGEST_HOLE * np.pi * guess**2)
        row, long, short = ellipses_of_arcs(filled, guess).T
        own = (row >= inner.start) & (row < inner.stop)
        arcs.append(np.column_stack([np.sqrt(long * short), short])[own])
        outline = Outline.of(filled, guess)
        blocks = slice(inner.start // every, inner.stop // every)
        for index, radius in enumerate(radii):
            votes = outline.votes(radius, every=every).astype(np.float32)
            numbers[index] += votes[blocks].sum(dtype=float)
            blurs = cv2.GaussianBlur(votes, (0, 0), _BLUR * radius / every)
            squares[index] += np.square(blurs[blocks]).sum(dtype=float)
    # How many votes meet where a vote falls, in shares of a circle's.
    shares = radii * squares / np.maximum(numbers, 1)
    best = int(np.clip(shares.argmax(), 1, len(radii) - 2))
    shift = peak_shift(*shares[best - 1 : best + 2])
    voted = float(radii[best] * (_CANDIDATES[1] / _CANDIDATES[0]) ** np.clip(shift, -1, 1))
    n_arcs = sum(map(len, arcs))
    if n_arcs:
        radius, short = np.median(np.concatenate(arcs), axis=0)
        enough = n_arcs >= _LEAST_ARCS
        # A few long cells among round ones have shorter sides than those.
        if radius > (_OVAL if enough else _LONG) * short and (enough or short > _WIDE * voted):
            return max(voted, float(radius))
    return voted


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
    return bool(number and LEAST_DIAMETER <= given <= MOST_DIAMETER)
