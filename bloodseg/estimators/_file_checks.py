"""What a model file may say: whoever sends one has no say beyond what a fit could have written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.utils._param_validation import validate_parameter_constraints

from .._images import check_classes
from ..models import list_models
from ..networks import check_positions, resolve_tolerances
from ..ode import check_n_steps

# What the network is built from; kept apart from the parameters, which may change after fit.
ARCHITECTURE = (
    "network",
    "width",
    "dropout",
    "ode_positions",
    "ode_tol",
    "ode_method",
    "ode_n_steps",
    "ode_gradient",
    "classes",
)

# Parameters that a model file neither keeps nor may set: whoever sends one has no say in where
# this machine reads and writes. The name of a published model is no such place.
_NOT_SAVED = ("accelerator", "callbacks", "checkpoint_dir", "pretrained", "verbose")

# First steps of the solver that a model file may ask for (those of fit are a half to an eighth),
# and numbers of steps: far more than serve, and not so many that an image takes hours.
_LEAST_STEP, _MOST_STEPS = 1e-3, 1000


def select_savable(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of an estimator's parameters that a model file holds."""
    return {
        name: value
        for name, value in parameters.items()
        if name not in _NOT_SAVED or (name == "pretrained" and str(value) in list_models())
    }


def check_fitted(estimator: Any) -> None:
    """Check the attributes that a model file has given an estimator.

    Raises
    ------
    ValueError
        If they cannot come from a fit.
    """
    described = type(estimator)(**estimator.architecture_)
    _check_architecture(described)
    positions = check_positions(described.ode_positions)
    _check_solver(estimator, positions if described.network == "nodes-unet" else ())
    _check_training(estimator.training_)
    _check_history(estimator.history_, estimator.best_epoch_)
    if estimator.preprocessor_ is not None:
        estimator.preprocessor_._check_parameters()


def _check_architecture(described: Any) -> None:
    validate_parameter_constraints(
        {name: described._parameter_constraints[name] for name in ARCHITECTURE},
        {name: getattr(described, name) for name in ARCHITECTURE},
        caller_name="architecture_",
    )
    check_classes(described.classes)
    resolve_tolerances(described.ode_tol, check_positions(described.ode_positions))
    check_n_steps(described.ode_n_steps, described.ode_method, name="ode_n_steps")
    if (described.ode_n_steps or 0) > _MOST_STEPS:
        raise ValueError(f"ode_n_steps must be at most {_MOST_STEPS} in a model file.")


def _check_solver(estimator: Any, blocks: tuple[int, ...]) -> None:
    """Check tolerances and first steps of the ODE-blocks at these positions."""
    for name in ("ode_tol_", "ode_first_step_"):
        given = getattr(estimator, name)
        if given.keys() != set(blocks):
            raise ValueError(f"{name} must name the positions {blocks}; got {given}.")
    resolve_tolerances(estimator.ode_tol_, blocks, name="ode_tol_")
    for step in estimator.ode_first_step_.values():
        if step is not None and not (_is_number(step) and _LEAST_STEP <= step <= 1):
            raise ValueError(
                f"ode_first_step_ must hold None, or numbers from {_LEAST_STEP:g} to 1; got "
                f"{step!r}."
            )


def _check_training(training: dict[str, Any]) -> None:
    kinds = {"images": int, "validation_images": int, "started_from": tuple, "bloodseg": str}
    fits = training.keys() == kinds.keys() and all(
        isinstance(training[name], kind) for name, kind in kinds.items()
    )
    if training and not (fits and all(isinstance(each, str) for each in training["started_from"])):
        raise ValueError(f"training_ must say how many images there were; got {training!r:.200}.")


def _check_history(history: list[Any], best_epoch: int) -> None:
    for row in history:
        if not isinstance(row, dict) or not all(map(_is_number, row.values())):
            raise ValueError(f"history_ must hold a dict of numbers an epoch; got {row!r}.")
    if not min(1, len(history)) <= best_epoch <= len(history):
        raise ValueError(f"best_epoch_ must be one of {len(history)} epochs; got {best_epoch}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))
