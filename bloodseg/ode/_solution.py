"""What a solve returns, and how it says that something went wrong."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from torch import Tensor


class Status(IntEnum):
    """How a sample's solve ended."""

    SUCCESS = 0
    TOO_MANY_STEPS = 1
    STEP_UNDERFLOW = 2


class SolverWarning(UserWarning):
    """Some samples did not reach the end of the interval, or not as exactly as asked."""


class SolverError(RuntimeError):
    """The torchdiffeq backend could not reach the end of the interval."""


_warned: ContextVar[Counter[str] | None] = ContextVar("_warned", default=None)


@contextmanager
def one_warning_each() -> Iterator[None]:
    """Let each solve's name warn once within, and say at the end how often it would have.

    An ODE-block that fails in one training step fails in the next hundred, too. For use in a
    ``with`` statement or as a decorator.

    Warns
    -----
    SolverWarning
        For each name that had more than one warning.

    Examples
    --------
    >>> import warnings, torch
    >>> from bloodseg.ode import one_warning_each, solve
    >>> with warnings.catch_warnings(record=True) as said:
    ...     with one_warning_each():
    ...         for _ in range(9):
    ...             end = solve(lambda t, y: -1e3 * y, torch.ones(1, 1), max_steps=1, name="block")
    >>> len(said), str(said[-1].message)
    (2, 'block: warned 9 times; only the first warning is shown.')
    """
    before, counts = _warned.get(), Counter[str]()
    _warned.set(counts)
    try:
        yield
    finally:
        _warned.set(before)
        for name, count in counts.items():
            if count > 1:
                text = f"{name}: warned {count} times; only the first warning is shown."
                warnings.warn(text, SolverWarning, stacklevel=3)


def warn(text: str, name: str, stacklevel: int) -> None:
    """Warn of a solve, unless `one_warning_each` has let one of its name through."""
    counts = _warned.get()
    if counts is not None:
        counts[name] += 1
        if counts[name] > 1:
            return
    warnings.warn(f"{name}: {text}", SolverWarning, stacklevel=stacklevel + 1)


def not_finite(name: str, what: str, n_evaluations: int) -> FloatingPointError:
    """Return the error to raise where a state or a slope is not finite."""
    return FloatingPointError(
        f"{name}: {what} is not finite after {n_evaluations} evaluations. "
        "Lower the learning rate; look for NaN in the layers before."
    )


@dataclass(frozen=True)
class ODESolution:
    """What a solve found and what it cost.

    Attributes
    ----------
    y : Tensor of shape (n, ...)
        State at ``t1``; of a sample whose status is not 0, the last state it reached.
    status : ndarray of shape (n,), int
        `Status` of each sample: 0 reached ``t1``, 1 took too many steps, 2 needs steps too small
        for the state's precision.
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
