"""Polygons of any number of corners, filled row by row."""

from __future__ import annotations

import itertools

import numpy as np

FAR = 1e6  # pixels; points further out are moved here, well outside of any image
_AT_ONCE = 2**20  # places where edges cross rows


def fill_polygon(
    x: np.ndarray, y: np.ndarray, size: tuple[int, int]
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Find the pixels of an image whose centres lie in a polygon or on its outline.

    What `skimage.draw.polygon` finds by asking each pixel for each edge is found here from the
    places where edges cross rows: the time is that of the height of the edges and of the area.

    Parameters
    ----------
    x, y : ndarray of shape (n,), float64
        Corners. Where the outline crosses itself, what it goes around twice lies outside.
    size : (int, int)
        Height and width of the image.

    Returns
    -------
    place : (slice, slice)
        Rows and columns of the part of the image in which the polygon lies.
    inside : ndarray of bool
        The pixels of that part.
    """
    lows = [max(int(np.ceil(values.min())), 0) for values in (y, x)]
    highs = [
        max(min(int(np.floor(values.max())) + 1, length), low)
        for values, length, low in zip((y, x), size, lows, strict=True)
    ]
    place = slice(lows[0], highs[0]), slice(lows[1], highs[1])
    height, width = highs[0] - lows[0], highs[1] - lows[1]
    # One column more than there are: crossings at the right of all.
    crossed = np.zeros((height, width + 1), np.uint8)
    outline = np.zeros((height, width + 1), bool)
    if height == 0 or width == 0:
        return place, outline[:, :width]
    x, y = x - lows[1], y - lows[0]
    edges = np.stack([x, y, np.roll(x, -1), np.roll(y, -1)])
    down = edges[1] > edges[3]
    edges[:, down] = edges[[2, 3, 0, 1]][:, down]
    _mark_level(outline, edges[:, edges[1] == edges[3]])
    edges = edges[:, edges[1] < edges[3]]
    first = np.ceil(edges[1]).clip(0, height).astype(np.intp)
    last = np.floor(edges[3]).clip(-1, height - 1).astype(np.intp)
    counts = np.maximum(last - first + 1, 0)
    for part in _parts(counts):
        x0, y0, x1, y1 = np.repeat(edges[:, part], counts[part], axis=1)
        starts = np.repeat(np.cumsum(counts[part]) - counts[part], counts[part])
        rows = np.repeat(first[part], counts[part]) + np.arange(len(starts)) - starts
        at = x0 + (rows - y0) * (x1 - x0) / (y1 - y0)
        columns = np.ceil(at).clip(0, width).astype(np.intp)
        on_it = (columns == at) & (columns < width)
        outline[rows[on_it], columns[on_it]] = True
        between = rows < y1  # a corner belongs to one of its two edges
        np.bitwise_xor.at(crossed, (rows[between], columns[between]), np.uint8(1))
    inside = np.bitwise_xor.accumulate(crossed, axis=1).astype(bool)
    return place, (inside | outline)[:, :width]


def _mark_level(outline: np.ndarray, edges: np.ndarray) -> None:
    """Mark the edges that lie along a row of pixels."""
    height = len(outline)
    for x0, y, x1, _ in edges.T:
        if y == int(y) and 0 <= y < height:
            left, right = sorted((x0, x1))
            outline[int(y), max(int(np.ceil(left)), 0) : max(int(np.floor(right)) + 1, 0)] = True


def _parts(counts: np.ndarray) -> list[slice]:
    """Cut edges into parts that cross not too many rows."""
    which = np.cumsum(counts) // _AT_ONCE
    bounds = [0, *(np.flatnonzero(np.diff(which)) + 1).tolist(), len(counts)]
    return [slice(*each) for each in itertools.pairwise(bounds)]
