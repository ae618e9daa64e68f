"""Which cuts between the pieces of a clump are borders of cells: those that have evidence.

A watershed cuts wherever two seeds meet, and seeds come of a guess at the size of a cell. Two
pieces that together are of the usual size are two cells only if the cut between them ends in
notches, or is so short that it is a neck. Where an end of a cut lies on a straight outline,
nothing parts the two there: pieces that such cuts join are one cell whatever its size, if it is
convex, as what lies free is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ._shapes import area_of_dents, is_convex, labels_at_edge, radius_of_discs

_REACH = 0.4  # radii around an end of a cut that tell how the outline bends there
_POINTS = 6  # looked at along that reach
_NOTCHES = 0.03  # shares of what is around, over the half that is inside where all is straight
_STRAIGHT = 0.02  # the same, of one end
_IN_SIGHT = 0.65  # share of its outline that must be seen to tell that what is cut is convex
_IN_VIEW = 0.65  # share of a cell that is expected to be seen where a part of it is hidden
_SHORT = 0.5  # radii: the length of a cut that needs no notches, for it is a neck
_SLIVER = 0.35  # areas: a piece so small dents its neighbour little, whatever it is
_DISCS = 1.2  # radii over those of typical cells, up to which discs are cells


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
    dents : float
        Area of the dents of two pieces over the length of their cut, in radii, up to which both are
        one cell, notches or not.
    smallest : float
        In pixels; a piece of less that lies whole in the image is a part of a cell, as lobes are.
    """

    radius: float
    largest: float
    widest: float
    dents: float
    smallest: float = 0.0


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
    parted, straight = _evidence(cuts, pieces, hidden, usual)
    joined = ~parted | _within_one(cuts, straight, pieces, hidden, usual)
    group = _joined_by(cuts, joined, len(alone))
    _, first = np.unique(group, return_index=True)
    apart = _too_wide(pieces, group, usual.widest)[group]
    return np.unique(np.where(apart, alone, first[group]), return_inverse=True)[1]


def is_one(shape: np.ndarray, hidden: np.ndarray, usual: Usual) -> bool:
    """Return whether the one shape in a mask is one cell: convex, and no discs in overlap.

    Parameters
    ----------
    shape : ndarray of shape (h, w), bool
        Whole.
    hidden : ndarray of shape (h, w), bool
        Where it may go on behind something.
    usual : Usual
        The cells of the class.
    """
    if not is_convex(shape, hidden):
        return False
    if np.count_nonzero(shape) <= usual.largest * np.pi * usual.radius**2:
        return True
    radius = radius_of_discs(shape)
    return radius is None or not 1 / _DISCS <= radius / usual.radius <= _DISCS


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


def _evidence(
    cuts: _Cuts, pieces: np.ndarray, hidden: np.ndarray, usual: Usual
) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the cuts part two cells, and which have an end on a straight outline."""
    along = cuts.along()
    everywhere = np.ones(len(along), bool)
    length = cuts.most(along, everywhere) + cuts.most(-along, everywhere)
    bends = _bends(cuts, pieces, hidden, usual.radius)
    ends = np.stack([cuts.most(bends, along >= -1), cuts.most(bends, along <= 1)])
    # A hidden end is taken to be like the other; where both are, nothing speaks against the cut.
    is_hidden = np.isnan(ends)
    in_view = ~is_hidden.any(axis=0)
    ends = np.where(is_hidden, ends[::-1], ends)
    cell = np.pi * usual.radius**2
    areas = np.bincount(pieces.ravel())
    sides = np.stack([areas[cuts.first], areas[cuts.second]])
    largest = np.where(in_view, 1, _IN_VIEW) * usual.largest * cell
    large = sides.sum(axis=0) > largest
    short = length < _SHORT * usual.radius
    parted = large | short | ~(ends.sum(axis=0) < _NOTCHES)
    if usual.smallest:
        is_part = areas < usual.smallest
        is_part[labels_at_edge(pieces)] = False
        parted &= ~(is_part[cuts.first] | is_part[cuts.second])
    looked_at = parted & in_view & ~large & ~short & (sides.min(axis=0) > _SLIVER * cell)
    parted &= ~_within_long(looked_at, cuts, usual.dents * usual.radius * length, pieces)
    return parted, ~short & (ends.min(axis=0) < _STRAIGHT)


def _within_long(
    looked_at: np.ndarray, cuts: _Cuts, largest: np.ndarray, pieces: np.ndarray
) -> np.ndarray:
    """Return which of the cuts looked at have pieces whose dents together are no larger."""
    within = np.zeros(len(looked_at), bool)
    boxes = ndimage.find_objects(pieces) if looked_at.any() else []
    for cut in np.flatnonzero(looked_at):
        one, other = cuts.first[cut], cuts.second[cut]
        place = tuple(
            slice(min(a.start, b.start), max(a.stop, b.stop))
            for a, b in zip(boxes[one - 1], boxes[other - 1], strict=True)
        )
        both = (pieces[place] == one) | (pieces[place] == other)
        within[cut] = area_of_dents(both) <= largest[cut]
    return within


def _within_one(
    cuts: _Cuts, straight: np.ndarray, pieces: np.ndarray, hidden: np.ndarray, usual: Usual
) -> np.ndarray:
    """Return which cuts lie within what is one cell, of any size, if the straight ones are none."""
    group = _joined_by(cuts, straight, pieces.max() + 1)
    fits = (np.bincount(group) > 1) & ~_too_wide(pieces, group, usual.widest)
    if not fits.any():
        return np.zeros(len(cuts.first), bool)
    groups = group[pieces].astype(np.int32)
    boxes = ndimage.find_objects(groups)
    for number in np.flatnonzero(fits):
        place = boxes[number - 1]
        shape = groups[place] == number
        behind = hidden[place] | ((groups[place] > 0) & ~shape)
        fits[number] = _share_in_sight(shape, behind) > _IN_SIGHT and is_one(shape, behind, usual)
    within: np.ndarray = fits[group[cuts.first]] & (group[cuts.first] == group[cuts.second])
    return within


def _share_in_sight(shape: np.ndarray, behind: np.ndarray) -> float:
    """Return how much of the outline of a shape is not beside what may hide more of it."""
    cross = ndimage.generate_binary_structure(2, 1)
    outline = shape & ~ndimage.binary_erosion(shape, cross)
    beside = outline & ndimage.binary_dilation(behind, cross)
    return 1 - np.count_nonzero(beside) / np.count_nonzero(outline)


def _joined_by(cuts: _Cuts, chosen: np.ndarray, n_pieces: int) -> np.ndarray:
    """Return the group of each piece, the background's 0, if the chosen cuts are none."""
    links = np.stack([cuts.first, cuts.second])[:, chosen]
    ones = np.ones(links.shape[1], bool)
    _, group = connected_components(coo_array((ones, links), (n_pieces,) * 2), directed=False)
    return np.asarray(group)


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
