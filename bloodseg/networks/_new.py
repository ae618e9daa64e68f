"""Make the networks that an estimator's parameters describe."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from .._images import N_CLASSES
from ._counting import CountingNetwork
from ._draws import DrawnFrom, seed_globally
from ._factory import make_network
from ._unet import UNet

_BACKBONE = "backbone."


def new_network(
    architecture: dict[str, Any], seed: int, start: Mapping[str, Any] | None
) -> nn.Module:
    """Return a network with new weights, or with ``start``; torch's global generator stays."""
    name = architecture["network"]
    if not isinstance(name, str):
        with seed_globally(seed):  # whatever a stranger's code draws
            network = _make_own_network(name)
    else:
        settings = {
            key: value
            for key, value in architecture.items()
            if key in ("width", "dropout") or (name == "nodes-unet" and key.startswith("ode_"))
        }
        # With weights at hand, none are made: what a file claims to need is not allocated.
        with DrawnFrom(seed), torch.device("cpu" if start is None else "meta"):
            network = make_network(name, n_classes=N_CLASSES, **settings)
    if start is not None:
        _load_weights(network, start)
    return network


def new_counting_network(
    architecture: dict[str, Any],
    seed: int,
    start: Mapping[str, Any] | None,
    densities: Sequence[float],
) -> CountingNetwork:
    """Return a counting network with new weights, or with ``start``.

    Parameters
    ----------
    architecture : dict
        As for `new_network`: what the backbone is.
    seed : int
        Seed of new weights.
    start : mapping of str to array, optional
        Weights of a counting network, or those of a segmenter for the backbone alone.
    densities : sequence of float
        See `CountingNetwork`.
    """
    of_backbone = {
        name.removeprefix(_BACKBONE): weight
        for name, weight in (start or {}).items()
        if name.startswith(_BACKBONE)
    }
    backbone = cast(UNet, new_network(architecture, seed, of_backbone or start))
    with DrawnFrom(seed):
        network = CountingNetwork(backbone, densities)
    if start is not None and of_backbone:
        _load_weights(network, start)
    return network


def _load_weights(network: nn.Module, start: Mapping[str, Any]) -> None:
    """Give a network a copy of weights, in the dtypes that it has."""
    expected = network.state_dict()
    weights = {key: torch.as_tensor(weight) for key, weight in start.items()}
    for key in weights.keys() & expected.keys():
        given, wanted = weights[key].dtype, expected[key].dtype
        if given.is_floating_point != wanted.is_floating_point:
            raise ValueError(f"the saved weights must hold {wanted} in {key}; got {given}.")
        weights[key] = weights[key].to(wanted, copy=True)
    try:
        network.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2] or [str(error)]  # of perhaps a hundred like it
        raise ValueError(
            "the saved weights do not fit the network that the parameters describe; use "
            "the parameters (network, width, ode_positions) that they were trained with. "
            f"{first[0].strip()[:300]}"
        ) from error


def _make_own_network(make: Callable[[], nn.Module]) -> nn.Module:
    """Return the network of a callable, after a try whether it labels every pixel."""
    network = make()
    if not isinstance(network, nn.Module):
        raise ValueError(f"network must return a torch.nn.Module; got {network!r}.")
    if not any(weight.requires_grad for weight in network.parameters()):
        raise ValueError(
            f"network must return a Module with weights to train; got {network!r}, which has none."
        )
    network = copy.deepcopy(network)  # the callable may return the same one each time
    wanted = (1, N_CLASSES, 33, 47)
    with torch.inference_mode():
        got = tuple(network.eval()(torch.zeros(1, 3, *wanted[2:])).shape)
    if got != wanted:
        raise ValueError(
            f"network must return a Module that gives logits of shape {wanted} for images of shape "
            f"{(1, 3, *wanted[2:])}; got {got}. Pad and crop inside its forward."
        )
    return network
