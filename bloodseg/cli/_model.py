"""The model of a command, with the options that prediction goes by."""

from __future__ import annotations

import argparse
from pathlib import Path

from .._hardware import choose_device
from ..estimators import BloodCellCounter, BloodCellSegmenter, NetworkEstimator, read_header
from ..models import list_models, model_file
from ._output import CommandError, first_line

# What `--model` may hold, by the name that its file gives.
_KINDS = {kind.__name__: kind for kind in (BloodCellSegmenter, BloodCellCounter)}


def load_segmenter(arguments: argparse.Namespace) -> BloodCellSegmenter:
    """Load the model that ``--model`` names, which must find cells; as `load_model`."""
    model = load_model(arguments)
    if not isinstance(model, BloodCellSegmenter):
        raise CommandError(
            f"{arguments.model} only counts cells; it is for `bloodseg count`. Choose a model "
            "that finds them."
        )
    return model


def load_model(arguments: argparse.Namespace) -> BloodCellSegmenter | BloodCellCounter:
    """Load the model that ``--model`` names, with the options for prediction.

    The options are checked here, where a mistake in them ends the command; later it would be
    taken for a failure of every image.
    """
    model = load_any(model_file(arguments.model))
    kind = type(model)
    try:
        given = {
            name: vars(arguments)[name] for name in kind._OF_PREDICTION if name in vars(arguments)
        }
        model.set_params(**given, verbose=int(not vars(arguments).get("quiet", True)))
        model._check_prediction()
        choose_device(model.device)
    except (OSError, ValueError) as error:
        raise CommandError(first_line(error)) from error
    _refuse_unused(arguments, kind)
    return model


def load_any(file: Path) -> BloodCellSegmenter | BloodCellCounter:
    """Load a model file of either estimator."""
    if not file.exists():
        raise CommandError(
            f"There is no model file at {file}. Published models: {', '.join(list_models())}."
        )
    try:
        name = read_header(file)["fitted"].get("estimator")
        return _KINDS.get(name, BloodCellSegmenter).load(file)
    except (OSError, ValueError) as error:
        raise CommandError(first_line(error)) from error


def _refuse_unused(arguments: argparse.Namespace, kind: type[NetworkEstimator]) -> None:
    """Raise where an option of prediction means nothing to a model of this kind."""
    for name in sorted(set(BloodCellSegmenter._OF_PREDICTION) - set(kind._OF_PREDICTION)):
        if name in vars(arguments):
            raise CommandError(
                f"--{name.replace('_', '-')} means nothing to {arguments.model}, a "
                f"{kind.__name__}. Leave it out."
            )
