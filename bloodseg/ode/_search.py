"""Find the steps of a solve: the loop over attempts, nothing recorded for gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ._arithmetic import Slopes, StepSizes, as_rows, compute_rms, share_memory, to_device
from ._control import Interval, StepControl, compute_ratios
from ._defect import DefectWatch
from ._rhs import evaluate
from ._solution import Status, make_not_finite_error
from ._step import Function
from .methods import Tableau

# Smallest step in relation to the interval: below, time in the state's dtype stands still.
SMALLEST_STEP = {torch.float32: 1e-6, torch.float64: 1e-14}


@dataclass(frozen=True)
class AcceptedStep:
    """One accepted attempt: which samples of the chunk, whence, when, how far."""

    rows: np.ndarray
    y: Tensor
    times: np.ndarray
    steps: np.ndarray


@dataclass(frozen=True)
class Search:
    """What a chunk's search found."""

    status: np.ndarray
    n_evaluations: np.ndarray
    n_accepted: np.ndarray
    n_rejected: np.ndarray
    stopped_at: np.ndarray
    too_few: np.ndarray
    steps: list[AcceptedStep]


class Workspace:
    """The memory that the chunks of a solve use one after the other.

    Taken once a solve: memory that is fresh from the system costs more than the sums in it.
    """

    def __init__(self, like: Tensor, slopes: Slopes):
        self.slopes = slopes
        self.error = as_rows(torch.empty_like(like))
        self.inputs = None  # in the precision of the right-hand side, where that is lower
        if slopes.input_dtype != like.dtype:
            self.inputs = torch.empty_like(self.error, dtype=slopes.input_dtype)
        self._states: list[Tensor] = []

    def free_rows(self, n: int, taken: Tensor) -> Tensor:
        """Return n rows to write a state to, not those where another lies."""
        for rows in self._states:
            if rows.data_ptr() != taken.data_ptr():
                return rows[:n]
        self._states.append(torch.empty_like(self.error))
        return self._states[-1][:n]


class StepSearch:
    """Carries a chunk of samples from t0 to t1, each in steps of its own, and writes the end to y1.

    Both states are dense. Samples that are done leave the active set and are evaluated no more.
    """

    def __init__(
        self,
        func: Function,
        tableau: Tableau,
        y0: Tensor,
        y1: Tensor,
        interval: Interval,
        workspace: Workspace,
        *,
        keep_steps: bool,
        name: str,
    ):
        self.func, self.tableau, self.interval, self.name = func, tableau, interval, name
        self.workspace, self.slopes = workspace, workspace.slopes
        self.like = y0
        self.y = as_rows(y0)  # of the active samples; the caller's memory, never written
        self.end = as_rows(y1)
        self.active = np.arange(len(y0))
        smallest = SMALLEST_STEP[y0.dtype]
        self.control = StepControl(interval, len(y0), tableau.error_order, smallest)
        self.n_evaluations = np.zeros(len(y0), dtype=int)
        self.status = np.zeros(len(y0), dtype=int)
        self.steps: list[AcceptedStep] | None = [] if keep_steps else None
        self.sizes = np.zeros(len(y0))  # root mean squares of y, for the tolerance
        self.defect: DefectWatch | None = None
        if interval.n_steps is not None and interval.n_steps > 1:
            self.defect = DefectWatch(tableau, workspace.error[: len(y0)])
        self.has_slope = False  # whether the first stage of the next step is known

    def run(self) -> Search:
        """Attempt steps until no sample is left."""
        if self.tableau.adaptive:
            self.sizes = self._to_host(compute_rms(self.y, torch.float64))
            self._check_overflow(~np.isfinite(self.sizes))
            tries_whole = self.tableau.tries_whole_interval(self.interval.tolerance)
            if self.interval.first_step is None and not tries_whole:
                self._choose_first_steps()
        while len(self.active):
            self._attempt()
        if not self.tableau.adaptive:  # else an error control has looked at each step
            self._check_end()
        control, everyone = self.control, np.arange(len(self.status))
        return Search(
            self.status,
            self.n_evaluations,
            control.n_accepted,
            control.n_rejected,
            control.times(everyone),
            np.zeros(len(everyone), dtype=bool) if self.defect is None else self.defect.too_few(),
            self.steps or [],
        )

    def _attempt(self) -> None:
        tableau, control, active = self.tableau, self.control, self.active
        times, steps = control.times(active), control.next_steps(active)
        sizes = StepSizes(times, steps, tableau.nodes, self.like)
        new = self._take_stages(sizes)
        ratios, new_sizes = self._estimate_errors(new, sizes)
        accepted = control.judge(active, steps, ratios)
        if accepted.any():
            if self.steps is not None:
                self.steps.append(self._keep_step(accepted, times, steps))
            chosen = None if accepted.all() else self._on_device(accepted)
            self.y = new if chosen is None else torch.where(chosen[:, None], new, self.y)
            if tableau.first_same_as_last and not control.finished(active).all():
                self.slopes.carry_over(len(active), chosen)
            self.sizes = np.where(accepted, new_sizes, self.sizes)
        self.has_slope = tableau.first_same_as_last
        self._let_go(ratios)

    def _take_stages(self, sizes: StepSizes) -> Tensor:
        """Evaluate the stages of an attempt, and return the new state."""
        tableau = self.tableau
        if not self.has_slope:
            self._evaluate(0, sizes, self.y)
        if self.defect is not None:
            self.defect.see_start(self.y, self.slopes)
        new = self._free_rows()
        inputs = new if self.workspace.inputs is None else self.workspace.inputs[: len(new)]
        for stage in range(1, tableau.n_stages):
            at_end = tableau.first_same_as_last and stage == tableau.n_stages - 1
            y = new if at_end else inputs
            self.slopes.weighted_sum(y, self.y, tableau.stages[stage], sizes)
            self._evaluate(stage, sizes, y)
        if not tableau.first_same_as_last:  # else the last stage was evaluated at the new state
            self.slopes.weighted_sum(new, self.y, tableau.weights, sizes)
        if self.defect is not None:
            self.defect.see_step(self.slopes, sizes)
        return new

    def _estimate_errors(self, new: Tensor, sizes: StepSizes) -> tuple[np.ndarray, np.ndarray]:
        """Return the errors in units of the tolerance, and the sizes of the new states."""
        if not self.tableau.adaptive:
            return np.zeros(len(new)), np.zeros(len(new))
        first = self.control.at_first_attempt()
        # The one copy to the host in a step.
        found = self._to_host(self._measure_step(new, sizes, first))
        if not np.isfinite(found).all():  # squares of large numbers overflow before they do
            found = self._to_host(self._measure_step(new, sizes, first, torch.float64))
        *errors, new_sizes = found
        return compute_ratios(errors, self.sizes, new_sizes, self.interval), new_sizes

    def _measure_step(
        self, new: Tensor, sizes: StepSizes, first: bool, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the sizes of a step's error estimates, and of the new state, a row each."""
        estimates = [self.tableau.error_weights, self.tableau.guard_weights if first else None]
        used = [weights for weights in estimates if weights is not None]
        return self.slopes.sizes(self.workspace.error[: len(new)], new, used, sizes, dtype)

    def _let_go(self, ratios: np.ndarray) -> None:
        """Take the samples that have come to an end, good or bad, out of the active set."""
        active, control = self.active, self.control
        self._check_overflow(~np.isfinite(ratios))
        leaving = finished = control.finished(active)
        if self.tableau.adaptive:
            many, small = control.too_many(active), control.too_small(active)
            self.status[active[many & ~finished]] = Status.TOO_MANY_STEPS
            self.status[active[small & ~finished]] = Status.STEP_UNDERFLOW
            leaving = finished | many | small
        if not leaving.any():
            return
        everyone = leaving.all() and len(active) == len(self.status)
        if not everyone:
            rows = self._on_device(active[leaving])
            self.end[rows] = self.y[self._on_device(np.flatnonzero(leaving))]
        elif self.y.data_ptr() != self.end.data_ptr():
            self.end.copy_(self.y)
        self.active = active[~leaving]
        if len(self.active):
            staying = self._on_device(np.flatnonzero(~leaving))
            self.y = self.y[staying]
            self.slopes.keep(staying)
            self.sizes = self.sizes[~leaving]

    def _check_overflow(self, overflowed: np.ndarray) -> None:
        """Raise if it is not the step that overflowed but the state or its slope."""
        if not overflowed.any():
            return
        rows = self._on_device(np.flatnonzero(overflowed))
        if not torch.isfinite(self.y[rows]).all():
            what = "the state that enters the solver"
        elif self.n_evaluations.any() and not torch.isfinite(self.slopes.first(rows)).all():
            what = "the right-hand side"
        else:
            return
        raise self._not_finite(what)

    def _check_end(self) -> None:
        # A sum is finite only where every element is; where it is not, it may have overflowed.
        if torch.isfinite(self.end.sum()) or torch.isfinite(self.end).all():
            return
        entered = bool(torch.isfinite(self.like).all())
        raise self._not_finite("the solution" if entered else "the state that enters the solver")

    def _not_finite(self, what: str) -> FloatingPointError:
        return make_not_finite_error(self.name, what, self.n_evaluations.max())

    def _choose_first_steps(self) -> None:
        """Guess the first steps from the slope and its change (Hairer et al., II.4).

        A trial step of Euler's, ``h0 = 0.01 * |y| / |f|``, shows how fast the slope changes. Of the
        slope and its change per time, in units of the tolerance, the larger one D gives
        ``h = min(100 * h0, (0.01 / D) ** (1 / error_order))``.
        """
        control, everyone = self.control, self.active
        times = control.times(everyone)
        still = StepSizes(times, np.zeros(len(times)), (0.0,), self.like)
        self._evaluate(0, still, self.y)
        self.has_slope = True
        slopes = self._to_host(
            compute_rms(self.slopes.first(self._on_device(everyone)), torch.float64)
        )
        self._check_overflow(~np.isfinite(slopes))
        scales = self.interval.tolerances_at(self.sizes)
        with np.errstate(divide="ignore", invalid="ignore"):
            short = np.where(
                (self.sizes > 1e-5 * scales) & (slopes > 1e-5 * scales),
                0.01 * self.sizes / slopes,
                1e-6,
            )
        short = np.clip(short, self.control.smallest, self.interval.length)
        trial = StepSizes(times, control.sign * short, (0.0, 1.0), self.like)
        new = self._free_rows()
        self.slopes.weighted_sum(new, self.y, (1.0,), trial)
        self._evaluate(1, trial, new)
        unit = StepSizes(times, np.ones(len(times)), (0.0,), self.like)
        self.slopes.weighted_sum(new, None, (-1.0, 1.0), unit)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            bends = self._to_host(compute_rms(new, torch.float64)) / short
            steepest = np.maximum(slopes, bends) / scales
            likely = (0.01 / steepest) ** (1 / (self.tableau.error_order or 1))
        likely = np.where(np.isfinite(bends), likely, short)
        control.wanted = np.minimum(np.minimum(100 * short, likely), self.interval.length)

    def _evaluate(self, stage: int, sizes: StepSizes, rows: Tensor) -> None:
        y = self._view_as_state(rows)
        slope = evaluate(self.func, sizes.time(stage), y, self.name)
        if share_memory(slope, y):  # which is about to be reused
            slope = slope.clone()
        self.n_evaluations[self.active] += 1
        self.slopes.write(stage, len(y), slope)

    def _view_as_state(self, rows: Tensor) -> Tensor:
        """View rows as a state, laid out as the one that came in."""
        shape, strides = self.like.shape[1:], self.like.stride()[1:]
        return rows.as_strided((len(rows), *shape), (rows.shape[1], *strides))

    def _free_rows(self) -> Tensor:
        """Return rows to write to for the active samples, none that their states lie in."""
        everyone = len(self.active) == len(self.status)
        if everyone and self.y.data_ptr() != self.end.data_ptr():
            return self.end  # the first step is often the last
        return self.workspace.free_rows(len(self.active), self.y)

    def _keep_step(
        self, accepted: np.ndarray, times: np.ndarray, steps: np.ndarray
    ) -> AcceptedStep:
        y = self._view_as_state(self.y)
        if not accepted.all():
            y = y[self._on_device(np.flatnonzero(accepted))]
        elif self.y.data_ptr() != self.like.data_ptr():  # a buffer that is about to be reused
            y = y.clone()
        return AcceptedStep(self.active[accepted], y, times[accepted], steps[accepted])

    def _on_device(self, indices: np.ndarray) -> Tensor:
        return to_device(indices, self.y.device)

    @staticmethod
    def _to_host(values: Tensor) -> np.ndarray:
        return values.cpu().numpy().astype(float)
