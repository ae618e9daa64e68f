"""An ODE-block whose steps are settled before it sees any data."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ._block import ODEBlock
from ._checks import check_count
from ._rhs import evaluate
from ._step import take_step
from .methods import N_FIXED_STEPS, Method, check_n_steps, choose_tableau


class FixedStepBlock(nn.Module):
    """A layer that carries h(0) to h(1) in equal steps, as plain torch operations.

    What `ODEBlock` finds out as it goes is settled here, so that the layer can be traced and
    exported. Stages that only estimate the error are left out.

    Parameters
    ----------
    func : Module
        Right-hand side ``func(t, h)``; t has shape (1, ..., 1), one time for all samples.
    method : str or Tableau
        One of `METHODS`, or a method of your own. Nothing controls the error.
    n_steps : int
        Number of steps, at least 1.

    Raises
    ------
    ValueError
        If there is no such method, or no such number of steps; in ``forward``, if ``func`` returns
        something of another shape than its state's, or changes it.

    Examples
    --------
    >>> import torch
    >>> from bloodseg.ode import FixedStepBlock
    >>> class Decay(torch.nn.Module):
    ...     def forward(self, t, h):
    ...         return -h
    >>> block = FixedStepBlock(Decay(), "bosh3", 4)
    >>> round(float(block(torch.ones(1, 1))), 3)
    0.368
    """

    def __init__(self, func: Any, method: Method, n_steps: int):
        super().__init__()
        if method == "auto":
            raise ValueError(
                "method must be a method's name or a Tableau: 'auto' goes by a tolerance, and a "
                "block of fixed steps has none."
            )
        check_count(n_steps, "n_steps")
        self.tableau = choose_tableau(math.inf, method)
        self.n_steps = n_steps
        # Weights that are prepared once are kept once, however often the steps use them. They are
        # exact: no tolerance is known that would allow for less.
        weights, evaluate = func.prepare(None, 0.0) if hasattr(func, "prepare") else ((), func)
        self._evaluate: Callable[..., Any] = evaluate
        self.weights = nn.ParameterList(
            nn.Parameter(w.detach(), requires_grad=False) for w in weights
        )

    def forward(self, h: Tensor) -> Tensor:
        """Return h(1), of h's shape and, at least, float32."""
        h = h if h.dtype == torch.float64 else h.float()
        for number in range(self.n_steps):
            h = take_step(self._slope, self.tableau, h, number / self.n_steps, 1 / self.n_steps)
        return h

    def _slope(self, t: Tensor, h: Tensor) -> Tensor:
        if torch.jit.is_tracing() or torch.compiler.is_compiling():  # sizes are tensors there
            return self._compute_slope(t, h)
        return evaluate(self._compute_slope, t, h, "FixedStepBlock")

    def _compute_slope(self, t: Tensor, h: Tensor) -> Tensor:
        slope: Tensor = self._evaluate(t, h, *self.weights)
        return slope

    def extra_repr(self) -> str:
        """Return the settings, for print."""
        return f"method={self.tableau.name!r}, n_steps={self.n_steps}"


def choose_n_steps(block: ODEBlock, n_evaluations: int | None = None) -> int:
    """Return how many equal steps stand for what a block does in prediction.

    Parameters
    ----------
    block : ODEBlock
        The block.
    n_evaluations : int, optional
        Evaluations of f that it needed; the steps are as many as they are enough for, a rejected
        step counted as one. If None, steps as long as the block's first step at its tolerance. A
        fixed-step method takes as many as it always does.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> import torch
    >>> from bloodseg.ode import ODEBlock, choose_n_steps
    >>> block = ODEBlock(torch.nn.Identity(), method="bosh3")
    >>> choose_n_steps(block), choose_n_steps(block, 4), choose_n_steps(block, 7)
    (1, 1, 2)
    """
    tableau = block.tableau_at(block.predict_tol)
    fixed = check_n_steps(block.n_steps, tableau)
    if fixed is not None:
        return fixed
    if n_evaluations is not None:
        reused = int(tableau.first_same_as_last)
        return max(1, (n_evaluations - reused) // (tableau.n_stages - reused))
    if block.first_step is not None and block.predict_tol == block.tol:
        return max(1, math.ceil(1 / block.first_step - 1e-6))  # as the solver shortens it
    return 1 if tableau.tries_whole_interval(block.predict_tol) else N_FIXED_STEPS
