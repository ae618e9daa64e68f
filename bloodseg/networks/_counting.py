"""From the maps of a U-Net's stages straight to numbers of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ._blocks import ConvNormReLU
from ._unet import POSITIONS, STRIDE, Frame, NODEsUNet, UNet, compute_depth

# Densities start at least here, in cells to a block: the logarithm of none at all is no start.
_LEAST_DENSITY = 1e-4


class CountingNetwork(nn.Module):
    """A U-Net whose maps of all scales are fused to count cells (paper, Section 5, outlook).

    In steps:

    1. The map of every stage is averaged over blocks of 16 x 16 pixels of the image, and goes
       through a 1x1 convolution.
    2. A 1x1 convolution fuses the nine maps.
    3. At each block, a fully connected layer and a linear regression follow, whose softplus is the
       number of cells in the block.
    4. The count is the sum over all blocks; one that reaches beyond the image counts by the share
       of it that lies within.

    So an image of any size can be counted, and the counts of two halves add up to the whole's, but
    for what the network sees across the cut.

    Parameters
    ----------
    backbone : UNet
        A network of the family, perhaps one trained to segment. It becomes part of this network;
        its head is not used.
    densities : sequence of float
        Cells of each kind in a block of 16 x 16 pixels, at least about: what the untrained
        network answers everywhere. Its length is the number of counts.

    Examples
    --------
    >>> import torch
    >>> from bloodseg.networks import CountingNetwork, UNet
    >>> network = CountingNetwork(UNet(width=4), densities=(0.01, 0.1)).eval()
    >>> network(torch.zeros(1, 3, 32, 48)).shape
    torch.Size([1, 2])
    """

    def __init__(self, backbone: UNet, densities: Sequence[float] = (0.01, 0.1)):
        super().__init__()
        width = backbone.head.in_channels
        hidden = 4 * width
        self.backbone = backbone
        self.branches = nn.ModuleList(
            nn.Sequential(
                # Before the convolution, which it commutes with: the same for less.
                nn.AvgPool2d(STRIDE // 2 ** compute_depth(position)),
                ConvNormReLU(width * 2 ** compute_depth(position), width, kernel_size=1),
            )
            for position in POSITIONS
        )
        self.fusion = ConvNormReLU(len(POSITIONS) * width, hidden, kernel_size=1)
        self.connected = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU())
        self.regression = nn.Linear(hidden, len(densities))
        start = torch.as_tensor(densities, dtype=torch.float32).clamp_min(_LEAST_DENSITY)
        with torch.no_grad():
            self.regression.weight.mul_(0.1)
            self.regression.bias.copy_(start.expm1().log())

    def forward(self, x: Tensor) -> Tensor:
        """Return the numbers of cells (n, n_counts), float32, in images (n, in_channels, H, W)."""
        rows, columns = (_compute_shares(side, x.device) for side in x.shape[-2:])
        return torch.einsum("nkij,i,j->nk", self.densities(x), rows, columns)

    def densities(self, x: Tensor) -> Tensor:
        """Return the cells in each block of 16 x 16 pixels: (n, n_counts, rows, columns).

        Blocks on the right and lower border reach beyond the image where its sides are not
        multiples of 16.
        """
        with self.backbone.autocast(x.device.type):
            scales = zip(self.branches, self.backbone.stage_maps(x), strict=True)
            fused = self.fusion(torch.cat([branch(maps) for branch, maps in scales], dim=1))
        logits = self.regression(self.connected(fused.float().movedim(1, -1)))
        return functional.softplus(logits).movedim(-1, 1)

    @property
    def ode_blocks(self) -> dict[int, Any]:
        """The backbone's ODE-blocks by position."""
        return self.backbone.ode_blocks if isinstance(self.backbone, NODEsUNet) else {}


def unet_of(network: nn.Module) -> Frame | None:
    """Return the network of the family that one is or is built on; None for one of another."""
    unet = network.backbone if isinstance(network, CountingNetwork) else network
    return unet if isinstance(unet, Frame) else None


def _compute_shares(side: int, device: torch.device) -> Tensor:
    """Return how much of each block along a side lies in the image."""
    starts = torch.arange(0, side, STRIDE, device=device)
    return ((side - starts) / STRIDE).clamp(max=1)
