"""One Runge-Kutta step in plain torch operations, for autograd to follow and for tracing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ._arithmetic import as_column
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
    slopes: list[Tensor] = []
    n_used = max(i for i, weight in enumerate(tableau.weights) if weight) + 1
    for node, row in zip(tableau.nodes[:n_used], tableau.stages[:n_used], strict=True):
        time = _make_column(times + node * steps, y)
        slopes.append(func(time, _add_slopes(y, slopes, row, steps)).to(y.dtype))
    return _add_slopes(y, slopes, tableau.weights[:n_used], steps)


def _add_slopes(
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
    return as_column(torch.from_numpy(values).to(y.dtype).to(y.device, non_blocking=True), y)
