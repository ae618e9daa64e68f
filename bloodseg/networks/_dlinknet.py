"""D-LinkNet's encoder and dilated centre in the U-Net's frame."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ._blocks import ConvNormReLU
from ._unet import UNet, make_residual_body

_DILATIONS = (1, 2, 4, 8)


class DilatedCentre(nn.Module):
    """3x3 convolutions, dilated by 1, 2, 4 and 8, one after the other; all their maps are added."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.ModuleList(
            ConvNormReLU(channels, channels, dilation=dilation) for dilation in _DILATIONS
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return a map of x's shape."""
        total = x
        for layer in self.layers:
            x = layer(x)
            total = total + x
        return total


class DLinkNet(UNet):
    """D-LinkNet [1]_ in the frame of the family: a residual encoder and a dilated centre.

    3, 4, 6 and 3 residual blocks at positions 2 to 5, as in `ResNetUNet`, and after those at
    position 5 D-LinkNet's centre: dilated convolutions whose maps are added, so that the bottom of
    the U sees far without losing resolution. The decoder is the frame's, which concatenates what
    the encoder had where LinkNet adds it. Parameters as for `UNet`, without ``body``.

    References
    ----------
    .. [1] Zhou, Zhang and Wu, "D-LinkNet: LinkNet with Pretrained Encoder and Dilated Convolution
       for High Resolution Satellite Imagery Road Extraction", CVPR Workshops 2018.

    Examples
    --------
    >>> from bloodseg.networks import DLinkNet
    >>> [layer[0].dilation for layer in DLinkNet(width=4).stages[4][1][-1].layers]
    [(1, 1), (2, 2), (4, 4), (8, 8)]
    """

    def __init__(self, n_classes: int = 3, **frame: Any):
        super().__init__(n_classes, body=_make_body, **frame)


def _make_body(position: int, channels: int) -> nn.Module:
    body = make_residual_body(position, channels)
    return nn.Sequential(body, DilatedCentre(channels)) if position == 5 else body
