"""From the pixels of a class to its cells: which part of a clump belongs to which cell.

Everything here is local: what lies farther from a cell's seed than ``Radii.reach`` has no say in
the cell. That is what lets a large image be cut into blocks and each cell be found, whole, in the
block that holds its seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from skimage.segmentation import watershed

from .._images import CLASS_NAMES, PLATELET, RED, WHITE, cell_labels
from ._necks import Usual, cells_of_pieces, is_one
from ._outline import KERNEL_SUM, Outline, blurred
from ._scale import LARGEST_HOLE, Radii
from ._shapes import (
    Regions,
    distance_inside,
    labels_at_edge,
    without_holes,
)


@dataclass(frozen=True)
class _Rule:
    """How the cells of a class are told apart. Lengths are in radii of that class."""

    join: float  # gaps up to twice this wide are bridged: the lobes of one nucleus
    apart: float  # a seed is the best of the square that reaches so far from it
    blur: float  # of the votes
    largest: float  # areas of what is one cell unless notches part it, see `Usual`
    dents: float  # up to which it is one even so, see `Usual`


# All numbers were chosen on smear256/train, on its label maps and on those of two networks, by the
# boxes; see docs/cells.md.
_RULES = {
    WHITE: _Rule(join=0.12, apart=0.8, blur=0.2, largest=3, dents=0.08),
    RED: _Rule(join=0.0, apart=0.4, blur=0.25, largest=1.35, dents=0.16),
}
# Of any other class nothing is known but its radius: what hangs together is one cell, unless
# notches or a neck part it.
_OTHERS = _Rule(join=0.0, apart=0.8, blur=0.25, largest=np.inf, dents=0.08)
_RINGS = np.linspace(0.6, 1.0, 7)  # how far along its normal a pixel of the outline votes
_LEAST_SCORE = 0.35  # of a seed; the middle of a round cell that lies free has about 2
_BEYOND = 0.8  # how far from what is seen the middle of a cell may lie that is cut
_SAME = 0.15  # maxima closer than this are one seed
_SPECK = 0.12  # what is less is no cell; in areas of a typical cell of its class
# A platelet is 1 to 4 um wide, a red cell 7 to 8. In areas of a red cell; chosen on boxes of two
# laboratories, and so that hardly a drawn one is lost.
_SMALLEST_PLATELET = 0.025
# A white cell that lies whole in the picture is larger than a red one (1.17 areas and more, of 754
# in two laboratories); what has far less is a platelet with its halo, or debris.
_SMALLEST_WHOLE = {WHITE: 0.6}
_LATTICE = 1 / 4096  # a step in the height of a lattice that divides sheets, see `_score`


@dataclass(frozen=True)
class Split:
    """The cells in a window of an image.

    Attributes
    ----------
    labels : ndarray of shape (h, w), int32
        0 no cell, 1 to n the cells.
    classes : ndarray of shape (n,), uint8
        Class of each cell.
    seeds : ndarray of shape (n, 2), int
        Row and column, in the image, of the first pixel that each cell grew from.
    """

    labels: np.ndarray
    classes: np.ndarray
    seeds: np.ndarray


def split_cells(
    class_map: np.ndarray,
    radii: Radii,
    origin: tuple[int, int] = (0, 0),
    *,
    classes: Sequence[str] = CLASS_NAMES,
    outside: np.ndarray | None = None,
) -> Split:
    """Split a window's class map into cells of typical radii.

    ``origin`` is the place of the window in the image; ``classes`` are the names of the labels.
    ``outside`` is what is no picture: its edge is that of no cell, no more than the image's border.
    """
    labels = np.zeros(class_map.shape, np.int32)
    cell_classes, seeds = [np.empty(0, np.uint8)], [np.empty((0, 2), np.intp)]
    n_cells = 0
    for name, own_label in cell_labels(classes).items():
        radius = radii.of(name)
        if radius is None:
            continue
        rule = _RULES.get(name, _OTHERS)
        usual = Usual(
            radius,
            rule.largest,
            radii.widest,
            rule.dents,
            smallest=_SMALLEST_WHOLE.get(name, 0) * np.pi * (radii.red or 0) ** 2,
        )
        mask = class_map == own_label
        # What the cells of a class before have filled is theirs, too.
        others = ((class_map > 0) | (labels > 0)) & ~mask
        found, own_seeds = _split_class(mask, others, rule, usual, origin, outside)
        areas = np.bincount(found.ravel(), minlength=len(own_seeds) + 1)[1:]
        kept = areas >= _smallest_areas(name, radii, found, len(areas), outside)
        number = np.zeros(len(kept) + 1, np.int32)
        number[1:][kept] = n_cells + 1 + np.arange(np.count_nonzero(kept))
        labels += number[found]  # nothing of `found` lies in others
        cell_classes.append(np.full(np.count_nonzero(kept), own_label, np.uint8))
        seeds.append(own_seeds[kept])
        n_cells += np.count_nonzero(kept)
    return Split(labels, np.concatenate(cell_classes), np.concatenate(seeds))


def _smallest_areas(
    name: str, radii: Radii, found: np.ndarray, n_found: int, outside: np.ndarray | None
) -> np.ndarray:
    """Return the area in pixels below which each find of a class is a speck."""
    own, red = (np.pi * (radius or 0) ** 2 for radius in (radii.of(name), radii.red))
    areas = np.full(n_found + 1, _SPECK * own)
    if name == PLATELET and red:
        areas[:] = _SMALLEST_PLATELET * red
    if name in _SMALLEST_WHOLE and red:
        cut = np.zeros(n_found + 1, bool)
        cut[labels_at_edge(found)] = True
        if outside is not None:
            cut[found[cv2.dilate(outside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0]] = True
        areas[~cut] = _SMALLEST_WHOLE[name] * red
    return areas[1:]


def _split_class(
    mask: np.ndarray,
    others: np.ndarray,
    rule: _Rule,
    usual: Usual,
    origin: tuple[int, int],
    outside: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return label image and seeds of the cells of one class, which ``others`` hide; specks too."""
    if not mask.any():
        return np.zeros(mask.shape, np.int32), np.empty((0, 2), np.intp)
    if outside is not None:
        others = others | outside
    mask = _joined(mask, rule.join * usual.radius) & ~others
    mask = without_holes(mask, LARGEST_HOLE * np.pi * usual.radius**2, outside) & ~others
    cells, seeds = _free_cells(mask, others, usual, outside)
    clumps = mask & (cells == 0)
    if clumps.any():
        found, more = _cells_of_clumps(clumps, others, rule, usual, origin, outside)
        cells += np.where(found > 0, found + len(seeds), 0).astype(np.int32)
        seeds = np.concatenate([seeds, more])
    return cells, seeds + origin


def _free_cells(
    mask: np.ndarray, others: np.ndarray, usual: Usual, outside: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return label image and seeds of regions that are one cell each, without a closer look."""
    regions = Regions.of(mask, outside)
    alone = regions.whole & (regions.sides <= usual.widest)
    alone &= regions.areas >= _SPECK * np.pi * usual.radius**2
    seeds = []
    for region in np.flatnonzero(alone):
        place, inside = regions.cut_out(region)
        alone[region] = is_one(inside, others[place], usual)
        if alone[region]:
            pixels = np.argwhere(inside)
            seeds.append(pixels[len(pixels) // 2] + [place[0].start, place[1].start])
    number = np.where(alone, np.cumsum(alone), 0).astype(np.int32)
    return number[regions.labels], np.reshape(seeds, (-1, 2)).astype(np.intp)


def _cells_of_clumps(
    mask: np.ndarray,
    others: np.ndarray,
    rule: _Rule,
    usual: Usual,
    origin: tuple[int, int],
    outside: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return label image and seeds of the cells of clumps, and of all that the border cuts.

    A watershed on the score of `_score`, from its maxima, makes pieces; see `_necks` for which of
    them are one cell. All that is done a little beyond what is seen, too, where the middles of
    cells lie of which the border leaves a small part.
    """
    beyond = int(np.ceil(_BEYOND * usual.radius))
    around, unknown = _continued(mask, outside, beyond)
    votes = Outline.of(mask, usual.radius, outside).votes(*(usual.radius * _RINGS), margin=beyond)
    corner = (origin[0] - beyond, origin[1] - beyond)
    score = _score(around, votes, rule, usual.radius, corner, unknown)
    regions = Regions.of(around, unknown)
    markers = _markers(score, regions, rule, usual)
    pieces = _flooded(score, markers, regions)
    seen = (slice(beyond, beyond + mask.shape[0]), slice(beyond, beyond + mask.shape[1]))
    pieces = np.where(mask, pieces[seen], 0)
    numbers, seeds = _seeds_of(pieces, mask & (markers[seen] > 0), score[seen])
    number = np.zeros(markers.max() + 1, np.int32)
    number[numbers] = 1 + np.arange(len(numbers))
    pieces = number[pieces]
    cells = cells_of_pieces(pieces, len(seeds), others, usual)
    _, first = np.unique(cells[1:], return_index=True)
    return cells.astype(np.int32)[pieces], seeds[first]


def _continued(
    mask: np.ndarray, outside: np.ndarray | None, beyond: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a mask that goes on as at the nearest pixel that is seen, and what is too far for it.

    Both have a margin of so many pixels on each side.
    """
    mask = np.pad(mask, beyond, "edge")
    if outside is None:
        return mask, None
    outside = np.pad(outside, beyond, "edge")
    distance, nearest = cv2.distanceTransformWithLabels(
        outside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    seen = ~outside
    inside = np.zeros(nearest.max() + 1, bool)  # of each pixel that is seen
    inside[nearest[seen]] = mask[seen]
    unknown = distance > beyond
    return inside[nearest] & ~unknown, unknown


def _flooded(score: np.ndarray, markers: np.ndarray, regions: Regions) -> np.ndarray:
    """Return the pieces of a watershed from markers: those of each region by itself.

    Nothing flows from one region to another. All at once take up to twice as long, for the queue
    of pixels to go to next outgrows the processor's cache.
    """
    marked = markers > 0
    region, number = regions.labels[marked], markers[marked]
    first = np.zeros(len(regions.areas), np.int32)
    first[region] = number  # of a region with several, any
    pieces: np.ndarray = first[regions.labels]
    for several in np.unique(region[number != first[region]]):
        place, inside = regions.cut_out(several)
        found = watershed(-score[place], markers[place], mask=inside)
        np.copyto(pieces[place], found, where=inside)
    return pieces


def _seeds_of(
    pieces: np.ndarray, marked: np.ndarray, score: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the pieces in the order of their seeds, and these.

    A seed is the first marked pixel of a piece, or the best of a piece whose marker is out of
    sight. A cell is known by its first seed, which does not depend on the window.
    """
    unmarked = np.bincount(pieces.ravel()) > 0
    unmarked[0] = False
    unmarked[pieces[marked]] = False
    rows, columns = np.nonzero(marked | unmarked[pieces])
    piece = pieces[rows, columns]
    order = np.lexsort([np.where(unmarked[piece], -score[rows, columns], 0), piece])
    numbers, first = np.unique(piece[order], return_index=True)
    chosen = order[first]
    by_place = np.argsort(chosen)  # pixels are in the order of rows, then columns
    chosen = chosen[by_place]
    return numbers[by_place], np.stack([rows[chosen], columns[chosen]], axis=1)


def _markers(score: np.ndarray, regions: Regions, rule: _Rule, usual: Usual) -> np.ndarray:
    """Return the maxima of a score, those of a seed under one number, from 1 on."""
    radius = usual.radius
    peaks = (score == cv2.dilate(score, _square(rule.apart * radius))) & (score > _LEAST_SCORE)
    # Maxima may come in pairs, as on a shape of mirror symmetry.
    _, groups = cv2.connectedComponents(cv2.dilate(peaks.astype(np.uint8), _square(_SAME * radius)))
    markers = np.where(peaks, groups, 0).astype(np.int32)
    # What has no maximum is a cell all the same, however thin.
    thin = regions.areas >= _SPECK * np.pi * radius**2
    thin &= regions.sides <= usual.widest
    thin[regions.labels[peaks]] = False
    for number, region in enumerate(np.flatnonzero(thin), start=markers.max() + 1):
        place, inside = regions.cut_out(region)
        best = np.where(inside, score[place], -1).argmax()
        markers[place][np.unravel_index(best, inside.shape)] = number
    return markers


def _joined(mask: np.ndarray, reach: float) -> np.ndarray:
    if reach < 1:
        return mask
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, _square(reach))
    return closed.astype(bool)


def _score(
    mask: np.ndarray,
    votes: np.ndarray,
    rule: _Rule,
    radius: float,
    origin: tuple[int, int],
    outside: np.ndarray | None,
) -> np.ndarray:
    """Return how much each pixel looks like the middle of a cell.

    The distance to the background, up to a radius, finds the middle of what lies free. In a clump
    it has one ridge for many cells; there the outline votes, see `_outline`.
    """
    depth = distance_inside(mask, radius, outside) / np.float32(radius)
    # A full circle casts its votes onto a blob of the blur's area: about 1 in its middle.
    spread = rule.blur * radius
    full = 2 * np.pi * radius * len(_RINGS) / (2 * np.pi * spread**2)
    score: np.ndarray = depth + blurred(votes, spread) / np.float32(KERNEL_SUM**2 * full)
    # The inside of a sheet of merged cells is flat. This lattice divides it into cells of usual
    # size, which is the best guess there is, and keeps every cell's extent bounded.
    row, column = (np.arange(n) + o for n, o in zip(mask.shape, origin, strict=True))
    waves = 2 * np.sqrt(np.pi) / radius  # a peak for each area of a cell
    down, right = (8 * np.cos(waves * place).astype(np.float32) for place in (row, column))
    lattice = down[:, np.newaxis] + right
    score += np.rint(lattice, out=lattice) * np.float32(_LATTICE)
    score[~mask] = 0
    return score


def _square(reach: float) -> np.ndarray:
    # Not a disc, for which OpenCV takes ten times as long; the cells found are as good.
    side = 2 * round(max(reach, 1)) + 1
    return np.ones((side, side), np.uint8)
