"""Solve an initial value problem for a batch of samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ._arithmetic import Slopes, as_column, make_dense
from ._checks import (
    check_backend,
    check_compile,
    check_count,
    check_first_step,
    check_gradient,
    check_positive,
    is_number,
)
from ._control import Flags, Interval
from ._fused import FusedSlopes
from ._precision import (
    check_precision,
    fix_arithmetic,
    keep_arithmetic,
    tolerance_floor,
)
from ._replay import ReplayedGradient, replay
from ._rhs import RightHandSide
from ._search import Search, StepSearch, Workspace
from ._solution import ODESolution, Status
from ._step import Function
from ._torchdiffeq import solve_with_torchdiffeq
from ._warnings import warn_of_solve
from .methods import Method, Tableau, check_n_steps, choose_tableau

MAX_STEPS = 1000

# Share of the interval that the state's dtype must tell times apart by.
_FINEST_TIME = 1e-3

# On the CPU, samples are solved so many at a time that their states add up to about this: a
# larger state is best solved alone, where it stays in cache; small ones share the cost of a call.
_CHUNK_BYTES = 2**21

# Fewest elements of a state for which fused sums pay: smaller ones stay in cache between passes.
_LARGE_STATE = 2**19

# Elements in all from which on what they save, some nanoseconds each, outweighs compiling them.
_LONG_JOB = 2**31


def solve(
    func: Callable[[Tensor, Tensor], Tensor],
    y0: Tensor,
    t0: float = 0.0,
    t1: float = 1.0,
    *,
    rtol: float = 1e-3,
    atol: float = 1e-3,
    method: Method = "auto",
    n_steps: int | None = None,
    gradient: str = "direct",
    precision: str | None = None,
    first_step: float | None = None,
    max_steps: int = MAX_STEPS,
    compile: bool | str = "auto",
    backend: str = "bloodseg",
    name: str = "solve",
) -> ODESolution:
    """Solve ``dy/dt = func(t, y)`` from ``t0`` to ``t1``, each sample in steps of its own.

    Time, step size, acceptance and error belong to the sample, so that its solution does not
    depend on the others in its batch. Only the state at ``t1`` is computed.

    Parameters
    ----------
    func : callable
        Right-hand side: takes t of shape (n, 1, ..., 1) in the state's dtype and y of shape
        (n, ...), returns dy/dt of y's shape. y may be any subset of the samples.
    y0 : Tensor of shape (n, ...)
        State at ``t0``, float32 or float64. Its memory format, channels_last too, is kept.
    t0, t1 : float
        Ends of the interval; ``t1`` may lie before ``t0``.
    rtol, atol : float
        A step is accepted where the root mean square of its error over the sample is at most
        ``atol + rtol * RMS(y)``. Fixed-step methods take no notice of them.
    method : str or Tableau
        ``"auto"`` picks by tolerance (see `choose_method`), always one that controls its error:
        ``"heun"``, ``"kutta3"``, ``"bosh3"``, ``"dopri5"``, ``"tsit5"`` or ``"dopri8"``. The
        fixed-step methods ``"euler"``, ``"midpoint"`` and ``"rk4"`` take ``n_steps`` equal steps
        and cannot judge their error: only steps that are too few by far are warned of. A `Tableau`
        is a method of your own.
    n_steps : int, optional
        Number of steps of a fixed-step method; None is 4. Not for the others, which choose theirs
        by the tolerance.
    gradient : {"direct", "checkpoint", "adjoint"}
        How gradients reach ``y0`` and the weights of ``func``. The first two differentiate the
        accepted steps, taken once more: ``"direct"`` at once, recording all of them;
        ``"checkpoint"`` in backward, one step at a time from its stored state. ``"adjoint"`` solves
        a second ODE backward (Chen et al. [1]_), with torchdiffeq. For the last two ``func`` must
        be a `torch.nn.Module`; they reach its parameters, and refuse one that depends on other
        tensors that need gradients. ``"direct"`` reaches those, too, can be differentiated again,
        and has forward-mode derivatives (`torch.autograd.forward_ad`) for y0 and the weights.
    precision : {"float32", "tf32", "bfloat16", "float16"}, optional
        What ``func`` computes in; None is the state's own, as are the first two where that is
        float64. State, time and error stay in the state's. float16 is for prediction: small
        gradients vanish in it.
    first_step : float, optional
        Length of the first step to try, shortened to an equal part of the interval. None: the whole
        interval where the method often carries it at the tolerance ("kutta3" from 1e-3 on, "tsit5"
        from 1e-5, "dopri8" from 1e-7), else a guess from the slope. A state of a few numbers may
        change unseen in so long a step, most easily with "kutta3" and "heun": give a tenth of the
        interval there. Fixed-step methods take no notice of it.
    max_steps : int
        Accepted and rejected steps of a sample at most. Fixed-step methods take no notice of it.
    compile : bool or "auto"
        Whether `torch.compile` fuses the sums over the stages, which takes it some ten seconds,
        once for all sizes, and pays for large states. "auto" does so where this one call is long
        enough. Where it fails, the reason is logged and the solve goes on without.
    backend : {"bloodseg", "torchdiffeq"}
        Whose solver.
    name : str
        What messages call this solve.

    Returns
    -------
    ODESolution

    Warns
    -----
    SolverWarning
        If samples end before ``t1``, as their steps become too many or too small, if the
        tolerance is too tight for the state's dtype, or if fixed steps look too few by far.

    Raises
    ------
    ValueError
        If a parameter is out of its range, if derivatives are wanted that ``gradient`` does not
        have, or under a transform of `torch.func`, which hides the values that steps follow from.
    FloatingPointError
        If ``y0``, the right-hand side or the solution is not finite.
    SolverError
        If torchdiffeq gives up, here or, for the adjoint gradient, in backward.
    ImportError
        If torchdiffeq is asked for and not installed.

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
    >>> solution.method, solution.n_accepted
    ('dopri8', array([1, 1]))
    """
    interval = _make_interval(t0, t1, rtol, atol, max_steps, first_step)
    _check_arguments(func, y0, gradient, precision, compile, backend)
    backend = find_backend(backend, gradient)
    tangents = _check_transforms(func, y0, gradient, backend, name)
    tableau = choose_tableau(interval.tolerance, method, backend=backend)
    interval = replace(interval, n_steps=check_n_steps(n_steps, tableau))
    _warn_of_time(interval, y0.dtype, name)
    if backend == "torchdiffeq":
        solution = solve_with_torchdiffeq(
            func, y0, interval, tableau, precision, adjoint=gradient == "adjoint", name=name
        )
        _check_trainable(solution.y.requires_grad, precision, name)
        return solution
    if tableau.adaptive:
        _warn_of_rounding(interval, y0.dtype, name)
    with fix_arithmetic(y0.device, precision):
        rhs = RightHandSide(func, precision, interval.tolerance)
        needed = tangents or _needs_gradient(rhs, y0, interval, gradient)
        wanted = gradient if needed else None
        _check_trainable(wanted is not None, precision, name)
        slopes = choose_slopes(compile, y0)
        watched = gradient == "checkpoint" and torch.is_grad_enabled()
        func = rhs.watch(gradient, name) if watched else rhs
        keep = wanted is not None
        y1, found = _search_steps(func, rhs.input_dtype, tableau, y0, interval, slopes, keep, name)
        if wanted:
            y1 = _attach_gradient(y1, found, rhs, tableau, y0, wanted, precision)
    solution = ODESolution(
        y=y1,
        status=np.concatenate([chunk.status for chunk in found]),
        n_evaluations=np.concatenate([chunk.n_evaluations for chunk in found]),
        n_accepted=np.concatenate([chunk.n_accepted for chunk in found]),
        n_rejected=np.concatenate([chunk.n_rejected for chunk in found]),
        method=tableau.name,
    )
    if solution.status.any():
        stopped_at = np.concatenate([chunk.stopped_at for chunk in found])
        warn_of_solve(_describe_failure(solution, stopped_at, interval), name)
    _warn_of_few_steps(np.concatenate([chunk.too_few for chunk in found]), solution, interval, name)
    return solution


def find_backend(backend: str, gradient: str) -> str:
    """Return whose solver it is; the adjoint gradient is torchdiffeq's."""
    return "torchdiffeq" if gradient == "adjoint" else backend


def pays_to_compile(size: int, n_samples: int) -> bool:
    """Return whether fused sums save more time than their compilation takes.

    Parameters
    ----------
    size : int
        Elements of a sample's state.
    n_samples : int
        Samples that will be solved.

    Returns
    -------
    bool
    """
    return size >= _LARGE_STATE and size * n_samples >= _LONG_JOB


def choose_slopes(compile: bool | str, y0: Tensor) -> type[Slopes]:
    """Return what computes the sums over the stages, as ``compile`` of `solve` says."""
    if compile == "auto":
        compile = pays_to_compile(y0[0].numel(), len(y0))
    return FusedSlopes if compile else Slopes


def _search_steps(
    func: Function,
    input_dtype: torch.dtype | None,
    tableau: Tableau,
    y0: Tensor,
    interval: Interval,
    make_slopes: type[Slopes],
    keep_steps: bool,
    name: str,
) -> tuple[Tensor, list[Search]]:
    """Solve so many samples at a time as it is fastest; return the states at t1 and the rest."""
    size = _choose_chunk_size(y0)
    with torch.no_grad(), forward_ad._set_fwd_grad_enabled(False):
        start = make_dense(forward_ad.unpack_dual(y0).primal.detach())
        end = torch.empty_like(start)
        slopes = make_slopes(start[:size], tableau.n_stages, input_dtype)
        workspace = Workspace(start[:size], slopes)
        settings: dict[str, Any] = {"keep_steps": keep_steps, "name": name}
        found = [
            StepSearch(func, tableau, *chunk, interval, workspace, **settings).run()
            for chunk in zip(start.split(size), end.split(size), strict=True)
        ]
    # In torch 2.4 it hands the weights that were cast here, without a gradient, to steps that are
    # differentiated: "direct" then lost the gradients of these weights.
    torch.clear_autocast_cache()
    return end, found


def _attach_gradient(
    y1: Tensor,
    found: list[Search],
    rhs: RightHandSide,
    tableau: Tableau,
    y0: Tensor,
    gradient: str,
    precision: str | None,
) -> Tensor:
    """Return the state at t1 as autograd shall know it: as where the steps found lead to."""
    size = _choose_chunk_size(y0)
    steps = [chunk.steps for chunk in found]
    if gradient == "checkpoint":
        apply: Callable[..., Tensor] = ReplayedGradient.apply
        return apply(rhs, tableau, precision, steps, size, [y1], y0, *rhs.weights)
    ends = [
        replay(rhs, tableau, taken, chunk)
        for taken, chunk in zip(steps, y0.split(size), strict=True)
    ]
    end = torch.cat(ends)
    keep_arithmetic(end, (y0, *rhs.weights), precision)
    return end


def _needs_gradient(rhs: RightHandSide, y0: Tensor, interval: Interval, gradient: str) -> bool:
    """Return whether the solution has to know where it comes from."""
    if not torch.is_grad_enabled():
        return False
    if y0.requires_grad or any(weight.requires_grad for weight in rhs.weights):
        return True
    # Tensors that a function holds, or a module beside its weights, show only in its value.
    time = as_column(y0.new_tensor([interval.t0]), y0)
    return gradient == "direct" and rhs(time, y0[:1]).requires_grad


def _choose_chunk_size(y0: Tensor) -> int:
    """Return how many samples to solve at a time."""
    if y0.device.type != "cpu":
        return len(y0)
    return max(1, _CHUNK_BYTES // max(1, y0[0].numel() * y0.element_size()))


def _make_interval(
    t0: float, t1: float, rtol: float, atol: float, max_steps: int, first_step: float | None
) -> Interval:
    """Return what they say, in Python's numbers: the caller's may be numpy's or torch's."""
    if torch.is_grad_enabled() and any(getattr(t, "requires_grad", False) for t in (t0, t1)):
        raise ValueError(
            f"t0 and t1 must not need gradients, for none reach them; got t0={t0!r}, t1={t1!r}. "
            "Detach them; or, for the gradient of a length of time, solve from 0 to 1 and let func "
            "multiply dy/dt by it."
        )
    finite = all(is_number(t) and math.isfinite(t) for t in (t0, t1))
    if not finite or float(t0) == float(t1):
        raise ValueError(f"t0 and t1 must be finite and differ; got t0={t0!r}, t1={t1!r}.")
    check_positive(rtol, "rtol")
    check_positive(atol, "atol")
    check_count(max_steps, "max_steps")
    check_first_step(first_step)
    first_step = None if first_step is None else float(first_step)
    return Interval(float(t0), float(t1), float(rtol), float(atol), int(max_steps), first_step)


def _check_arguments(
    func: Any,
    y0: Tensor,
    gradient: str,
    precision: str | None,
    compile: bool | str,
    backend: str,
) -> None:
    check_gradient(gradient)
    check_precision(precision)
    check_compile(compile)
    check_backend(backend)
    if gradient != "direct" and not isinstance(func, nn.Module):
        raise ValueError(
            f"gradient={gradient!r} needs func to be a torch.nn.Module, to find the weights in it; "
            f"got {type(func).__name__}. Wrap it in a Module, or use gradient='direct'."
        )
    if not isinstance(y0, Tensor):
        raise ValueError(
            f"y0 must be a torch.Tensor; got {type(y0).__name__}. Pass torch.as_tensor(y0)."
        )
    if y0.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"y0 must be float32 or float64; got {y0.dtype}. The state needs that precision "
            "even where func computes in less: cast y0, and pass precision."
        )
    if y0.ndim == 0 or y0.numel() == 0:
        raise ValueError(
            f"y0 must have shape (n, ...) with n >= 1 and no empty side; got {tuple(y0.shape)}."
        )


def _check_transforms(func: Any, y0: Tensor, gradient: str, backend: str, name: str) -> bool:
    """Return whether forward-mode derivatives come in; refuse what would lose derivatives."""
    if torch._C._are_functorch_transforms_active():
        raise ValueError(
            f"{name}: the transforms of torch.func (vmap, grad, jvp, jacrev, ...) hide the values "
            "that the steps follow from. For vmap, pass the samples as one batch; for grad and vjp "
            "call torch.autograd.grad, for jacrev torch.autograd.functional.jacobian with "
            "vectorize=True, for jvp torch.autograd.forward_ad with gradient='direct'."
        )
    tensors = (y0, *func.parameters()) if isinstance(func, nn.Module) else (y0,)
    tangents = any(forward_ad.unpack_dual(each).tangent is not None for each in tensors)
    if tangents and (gradient, backend) != ("direct", "bloodseg"):
        raise ValueError(
            f"{name}: gradient={gradient!r} with backend={backend!r} has no forward-mode "
            "derivatives (torch.autograd.forward_ad). Take gradient='direct' and "
            "backend='bloodseg'."
        )
    return tangents


def _check_trainable(training: bool, precision: str | None, name: str) -> None:
    if training and precision == "float16":
        raise ValueError(
            f"{name}: precision='float16' is for prediction: small gradients vanish in it. Use "
            "'bfloat16' or 'float32' in training, or torch.no_grad() in prediction."
        )


def _warn_of_time(interval: Interval, dtype: torch.dtype, name: str) -> None:
    spacing = torch.finfo(dtype).eps * max(abs(interval.t0), abs(interval.t1))
    if spacing > _FINEST_TIME * interval.length:
        warn_of_solve(
            f"in {str(dtype).removeprefix('torch.')} times near {interval.t1:g} lie {spacing:.1g} "
            f"apart, coarse for an interval of {interval.length:g}: func sees them rounded. Use "
            "float64, or let t begin at 0.",
            name,
        )


def _warn_of_rounding(interval: Interval, dtype: torch.dtype, name: str) -> None:
    tol = interval.tolerance
    precision = str(dtype).removeprefix("torch.")
    if tol < tolerance_floor(precision):
        warn_of_solve(
            f"tolerance {tol:g} is tighter than {precision} serves "
            f"({tolerance_floor(precision):g}): rounding would look like error to the step "
            "control, which then only takes more steps. Loosen the tolerance, or use float64.",
            name,
        )


def _warn_of_few_steps(
    too_few: Flags, solution: ODESolution, interval: Interval, name: str
) -> None:
    if too_few.any():
        warn_of_solve(
            f"{interval.n_steps} equal steps of {solution.method} look too few for {too_few.sum()} "
            f"of {len(too_few)} samples, the first sample {too_few.argmax()}: the trapezoidal rule "
            "on the same slopes differs by more than half of the state's size. A fixed-step method "
            "cannot judge its error: compare with more n_steps, or take method='auto', which does.",
            name,
        )


def _describe_failure(solution: ODESolution, stopped_at: np.ndarray, interval: Interval) -> str:
    stopped = np.flatnonzero(solution.status)
    first = stopped[0]
    if solution.status[first] == Status.TOO_MANY_STEPS:
        reason = f"took all of max_steps={interval.max_steps} steps"
    else:
        reason = "needs steps too small for the state's dtype"
    return (
        f"{len(stopped)} of {len(solution.status)} samples stopped before "
        f"t={interval.t1:g}; the first, sample {first}, {reason} and is at t={stopped_at[first]:g} "
        f"after {solution.n_evaluations[first]} evaluations ({solution.n_accepted[first]} accepted "
        f"and {solution.n_rejected[first]} rejected steps) at tolerance "
        f"{interval.tolerance:g} with {solution.method}. Its state there is used. "
        "The right-hand side has grown stiff: loosen the tolerance, raise max_steps, or train "
        "with a lower learning rate."
    )
