"""Arcs of outlines, from notch to notch, and the ellipses that they lie on.

Where cells touch or overlap, the outline of the clump has notches; between two of them it belongs
to one cell. An arc that goes around half of its cell or more tells how large the whole cell is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d

from ._shapes import trace_outlines

_SOFTEN = 0.15  # of a radius: the blur of outlines before their curvature is taken
_NOTCH = -0.5  # curvature, in that of a circle of the radius, below which there is a notch
_LEAST_TURN = np.pi  # that an arc must turn by
_LEAST_POINTS = 5  # that make an ellipse


def ellipses_of_arcs(mask: np.ndarray, radius: float) -> np.ndarray:
    """Return the ellipses that arcs of outlines lie on.

    Parameters
    ----------
    mask : ndarray of shape (h, w), bool
        Cells, alone and in clumps. At its border, outlines end.
    radius : float
        Of the cells in pixels, roughly.

    Returns
    -------
    ndarray of shape (n, 3)
        Row of the middle, half the long and half the short side, in pixels.
    """
    long_enough = [line for line in trace_outlines(mask) if len(line) >= np.pi * radius]
    spread = max(_SOFTEN * radius, 1)
    found = []
    for points, turn, notched in _bending(long_enough, radius, spread):
        ends = notched | ((points == 0) | (points == np.array(mask.shape[::-1]) - 1)).any(axis=1)
        for arc in _arcs(points, turn, ends, round(spread)):
            (_, row), sides, _ = cv2.fitEllipseDirect(arc.astype(np.float32))
            # The outermost pixels have their middles half a pixel inside.
            found.append((row, max(sides) / 2 + 0.5, min(sides) / 2 + 0.5))
    return np.reshape(found, (-1, 3))


def _bending(
    outlines: Sequence[np.ndarray], radius: float, spread: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the points of each closed outline, by how much it turns at each, and which are notches.

    All outlines are blurred at once, each between its own ends.
    """
    if not outlines:
        return
    reach = int(4 * spread) + 1
    rounds = [points[np.arange(-reach, len(points) + reach) % len(points)] for points in outlines]
    line = np.concatenate(rounds).T.astype(float)
    (right, down), (right2, down2) = (
        gaussian_filter1d(line, spread, order=order) for order in (1, 2)
    )
    length = np.maximum(np.hypot(right, down), 0.1)
    turn = (down * right2 - right * down2) / length**2  # from point to point
    notched = turn * radius < _NOTCH * length
    start = reach
    for points in outlines:
        own = slice(start, start + len(points))
        yield points, turn[own], notched[own]
        start = own.stop + 2 * reach


def _arcs(
    points: np.ndarray, turn: np.ndarray, ends: np.ndarray, margin: int
) -> Iterator[np.ndarray]:
    """Yield the parts of a closed outline that lie between ends and turn far enough.

    So near to its end as the margin, an arc is bent by the notch.
    """
    if not ends.any():
        yield points
        return
    start = int(ends.argmax())
    points, turn, ends = (np.roll(each, -start, axis=0) for each in (points, turn, ends))
    first = np.flatnonzero(ends[:-1] & ~ends[1:]) + 1
    last = np.append(np.flatnonzero(~ends[:-1] & ends[1:]) + 1, len(ends))
    for begin, end in zip(first + margin, last - margin, strict=False):
        if end - begin >= _LEAST_POINTS and turn[begin:end].sum() >= _LEAST_TURN:
            yield points[begin:end]
