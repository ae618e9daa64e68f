"""The same network with less to do, for prediction."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_weights

from ..ode import ODEBlock
from ._blocks import ConvNormReLU, PreparedODEFunction, ResidualBlock
from ._counting import CountingNetwork, unet_of
from ._unet import Frame

Network = TypeVar("Network", Frame, CountingNetwork)


def for_prediction(network: Network) -> Network:
    """Return a network of the same output in evaluation mode that computes less.

    Batch normalisation is folded into the convolutions before it, weights are cast to the network's
    precision, and those of the ODE-blocks normalised, once. On a CPU, in float32, ODE-blocks of 128
    channels and more whose tolerance is 1e-4 or looser convolve by Winograd's method, see [1]_, if
    torch has eight threads or fewer. Not for training, and to be made anew after it.

    Parameters
    ----------
    network : network of the family, or CountingNetwork
        Left as it is.

    Returns
    -------
    A network of the same class

    References
    ----------
    .. [1] A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016.

    Examples
    --------
    >>> import torch
    >>> from bloodseg.networks import UNet, for_prediction
    >>> network = UNet(width=4).eval()
    >>> images = torch.rand(1, 3, 32, 32)
    >>> torch.allclose(for_prediction(network)(images), network(images), atol=1e-5)
    True
    """
    return prepare_for_prediction(copy_with_shared_weights(network))


def copy_with_shared_weights(network: Network, *, functions_too: bool = False) -> Network:
    """Copy a network to change its settings, its buffers, or which weights it has.

    The weights of the copy are parameters of its own that lie in the memory of the original's, so
    none may be written to: another place, another precision, or others instead are all well.

    Parameters
    ----------
    network : network of the family, or CountingNetwork
        Left as it is.
    functions_too : bool
        Whether the right-hand sides, which are there to be read, are copied, and not shared.
    """
    memo: dict[int, Any] = {
        id(weight): nn.Parameter(weight.detach(), weight.requires_grad)
        for weight in network.parameters()
    }
    if not functions_too:
        memo |= {id(block.func): block.func for block in _ode_blocks(network)}
    return copy.deepcopy(network, memo)


def prepare_for_prediction(network: Network) -> Network:
    """Do what `for_prediction` does to a network that is there for nothing else; return it.

    Nothing in the right-hand sides is changed, which other networks may share; what precision they
    compute in is their block's affair.
    """
    functions = [block.func for block in _ode_blocks(network)]
    shared = {id(module) for func in functions for module in func.modules()}
    own = [module for module in network.eval().modules() if id(module) not in shared]
    for module in own:
        if isinstance(module, ConvNormReLU):
            _fold(module)
        elif isinstance(module, ResidualBlock):
            _fold(module.second)
    precision = getattr(unet_of(network), "precision", "float32")
    if precision != "float32":
        for module in own:
            if isinstance(module, nn.Conv2d):
                module.to(getattr(torch, precision))
    for block in _ode_blocks(network):
        if hasattr(block.func, "prepare"):
            block.func = PreparedODEFunction(block.func)
    return network


def _ode_blocks(network: nn.Module) -> list[ODEBlock]:
    """Return all ODE-blocks, those in bodies that were handed in, too."""
    return [module for module in network.modules() if isinstance(module, ODEBlock)]


def _fold(layers: Any) -> None:
    """Put the normalisation, second of the layers, into the convolution, the first."""
    convolution, norm = layers[0], layers[1]
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
    )
    layers[1] = nn.Identity()
