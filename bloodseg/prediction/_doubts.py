"""Whether an image looks like what a network has learned to read: reasons for doubt, in words."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import cv2
import numpy as np
from scipy import ndimage

from .._images import CLASS_NAMES, RED, WHITE, mask_of, to_rgb
from ..cells import Radii, Regions, Split, labels_at_edge, split_cells, trace_outlines
from ._agreement import STEADY
from ._places import LEAST_CELLS, find_places, places_across
from ._stain import check_colours

_WINDOW, _PLACE = 1024, 640  # pixels that tell enough: of the middle, of each of several places
_PART = 0.2  # of the places: in fewer it may be dirt or a clump, as all slides have
_SIZES = 0.7, 1.45  # of the diameter that the network expects
_UNSURE = 0.8  # mean confidence
_ROOM = 2.75  # red cells along the shorter side (2.8 and more): of fewer, none may be seen whole
_WIDTHS = 5.0, 12.0  # micrometres: red cells are 6 to 9 wide
_SQUARE = 1.02  # by how much height and width of a pixel may differ, as stages are calibrated
_SPECK = 1 / 8  # of a red cell's area: what is smaller is counted nowhere
_WHITE_AREAS = 0.8, 60.0  # in red cells' areas (1.04 to 10, clusters more)
_HOLLOW = 0.15  # of white cells' area: background in their convex hulls (0.02 to 0.08)
_NESTED, _NESTED_RED = 0.9, 2  # share of an outline (0.75); red cells in white ones (1)
_STRETCHED = 1.4  # by how much outlines run farther along rows than columns, or the reverse (1.3)
_OUTLINES = 20  # diameters that outlines run along both together, which is 5 cells

# The numbers above leave a margin about what smear256/train, leukocyte300/train, folds 1 to 4 of
# bccd and drawn smears show; in brackets what those show.


def doubts(
    image: Any,
    class_map: Any,
    confidence: Any,
    radii: Radii | None,
    expected_diameter: float | None,
    *,
    guessed: bool = False,
    measured: bool = False,
    outside: Any = None,
    classes: Sequence[str] = CLASS_NAMES,
) -> list[str]:
    """Return why an image is perhaps no stained smear in focus; nothing where it looks like one.

    Parameters
    ----------
    image : array-like of shape (H, W[, C])
        A checked image; of a large one some places are looked at, see `find_places`.
    class_map, confidence : array-like of shape (H, W), uint8
        What the network made of it; confidence in 255ths.
    radii : Radii or None
        Of typical cells of the class map, as `typical_radii` finds them.
    expected_diameter : float or None
        How wide red cells are in this image if it has the magnification that the network was shown.
    guessed : bool
        Whether only the network could tell that; of 183 real fields, one.
    measured : bool
        Whether the size of its cells was measured in the image, and given by nobody.
    outside : array-like of shape (H, W), bool, optional
        What is no picture.
    classes : sequence of str
        Names of the labels. What is known of red and white cells is asked of these alone; of
        others, only how sure the network is.
    """
    looks = []
    side = _WINDOW if places_across(class_map.shape) == 1 else _PLACE
    for place in find_places(class_map, side, classes):
        pixels, labels, sure = (np.asarray(each[place]) for each in (image, class_map, confidence))
        seen = np.ones(labels.shape, bool)
        if outside is not None:
            seen = ~np.asarray(outside[place])
        unsure = _check_confidence(sure[seen])
        if RED not in classes and WHITE not in classes:
            looks.append([unsure])
        elif radii is None or radii.red is None or not _has_cells(labels, seen, classes):
            return ["it has no cells"]
        else:
            looks.append([unsure, *_look_at(to_rgb(pixels), labels, seen, radii, classes)])
    # Of a place without background nothing is told of light and stain, which come last.
    texts = [_sum_up(of_one_kind) for of_one_kind in zip_longest(*looks, fillvalue="")]
    if radii is not None and radii.red is not None:
        texts.insert(0, _check_sizes(radii.red, expected_diameter))
        if guessed:
            texts.append("no outlines in it tell how wide red cells are")
        elif measured:
            texts.append(_check_room(image.shape[:2], expected_diameter))
    return [text for text in texts if text]


def _has_cells(labels: np.ndarray, seen: np.ndarray, classes: Sequence[str]) -> bool:
    cells = mask_of(labels, classes, RED) | mask_of(labels, classes, WHITE)
    return bool(np.count_nonzero(cells) >= LEAST_CELLS * np.count_nonzero(seen))


def _look_at(
    pixels: np.ndarray, labels: np.ndarray, seen: np.ndarray, radii: Radii, classes: Sequence[str]
) -> list[str]:
    """Return what is wrong with a place that has cells, a text a kind, "" for what is not."""
    red, white = (mask_of(labels, classes, name) for name in (RED, WHITE))
    radius, field = radii.typical, seen & (labels == 0)
    return [
        _check_stretch(red | white, seen, radius),
        *_check_split(white, red, field, radii, radius),
        _check_nesting(red, white, radius),
        *check_colours(pixels, labels, seen, radius, classes),
    ]


def _sum_up(texts: Sequence[str]) -> str:
    """Return what is told of all places, from texts of one kind, one a place."""
    told = [text for text in texts if text]
    if not told or len(told) < _PART * len(texts):
        return ""
    return told[0] if len(texts) == 1 else f"{told[0]} (in {len(told)} of {len(texts)} places)"


def is_about(diameter: float, expected: float) -> bool:
    """Return whether cells measured in a class map are as wide as the network expects."""
    return _SIZES[0] <= diameter / expected <= _SIZES[1]


def doubts_of_agreement(agreement: float | None, adapted: bool) -> list[str]:
    """Return why a network cannot tell what it looks at; nothing where it can, or nobody asked.

    Parameters
    ----------
    agreement : float or None
        Mean IoU of the class map with that of the mirrored image, see `measure_agreement`.
    adapted : bool
        Whether the network was adapted to the image, for it agreed less.
    """
    if agreement is None or (agreement >= STEADY and not adapted):
        return []
    if adapted:
        return [
            "mirrored, it showed the network other cells; after adapting to it the two answers "
            f"overlap by {agreement:.2f}, where {STEADY} and more is usual"
        ]
    return [
        "mirrored, it shows the network other cells: the two answers overlap by "
        f"{agreement:.2f}, where {STEADY} and more is usual"
    ]


def doubts_of_pixel_size(
    pixel_size: float | None, radius: float | None, aspect: float = 1.0
) -> list[str]:
    """Return why a pixel cannot be so many micrometres wide; nothing where it may be.

    Many files hold the size of the camera's own pixels, or a writer's default. Red cells are much
    alike in all people; this needs no picture, and holds for any model.
    """
    texts = []
    if max(aspect, 1 / aspect) > _SQUARE:
        texts.append(
            f"its pixels are {aspect:.3g} times as high as wide, so that areas and diameters are "
            "right, but not perimeters and shapes; make them square"
        )
    if pixel_size is None or radius is None:
        return texts
    width = 2 * radius * pixel_size
    if not _WIDTHS[0] <= width <= _WIDTHS[1]:
        texts.append(
            f"pixels of {pixel_size:.3g} micrometres make its red cells {width:.3g} micrometres "
            "wide, not 6 to 9"
        )
    return texts


def _check_sizes(radius: float, expected: float | None) -> str:
    if expected is None or is_about(2 * radius, expected):
        return ""
    return f"its cells are {2 * radius:.0f} pixels wide, not about {expected:.0f}"


def _check_room(shape: Sequence[int], expected: float | None) -> str:
    """Compare an image with the cells in it: of one cell alone, nothing tells how large it is."""
    if expected is None or min(shape) >= _ROOM * expected:
        return ""
    return (
        f"it is no more than {min(shape) / expected:.1f} red cells high or wide, too little to "
        "measure them; pass red_cell_diameter"
    )


def _check_confidence(sure: np.ndarray) -> str:
    mean = sure.mean() / 255
    return "" if mean >= _UNSURE else f"the network is unsure (mean confidence {mean:.2f})"


def _check_white_cells(white: np.ndarray, red: np.ndarray, radius: float) -> str:
    """Compare white cells with red ones, where there are any: none is much smaller."""
    regions, whole = _find_whole(white, radius)
    if not red.any() or len(whole) == 0:
        return ""
    typical = float(np.median(regions.areas[whole])) / (np.pi * radius**2)
    if typical < _WHITE_AREAS[0] and len(whole) > 1:  # one may be a speck, which is not counted
        return "its white cells are smaller than its red ones; perhaps they are platelets"
    if typical > _WHITE_AREAS[1]:
        return "its white cells are too large for its red ones"
    return ""


def _check_split(
    white: np.ndarray, red: np.ndarray, field: np.ndarray, radii: Radii, radius: float
) -> list[str]:
    """Look at white cells all together, and at each as it is counted."""
    if not white.any():
        return ["", ""]
    split = split_cells(white.astype(np.uint8), radii, classes=("background", WHITE))
    sizes = _check_white_cells(white, red, radius) or _check_number(split, radius)
    return [sizes, _check_outlines(split, field)]


def _check_number(split: Split, radius: float) -> str:
    """Compare the number of white cells that are counted with what their area has room for."""
    areas = np.bincount(split.labels.ravel(), minlength=len(split.classes) + 1)[1:]
    whole = np.delete(areas, np.setdiff1d(labels_at_edge(split.labels), [0]) - 1)
    room = int(whole.sum() / (_WHITE_AREAS[0] * np.pi * radius**2))
    if len(whole) < 2 or len(whole) <= room:  # one may be a speck
        return ""
    return f"its {len(whole)} white cells have no more room than {max(room, 1)}: they are cut up"


def _check_outlines(split: Split, field: np.ndarray) -> str:
    """Look for background in the convex hulls of white cells.

    Cells are convex, or nearly; the lobes of a nucleus are not. Where a network takes pale
    cytoplasm for background, nuclei are all that is left.
    """
    hollow = area = 0
    for number, place in enumerate(ndimage.find_objects(split.labels), start=1):
        cell = split.labels[place] == number
        corners = cv2.convexHull(np.concatenate(trace_outlines(cell)))
        hull = cv2.fillConvexPoly(np.zeros(cell.shape, np.uint8), corners, 1) > 0
        hollow += np.count_nonzero(hull & field[place])
        area += np.count_nonzero(cell)
    if hollow <= _HOLLOW * area:
        return ""
    return "its white cells have outlines like those of nuclei; perhaps pale cytoplasm is left out"


def _check_stretch(cells: np.ndarray, seen: np.ndarray, radius: float) -> str:
    """Compare how far outlines run along rows and along columns: alike, as cells lie anyhow."""
    along_rows, along_columns = lengths = [
        int(np.count_nonzero((inside[1:] != inside[:-1]) & known[1:] & known[:-1]))
        for inside, known in ((cells, seen), (cells.T, seen.T))
    ]
    if sum(lengths) < 2 * _OUTLINES * radius:
        return ""
    ratio = max(lengths) / max(min(lengths), 1)
    if ratio < _STRETCHED:
        return ""
    shape = "wide as high" if along_rows > along_columns else "high as wide"
    return f"its cells are {ratio:.1f} times as {shape}; perhaps it was stretched"


def _check_nesting(red: np.ndarray, white: np.ndarray, radius: float) -> str:
    """Look for cells inside of one of the other class: a half of what is one cell."""
    n_red, n_white = _count_nested(red, white, radius), _count_nested(white, red, radius)
    if n_white == 0 and n_red < _NESTED_RED:
        return ""
    return "cells of one class lie inside of cells of the other"


def _find_whole(inside: np.ndarray, radius: float) -> tuple[Regions, np.ndarray]:
    """Return the regions of a class, and which lie whole in the window and are no specks."""
    regions = Regions.of(inside)
    return regions, np.flatnonzero(regions.whole & (regions.areas >= _SPECK * np.pi * radius**2))


def _count_nested(inside: np.ndarray, other: np.ndarray, radius: float) -> int:
    """Count the cells of a class whose outline runs through the other class nearly everywhere."""
    regions, whole = _find_whole(inside, radius)
    count = 0
    for number in whole:
        (rows, columns), cell = regions.cut_out(number)
        around = np.pad(cell, 1).astype(np.uint8)  # which is in the window, for the cell is whole
        ring = cv2.dilate(around, np.ones((3, 3), np.uint8)) > around
        beside = other[rows.start - 1 : rows.stop + 1, columns.start - 1 : columns.stop + 1]
        count += np.mean(beside[ring]) > _NESTED
    return int(count)
