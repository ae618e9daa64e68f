"""The same network with less to do, for prediction."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from ._blocks import ConvNormReLU, ResidualBlock
from ._unet import NODEsUNet, UNet


def for_prediction(network: UNet) -> UNet:
    """Return a network of the same output in evaluation mode that computes less.

    Batch normalisation is folded into the convolutions before it, and the convolutions' weights are
    cast to the network's precision once. What depends on neither, the right-hand sides of the
    ODE-blocks, is shared with the original. Not for training: the folded statistics stand still.

    Parameters
    ----------
    network : UNet
        Left as it is.

    Returns
    -------
    UNet

    Examples
    --------
    >>> import torch
    >>> from bloodseg.networks import UNet, for_prediction
    >>> network = UNet(width=4).eval()
    >>> images = torch.rand(1, 3, 32, 32)
    >>> torch.allclose(for_prediction(network)(images), network(images), atol=1e-5)
    True
    """
    shared = {}
    if isinstance(network, NODEsUNet):
        shared = {id(block.func): block.func for block in network.ode_blocks.values()}
    folded = copy.deepcopy(network, dict(shared)).eval()
    for module in folded.modules():
        if isinstance(module, ConvNormReLU):
            _fold(module)
        elif isinstance(module, ResidualBlock):
            _fold(module.second)
    if network.precision != "float32":
        dtype = getattr(torch, network.precision)
        within = {id(module) for func in shared.values() for module in func.modules()}
        for module in folded.modules():
            if isinstance(module, nn.Conv2d) and id(module) not in within:
                module.to(dtype)
    return folded


def _fold(layers: Any) -> None:
    """Put the normalisation, second of the layers, into the convolution, the first."""
    layers[0], layers[1] = fuse_conv_bn_eval(layers[0], layers[1]), nn.Identity()
