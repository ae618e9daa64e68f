"""A class map of any size, block by block, with each cell whole in one of the blocks."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs

from .._images import CLASS_NAMES
from ._frame import EXCLUDED_SIDES, CountingFrame, counting_frame
from ._scale import Radii
from ._split import Split, split_cells

# Pixels of an image that is one block, and about the side of the blocks of a larger one, their
# margins aside: both bound the memory. Margins, ten cells wide, may make twice the work.
_WHOLE, _CORE = 2**24, 2048
_MOST_THREADS = 2  # and the caller's: more wait for Python's lock, and each takes 0.2 GB


@dataclass(frozen=True)
class Block:
    """Part of an image: a core, and around it a margin that shows the core's cells whole.

    Attributes
    ----------
    window : (slice, slice)
        Rows and columns, in the image, of core and margin.
    core : (slice, slice)
        Rows and columns of the core within the window.
    class_map : ndarray of shape (h, w), uint8
        The window's class map.
    split : Split
        The window's cells.
    owned : ndarray of shape (n,), bool
        Which of the cells have their seed in the core. A seed lies in one core, so each cell of
        the image belongs to one block.
    """

    window: tuple[slice, slice]
    core: tuple[slice, slice]
    class_map: np.ndarray
    split: Split
    owned: np.ndarray

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the core in the image."""
        rows, columns = (
            slice(window.start + core.start, window.start + core.stop)
            for window, core in zip(self.window, self.core, strict=True)
        )
        return rows, columns

    @cached_property
    def owned_labels(self) -> np.ndarray:
        """The window's label image with the block's own cells alone, numbered from 1."""
        number = np.zeros(len(self.owned) + 1, np.int32)
        number[1:][self.owned] = 1 + np.arange(np.count_nonzero(self.owned))
        return np.asarray(number[self.split.labels])


def blocks_of_cells(
    class_map: Any,
    radii: Radii | None,
    *,
    classes: Sequence[str] = CLASS_NAMES,
    outside: Any = None,
    side: int | None = None,
    n_threads: int = 1,
) -> Iterator[Block]:
    """Yield the blocks that make up an image, row by row.

    Threads split them while the caller works on those before; a `joblib.parallel_config` for more
    than one worker around the loop says where they are split instead.

    Parameters
    ----------
    class_map : array-like of shape (H, W), uint8
        Labels, read by rectangles of rows and columns.
    radii : Radii or None
        Of typical cells; None, where there are no cells, yields nothing.
    classes : sequence of str
        Names of the labels.
    outside : array-like of shape (H, W), bool, optional
        What is no picture, read likewise.
    side : int, optional
        About that of the cores in pixels, which are of one size; by default that of the whole of
        an image of up to 16 megapixels, and 2048 of a larger one.
    n_threads : int
        That may split blocks; two are enough.
    """
    if radii is None:
        return
    height, width = class_map.shape
    if side is None:
        side = max(height, width) if height * width <= _WHOLE else _CORE
    sides = _even(height, side), _even(width, side)
    one_block = sides == (height, width)  # it is worth no process
    if not one_block and effective_n_jobs(None) > 1:
        workers = Parallel(return_as="generator")
    else:
        n_threads = 1 if one_block else min(n_threads, _MOST_THREADS)
        workers = Parallel(
            n_threads, prefer="threads", return_as="generator", pre_dispatch=n_threads
        )
    windows = _windows(class_map, radii, outside, sides)
    yield from workers(
        delayed(_split_block)(*window, radii=radii, classes=classes) for window in windows
    )


def _even(length: int, side: int) -> int:
    """Return the side of equal parts of a length, near to this one: no part is a sliver."""
    return -(-length // max(1, round(length / side)))


def _windows(
    class_map: Any, radii: Radii, outside: Any, sides: tuple[int, int]
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice], np.ndarray, np.ndarray | None]]:
    """Yield window and core of each block, its class map, and what is no picture in it."""
    height, width = class_map.shape
    margin = int(np.ceil(radii.reach))
    for top in range(0, height, sides[0]):
        rows, core_rows = _with_margin(top, sides[0], height, margin)
        for left in range(0, width, sides[1]):
            columns, core_columns = _with_margin(left, sides[1], width, margin)
            window = rows, columns
            hidden = None if outside is None else np.asarray(outside[window])
            yield window, (core_rows, core_columns), np.asarray(class_map[window]), hidden


def _split_block(
    window: tuple[slice, slice],
    core: tuple[slice, slice],
    class_map: np.ndarray,
    outside: np.ndarray | None,
    *,
    radii: Radii,
    classes: Sequence[str],
) -> Block:
    origin = window[0].start, window[1].start
    split = split_cells(class_map, radii, origin, classes=classes, outside=outside)
    owned = np.ones(len(split.seeds), bool)
    for seeds, start, own in zip(split.seeds.T, origin, core, strict=True):
        owned &= (seeds >= start + own.start) & (seeds < start + own.stop)
    return Block(window, core, class_map, split, owned)


class KeptBlocks:
    """The blocks of a class map, split into cells once, however often they are asked for.

    What is kept is small: label images are packed, and the class map is read again.

    Parameters
    ----------
    class_map, radii, classes, outside, n_threads
        As for `blocks_of_cells`.
    """

    def __init__(
        self,
        class_map: Any,
        radii: Radii | None,
        classes: Sequence[str] = CLASS_NAMES,
        *,
        outside: Any = None,
        n_threads: int = 1,
    ):
        self.classes = tuple(classes)
        self._class_map = class_map
        self.outside = outside
        self.radii = radii
        self._n_threads = n_threads
        self._kept: list[tuple[Block, bytes]] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the class map."""
        height, width = self._class_map.shape
        return height, width

    def frame(self, excluded_sides: Sequence[str] = EXCLUDED_SIDES) -> CountingFrame:
        """Return the counting frame of the class map."""
        return counting_frame(self.shape, self.radii, excluded_sides, outside=self.outside)

    def __iter__(self) -> Iterator[Block]:
        if self._kept is None:
            kept = []
            for block in blocks_of_cells(
                self._class_map,
                self.radii,
                classes=self.classes,
                outside=self.outside,
                n_threads=self._n_threads,
            ):
                kept.append(
                    (_without_pixels(block), zlib.compress(block.split.labels.tobytes(), level=1))
                )
                yield block
            self._kept = kept  # not where the caller has stopped halfway
            return
        for block, packed in self._kept:
            class_map = np.asarray(self._class_map[block.window])
            labels = np.frombuffer(zlib.decompress(packed), np.int32).reshape(class_map.shape)
            yield replace(block, class_map=class_map, split=replace(block.split, labels=labels))


def _without_pixels(block: Block) -> Block:
    nothing = np.empty((0, 0), np.int32)
    return replace(block, class_map=nothing, split=replace(block.split, labels=nothing))


def _with_margin(start: int, side: int, length: int, margin: int) -> tuple[slice, slice]:
    """Return where a block with its margin lies in the image, and the block within that."""
    stop = min(start + side, length)
    first = max(start - margin, 0)
    return slice(first, min(stop + margin, length)), slice(start - first, stop - first)
