"""What the stages of the networks are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Gain of the last convolution of a right-hand side at the start: the block starts near the
# identity, its ODE is mild, and the solver needs few steps.
_FIRST_GAIN, _LAST_GAIN = 1.0, 0.1


class ConvNormReLU(nn.Sequential):
    """3x3 convolution, batch normalisation, ReLU.

    The paper has no normalisation; without it training diverges at usual learning rates.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


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
    """Weight-normalised 3x3 convolution of a map with the time t as one more constant channel.

    The convolution of a constant channel, continued beyond the border, is t times a number for
    each filter: t is part of the bias, at no cost, and a tile's border looks like no border.

    Each filter is a direction times a learned gain (weight normalisation [1]_). With bare weights
    the optimiser's steps add up to ever steeper right-hand sides: within 30 training steps the
    solver needed ten times the evaluations.

    Parameters
    ----------
    channels : int
        Channels of input and output.
    gain : float
        Norm of each filter at the start.

    References
    ----------
    .. [1] Salimans and Kingma, "Weight Normalization: A Simple Reparameterization to Accelerate
       Training of Deep Neural Networks", NeurIPS 2016.
    """

    def __init__(self, channels: int, gain: float):
        super().__init__()
        # Not torch's parametrization of the same name: modules that hold one can't be pickled.
        self.direction = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.gain = nn.Parameter(torch.full((channels, 1, 1, 1), gain))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.time = nn.Parameter(torch.zeros(channels))
        nn.init.kaiming_uniform_(self.direction, a=5**0.5)

    def weights(self, dtype: torch.dtype | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return filters, bias and the share of t, in a dtype."""
        norm = torch.linalg.vector_norm(self.direction, dim=(1, 2, 3), keepdim=True)
        filters = (self.direction * (self.gain / norm)).to(dtype)
        filters = filters.contiguous(memory_format=torch.channels_last)
        return filters, self.bias.to(dtype), self.time.to(dtype)


class ConvODEFunction(nn.Module):
    """Right-hand side of an ODE-block: two 3x3 convolutions with t as a channel (paper, Figure 4).

    SiLU between them, because the solver's order rests on a smooth right-hand side.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.first = TimeConv2d(channels, _FIRST_GAIN)
        self.second = TimeConv2d(channels, _LAST_GAIN)

    def forward(self, t: Tensor, h: Tensor) -> Tensor:
        """Return dh/dt at time t, of shape (n, 1, 1, 1), and state h, (n, C, H, W)."""
        weights, evaluate = self.prepare(None)
        return evaluate(t, h, *weights)

    def prepare(self, dtype: torch.dtype | None) -> tuple[tuple[Tensor, ...], Any]:
        """Return the weights, normalised and cast once for a whole solve, and what takes them."""
        return (*self.first.weights(dtype), *self.second.weights(dtype)), _two_convolutions


def _two_convolutions(t: Tensor, h: Tensor, *weights: Tensor) -> Tensor:
    t, h = t.to(weights[0].dtype), h.to(weights[0].dtype)
    inner = functional.silu(_convolved(t, h, *weights[:3]), inplace=True)
    return _convolved(t, inner, *weights[3:])


def _convolved(t: Tensor, h: Tensor, filters: Tensor, bias: Tensor, time: Tensor) -> Tensor:
    if len(h) == 1:
        return functional.conv2d(h, filters, bias + t.flatten() * time, padding=1)
    return functional.conv2d(h, filters, bias, padding=1) + t * time[:, None, None]
