"""What a model file may say: whoever sends one has no say beyond what a fit could have written."""

from __future__ import annotations

from typing import Any

from sklearn.utils._param_validation import validate_parameter_constraints

from ..networks import resolve_tolerances
from ._parameters import ARCHITECTURE, check_architecture

# First steps of the solver that a model file may ask for (those of fit are a half to an eighth),
# and numbers of steps: far more than serve, and not so many that an image takes hours.
_LEAST_STEP, _MOST_STEPS = 1e-3, 1000


def check_fitted(estimator: Any) -> None:
    """Check the attributes that a model file has given an estimator.

    Raises
    ------
    ValueError
        If they cannot come from a fit.
    """
    positions = _check_architecture(type(estimator)(**estimator.architecture_))
    _check_solver(estimator, positions)
    _check_training(estimator.training_)
    _check_history(estimator.history_, estimator.best_epoch_)
    if estimator.preprocessor_ is not None:
        estimator.preprocessor_._check_parameters()


def _check_architecture(described: Any) -> tuple[int, ...]:
    """Return the positions of the ODE-blocks of the network that an estimator describes."""
    validate_parameter_constraints(
        {name: described._parameter_constraints[name] for name in ARCHITECTURE},
        {name: getattr(described, name) for name in ARCHITECTURE},
        caller_name="architecture_",
    )
    positions = check_architecture(described)
    if (described.ode_n_steps or 0) > _MOST_STEPS:
        raise ValueError(f"ode_n_steps must be at most {_MOST_STEPS} in a model file.")
    return positions if described.network == "nodes-unet" else ()


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
