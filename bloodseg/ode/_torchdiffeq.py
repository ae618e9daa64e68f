"""torchdiffeq as a backend: for its adjoint gradient, and to compare with."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ._arithmetic import as_column
from ._control import Interval
from ._precision import autocast_to, find_lower_dtype, fix_arithmetic, keep_arithmetic
from ._rhs import evaluate, watch_module
from ._solution import ODESolution, SolverError, make_not_finite_error
from ._strays import Watch
from .methods import Tableau

# Where its names are others. Its fehlberg2, an error estimate 512 times too small, is left out.
_NAMES = {"heun": "adaptive_heun"}


def solve_with_torchdiffeq(
    func: Callable[[Tensor, Tensor], Tensor],
    y0: Tensor,
    interval: Interval,
    tableau: Tableau,
    precision: str | None,
    *,
    adjoint: bool,
    name: str,
) -> ODESolution:
    """Solve each sample by itself with torchdiffeq.

    Raises
    ------
    ImportError
        If torchdiffeq is not installed.
    SolverError
        If the step size underflows, or the steps are too many.
    FloatingPointError
        If the right-hand side or the solution is not finite.
    """
    settings: dict[str, Any] = {"tableau": tableau, "adjoint": adjoint, "name": name}
    dtype = find_lower_dtype(precision)
    watch = None
    if adjoint and torch.is_grad_enabled():  # it knows func's parameters, and no other tensors
        watch = watch_module(cast(nn.Module, func), precision, "adjoint", name)
    with fix_arithmetic(y0.device, precision):
        found = [
            _solve_one(func, dtype, watch, sample, interval, **settings) for sample in y0.split(1)
        ]
        ends, counts = zip(*found, strict=True)
        y1 = torch.cat(ends)
    weights = func.parameters() if isinstance(func, nn.Module) else ()
    keep_arithmetic(y1, (y0, *weights), precision)
    evaluations, accepted, rejected = np.stack(counts).T
    status = np.zeros(len(y0), dtype=int)
    return ODESolution(y1, status, evaluations, accepted, rejected, tableau.name)


class _Counted(nn.Module):
    """The right-hand side as torchdiffeq calls it, counting its evaluations and its steps.

    A module, because the adjoint method looks for the weights to differentiate in one.
    """

    def __init__(
        self,
        func: Callable[[Tensor, Tensor], Tensor],
        dtype: torch.dtype | None,
        watch: Watch | None,
        name: str,
        *,
        adaptive: bool,
    ):
        super().__init__()
        self.func, self.dtype, self.watch, self.name = func, dtype, watch, name
        self.n_evaluations = self.n_accepted = self.n_rejected = 0
        self.slope: Tensor | None = None  # the last dy/dt, to tell why a solve failed
        if adaptive:  # torchdiffeq warns where a fixed-step method finds these names
            self.callback_accept_step = self._accept
            self.callback_reject_step = self._reject

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.n_evaluations += 1
        t = as_column(t.to(y.dtype).expand(len(y)), y)
        func = self.func if self.watch is None or torch.is_grad_enabled() else self.watch
        with autocast_to(self.dtype, y.device):  # in backward, too, where the caller's has ended
            slope = evaluate(func, t, y, self.name).to(y.dtype)
        self.slope = slope.detach()
        return slope

    def _accept(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
        self.n_accepted += 1

    def _reject(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
        self.n_rejected += 1


def _solve_one(
    func: Callable[[Tensor, Tensor], Tensor],
    dtype: torch.dtype | None,
    watch: Watch | None,
    y0: Tensor,
    interval: Interval,
    **settings: Any,
) -> tuple[Tensor, np.ndarray]:
    tableau = settings["tableau"]
    counted = _Counted(func, dtype, watch, settings["name"], adaptive=tableau.adaptive)
    if interval.first_step is None and tableau.tries_whole_interval(interval.tolerance):
        try:
            return _integrate(counted, y0, interval, whole_interval_first=True, **settings)
        except (SolverError, FloatingPointError):  # a step that large may have overflowed
            counted.n_accepted = counted.n_rejected = 0
    return _integrate(counted, y0, interval, **settings)


def _integrate(
    counted: _Counted,
    y0: Tensor,
    interval: Interval,
    *,
    tableau: Tableau,
    adjoint: bool,
    name: str,
    whole_interval_first: bool = False,
) -> tuple[Tensor, np.ndarray]:
    """Call torchdiffeq and turn its failures into errors that say what to do."""
    t = torch.tensor([interval.t0, interval.t1], dtype=torch.float64, device=y0.device)
    torchdiffeq = _import_torchdiffeq()
    integrate: Any = torchdiffeq.odeint
    extra: dict[str, Any] = {}
    n_steps = interval.n_steps
    if n_steps is not None:
        # Not by step_size: its rounding may buy one more step.
        options: dict[str, Any] = {"grid_constructor": partial(_cut_equally, n_steps)}
        counted.n_accepted = n_steps
    else:
        # step_t makes the last step end on t1; else the solver steps past it and interpolates
        # back, which costs accuracy and an evaluation.
        options = {"step_t": t[1:], "max_num_steps": interval.max_steps}
        if whole_interval_first:
            options["first_step"] = (t[1] - t[0]).abs()
        elif interval.first_step is not None:
            options["first_step"] = t.new_tensor(min(interval.first_step, interval.length))
    if adjoint and torch.is_grad_enabled():
        integrate = torchdiffeq.odeint_adjoint
        if "step_t" in options:
            extra = {"adjoint_options": {**options, "step_t": t[:1]}}
    tolerances = {"rtol": interval.rtol, "atol": interval.atol}
    try:
        y1 = integrate(
            counted,
            y0,
            t,
            **tolerances,
            method=_NAMES.get(tableau.name, tableau.name),
            options=options,
            **extra,
        )[-1]
    except AssertionError as error:  # torchdiffeq's way to report failure
        if counted.slope is not None and not torch.isfinite(counted.slope).all():
            raise make_not_finite_error(
                name, "the right-hand side", counted.n_evaluations
            ) from error
        raise SolverError(
            f"{name}: torchdiffeq gave up after {counted.n_evaluations} evaluations at tolerance "
            f"{interval.tolerance:g} with {tableau.name} ({error}). The right-hand side "
            "has grown stiff: train with a lower learning rate, or use a looser tolerance."
        ) from error
    if not torch.isfinite(y1).all():
        raise make_not_finite_error(name, "the solution", counted.n_evaluations)
    return y1, np.array([counted.n_evaluations, counted.n_accepted, counted.n_rejected])


def _import_torchdiffeq() -> Any:
    try:
        return importlib.import_module("torchdiffeq")
    except ImportError as error:
        raise ImportError(
            "gradient='adjoint' and backend='torchdiffeq' need torchdiffeq: pip install "
            "torchdiffeq. The other gradients and the default backend do without."
        ) from error


def _cut_equally(n_steps: int, func: Any, y0: Any, t: Tensor) -> Tensor:
    """Return the grid of a fixed-step method, as torchdiffeq asks for it."""
    return torch.linspace(t[0], t[-1], n_steps + 1, dtype=t.dtype, device=t.device)
