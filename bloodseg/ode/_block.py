"""A neural ODE as a layer."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ._methods import choose_method
from ._solve import check_gradient, solve

# Below this tolerance the rounding of a half-precision right-hand side looks like error to the
# step control: it would buy rejected steps, not accuracy.
LOW_PRECISION_FLOOR = 1e-3


class ODEBlock(nn.Module):
    """A layer that carries its input h(0) along ``dh/dt = func(t, h)`` to h(1) (paper, Figure 4).

    The tolerances are settings, no part of the ``state_dict``: change them at any time.

    Parameters
    ----------
    func : Module
        Right-hand side ``func(t, h)``; t has shape (n, 1, ..., 1).
    tol : float
        Tolerance in training mode, relative and absolute.
    predict_tol : float, optional
        Tolerance in evaluation mode; None takes ``tol``.
    method : str
        Runge-Kutta method; ``"auto"`` picks by tolerance.
    gradient : {"checkpoint", "direct", "adjoint"}
        See `bloodseg.ode.solve`.
    name : str
        What messages call the block.

    Attributes
    ----------
    n_evaluations : ndarray of int
        Evaluations of ``func`` in the last forward pass, one number a sample.

    Raises
    ------
    ValueError
        If a parameter is out of its range.

    Notes
    -----
    In training mode a batch shares its steps, in evaluation mode each sample has its own: a
    prediction does not depend on its batch-mates.

    The state stays in float32 at least. Under autocast ``func`` runs in autocast's precision where
    the tolerance is 1e-3 or looser, and in the state's where it is tighter.

    Examples
    --------
    >>> import torch
    >>> from bloodseg.ode import ODEBlock
    >>> class Decay(torch.nn.Module):
    ...     def forward(self, t, h):
    ...         return -h
    >>> block = ODEBlock(Decay(), tol=1e-5).eval()
    >>> round(float(block(torch.ones(1, 1))), 3)
    0.368
    """

    def __init__(
        self,
        func: nn.Module,
        *,
        tol: float = 1e-3,
        predict_tol: float | None = None,
        method: str = "auto",
        gradient: str = "checkpoint",
        name: str = "ODEBlock",
    ):
        super().__init__()
        self.func = func
        self.tol = tol
        choose_method(self.tol, method)  # both say what is wrong with a name
        check_gradient(gradient)
        self.predict_tol = predict_tol
        self.method = method
        self.gradient = gradient
        self.name = name
        self.n_evaluations = np.zeros(0, dtype=int)

    @property
    def tol(self) -> float:
        """Tolerance in training mode."""
        return self._tol

    @tol.setter
    def tol(self, value: float) -> None:
        self._tol = _positive(value, "tol")

    @property
    def predict_tol(self) -> float:
        """Tolerance in evaluation mode."""
        return self._tol if self._predict_tol is None else self._predict_tol

    @predict_tol.setter
    def predict_tol(self, value: float | None) -> None:
        self._predict_tol = None if value is None else _positive(value, "predict_tol")

    def forward(self, h: Tensor) -> Tensor:
        """Return h(1), of h's shape and, at least, float32."""
        tol = self.tol if self.training else self.predict_tol
        y0 = h if h.dtype == torch.float64 else h.float()
        device = h.device.type
        lowered = torch.is_autocast_enabled(device) and tol >= LOW_PRECISION_FLOOR

        # Backward evaluates func again, outside of the autocast around this call: the precision
        # has to be func's own to be the same both ways.
        solution = solve(
            _AtPrecision(self.func, torch.get_autocast_dtype(device) if lowered else None),
            y0,
            rtol=tol,
            atol=tol,
            method=self.method,
            gradient=self.gradient,
            share_steps=self.training,
            name=self.name,
        )
        self.n_evaluations = solution.n_evaluations
        return solution.y

    def extra_repr(self) -> str:
        """Return the settings, for print."""
        return f"tol={self.tol:g}, predict_tol={self.predict_tol:g}, method={self.method!r}"


class _AtPrecision(nn.Module):
    """Evaluate ``func`` in a fixed precision and return its value in the state's dtype."""

    def __init__(self, func: nn.Module, dtype: torch.dtype | None):
        super().__init__()
        self.func = func
        self.dtype = dtype

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        lowered = self.dtype is not None
        with torch.autocast(y.device.type, dtype=self.dtype or torch.bfloat16, enabled=lowered):
            return self.func(t, y).to(y.dtype)


def _positive(value: float, name: str) -> float:
    value = float(value)
    if not (0 < value < math.inf):
        raise ValueError(f"{name} must be a positive, finite number; got {value!r}.")
    return value
