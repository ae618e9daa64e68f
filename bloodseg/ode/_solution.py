"""What a solve returns, and how it says that something went wrong."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from torch import Tensor


class Status(IntEnum):
    """How a sample's solve ended."""

    SUCCESS = 0
    TOO_MANY_STEPS = 1
    STEP_UNDERFLOW = 2


class SolverError(RuntimeError):
    """The torchdiffeq backend could not reach the end of the interval, or in backward its start."""


def make_not_finite_error(
    name: str,
    what: str,
    n_evaluations: int,
    remedy: str = "Lower the learning rate; look for NaN in the layers before.",
) -> FloatingPointError:
    """Return the error to raise where a state, a slope or a gradient is not finite."""
    return FloatingPointError(
        f"{name}: {what} is not finite after {n_evaluations} evaluations. {remedy}"
    )


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class ODESolution:
    """What a solve found and what it cost.

    Attributes
    ----------
    y : Tensor of shape (n, ...)
        State at ``t1``; of a sample whose status is not 0, the last state it reached.
    status : ndarray of shape (n,), int
        `Status` of each sample: 0 reached ``t1``, as fixed steps always do, however far off; 1 took
        too many steps; 2 needs steps too small for the state's precision.
    n_evaluations, n_accepted, n_rejected : ndarray of shape (n,), int
        Evaluations of the right-hand side, accepted and rejected steps, for each sample.
    method : str
        The method that was used.
    """

    y: Tensor
    status: np.ndarray
    n_evaluations: np.ndarray
    n_accepted: np.ndarray
    n_rejected: np.ndarray
    method: str
