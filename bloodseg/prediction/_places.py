"""Places of a large image that stand for all of it, for to look at all again would cost much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .._images import RED, WHITE

Place = tuple[slice, slice]
"""Rows and columns of a window."""

LEAST_CELLS = 0.005  # share of the pixels: a window of fewer is empty
_APART, _MOST_ACROSS = 1700, 3  # pixels from one place to the next; places along a side


def places_across(shape: tuple[int, ...], factor: float = 1.0) -> int:
    """Return how many places along each side stand for an image, see `find_places`."""
    return int(np.clip(factor * math.sqrt(shape[0] * shape[1]) / _APART, 1, _MOST_ACROSS))


def find_places(
    class_map: Any, side: int, classes: Sequence[str], factor: float = 1.0
) -> list[Place]:
    """Return where to look at an image: in its middle, or in 4 or 9 windows of a large one.

    Those of a large image are spread so that each stands for as many of the windows with cells.
    Where the middle of a smaller one is empty, it is the window with most cells.

    Parameters
    ----------
    class_map : array-like of shape (H, W), uint8
        What the network made of the image; read by strips of rows.
    side : int
        Of the windows, in the image's own pixels.
    classes : sequence of str
        Names of the labels.
    factor : float
        How many pixels along a side are looked at for one of these.
    """
    height, width = class_map.shape
    across = places_across(class_map.shape, factor)
    blood = [name for name in (RED, WHITE) if name in classes] or classes[1:]
    labels = [classes.index(name) for name in blood]

    def share_of_cells(strip: Any, columns: slice) -> float:
        return float(np.isin(np.asarray(strip)[:, columns], labels).mean())

    centre = _window((height - side) // 2, side), _window((width - side) // 2, side)
    if across == 1 and share_of_cells(class_map[centre[0]], centre[1]) >= LEAST_CELLS:
        return [centre]
    shares = []
    for top in _starts(height, side):
        rows = _window(top, side)
        strip = np.asarray(class_map[rows])
        for left in _starts(width, side):
            columns = _window(left, side)
            shares.append((share_of_cells(strip, columns), (rows, columns)))
    windows = [place for share, place in shares if share >= LEAST_CELLS]
    if not windows:
        return [centre]
    if across == 1:
        return [max(shares, key=lambda each: each[0])[1]]
    return [
        part[len(part) // 2]
        for band in _parts(windows, across)  # of rows, as they are in order
        for part in _parts(sorted(band, key=lambda place: place[1].start), across)
    ]


def _window(start: int, side: int) -> slice:
    return slice(max(start, 0), max(start, 0) + side)


def _starts(length: int, side: int) -> list[int]:
    return np.linspace(0, max(length - side, 0), -(-length // side)).astype(int).tolist()


def _parts(places: list[Place], number: int) -> list[list[Place]]:
    """Return so many parts of a list, as even as may be; of fewer places fewer."""
    edges = np.linspace(0, len(places), min(number, len(places)) + 1).astype(int)
    return [places[start:stop] for start, stop in pairwise(edges)]
