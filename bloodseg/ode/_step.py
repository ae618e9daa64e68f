"""One Runge-Kutta step in plain torch operations, for autograd to follow and for tracing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ._arithmetic import as_column, compute_rms, to_device
from .methods import Tableau

Function = Callable[[Tensor, Tensor], Tensor]


def take_step(
    func: Function,
    tableau: Tableau,
    y: Tensor,
    times: float | np.ndarray,
    steps: float | np.ndarray,
) -> Tensor:
    """Return the state after one step: ``y + h * sum_i(b_i * k_i)``.

    The slopes are ``k_i = func(t + c_i * h, y + h * sum_j(a_ij * k_j))``, without those stages at
    the end that only estimate the error.

    Parameters
    ----------
    func : callable
        Right-hand side ``func(t, y)``.
    tableau : Tableau
        The method: a, b and c.
    y : Tensor of shape (n, ...)
        State at the start of the step.
    times, steps : float or ndarray of shape (n,)
        Start t and signed length h of the step; a float is for all samples. ``func`` takes t in
        shape (n, 1, ..., 1), of a float in shape (1, ..., 1).

    Returns
    -------
    Tensor of shape (n, ...)
        Of y's dtype.
    """
    n_used = max(i for i, weight in enumerate(tableau.weights) if weight) + 1
    slopes = _compute_slopes(func, tableau, n_used, y, times, steps)
    return add_slopes(y, slopes, tableau.weights[:n_used], steps)


def estimate_error(
    func: Function, tableau: Tableau, y: Tensor, *, rtol: float, atol: float
) -> Tensor:
    """Return the error of one step from 0 to 1, in units of the tolerance.

    It is what `StepControl` judges the first attempt by, ``max_e RMS(sum_i(e_i * k_i)) /
    (atol + rtol * max(RMS(y), RMS(new y)))`` over the method's estimates e, here in operations
    that autograd follows: where it is at most 1, one step carries the whole interval.

    Parameters
    ----------
    func : callable
        Right-hand side ``func(t, y)``; t has shape (n, 1, ..., 1).
    tableau : Tableau
        A method that estimates its error.
    y : Tensor of shape (n, ...)
        State at 0.
    rtol, atol : float
        Tolerances.

    Returns
    -------
    Tensor of shape (n,)
        Of y's dtype.
    """

    def evaluate(t: Tensor, y: Tensor) -> Tensor:
        return func(t.expand(len(y), *t.shape[1:]), y)

    def measure(y: Tensor) -> Tensor:
        return compute_rms(y.reshape(len(y), -1))

    slopes = _compute_slopes(evaluate, tableau, tableau.n_stages, y, 0.0, 1.0)
    new = add_slopes(y, slopes, tableau.weights, 1.0)
    estimates = [each for each in (tableau.error_weights, tableau.guard_weights) if each]
    nothing = torch.zeros_like(y)
    errors = [measure(add_slopes(nothing, slopes, weights, 1.0)) for weights in estimates]
    size = torch.maximum(measure(y), measure(new))
    return torch.stack(errors).amax(dim=0) / (atol + rtol * size)


def _compute_slopes(
    func: Function,
    tableau: Tableau,
    n_stages: int,
    y: Tensor,
    times: float | np.ndarray,
    steps: float | np.ndarray,
) -> list[Tensor]:
    """Return the slopes at the first stages of a step."""
    slopes: list[Tensor] = []
    for node, row in zip(tableau.nodes[:n_stages], tableau.stages[:n_stages], strict=True):
        time = _make_column(times + node * steps, y)
        slopes.append(func(time, add_slopes(y, slopes, row, steps)).to(y.dtype))
    return slopes


def add_slopes(
    y: Tensor, slopes: Sequence[Tensor], weights: Sequence[float], steps: float | np.ndarray
) -> Tensor:
    """Return ``y + h * sum(weights * slopes)``."""
    terms = [(w, slope) for w, slope in zip(weights, slopes, strict=True) if w]
    if isinstance(steps, float):
        for weight, slope in terms:
            y = torch.add(y, slope, alpha=weight * steps)
        return y
    column = _make_column(steps, y)
    for weight, slope in terms:
        y = torch.addcmul(y, column, slope, value=weight)
    return y


def _make_column(values: float | np.ndarray, y: Tensor) -> Tensor:
    """Return one number for all samples, or one each, as it broadcasts against the state."""
    if isinstance(values, float):
        return y.new_full((1,) * y.ndim, values)
    return as_column(to_device(values, y.device, y.dtype), y)
