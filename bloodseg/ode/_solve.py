"""Solve an initial value problem for a batch of samples, with torchdiffeq underneath."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchdiffeq import odeint, odeint_adjoint

from ._methods import FIXED_STEP_METHODS, N_FIXED_STEPS, choose_method

GRADIENTS = ("checkpoint", "direct", "adjoint")
MAX_STEPS = 10_000

# At a tolerance this loose the first step tried is the whole interval: where it is accepted, as
# in most blocks of a trained network, the solve costs half of what it does from the usual
# cautious first step. Where not, error control shrinks it as always.
WHOLE_INTERVAL_TOL = 1e-3


_CURE = "Lower the learning rate; look for NaN in the layers before."


class SolverError(RuntimeError):
    """The solver could not reach the end of the interval."""


@dataclass(frozen=True)
class ODESolution:
    """What a solve found and what it cost.

    Attributes
    ----------
    y : Tensor of shape (n, ...)
        State at ``t1``.
    status : ndarray of shape (n,), int
        0 for each sample that reached ``t1``.
    n_evaluations, n_accepted, n_rejected : ndarray of shape (n,), int
        Evaluations of the right-hand side, accepted and rejected steps, for each sample.
    """

    y: Tensor
    status: np.ndarray
    n_evaluations: np.ndarray
    n_accepted: np.ndarray
    n_rejected: np.ndarray


class _Counted(nn.Module):
    """The right-hand side as torchdiffeq calls it, counting its evaluations and its steps.

    A module, because the adjoint method looks for the weights to differentiate in one.
    """

    def __init__(
        self, func: Callable[[Tensor, Tensor], Tensor], *, recompute: bool, adaptive: bool
    ):
        super().__init__()
        self.func = func
        self.recompute = recompute
        self.n_evaluations = self.n_accepted = self.n_rejected = 0
        self.slope: Tensor | None = None  # the last dy/dt, to tell why a solve failed
        if adaptive:  # torchdiffeq warns where a fixed-step method finds these names
            self.callback_accept_step = self._accept
            self.callback_reject_step = self._reject

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        self.n_evaluations += 1
        t = t.to(y.dtype).expand(len(y)).reshape(-1, *[1] * (y.ndim - 1))
        if self.recompute and torch.is_grad_enabled():
            slope = checkpoint(self.func, t, y, use_reentrant=False)
        else:
            slope = self.func(t, y)
        self.slope = slope.detach()
        return slope

    def _accept(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
        self.n_accepted += 1

    def _reject(self, t0: Tensor, y0: Tensor, dt: Tensor) -> None:
        self.n_rejected += 1


def solve(
    func: Callable[[Tensor, Tensor], Tensor],
    y0: Tensor,
    t0: float = 0.0,
    t1: float = 1.0,
    *,
    rtol: float = 1e-3,
    atol: float = 1e-3,
    method: str = "auto",
    gradient: str = "direct",
    share_steps: bool = False,
    name: str = "solve",
) -> ODESolution:
    """Solve ``dy/dt = func(t, y)`` from ``t0`` to ``t1`` for each sample of a batch.

    Parameters
    ----------
    func : callable
        Right-hand side: takes t of shape (n, 1, ..., 1) in the state's dtype and y of shape
        (n, ...), returns dy/dt of y's shape. y may be any subset of the samples.
    y0 : Tensor of shape (n, ...)
        State at ``t0``, float32 or float64.
    t0, t1 : float
        Ends of the interval; ``t1`` may lie before ``t0``.
    rtol, atol : float
        Relative and absolute tolerance of the error of one step, measured as the root mean
        square over one sample. Fixed-step methods take no notice of them.
    method : str
        ``"auto"`` picks by tolerance (see `choose_method`).
    gradient : {"direct", "checkpoint", "adjoint"}
        How gradients reach ``y0`` and the weights of ``func``: through every recorded operation;
        the same with the insides of ``func`` computed again instead of kept; or by a second,
        backward ODE (Chen et al. [1]_), for which ``func`` must be a `torch.nn.Module`.
    share_steps : bool
        Take the same steps for the whole batch, its error measured over all samples together:
        faster for small states, but then a sample's result depends on the others.
    name : str
        What messages call this solve.

    Returns
    -------
    ODESolution

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    SolverError
        If the step size underflows, or the steps are too many.
    FloatingPointError
        If ``y0``, the right-hand side or the solution is not finite.

    References
    ----------
    .. [1] Chen et al., "Neural Ordinary Differential Equations", NeurIPS 2018.

    Examples
    --------
    >>> import torch
    >>> from bloodseg.ode import solve
    >>> solution = solve(lambda t, y: -y, torch.ones(2, 1), rtol=1e-6, atol=1e-6)
    >>> [round(value, 4) for value in solution.y.flatten().tolist()]
    [0.3679, 0.3679]
    """
    _check_arguments(func, y0, t0, t1, rtol=rtol, atol=atol, gradient=gradient, name=name)
    settings: dict[str, Any] = {
        "t": torch.tensor([t0, t1], dtype=torch.float64, device=y0.device),
        "rtol": rtol,
        "atol": atol,
        "method": choose_method(max(rtol, atol), method),
        "gradient": gradient,
        "name": name,
    }
    batches = [y0] if share_steps else list(y0.split(1))
    ends, counts = zip(
        *(_solve_together(func, batch, **settings) for batch in batches), strict=True
    )
    n_evaluations, n_accepted, n_rejected = np.repeat(
        np.stack(counts).T, len(y0) // len(batches), axis=1
    )
    return ODESolution(
        y=ends[0] if len(ends) == 1 else torch.cat(ends),
        status=np.zeros(len(y0), dtype=int),
        n_evaluations=n_evaluations,
        n_accepted=n_accepted,
        n_rejected=n_rejected,
    )


def check_gradient(gradient: str) -> None:
    """Raise a ValueError unless there is a gradient method of that name."""
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient must be one of {', '.join(GRADIENTS)}; got {gradient!r}.")


def _check_arguments(
    func: Any,
    y0: Tensor,
    t0: float,
    t1: float,
    *,
    rtol: float,
    atol: float,
    gradient: str,
    name: str,
) -> None:
    for argument, value in (("rtol", rtol), ("atol", atol)):
        if not (0 < value < math.inf):
            raise ValueError(f"{argument} must be a positive, finite number; got {value!r}.")
    if not (math.isfinite(t0) and math.isfinite(t1)) or t0 == t1:
        raise ValueError(f"t0 and t1 must be finite and differ; got t0={t0!r}, t1={t1!r}.")
    check_gradient(gradient)
    if gradient == "adjoint" and not isinstance(func, nn.Module):
        raise ValueError(
            "gradient='adjoint' needs func to be a torch.nn.Module, to find the weights in it; "
            f"got {type(func).__name__}. Wrap it in a Module, or use another gradient."
        )
    if y0.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"y0 must be float32 or float64; got {y0.dtype}. The state needs that precision "
            "even where func computes in less: cast y0, and cast inside func."
        )
    if y0.ndim == 0 or len(y0) == 0:
        raise ValueError(f"y0 must have shape (n, ...) with n >= 1; got {tuple(y0.shape)}.")
    if not torch.isfinite(y0).all():
        raise FloatingPointError(f"{name}: the state that enters the solver is not finite. {_CURE}")


def _solve_together(
    func: Callable[[Tensor, Tensor], Tensor],
    y0: Tensor,
    *,
    rtol: float,
    atol: float,
    method: str,
    gradient: str,
    **settings: Any,
) -> tuple[Tensor, np.ndarray]:
    """Solve a batch with one step size and one error norm.

    Returns h(t1) and the numbers of evaluations, accepted and rejected steps.
    """
    adaptive = method not in FIXED_STEP_METHODS
    counted = _Counted(func, recompute=gradient == "checkpoint", adaptive=adaptive)
    settings |= {"rtol": rtol, "atol": atol, "method": method, "gradient": gradient}
    if adaptive and max(rtol, atol) >= WHOLE_INTERVAL_TOL:
        try:
            return _integrate(counted, y0, whole_interval_first=True, **settings)
        except (SolverError, FloatingPointError):  # a step that large may have overflowed
            counted.n_accepted = counted.n_rejected = 0
    return _integrate(counted, y0, **settings)


def _integrate(
    counted: _Counted,
    y0: Tensor,
    *,
    t: Tensor,
    rtol: float,
    atol: float,
    method: str,
    gradient: str,
    name: str,
    whole_interval_first: bool = False,
) -> tuple[Tensor, np.ndarray]:
    """Call torchdiffeq and turn its failures into errors that say what to do."""
    integrate: Any = odeint
    extra: dict[str, Any] = {}
    if method in FIXED_STEP_METHODS:
        options: dict[str, Any] = {"step_size": float((t[1] - t[0]).abs()) / N_FIXED_STEPS}
        counted.n_accepted = N_FIXED_STEPS
    else:
        # step_t makes the last step end on t1; else the solver steps past it and interpolates
        # back, which costs accuracy and an evaluation.
        options = {"step_t": t[1:], "max_num_steps": MAX_STEPS}
        if whole_interval_first:
            options["first_step"] = (t[1] - t[0]).abs()
    if gradient == "adjoint" and torch.is_grad_enabled():
        integrate = odeint_adjoint
        if "step_t" in options:
            extra = {"adjoint_options": {**options, "step_t": t[:1]}}
    try:
        y1 = integrate(
            counted, y0, t, rtol=rtol, atol=atol, method=method, options=options, **extra
        )[-1]
    except AssertionError as error:  # torchdiffeq's way to report failure
        cost = f"after {counted.n_evaluations} evaluations"
        if counted.slope is not None and not torch.isfinite(counted.slope).all():
            raise FloatingPointError(
                f"{name}: the right-hand side is not finite {cost}. {_CURE}"
            ) from error
        raise SolverError(
            f"{name}: the solver gave up {cost} at tolerance {max(rtol, atol):g} with {method} "
            f"({error}). The right-hand side has grown stiff: train with a lower learning rate, "
            "or use a looser tolerance."
        ) from error
    if not torch.isfinite(y1).all():
        raise FloatingPointError(
            f"{name}: the solution is not finite after {counted.n_evaluations} evaluations. {_CURE}"
        )
    return y1, np.array([counted.n_evaluations, counted.n_accepted, counted.n_rejected])
