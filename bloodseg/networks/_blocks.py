"""What the stages of the networks are made of."""

from __future__ import annotations

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

    The convolution of a constant channel is t times a fixed map: it is added to the convolution
    of the others, which spares a copy of the state.

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
        self.direction = nn.Parameter(torch.empty(channels, channels + 1, 3, 3))
        self.gain = nn.Parameter(torch.full((channels, 1, 1, 1), gain))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.kaiming_uniform_(self.direction, a=5**0.5)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """Return a map of x's shape; t has shape (n, 1, 1, 1)."""
        norm = torch.linalg.vector_norm(self.direction, dim=(1, 2, 3), keepdim=True)
        weight = self.direction * (self.gain / norm)
        time_map = functional.conv2d(torch.ones_like(x[:1, :1]), weight[:, -1:], padding=1)
        # In the map's precision: a float32 t would carry all that follows back to float32.
        time_map = t.to(time_map.dtype) * time_map
        return functional.conv2d(x, weight[:, :-1], self.bias, padding=1) + time_map


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
        return self.second(t, functional.silu(self.first(t, h)))
