"""Images in another size, read by strips of rows, and what a network says of them brought back.

Every output is a weighted mean of inputs, along rows and then along columns. The weights follow
from places in the whole image alone, so that strips and blocks equal the whole to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cv2
import numpy as np
from scipy import sparse

from ._checks import middle, to_rgb

_STEP = 64  # rows made at a time, so that strips in floating point stay small
_ROWS = 512  # read at a time, of which few are kept


class _Axis:
    """One side of an image, in ``length`` inputs, resampled to ``n_outputs`` outputs.

    With r = length / n_outputs, the middle of output j lies at m_j = (j + 1/2) r, that of input i
    at i + 1/2. Output j is the mean of the inputs, weighted by
    kernel(abs(i + 1/2 - m_j) / max(1, r)): where a side is made smaller, no input is skipped.

    Parameters
    ----------
    length, n_outputs : int
        How many inputs there are, and how many outputs there shall be.
    kernel : callable
        Weight by distance, zero from ``reach`` on.
    reach : int
        See ``kernel``.
    """

    def __init__(self, length: int, n_outputs: int, kernel: Callable[[Any], Any], reach: int):
        self.length = length
        ratio = length / n_outputs
        self._kernel, self._unit = kernel, max(1.0, ratio)
        self._middles = (np.arange(n_outputs) + 0.5) * ratio
        half = reach * self._unit
        self._starts = np.floor(self._middles - half).clip(0, None).astype(np.intp)
        self._stops = np.ceil(self._middles + half).clip(None, length).astype(np.intp)
        self.most = int((self._stops - self._starts).max())

    def find_inputs(self, outputs: slice) -> slice:
        """Return the inputs that outputs are means of."""
        if outputs.start >= outputs.stop:
            return slice(0, 0)
        return slice(int(self._starts[outputs.start]), int(self._stops[outputs.stop - 1]))

    def find_outputs(self, inputs: slice) -> slice:
        """Return the outputs whose last input is one of these."""
        start, stop = np.searchsorted(self._stops, (inputs.start, inputs.stop), "right")
        return slice(int(start), int(stop))

    def resample(self, values: np.ndarray, axis: int, outputs: slice, first: int) -> np.ndarray:
        """Return outputs along an axis of values, float32, which begin with input ``first``."""
        inputs = self._starts[outputs, np.newaxis] + np.arange(self.most)
        distances = inputs + 0.5 - self._middles[outputs, np.newaxis]
        weights = self._kernel(np.abs(distances) / self._unit)
        weights[inputs >= self._stops[outputs, np.newaxis]] = 0
        weights /= weights.sum(axis=1, keepdims=True)
        rows, places = np.nonzero(weights)
        matrix = sparse.csr_matrix(
            (weights[rows, places].astype(np.float32), (rows, inputs[rows, places] - first)),
            (len(weights), values.shape[axis]),
        )
        moved = np.moveaxis(values, axis, 0)
        result = matrix @ moved.reshape(len(moved), -1)
        return np.moveaxis(result.reshape(-1, *moved.shape[1:]), 0, axis)


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - distance, 0)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Return the weights of Keys' cubic convolution: edges stay sharper than with linear ones."""
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0))


def rescaled_shape(shape: tuple[int, ...], factor: float) -> tuple[int, int]:
    """Return height and width of an image that is scaled; no side vanishes."""
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def shrink(image: np.ndarray, scale: float) -> np.ndarray:
    """Return a checked image as smaller RGB; each pixel the mean of those that it covers."""
    height, width = rescaled_shape(image.shape, scale)
    return cv2.resize(to_rgb(image), (width, height), interpolation=cv2.INTER_AREA)


class ScaledRows:
    """An image in another size as RGB, uint8 or float32 in [0, 1], read by strips of rows.

    Parameters
    ----------
    image : array-like of shape (H, W[, C])
        A checked image, or anything with ``shape`` whose slices of rows are such.
    factor : float
        How many pixels along a side there shall be for one.
    """

    def __init__(self, image: Any, factor: float):
        height, width = rescaled_shape(image.shape, factor)
        self.shape = (height, width, 3)
        self._image = image
        self._down = _Axis(image.shape[0], height, _cubic, 2)
        self._across = _Axis(image.shape[1], width, _cubic, 2)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return a strip, rows from ``start`` to ``stop``."""
        start, stop, _ = rows.indices(self.shape[0])
        tops = range(start, stop, _STEP)
        return np.concatenate([self._strip(slice(top, min(top + _STEP, stop))) for top in tops])

    def _strip(self, rows: slice) -> np.ndarray:
        needed = self._down.find_inputs(rows)
        pixels = to_rgb(np.asarray(self._image[needed]))
        strip = self._down.resample(pixels.astype(np.float32), 0, rows, needed.start)
        strip = self._across.resample(strip, 1, slice(0, self.shape[1]), 0)
        if pixels.dtype == np.uint8:
            return np.rint(strip).clip(0, 255).astype(np.uint8)
        return strip.clip(0, 1)


def scaled_middle(image: Any, factor: float, side: int) -> tuple[np.ndarray, int]:
    """Return the middle of an image in another size as RGB, and its side in the image's pixels.

    Parameters
    ----------
    image : array-like of shape (H, W[, C])
        As for `ScaledRows`.
    factor : float
        How many pixels along a side there shall be for one.
    side : int
        Of the square that is returned, in these pixels; of a small image there is less.
    """
    own_side = max(1, int(side / factor))
    return ScaledRows(middle(image, own_side), factor)[:], own_side


def rescale_labels(labels: np.ndarray, factor: float) -> np.ndarray:
    """Return a label map (H, W) in another size: a pixel has the label of most of its area."""
    height, width = rescaled_shape(labels.shape, factor)
    down = _Axis(labels.shape[0], height, _linear, 1)
    across = _Axis(labels.shape[1], width, _linear, 1)
    result = np.zeros((height, width), labels.dtype)
    most = np.zeros((height, width), np.float32)
    for label in np.unique(labels):
        share = down.resample((labels == label).astype(np.float32), 0, slice(0, height), 0)
        share = across.resample(share, 1, slice(0, width), 0)
        result[share > most] = label
        np.maximum(most, share, out=most)
    return result


def restore_size(
    blocks: Iterable[tuple[slice, slice, np.ndarray]],
    scaled: tuple[int, ...],
    shape: tuple[int, ...],
) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Bring values of a scaled image back to the pixels of the image, by linear interpolation.

    Parameters
    ----------
    blocks : iterable of (rows, columns, values)
        Blocks that are the scaled image, row by row, and their values (n, h, w), float32.
    scaled, shape : tuple of int
        Heights and widths of the scaled image and of the image.

    Yields
    ------
    rows, columns, values
        The same for the image. Pixels that need values of a later block come with that block.
    """
    down = _Axis(scaled[0], shape[0], _linear, 1)
    across = _Axis(scaled[1], shape[1], _linear, 1)
    above: Any = None
    beside: Any = None
    lowest: list[np.ndarray] = []
    for rows, columns, values in _in_pieces(blocks, scaled[1]):
        if above is not None:
            values = np.concatenate([above[:, :, columns], values], axis=1)
        lowest.append(values[:, -down.most :].copy())
        if columns.start > 0:
            values = np.concatenate([beside, values], axis=2)
        beside = values[:, :, -across.most :]
        done = down.find_outputs(rows), across.find_outputs(columns)
        if all(each.start < each.stop for each in done):
            top, left = rows.stop - values.shape[1], columns.stop - values.shape[2]
            finished = down.resample(values, 1, done[0], top)
            yield *done, across.resample(finished, 2, done[1], left)
        if columns.stop == scaled[1]:
            above, lowest = np.concatenate(lowest, axis=2), []


def _in_pieces(blocks: Iterable[Any], width: int) -> Iterator[Any]:
    """Cut blocks of whole rows: brought back to a large image they may be many pixels."""
    for rows, columns, values in blocks:
        step = _STEP if columns.stop - columns.start == width else rows.stop - rows.start
        for top in range(rows.start, rows.stop, step):
            piece = slice(top, min(top + step, rows.stop))
            yield piece, columns, values[:, top - rows.start : piece.stop - rows.start]


def every_nth(rows: Any, height: int, step: int) -> np.ndarray:
    """Return every step-th row and column of what is read by rows, some rows at a time."""
    strip = step * max(1, _ROWS // step)
    return np.concatenate(
        [
            # A copy, or all that was read would stay in memory.
            np.asarray(rows[top : min(top + strip, height)])[::step, ::step].copy()
            for top in range(0, height, strip)
        ]
    )
