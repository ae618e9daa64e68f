"""What training starts from: the weights of a fitted network or of a saved model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .._images import check_classes
from .._version import __version__
from ..models import model_file
from ..networks import Start, classes_of
from ._model_file import read_model


def start_of(weights: Mapping[str, torch.Tensor], classes: tuple[str, ...]) -> Start:
    """Return weights of a network for these classes as a start of another."""
    return Start({name: weight.cpu().numpy() for name, weight in weights.items()}, classes)


def read_start(
    pretrained: Any, architecture: dict[str, Any], *, caller: str, refused: Sequence[str]
) -> tuple[Start, tuple[str, ...]]:
    """Return the weights of a saved model as the start of a network of this architecture.

    Parameters
    ----------
    pretrained : path or str
        As the estimators take it.
    architecture : dict
        What the network is built from.
    caller : str
        Class of the estimator that starts from it, for the message.
    refused : sequence of str
        Classes whose models it cannot start from.

    Returns
    -------
    start : Start
        The weights, and the classes that they are for.
    models : tuple of str
        The models that they go back to, the nearest first: names, without folders.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or its model of another kind or with another network.
    """
    weights, header = read_model(model_file(pretrained))
    fitted = header["fitted"]
    kind = fitted.get("estimator")
    if kind in refused:
        raise ValueError(
            f"pretrained must be a model that {caller} can start from; {pretrained} is a {kind}."
        )
    has_them = kind == caller == "BloodCellSegmenter"  # a counter has no from_pretrained
    ready = f", or fit {caller}.from_pretrained({str(pretrained)!r})" if has_them else ""
    start = start_of(weights, _check_same_network(pretrained, fitted, architecture, ready))
    earlier = fitted.get("training_", {}).get("started_from", ())
    return start, (Path(pretrained).name, *earlier)


def _check_same_network(
    pretrained: Any, fitted: dict[str, Any], architecture: dict[str, Any], ready: str
) -> tuple[str, ...]:
    """Return the classes of a saved model; raise where its weights are of another network.

    ``ready`` names, for the message, what has its parameters already.
    """
    try:
        theirs, ours = _describe(fitted["architecture_"]), _describe(architecture)
        classes = check_classes(classes_of(fitted["architecture_"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{pretrained} does not hold a model that bloodseg {__version__} knows: {error}"
        ) from error
    if theirs != ours and not callable(architecture["network"]):
        raise ValueError(
            f"pretrained must be a model of the network that the parameters describe, {ours}; "
            f"got {pretrained}, which has {theirs}. Set these parameters{ready}."
        )
    return classes


def _describe(architecture: dict[str, Any]) -> str:
    """Return what decides which weights a network has."""
    text = "network={network!r}, width={width}".format(**architecture)
    if architecture["network"] != "nodes-unet":
        return text
    return f"{text}, ode_positions={tuple(sorted(architecture['ode_positions']))}"
