"""What the stages of the networks are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from . import _winograd

# Norm of each filter of a convolution in a right-hand side, on average, and of all filters at most:
# about as steep as one step of order 3 carries at tolerance 1e-3, at any number of channels.
_FILTER_GAIN, _GAIN = 0.31, 5.8

# How large the directions that filters are normalised from start, in units of torch's default: the
# larger, the slower an optimiser's step turns them.
_INERTIA = 10.0


class ConvNormReLU(nn.Sequential):
    """Convolution that keeps a map's size, batch normalisation, ReLU.

    The paper has no normalisation; without it training diverges at usual learning rates.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, *, dilation: int = 1
    ):
        padding = dilation * (kernel_size // 2)
        super().__init__(
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                padding=padding,
                dilation=dilation,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class SameConv2x2(nn.Conv2d):
    """2x2 convolution that keeps a map's size: zeros to the right and below."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of x's size."""
        # Padding on all sides costs no copy of the map, as padding on two would.
        return super().forward(x)[..., 1:, 1:]


class Dropout(nn.Dropout):
    """Dropout that draws from a generator of its own while it is given one.

    Attributes
    ----------
    generator : Generator or None
        On the device of the maps. None, as to begin with, is torch's global one.
    """

    generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of x's shape, in training with zeros in a share ``p`` of its places."""
        if self.generator is None or not self.training:
            return super().forward(x)
        kept = torch.empty_like(x).bernoulli_(1 - self.p, generator=self.generator)
        return x * kept.div_(1 - self.p)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions added to their input (ResNet's basic block)."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = ConvNormReLU(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of x's shape."""
        return functional.relu(x + self.second(self.first(x)))


class TimeConv2d(nn.Module):
    """3x3 convolution of a map and of the time t: ``conv(h, filters) + bias + t * time``.

    That is the convolution of the map with t as one more channel of constant value, which goes on
    beyond the border: at no cost, and with no trace of a tile's border.

    ``filters = gain * direction / |direction|``, where ``|.|`` is the Frobenius norm of the whole
    tensor: weight normalisation [1]_ with a gain that is not learned. It bounds how steep the
    right-hand side gets, however long it is trained. With bare weights, or a norm for each filter,
    an optimiser's steps line the filters up, and the solver soon needs ten times the evaluations
    (docs, "Design").

    Parameters
    ----------
    channels : int
        Channels of input and output.

    Attributes
    ----------
    gain : Tensor
        Frobenius norm of the filters, not trained.

    References
    ----------
    .. [1] Salimans and Kingma, "Weight Normalization: A Simple Reparameterization to Accelerate
       Training of Deep Neural Networks", NeurIPS 2016.
    """

    gain: Tensor

    def __init__(self, channels: int):
        super().__init__()
        # Not torch's parametrization of the same name: modules that hold one can't be pickled.
        self.direction = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.time = nn.Parameter(torch.zeros(channels))
        # A buffer, as it belongs to the weights that were trained with it.
        self.register_buffer("gain", torch.tensor(min(_FILTER_GAIN * math.sqrt(channels), _GAIN)))
        nn.init.kaiming_uniform_(self.direction, a=5**0.5)
        with torch.no_grad():
            self.direction.mul_(_INERTIA)

    def weights(self, dtype: torch.dtype | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return filters, bias and the share of t, in a dtype."""
        norm = torch.linalg.vector_norm(self.direction)
        filters = (self.direction * (self.gain / norm)).to(dtype)
        filters = filters.contiguous(memory_format=torch.channels_last)
        return filters, self.bias.to(dtype), self.time.to(dtype)


class ConvODEFunction(nn.Module):
    """Right-hand side of an ODE-block: two 3x3 convolutions with t as a channel (paper, Figure 4).

    SiLU between them, because the solver's order rests on a smooth right-hand side.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.first = TimeConv2d(channels)
        self.second = TimeConv2d(channels)

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        """Return dh/dt at time t, of shape (n, 1, 1, 1), and state h, (n, C, H, W)."""
        weights, evaluate = self.prepare(None, 0.0)
        return evaluate(t, h, *weights)

    def prepare(
        self, dtype: torch.dtype | None, tol: float
    ) -> tuple[tuple[Tensor, ...], Callable[..., Tensor]]:
        """Return the weights, normalised and cast once for a whole solve, and what takes them.

        The same for any tolerance: what is rougher has no gradient (`PreparedODEFunction`).
        """
        return (*self.first.weights(dtype), *self.second.weights(dtype)), _convolve_twice


class PreparedODEFunction(nn.Module):
    """A right-hand side whose weights are prepared once for all solves to come.

    Parameters
    ----------
    func : ConvODEFunction
        Its weights must not change any more.
    """

    def __init__(self, func: Any):
        super().__init__()
        self.func = func
        self._prepared: dict[Any, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without what was prepared: that takes longer to send than to prepare."""
        return self.__dict__ | {"_prepared": {}}

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        """Return dh/dt."""
        slope: Tensor = self.func(t, h)
        return slope

    def prepare(self, dtype: torch.dtype | None, tol: float) -> Any:
        """Return what ``func.prepare`` does, detached and computed once.

        A loose tolerance lets a CPU convolve with fewer, rougher products.
        """
        loose = tol >= _winograd.TOLERANCE
        if (dtype, loose) not in self._prepared:
            # Kept for calls outside of inference mode, too.
            with torch.inference_mode(False), torch.no_grad():
                # For the tightest tolerance that asks for it, so that it serves the others.
                weights, evaluate = self.func.prepare(dtype, _winograd.TOLERANCE if loose else 0.0)
                if loose and evaluate is _convolve_twice and _winograd.pays_for(weights[0]):
                    evaluate = _convolve_twice_either_way
                    first, *its, second, bias, time = weights
                    transform = _winograd.transform_filters
                    weights += (transform(first), *its, transform(second), bias, time)
                self._prepared[dtype, loose] = weights, evaluate
        return self._prepared[dtype, loose]


def _convolve_twice(t: Tensor, h: Tensor, *weights: Tensor) -> Tensor:
    if t.stride(0) == 0:  # one time for all samples
        t = t[:1]
    t, h = t.to(weights[0].dtype), h.to(weights[0].dtype)
    inner = functional.silu(_convolve(t, h, *weights[:3]), inplace=True)
    return _convolve(t, inner, *weights[3:])


def _convolve_twice_either_way(t: Tensor, h: Tensor, *weights: Tensor) -> Tensor:
    """Convolve with six weights, or with the same transformed, six more, where that pays."""
    return _convolve_twice(t, h, *(weights[6:] if _winograd.pays_on(h) else weights[:6]))


def _convolve(t: Tensor, h: Tensor, filters: Tensor, bias: Tensor, time: Tensor) -> Tensor:
    """Convolve with filters (K, C, 3, 3), or with transformed ones (36, C, K)."""
    convolve = _usual_convolution if filters.ndim == 4 else _winograd.convolve
    if len(t) == 1:
        return convolve(h, filters, bias + t.flatten() * time)
    return convolve(h, filters, bias) + t * time[:, None, None]


_usual_convolution = partial(functional.conv2d, padding=1)
