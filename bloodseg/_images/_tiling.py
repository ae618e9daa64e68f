"""Images too large for a network: cut into tiles, and what it says of them blended.

Nothing here knows networks: a tile goes in as pixels, values for each of its pixels come out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from ._lazy import made_ahead

STRIDE = 16
"""Tiles start at multiples of this: there the pooling of a network sees the whole image's grid."""


@dataclass(frozen=True)
class Span:
    """A tile along one axis.

    Attributes
    ----------
    start, stop : int
        What the network sees.
    first, last : int
        What is finished with this tile; over the ``fade`` pixels from ``last`` on, the next tile
        takes over.
    """

    start: int
    stop: int
    first: int
    last: int
    fade: int

    def fade_edges(self, values: np.ndarray, axis: int, *, length: int) -> np.ndarray:
        """Return the values from ``first`` on, faded in and out along an axis, as a new array."""
        stop = min(self.last + self.fade, length)
        values = values.take(range(self.first - self.start, stop - self.start), axis)
        weights = np.ones(values.shape[axis], values.dtype)
        rise = np.sin(np.pi / 2 * (np.arange(self.fade) + 0.5) / max(self.fade, 1)) ** 2
        if self.first > 0:
            weights[: self.fade] = rise
        if self.last < length:
            weights[-self.fade :] = 1 - rise
        return values * np.moveaxis(weights[:, np.newaxis, np.newaxis], 0, axis)


def cut_spans(length: int, side: int, overlap: int) -> list[Span]:
    """Return the tiles along an axis: of one size, at most ``side``, overlapping at least so much.

    There are as few as can be, and they are no larger than so many need be: what tiles see twice
    costs time. They take turns in the middle of where they overlap: near its border a tile lacks
    surroundings.
    """
    count = max(1, -(-(length - overlap) // (side - overlap))) if length > side else 1
    side = -(-(length + (count - 1) * overlap) // (count * STRIDE)) * STRIDE
    slack = max(length - side, 0)
    starts = [-(-index * slack // (max(count - 1, 1) * STRIDE)) * STRIDE for index in range(count)]
    stops = [min(start + side, length) for start in starts]
    fade = overlap // 2
    turns = [(start + stop - fade) // 2 for start, stop in zip(starts[1:], stops, strict=False)]
    return [
        Span(*edges, fade)
        for edges in zip(starts, stops, [0, *turns], [*turns, length], strict=True)
    ]


def blend_tiles(
    image: Any, predict: Callable[[np.ndarray], tuple[np.ndarray, Any]], *, side: int, overlap: int
) -> Iterator[tuple[slice, slice, np.ndarray, Any]]:
    """Predict an image tile by tile, and yield what is finished block by block.

    Memory is bounded: two strips of the image as high as a tile, one of which is read while the
    tiles of the other are predicted, a few tiles, and where tiles fade into those below. A
    `joblib.parallel_config` around the loop says where tiles are predicted.

    Parameters
    ----------
    image : array-like of shape (H, W[, C])
        Read by strips of rows.
    predict : callable
        Takes a tile (h, w[, C]); returns values (n, h, w), floating point, and anything to pass on.
    side, overlap : int
        Of the tiles, in pixels, multiples of `STRIDE`; the overlap at most half of the side.

    Yields
    ------
    rows, columns : slice
        Place of a block. The blocks are the whole image, row by row.
    values : ndarray of shape (n, h, w)
        Of the block.
    passed_on
        What ``predict`` returned beside the values.
    """
    height, width = image.shape[:2]
    across = cut_spans(width, side, overlap)
    above: dict[Span, np.ndarray] = {}
    down = cut_spans(height, side, overlap)
    strips = made_ahead(np.asarray(image[row.start : row.stop]) for row in down)
    for row, strip in zip(down, strips, strict=True):
        tiles = (strip[:, column.start : column.stop] for column in across)
        results = Parallel(return_as="generator")(delayed(predict)(tile) for tile in tiles)
        before = None
        for column, (values, passed_on) in zip(across, results, strict=True):
            faded = column.fade_edges(row.fade_edges(values, 1, length=height), 2, length=width)
            if before is not None:
                faded[:, :, : column.fade] += before
            before = faded[:, :, column.last - column.first :]
            block = faded[:, :, : column.last - column.first]
            if column in above:
                block[:, : row.fade] += above[column]
            above[column] = block[:, row.last - row.first :].copy()
            rows, columns = slice(row.first, row.last), slice(column.first, column.last)
            yield rows, columns, block[:, : row.last - row.first], passed_on
