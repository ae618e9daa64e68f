"""Which cuts between the pieces of a clump are borders of cells: those that have evidence.

A watershed cuts wherever two seeds meet, and seeds come of a guess at the size of a cell. Two
pieces that together are of the usual size are two cells only if the cut between them ends in
notches, or is so short that it is a neck.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_REACH = 0.4  # radii around an end of a cut that tell how the outline bends there
_POINTS = 6  # looked at along that reach
_NOTCHES = 0.03  # shares of what is around, over the half that is inside where all is straight
_IN_VIEW = 0.65  # share of a cell that is expected to be seen where a part of it is hidden
_SHORT = 0.5  # radii: the length of a cut that needs no notches, for it is a neck


@dataclass(frozen=True)
class Usual:
    """What is usual of the cells of a class.

    Attributes
    ----------
    radius : float
        In pixels.
    largest : float
        Area up to which pieces of a clump make one cell unless notches part them, in those of a
        disc of that radius.
    widest : float
        In pixels; what is wider is no single cell.
    """

    radius: float
    largest: float
    widest: float


def cells_of_pieces(
    pieces: np.ndarray, n_pieces: int, hidden: np.ndarray, usual: Usual
) -> np.ndarray:
    """Return which cell each piece belongs to.

    Parameters
    ----------
    pieces : ndarray of shape (h, w), int32
        0 outside, 1 to n_pieces the pieces.
    n_pieces : int
        Number of pieces.
    hidden : ndarray of shape (h, w), bool
        Where what is outside may hide a part of what is inside.
    usual : Usual
        The cells of the class.

    Returns
    -------
    ndarray of shape (n_pieces + 1,), int
        For 0 and each piece: 0, and 1 to m the cells.
    """
    alone = np.arange(n_pieces + 1)
    cuts = _Cuts.of(pieces)
    if len(cuts.first) == 0:
        return alone
    links = np.stack([cuts.first, cuts.second])[:, ~_parted(cuts, pieces, hidden, usual)]
    ones = np.ones(links.shape[1], bool)
    _, group = connected_components(coo_array((ones, links), (len(alone),) * 2), directed=False)
    _, first = np.unique(group, return_index=True)
    apart = _too_wide(pieces, group, usual.widest)[group]
    return np.unique(np.where(apart, alone, first[group]), return_inverse=True)[1]


@dataclass(frozen=True)
class _Cuts:
    """Where pieces touch.

    Attributes
    ----------
    first, second : ndarray of shape (n,), int
        The two pieces of each cut.
    index : ndarray of shape (k,), int
        Which cut each of the pixels along all cuts belongs to.
    rows, columns : ndarray of shape (k,), int
        These pixels, of both sides.
    """

    first: np.ndarray
    second: np.ndarray
    index: np.ndarray
    rows: np.ndarray
    columns: np.ndarray

    @classmethod
    def of(cls, pieces: np.ndarray) -> _Cuts:
        keys, rows, columns = [], [], []
        for down, right in ((1, 0), (0, 1)):
            here = pieces[: pieces.shape[0] - down, : pieces.shape[1] - right]
            there = pieces[down:, right:]
            row, column = np.nonzero((here != there) & (here > 0) & (there > 0))
            one, other = here[row, column], there[row, column]
            key = np.minimum(one, other).astype(np.int64) << 32 | np.maximum(one, other)
            keys += [key, key]
            rows += [row, row + down]
            columns += [column, column + right]
        found, index = np.unique(np.concatenate(keys), return_inverse=True)
        first, second = found >> 32, found & (2**32 - 1)
        return cls(first, second, index, np.concatenate(rows), np.concatenate(columns))

    def along(self) -> np.ndarray:
        """Return how far along its cut each pixel lies, in pixels from the cut's middle."""
        size = np.bincount(self.index)
        down, right = (
            place - (np.bincount(self.index, place) / size)[self.index]
            for place in (self.rows, self.columns)
        )
        spread = np.bincount(self.index, down**2 - right**2)
        both = np.bincount(self.index, 2 * down * right)
        angle = (np.arctan2(both, spread) / 2)[self.index]
        along: np.ndarray = down * np.cos(angle) + right * np.sin(angle)
        return along

    def most(self, values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Return the largest value of each cut's chosen pixels; NaN of none."""
        most = np.full(len(self.first), np.nan)
        np.fmax.at(most, self.index[chosen], values[chosen])
        return most


def _parted(cuts: _Cuts, pieces: np.ndarray, hidden: np.ndarray, usual: Usual) -> np.ndarray:
    """Return which of the cuts part two cells."""
    along = cuts.along()
    everywhere = np.ones(len(along), bool)
    length = cuts.most(along, everywhere) + cuts.most(-along, everywhere)
    bends = _bends(cuts, pieces, hidden, usual.radius)
    ends = np.stack([cuts.most(bends, along >= -1), cuts.most(bends, along <= 1)])
    # A hidden end is taken to be like the other; where both are, nothing speaks against the cut.
    is_hidden = np.isnan(ends)
    ends = np.where(is_hidden, ends[::-1], ends)
    areas = np.bincount(pieces.ravel())
    largest = np.where(is_hidden.any(axis=0), _IN_VIEW, 1) * usual.largest * np.pi * usual.radius**2
    large = areas[cuts.first] + areas[cuts.second] > largest
    short = length < _SHORT * usual.radius
    return np.asarray(large | short | ~(ends.sum(axis=0) < _NOTCHES))


def _bends(cuts: _Cuts, pieces: np.ndarray, hidden: np.ndarray, radius: float) -> np.ndarray:
    """Return how the outline of the two pieces of a cut bends at each of its pixels.

    It is the share of the surroundings that is inside, over that where it is straight: 0 there,
    above 0 in notches. NaN where there is no outline, or most of what lies outside is hidden.
    """
    reach = max(_REACH * radius, 2)
    step = max(1, round(reach / _POINTS))
    margin = int(reach) + 1
    # -1: outside, but hidden
    padded = np.pad(np.where(hidden & (pieces == 0), -1, pieces), margin, constant_values=-1)
    first, second = cuts.first[cuts.index], cuts.second[cuts.index]
    rows, columns = cuts.rows + margin, cuts.columns + margin
    at_edge = np.zeros(len(first), bool)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            piece = padded[rows + down, columns + right]
            at_edge |= (piece != first) & (piece != second)
    first, second, rows, columns = (each[at_edge] for each in (first, second, rows, columns))
    inside, outside, unknown = np.zeros((3, len(rows)), int)
    offsets = np.arange(-(reach // step), reach // step + 1).astype(int) * step
    for down in offsets:
        for right in offsets[np.hypot(down, offsets) <= reach]:
            piece = padded[rows + down, columns + right]
            within = (piece == first) | (piece == second)
            inside += within
            unknown += piece == -1
            outside += ~within & (piece != -1)
    # The outermost pixels have their middles half a pixel inside.
    share = inside / np.maximum(inside + outside, 1) - 0.5 - 1 / (np.pi * reach)
    bends = np.full(len(at_edge), np.nan)
    bends[at_edge] = np.where(unknown > outside, np.nan, share)
    return bends


def _too_wide(pieces: np.ndarray, group: np.ndarray, widest: float) -> np.ndarray:
    """Return which groups of pieces are too wide for a cell."""
    boxes = [
        [rows.start, columns.start, -rows.stop, -columns.stop]
        for rows, columns in ndimage.find_objects(pieces)
    ]
    corners = np.full((group.max() + 1, 4), np.iinfo(np.intp).max)
    np.minimum.at(corners, group[1:], np.array(boxes))
    return np.asarray((-corners[:, 2:] - corners[:, :2]).max(axis=1) > widest)
