"""torchdiffeq as a backend: for its adjoint gradient, and to compare with."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ._arithmetic import as_column, as_rows, compute_rms, make_dense
from ._control import Interval, compute_ratios
from ._derivatives import first_derivatives_only
from ._precision import autocast_to, find_lower_dtype, fix_arithmetic, keep_arithmetic
from ._rhs import evaluate, watch_module
from ._solution import ODESolution, SolverError, make_not_finite_error
from ._step import add_slopes
from ._strays import Watch
from .methods import Tableau

# Where its names are others. Its fehlberg2, an error estimate 512 times too small, is left out.
_NAMES = {"heun": "adaptive_heun"}


# What messages say of each direction.
_REMEDY = (
    "The right-hand side has grown stiff: loosen the tolerance, raise max_steps, or train with a "
    "lower learning rate."
)
_BACKWARD = " in the backward solve of gradient='adjoint'"
_BACKWARD_REMEDY = (
    "What is calm forward may grow without bound backward: take gradient='checkpoint', which "
    "solves nothing backward; or loosen the tolerance, raise max_steps, or train with a lower "
    "learning rate."
)


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
    ):
        super().__init__()
        self.func, self.dtype, self.watch, self.name = func, dtype, watch, name
        self.n_evaluations = self.n_accepted = self.n_rejected = 0
        self.slope: Tensor | None = None  # the last dy/dt, to tell why a solve failed
        # The slopes at the stages of the first step, and how many of them to keep.
        self.first_slopes: list[Tensor] = []
        self.n_kept = 0

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.n_evaluations += 1
        t = as_column(t.to(y.dtype).expand(len(y)), y)
        func = self.func if self.watch is None or torch.is_grad_enabled() else self.watch
        with autocast_to(self.dtype, y.device):  # in backward, too, where the caller's has ended
            slope = evaluate(func, t, y, self.name).to(y.dtype)
        self.slope = slope.detach()
        if len(self.first_slopes) < self.n_kept:
            self.first_slopes.append(self.slope)
        return slope


class _CountedSteps(_Counted):
    """The same for methods that choose their steps: torchdiffeq warns where others find these."""

    def callback_accept_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
        self.n_accepted += 1

    def callback_reject_step(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
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
    make = _CountedSteps if tableau.adaptive else _Counted
    counted = make(func, dtype, watch, settings["name"])
    if interval.first_step is None and tableau.tries_whole_interval(interval.tolerance):
        if tableau.guard_weights is not None:
            counted.n_kept = tableau.n_stages
        try:
            found = _integrate(counted, y0, interval, whole_interval_first=True, **settings)
        except (SolverError, FloatingPointError):  # a step that large may have overflowed
            pass
        else:
            if _passes_guard(counted, tableau, y0, found[0], interval):
                return found
        counted.n_accepted = counted.n_rejected = counted.n_kept = 0
        counted.first_slopes.clear()
    return _integrate(counted, y0, interval, **settings)


def _passes_guard(
    counted: _Counted, tableau: Tableau, y0: Tensor, y1: Tensor, interval: Interval
) -> bool:
    """Return whether the second error estimate, which torchdiffeq has not, lets one step pass."""
    slopes, counted.first_slopes = counted.first_slopes, []
    counted.n_kept = 0
    if tableau.guard_weights is None or counted.n_accepted + counted.n_rejected > 1:
        return True
    with torch.no_grad():
        zero, y1 = torch.zeros_like(y0), y1.detach()
        error = add_slopes(zero, slopes, tableau.guard_weights, interval.length)
        sizes = [compute_rms(as_rows(make_dense(each))) for each in (error, y0, y1)]
    error_size, before, after = (size.double().cpu().numpy() for size in sizes)
    return bool((compute_ratios([error_size], before, after, interval) <= 1).all())


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
        # step_t makes the last step end on t1, the first, too, if it is longer; else the solver
        # steps past it and interpolates back, which costs accuracy and an evaluation.
        options = {"step_t": t[1:], "max_num_steps": interval.max_steps}
        if whole_interval_first:
            options["first_step"] = (t[1] - t[0]).abs()
        elif interval.first_step is not None:
            options["first_step"] = t.new_tensor(interval.first_step)
    with_gradient = adjoint and torch.is_grad_enabled()
    if with_gradient:
        integrate = torchdiffeq.odeint_adjoint
        if "step_t" in options:
            extra = {"adjoint_options": {**options, "step_t": t[:1]}}

    def call(y0: Tensor) -> Tensor:
        end: Tensor = integrate(
            counted,
            y0,
            t,
            rtol=interval.rtol,
            atol=interval.atol,
            method=_NAMES.get(tableau.name, tableau.name),
            options=options,
            **extra,
        )[-1]
        return end

    setting = f"at tolerance {interval.tolerance:g} with {tableau.name}"
    with _explain_failure(counted, setting):
        if with_gradient:
            weights = [weight for weight in counted.parameters() if weight.requires_grad]
            apply: Callable[..., Tensor] = _AdjointGradient.apply
            y1 = apply(call, counted, setting, y0, *weights)
        else:
            y1 = call(y0)
    if not torch.isfinite(y1).all():
        raise make_not_finite_error(name, "the solution", counted.n_evaluations)
    return y1, np.array([counted.n_evaluations, counted.n_accepted, counted.n_rejected])


class _AdjointGradient(torch.autograd.Function):
    """Hand out what torchdiffeq found; in backward let its adjoint solve, and explain failures.

    Without it, they would come out of autograd as torchdiffeq's assertions, of no block.
    """

    @staticmethod
    def forward(
        ctx: Any,
        call: Callable[[Tensor], Tensor],
        counted: _Counted,
        setting: str,
        y0: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        """Return y1; ``setting`` is what messages say of method and tolerance."""
        inputs = [y0.detach().requires_grad_(y0.requires_grad), *weights]
        with torch.enable_grad():
            end = call(inputs[0])
        ctx.inputs, ctx.end, ctx.counted, ctx.setting = inputs, end, counted, setting
        ctx.save_for_backward(y0, *weights)
        return end.detach()

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Return the gradients of y0 and the weights."""
        counted = ctx.counted
        if torch._C._functorch.is_legacy_batchedtensor(gradient):  # as torch.autograd makes them
            raise ValueError(
                f"{counted.name}: gradient='adjoint' takes one gradient at a time, and no batch of "
                "them (is_grads_batched=True, jacobian with vectorize=True). Take "
                "gradient='checkpoint' or 'direct'."
            )
        if not torch.isfinite(gradient).all():
            raise FloatingPointError(
                f"{counted.name}: the gradient that enters the backward solve of "
                "gradient='adjoint' is not finite. Lower the learning rate; look for NaN in the "
                "loss and in the layers after."
            )
        counted.n_evaluations = 0
        wanted = [each for each in ctx.inputs if each.requires_grad]
        with _explain_failure(counted, ctx.setting, backward=True):
            found = torch.autograd.grad(
                ctx.end, wanted, gradient, retain_graph=True, allow_unused=True
            )
        if not all(torch.isfinite(each).all() for each in found if each is not None):
            raise _make_backward_error(counted, "a gradient")
        rest = iter(found)
        return (*[None] * 3, *(next(rest) if each.requires_grad else None for each in ctx.inputs))


@contextmanager
def _explain_failure(counted: _Counted, setting: str, *, backward: bool = False) -> Iterator[None]:
    """Turn the failures of torchdiffeq, which are assertions, into errors that say what to do."""
    try:
        yield
    except AssertionError as error:
        if backward and "non-finite" in str(error):
            raise _make_backward_error(counted, "the state or its gradient") from error
        if not backward and counted.slope is not None and not torch.isfinite(counted.slope).all():
            raise make_not_finite_error(
                counted.name, "the right-hand side", counted.n_evaluations
            ) from error
        where, remedy = (_BACKWARD, _BACKWARD_REMEDY) if backward else ("", _REMEDY)
        raise SolverError(
            f"{counted.name}: torchdiffeq gave up{where} after {counted.n_evaluations} evaluations "
            f"{setting} ({error}). {remedy}"
        ) from error


def _make_backward_error(counted: _Counted, what: str) -> FloatingPointError:
    return make_not_finite_error(
        counted.name, what + _BACKWARD, counted.n_evaluations, _BACKWARD_REMEDY
    )


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
