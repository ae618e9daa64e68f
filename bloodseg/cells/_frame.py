"""The unbiased counting frame: which cells of a picture count for a density, over what area.

The border of a photo cuts cells, so that more of them show than belong to its area: in photos of
256 pixels whose cells are 54 pixels wide, 40 % more. Gundersen's frame counts the cells that reach
into a rectangle, but for those that touch one of two sides that meet, or the lines that extend
them: were the plane tiled with such frames, each cell would count in one of them.

A cell that only peeks over the border is too little to be found. So the other two sides of the
frame keep half the width of a red cell away from the border: what reaches into the frame shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._scale import Radii

SIDES = ("top", "left", "bottom", "right")  # in the order of boxes
EXCLUDED_SIDES = ("bottom", "right")
_VIEW = 256  # pixels a side: in what the largest rectangle in a picture is looked for


@dataclass(frozen=True)
class CountingFrame:
    """An unbiased counting frame [1]_ in an image.

    A cell counts if it has a pixel in the frame, and none beyond the excluded sides or the lines
    that extend them: of "bottom" and "right", none to the right of the frame, and none that is both
    below it and not to the left of it. So each cell, of whatever shape and size, counts in one of
    the frames that tile a plane, and the number of cells over the area is their density.

    Attributes
    ----------
    top, left, bottom, right : int
        In pixels, bottom and right excluded.
    excluded_sides : tuple of str
        The two sides whose cells do not count; none where all cells do.
    area : int
        Pixels over which cells count.

    References
    ----------
    .. [1] H. J. G. Gundersen, Notes on the estimation of the numerical density of arbitrary
       profiles: the edge effect, Journal of Microscopy 111 (1977), 219-223.

    Examples
    --------
    >>> import numpy as np
    >>> from bloodseg.cells import find_cells
    >>> y, x = np.mgrid[:100, :100]
    >>> disc = lambda row, column: (y - row) ** 2 + (x - column) ** 2 < 15**2
    >>> cells = find_cells(2 * (disc(50, 50) | disc(4, 30) | disc(70, 96)))
    >>> cells.counts["red"], cells.counts_in_frame["red"]  # the last one touches the right side
    (3, 2)
    >>> cells.frame.excluded_sides, cells.frame.area
    (('bottom', 'right'), 7056)
    """

    top: int
    left: int
    bottom: int
    right: int
    excluded_sides: tuple[str, ...]
    area: int

    def holds(
        self, labels: np.ndarray, n_cells: int, origin: tuple[int, int] = (0, 0)
    ) -> np.ndarray:
        """Return which of the cells of a label image count.

        Parameters
        ----------
        labels : ndarray of shape (h, w), int
            Cells 1 to n, whole.
        n_cells : int
            Their number.
        origin : (int, int)
            Row and column of the label image in the image.

        Returns
        -------
        ndarray of shape (n_cells,), bool
        """
        if not self.excluded_sides:
            return np.ones(n_cells, bool)
        height, width = labels.shape
        top, bottom = (min(max(row - origin[0], 0), height) for row in (self.top, self.bottom))
        left, right = (min(max(col - origin[1], 0), width) for col in (self.left, self.right))
        counts, beyond = np.zeros((2, n_cells + 1), bool)
        counts[labels[top:bottom, left:right]] = True
        if "right" in self.excluded_sides:
            beyond[labels[:, right:]] = True
            columns = slice(left, None)
        else:
            beyond[labels[:, :left]] = True
            columns = slice(None, right)
        rows = slice(bottom, None) if "bottom" in self.excluded_sides else slice(None, top)
        beyond[labels[rows, columns]] = True
        return np.asarray(counts & ~beyond)[1:]


def check_excluded_sides(sides: Any) -> tuple[str, ...]:
    """Return the sides of a frame whose cells do not count."""
    given = None if isinstance(sides, str) or not np.iterable(sides) else tuple(sides)
    pairs = itertools.product(("top", "bottom"), ("left", "right"))
    if given is None or (given and not any(given in (pair, pair[::-1]) for pair in pairs)):
        raise ValueError(
            "excluded_sides must be two sides that meet, one of 'top' and 'bottom' and one of "
            f"'left' and 'right', or () where all cells are to count; got {sides!r}. The default "
            f"is {EXCLUDED_SIDES}."
        )
    return given


def counting_frame(
    shape: tuple[int, int],
    radii: Radii | None,
    excluded_sides: Sequence[str] = EXCLUDED_SIDES,
    *,
    outside: Any = None,
) -> CountingFrame:
    """Return the counting frame of an image.

    Where something surrounds the picture, as around the round field of an eyepiece, the largest
    upright rectangle in the picture takes the image's place.

    Parameters
    ----------
    shape : (int, int)
        Height and width of the image.
    radii : Radii or None
        Of typical cells.
    excluded_sides : sequence of str
        Two sides that meet; none makes a frame of all that is picture, in which all cells count.
    outside : array-like of shape (H, W), bool, optional
        What is no picture, read by rows.
    """
    excluded = check_excluded_sides(excluded_sides)
    height, width = shape
    if not excluded:
        return CountingFrame(0, 0, height, width, excluded, height * width - _count(outside))
    picture = (0, 0, height, width) if outside is None else _largest_rectangle(outside)
    guard = 0 if radii is None else int(np.ceil(radii.typical))
    # A cell in the last row or column of pixels may go on beyond: the excluded sides lie before it.
    steps = [1 if side in excluded else guard for side in SIDES]
    top, left = (edge + step for edge, step in zip(picture[:2], steps[:2], strict=True))
    bottom, right = (edge - step for edge, step in zip(picture[2:], steps[2:], strict=True))
    if bottom <= top or right <= left:
        return CountingFrame(0, 0, 0, 0, excluded, 0)
    return CountingFrame(top, left, bottom, right, excluded, (bottom - top) * (right - left))


def _count(outside: Any) -> int:
    if outside is None:
        return 0
    tops = range(0, outside.shape[0], _VIEW)
    return sum(int(np.count_nonzero(outside[top : top + _VIEW])) for top in tops)


def _largest_rectangle(outside: Any) -> tuple[int, int, int, int]:
    """Return top, left, bottom and right of the largest upright rectangle that is all picture.

    Of large images within so many pixels as one of `_VIEW` by `_VIEW` stands for.
    """
    height, width = outside.shape
    step = -(-max(height, width) // _VIEW)
    columns = np.arange(0, width, step)
    view = np.array(
        [
            np.logical_or.reduceat(np.asarray(outside[top : top + step]).any(axis=0), columns)
            for top in range(0, height, step)
        ]
    )
    best, found = 0, (0, 0, 0, 0)
    heights = np.zeros(view.shape[1], int)  # of the picture above each place of a row
    for row, hidden in enumerate(view, start=1):
        heights = np.where(hidden, 0, heights + 1)
        rising: list[tuple[int, int]] = []  # where rectangles that still go on start, their heights
        for place, high in enumerate([*heights.tolist(), 0]):
            start = place
            while rising and rising[-1][1] >= high:
                start, low = rising.pop()
                if low * (place - start) > best:
                    best, found = low * (place - start), (row - low, start, row, place)
            rising.append((start, high))
    top, left, bottom, right = (step * edge for edge in found)
    return top, left, min(bottom, height), min(right, width)
