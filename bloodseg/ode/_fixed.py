"""An ODE-block whose steps are settled before it sees any data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ._block import ODEBlock
from ._control import N_FIXED_STEPS
from ._step import take_step
from .methods import TABLEAUS


class FixedStepBlock(nn.Module):
    """A layer that carries h(0) to h(1) in equal steps, as plain torch operations.

    What `ODEBlock` finds out as it goes is settled here, so that the layer can be traced and
    exported. Stages that only estimate the error are left out.

    Parameters
    ----------
    func : Module
        Right-hand side ``func(t, h)``; t has shape (1, ..., 1), one time for all samples.
    method : str
        One of `METHODS`.
    n_steps : int
        Number of steps, at least 1.

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

    def __init__(self, func: Any, method: str, n_steps: int):
        super().__init__()
        self.method = method
        self.n_steps = n_steps
        # Weights that are prepared once are kept once, however often the steps use them.
        weights, evaluate = func.prepare(None) if hasattr(func, "prepare") else ((), func)
        self._evaluate: Callable[..., Any] = evaluate
        self.weights = nn.ParameterList(
            nn.Parameter(w.detach(), requires_grad=False) for w in weights
        )

    def forward(self, h: Tensor) -> Tensor:
        """Return h(1), of h's shape and, at least, float32."""
        h = h if h.dtype == torch.float64 else h.float()
        for number in range(self.n_steps):
            start, size = number / self.n_steps, 1 / self.n_steps
            h = take_step(self._slope, TABLEAUS[self.method], h, start, size)
        return h

    def _slope(self, t: Tensor, h: Tensor) -> Tensor:
        return self._evaluate(t, h, *self.weights)

    def extra_repr(self) -> str:
        """Return the settings, for print."""
        return f"method={self.method!r}, n_steps={self.n_steps}"


def fixed_steps(block: ODEBlock, n_evaluations: int | None = None) -> int:
    """Return how many equal steps stand for what a block does in prediction.

    Parameters
    ----------
    block : ODEBlock
        The block.
    n_evaluations : int, optional
        Evaluations of f that it needed; the steps are as many as they are enough for, a rejected
        step counted as one. If None, steps as long as the block's first step at its tolerance.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> import torch
    >>> from bloodseg.ode import ODEBlock, fixed_steps
    >>> block = ODEBlock(torch.nn.Identity(), method="bosh3")
    >>> fixed_steps(block), fixed_steps(block, 4), fixed_steps(block, 7)
    (1, 1, 2)
    """
    tableau = TABLEAUS[block.method_at(block.predict_tol)]
    if n_evaluations is not None:
        reused = int(tableau.first_same_as_last)
        return max(1, (n_evaluations - reused) // (tableau.n_stages - reused))
    if block.first_step is not None and block.predict_tol == block.tol:
        return round(1 / block.first_step)
    return 1 if tableau.tries_whole_interval(block.predict_tol) else N_FIXED_STEPS
