"""The same network with less to do, for prediction."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from ._blocks import ConvNormReLU, PreparedODEFunction, ResidualBlock
from ._counting import CountingNetwork, unet_of
from ._unet import UNet

Network = TypeVar("Network", UNet, CountingNetwork)


def for_prediction(network: Network) -> Network:
    """Return a network of the same output in evaluation mode that computes less.

    Batch normalisation is folded into the convolutions before it, weights are cast to the network's
    precision, and those of the ODE-blocks normalised, once. Not for training, and to be made anew
    after it.

    Parameters
    ----------
    network : UNet or CountingNetwork
        Left as it is.

    Returns
    -------
    UNet or CountingNetwork

    Examples
    --------
    >>> import torch
    >>> from bloodseg.networks import UNet, for_prediction
    >>> network = UNet(width=4).eval()
    >>> images = torch.rand(1, 3, 32, 32)
    >>> torch.allclose(for_prediction(network)(images), network(images), atol=1e-5)
    True
    """
    # The right-hand sides are shared with the original: they would only be copied to be read.
    blocks = getattr(network, "ode_blocks", {}).values()
    folded = copy.deepcopy(network, {id(block.func): block.func for block in blocks}).eval()
    for module in folded.modules():
        if isinstance(module, ConvNormReLU):
            _fold(module)
        elif isinstance(module, ResidualBlock):
            _fold(module.second)
    precision = getattr(unet_of(network), "precision", "float32")
    if precision != "float32":
        for module in folded.modules():
            if isinstance(module, nn.Conv2d):  # those of right-hand sides are of another class
                module.to(getattr(torch, precision))
    for block in getattr(folded, "ode_blocks", {}).values():
        block.func = PreparedODEFunction(block.func)
    return folded


def _fold(layers: Any) -> None:
    """Put the normalisation, second of the layers, into the convolution, the first."""
    layers[0], layers[1] = fuse_conv_bn_eval(layers[0], layers[1]), nn.Identity()
