"""3x3 convolutions with a quarter of the multiplications: Winograd's minimal filtering.

4 x 4 values of the output come from 6 x 6 of the input by 36 products for a pair of channels, not
144 [1]_. They are those of matrices, which libraries compute at a processor's full speed. What goes
before and after them is linear, and pays where channels are many.

.. [1] Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
   Section 4.3, F(4 x 4, 3 x 3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

TOLERANCE = 1e-4
"""The tightest for a solver: results are some 5 times as rough as by the usual way in float32."""

_OUT, _IN = 4, 6  # sides of a tile in the output and in the input

# With fewer channels, or in smaller maps, the usual way is as fast.
_LEAST_CHANNELS, _LEAST_PIXELS = 128, 16**2

# Steps between which threads wait for each other are many here. Measured with one and two threads:
# the gain falls as they grow, so that with many it is not to be counted on.
_MOST_THREADS = 8

_AT_ONCE = 2**20  # numbers: more leave the processor's caches, and take memory


def _in_two_axes(matrix: Any) -> Tensor:
    """Return the matrix that does along rows and columns, flattened, what one does along either."""
    one = torch.tensor(matrix, dtype=torch.float32, device="cpu")
    return torch.kron(one, one)


_OF_INPUT = _in_two_axes(
    (
        (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
        (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
        (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
        (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
        (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
        (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
    )
)
_OF_FILTERS = _in_two_axes(
    (
        (1 / 4, 0.0, 0.0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0.0, 0.0, 1.0),
    )
)
_OF_OUTPUT = _in_two_axes(
    (
        (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
        (0.0, 1.0, -1.0, 2.0, -2.0, 0.0),
        (0.0, 1.0, 1.0, 4.0, 4.0, 0.0),
        (0.0, 1.0, -1.0, 8.0, -8.0, 1.0),
    )
)


def pays_for(filters: Tensor) -> bool:
    """Return whether filters (K, C, 3, 3) are enough, of float32, and on a CPU."""
    on_cpu = filters.device.type == "cpu" and filters.dtype == torch.float32
    return on_cpu and min(filters.shape[:2]) >= _LEAST_CHANNELS


def pays_on(h: Tensor) -> bool:
    """Return whether maps (n, C, H, W) are large enough, and torch's threads few."""
    large = h.shape[2] * h.shape[3] >= _LEAST_PIXELS
    return large and torch.get_num_threads() <= _MOST_THREADS


def transform_filters(filters: Tensor) -> Tensor:
    """Return filters (K, C, 3, 3) as `convolve` wants them: (36, C, K)."""
    n_out, n_in = filters.shape[:2]
    flat = filters.permute(0, 2, 3, 1).reshape(n_out, 9, n_in)
    return torch.matmul(_OF_FILTERS, flat).permute(1, 2, 0)


def convolve(h: Tensor, transformed: Tensor, bias: Tensor) -> Tensor:
    """Return the convolution of maps (n, C, H, W), zeros around them, with filters: (n, K, H, W).

    Parameters
    ----------
    h : Tensor of shape (n, C, H, W), float32
        Fastest where its memory is channels last, as that of the result.
    transformed : Tensor of shape (36, C, K)
        What `transform_filters` makes of filters (K, C, 3, 3).
    bias : Tensor of shape (K,)
        Added to the result.
    """
    n, channels, height, width = h.shape
    down, across = -(-height // _OUT), -(-width // _OUT)
    below, right = down * _OUT - height + 1, across * _OUT - width + 1
    padded = functional.pad(h.permute(0, 2, 3, 1), (0, 0, 1, right, 1, below))
    whole = h.new_empty(n, down, _OUT, across, _OUT, transformed.shape[2])
    n_rows = max(1, _AT_ONCE // (_IN * _IN * n * across * channels))
    for top in range(0, down, n_rows):
        strip = padded[:, _OUT * top : _OUT * (top + n_rows) + _IN - _OUT]
        whole[:, top : top + n_rows] = _convolve_rows(strip, transformed)
    whole += bias
    return whole.view(n, down * _OUT, across * _OUT, -1)[:, :height, :width].permute(0, 3, 1, 2)


def _convolve_rows(strip: Tensor, transformed: Tensor) -> Tensor:
    """Return (n, rows of tiles, 4, tiles in a row, 4, K) for padded rows (n, h, w, C) of maps."""
    n, height, width, channels = strip.shape
    down, across = height // _OUT, width // _OUT
    image, row, column, channel = strip.stride()
    tiles = strip.as_strided(
        (_IN, _IN, n, down, across, channels),
        (row, column, image, _OUT * row, _OUT * column, channel),
        strip.storage_offset(),
    )
    inputs = _OF_INPUT @ tiles.reshape(_IN * _IN, -1)
    products = torch.bmm(inputs.view(_IN * _IN, -1, channels), transformed)
    outputs = _OF_OUTPUT @ products.view(_IN * _IN, -1)
    return outputs.view(_OUT, _OUT, n, down, across, -1).permute(2, 3, 0, 4, 1, 5)
