"""Make the networks that an estimator's parameters describe."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, cast

import torch
from torch import nn

from .._images import CLASS_NAMES
from ._counting import CountingNetwork
from ._draws import DrawnFrom, seed_globally
from ._factory import make_network
from ._feedback import FeedbackUNet
from ._unet import Frame, UNet

_BACKBONE = "backbone."


@dataclass(frozen=True)
class Start:
    """Weights to start from, and the classes that they were trained for.

    Attributes
    ----------
    weights : mapping of str to array
        Of a network of the family, or of a user's own.
    classes : tuple of str
        Names of the classes.
    """

    weights: Mapping[str, Any]
    classes: tuple[str, ...] = CLASS_NAMES

    def known(self, classes: Sequence[str]) -> dict[int, int]:
        """Return, of those of these classes that it knows by name, their labels and its own."""
        return {
            label: self.classes.index(name)
            for label, name in enumerate(classes)
            if name in self.classes
        }


def new_network(architecture: dict[str, Any], seed: int, start: Start | None) -> nn.Module:
    """Return a network with new weights, or with those of ``start``.

    Of a start with other classes, layers that score classes give what they have for those of the
    same names; for others they get new weights. torch's global generator stays as it was.
    """
    name, classes = architecture["network"], classes_of(architecture)
    if not isinstance(name, str):
        with seed_globally(seed):  # whatever a stranger's code draws
            network = _make_own_network(name, len(classes))
        if start is not None and start.classes != classes:
            _refuse_other_classes(
                classes, start, network="a network of your own", why="its head is not known"
            )
    else:
        settings = {
            key: value
            for key, value in architecture.items()
            if key in ("width", "dropout") or (name == "nodes-unet" and key.startswith("ode_"))
        }
        # With weights at hand, none are made: what a file claims to need is not allocated. Nor are
        # any drawn, for which torch imports its compiler.
        with DrawnFrom(seed) if start is None else torch.device("meta"):
            network = make_network(name, n_classes=len(classes), **settings)
        if start is not None:
            start = _with_scorers_for(classes, network, start, seed)
    if start is not None:
        _load_weights(network, start.weights)
    return network


def classes_of(architecture: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes that a network is built for, from 0 on."""
    return tuple(architecture.get("classes", CLASS_NAMES))  # earlier versions knew no others


def _with_scorers_for(classes: tuple[str, ...], network: Frame, start: Start, seed: int) -> Start:
    """Return weights whose layers that score classes score these."""
    if start.classes == classes:
        return start
    if isinstance(network, FeedbackUNet):
        _refuse_other_classes(
            classes, start, network="'feedback-unet'", why="its answer goes into it again"
        )
    with DrawnFrom(seed):
        fresh = {
            name: nn.Conv2d(scorer.in_channels, len(classes), 1)
            for name, scorer in network.scorers.items()
        }
    weights = _with_rows(fresh, start.known(classes), start.weights, len(start.classes))
    return Start(weights, classes)


def _refuse_other_classes(
    classes: tuple[str, ...], start: Start, *, network: str, why: str
) -> NoReturn:
    raise ValueError(
        f"{network} starts from weights for the same classes alone, for {why}: classes must be "
        f"{start.classes}; got {classes}."
    )


def _with_rows(
    fresh: Mapping[str, nn.Module],
    known: Mapping[int, int],
    saved: Mapping[str, Any],
    n_saved: int,
) -> dict[str, Any]:
    """Return saved weights with fresh layers in them that keep the known of ``n_saved`` rows."""
    weights = dict(saved)
    for layer, module in fresh.items():
        for kind, rows in module.state_dict().items():
            key = f"{layer}.{kind}"
            theirs = torch.as_tensor(weights.get(key, ()))
            if theirs.shape != (n_saved, *rows.shape[1:]):
                continue  # they do not fit, which is found out where they are loaded
            rows = rows.clone()
            for place, their_place in known.items():
                rows[place] = theirs[their_place]
            weights[key] = rows
    return weights


def new_counting_network(
    architecture: dict[str, Any],
    seed: int,
    start: Start | None,
    densities: Sequence[float],
) -> CountingNetwork:
    """Return a counting network with new weights, or with ``start``.

    Parameters
    ----------
    architecture : dict
        As for `new_network`: what the backbone is.
    seed : int
        Seed of new weights.
    start : Start, optional
        Weights of a counting network, or those of a segmenter for the backbone alone.
    densities : sequence of float
        See `CountingNetwork`.
    """
    of_backbone = {
        name.removeprefix(_BACKBONE): weight
        for name, weight in (start.weights if start is not None else {}).items()
        if name.startswith(_BACKBONE)
    }
    start_of_backbone = replace(start, weights=of_backbone) if start and of_backbone else start
    backbone = cast(UNet, new_network(architecture, seed, start_of_backbone))
    with DrawnFrom(seed):
        network = CountingNetwork(backbone, densities)
    if start is not None and of_backbone:
        # A row for each class but the background, which is the first of both.
        known = start.known(classes_of(architecture))
        counted = {label - 1: theirs - 1 for label, theirs in known.items() if label > 0}
        fresh = {"regression": network.regression}
        weights = _with_rows(fresh, counted, start.weights, len(start.classes) - 1)
        of_backbone = backbone.state_dict(prefix=_BACKBONE)
        _load_weights(network, {**weights, **of_backbone})
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


def _make_own_network(make: Callable[[], nn.Module], n_classes: int) -> nn.Module:
    """Return the network of a callable, after a try whether it labels every pixel."""
    network = make()
    if not isinstance(network, nn.Module):
        raise ValueError(f"network must return a torch.nn.Module; got {network!r}.")
    if not any(weight.requires_grad for weight in network.parameters()):
        raise ValueError(
            f"network must return a Module with weights to train; got {network!r}, which has none."
        )
    network = copy.deepcopy(network)  # the callable may return the same one each time
    wanted = (1, n_classes, 33, 47)
    with torch.inference_mode():
        got = tuple(network.eval()(torch.zeros(1, 3, *wanted[2:])).shape)
    if got != wanted:
        raise ValueError(
            f"network must return a Module that gives logits of shape {wanted} for images of shape "
            f"{(1, 3, *wanted[2:])}; got {got}. Pad and crop inside its forward."
        )
    return network
