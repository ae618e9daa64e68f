"""The parameters that the estimators share: what they may be, and what each bears upon."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions

from .._hardware import PRECISIONS
from .._images import check_classes
from ..models import list_models
from ..networks import NETWORKS, UNet, check_positions, resolve_tolerances
from ..ode import GRADIENTS, METHODS, check_n_steps
from ..preprocessing import MAX_JOBS

# As scikit-learn's `validate_parameter_constraints` takes them.
CONSTRAINTS: dict[str, Any] = {
    "preprocessor": [StrOptions({"default"}), HasMethods(["transform", "get_params"]), None],
    "network": [StrOptions({n for n, made in NETWORKS.items() if issubclass(made, UNet)})],
    "pretrained": [str, Path, None],
    "classes": ["array-like"],
    "ode_positions": ["array-like"],
    "ode_tol": [Real, dict, "array-like", StrOptions({"paper"})],
    "predict_ode_tol": [Real, dict, "array-like", StrOptions({"paper"}), None],
    "ode_method": [StrOptions({"auto", *METHODS})],
    "ode_n_steps": [Interval(Integral, 1, None, closed="left"), None],
    "ode_gradient": [StrOptions(set(GRADIENTS))],
    "ode_regularization": [Interval(Real, 0, None, closed="left")],
    "width": [Interval(Integral, 1, None, closed="left")],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "max_epochs": [Interval(Integral, 1, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left")],
    "learning_rate": [Interval(Real, 0, None, closed="neither")],
    "augment": ["boolean"],
    "validation_fraction": [Interval(Real, 0, 1, closed="neither"), None],
    "early_stopping": ["boolean"],
    "patience": [Interval(Integral, 1, None, closed="left")],
    "checkpoint_dir": [str, Path, None],
    "warm_start": ["boolean"],
    "device": [str, torch.device],
    "precision": [StrOptions(set(PRECISIONS))],
    "compile": ["boolean", StrOptions({"auto"})],
    "n_jobs": [
        Interval(Integral, None, -1, closed="right"),
        Interval(Integral, 1, MAX_JOBS, closed="both"),
        None,
    ],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
    "callbacks": [list, tuple, None],
}

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

# What prediction goes by; what is wrong with the others matters to fit alone.
OF_PREDICTION = ("compile", "device", "n_jobs", "precision", "predict_ode_tol")

# What steers where and how a fit runs, not what comes out of it: a checkpoint taken with other
# values of these may be gone on from.
NOT_OF_THE_RESULT = (
    "accelerator",
    "callbacks",
    "checkpoint_dir",
    "compile",
    "device",
    "n_jobs",
    "pixel_size",
    "precision",
    "predict_ode_tol",
    "tile_size",
    "verbose",
)

# What a model file neither keeps nor may set: whoever sends one has no say in where this machine
# reads and writes. The name of a published model is no such place.
_NOT_SAVED = ("accelerator", "callbacks", "checkpoint_dir", "pretrained", "verbose")


def check_architecture(estimator: Any) -> tuple[int, ...]:
    """Return the positions of ODE-blocks that an estimator's parameters name, once these fit.

    Raises
    ------
    ValueError
        If parameters, each of which may be as it is, do not fit together.
    """
    check_classes(estimator.classes)
    check_n_steps(estimator.ode_n_steps, estimator.ode_method, name="ode_n_steps")
    positions = check_positions(estimator.ode_positions)
    resolve_tolerances(estimator.ode_tol, positions)
    return positions


def of_the_result(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of an estimator's parameters that tell the results of fits apart."""
    return {
        name: value
        for name, value in parameters.items()
        if name.split("__")[-1] not in NOT_OF_THE_RESULT
    }


def select_savable(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of an estimator's parameters that a model file holds."""
    return {
        name: value
        for name, value in parameters.items()
        if name not in _NOT_SAVED or (name == "pretrained" and str(value) in list_models())
    }
