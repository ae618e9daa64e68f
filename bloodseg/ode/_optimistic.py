"""ODE-blocks that take the steps they expect, and are told afterwards whether they might.

The steps that a block of a trained network takes are nearly always known beforehand: its first
step, again and again. Within `Tape.recording` a block takes just these, and keeps the errors where
they are. One look at the end (`Tape.judge`) lets the error control go over all of them: of a sample
with which it would have taken these steps, the solution is the one that a search finds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ._arithmetic import StepSizes, as_column, compute_rms, make_dense
from ._control import Flags, Floats, Interval, StepControl, compute_ratios, expect_steps
from ._precision import fix_arithmetic
from ._rhs import RightHandSide
from ._search import SMALLEST_STEP, StepSearch, Workspace
from ._solve import choose_slopes
from .methods import Tableau

_tape: ContextVar[Tape | None] = ContextVar("_tape", default=None)

# A first step that is shorter still is an accident, and rarely the length of those after it.
_MOST_STEPS = 16


@dataclass(frozen=True)
class Expectation:
    """The steps that a solve most probably takes: where each starts, and its signed length."""

    interval: Interval
    tableau: Tableau
    steps: tuple[tuple[float, float], ...]


def expect(interval: Interval, tableau: Tableau) -> Expectation | None:
    """Return what a solve most probably does; None where that depends on the state."""
    if not tableau.adaptive:
        return None
    if interval.first_step is None and not tableau.tries_whole_interval(interval.tolerance):
        return None
    steps = expect_steps(interval, min(interval.max_steps, _MOST_STEPS))
    return None if steps is None else Expectation(interval, tableau, steps)


class SharedStep(StepSizes):
    """A step that all samples take together.

    ``constants`` keeps its tensors, so that only the first time anything is copied to the device.
    """

    def __init__(
        self,
        time: float,
        step: float,
        nodes: Sequence[float],
        y: Tensor,
        constants: dict[Any, Tensor],
    ):
        self.on_host = [step] * len(y)
        self._constants, self._like = constants, y
        self._step = step
        self._stages = [time + node * step for node in nodes]

    def scaled(self, weights: Sequence[float]) -> Tensor:
        """Return the step times each weight, of shape (n, weights)."""
        return self._make([self._step * weight for weight in weights]).expand(len(self._like), -1)

    def time(self, stage: int) -> Tensor:
        """Return the time of a stage, of shape (n, 1, ..., 1), one number in memory."""
        one = as_column(self._make([self._stages[stage]]), self._like)
        return one.expand(len(self._like), *one.shape[1:])

    def _make(self, values: list[float]) -> Tensor:
        dtype, device = self._like.dtype, self._like.device
        key = (*values, dtype, device)
        if key not in self._constants:
            self._constants[key] = torch.tensor(values, dtype=dtype, device=device)
        return self._constants[key]


class _BlindSearch(StepSearch):
    """Takes the steps that are expected, whatever their errors."""

    def take(self, steps: Sequence[StepSizes]) -> Tensor:
        """Take the steps, and return what their errors are judged by, of shape (numbers, n).

        In rows: the root mean square of the state at the start; then, of each step, those of its
        error estimates and of the state at its end.
        """
        found = [compute_rms(self.y, torch.float64)[None]]
        for number, sizes in enumerate(steps):
            new = self._take_stages(sizes)
            found.append(self._measure_step(new, sizes, first=number == 0).double())
            self.y = new
            self.has_slope = self.tableau.first_same_as_last
            if self.has_slope and number + 1 < len(steps):
                self.slopes.carry_over(len(new), None)
        if self.y.data_ptr() != self.end.data_ptr():
            self.end.copy_(self.y)
        return torch.cat(found)


@dataclass(frozen=True)
class _Solve:
    """What a block has taken for granted."""

    block: Any
    expected: Expectation
    dtype: torch.dtype
    n_evaluations: int
    sizes: Tensor


class Tape:
    """What the ODE-blocks of one pass take for granted.

    One tape may record one pass after the other; the tensors that only depend on steps and sizes
    are made in the first.
    """

    def __init__(self) -> None:
        self._solves: list[_Solve] = []
        self._constants: dict[Any, Tensor] = {}

    @contextmanager
    def recording(self, batch: Tensor) -> Iterator[None]:
        """Let the blocks that are called within, for a batch, take the steps that they expect."""
        self._solves = []
        token = _tape.set(self)
        try:
            yield
        finally:
            _tape.reset(token)
        nothing = batch.new_empty((0, len(batch)), dtype=torch.float64)
        self._sizes = torch.cat([nothing, *(solve.sizes for solve in self._solves)])

    def solve(
        self,
        block: Any,
        expected: Expectation,
        y0: Tensor,
        precision: str | None,
    ) -> Tensor:
        """Return the state at the end of the expected steps, and note what to judge them by."""
        with torch.no_grad(), fix_arithmetic(y0.device, precision):
            rhs = RightHandSide(block.func, precision, expected.interval.tolerance)
            tableau = expected.tableau
            start = make_dense(y0)
            end = torch.empty_like(start)
            make_slopes = choose_slopes(block.compile_mode, y0)
            slopes = make_slopes(start, tableau.n_stages, rhs.input_dtype)
            search = _BlindSearch(
                rhs,
                tableau,
                start,
                end,
                expected.interval,
                Workspace(start, slopes),
                keep_steps=False,
                name=block.name,
            )
            steps = [
                SharedStep(time, step, tableau.nodes, start, self._constants)
                for time, step in expected.steps
            ]
            sizes = search.take(steps)
        count = int(search.n_evaluations[0])
        self._solves.append(_Solve(block, expected, y0.dtype, count, sizes))
        return end

    def judge(self) -> Flags:
        """Return with which samples all blocks did what the error control would have done.

        Waits for the device, once. The blocks then have the counts of such a solve; those of the
        other samples are void.
        """
        sizes = self._sizes.cpu().numpy()
        n = sizes.shape[1]
        alike: dict[Any, list[Floats]] = {}  # blocks, which one control can go over
        start = 0
        for solve in self._solves:
            stop = start + len(solve.sizes)
            alike.setdefault((solve.expected, solve.dtype), []).append(sizes[start:stop])
            start = stop
            solve.block.n_evaluations = np.full(n, solve.n_evaluations)
            solve.block.n_rejected = np.zeros(n, dtype=int)
        as_expected: Flags = np.ones(n, dtype=bool)
        for (expected, dtype), found in alike.items():
            of_blocks = _judge(expected, dtype, np.hstack(found)).reshape(-1, n)
            as_expected &= of_blocks.all(axis=0)
        return as_expected


def _judge(expected: Expectation, dtype: torch.dtype, sizes: Floats) -> Flags:
    """Return with which samples the error control would have taken just the expected steps.

    ``sizes`` are what `_BlindSearch.take` returns.
    """
    interval, tableau = expected.interval, expected.tableau
    n = sizes.shape[1]
    control = StepControl(interval, n, tableau.error_order, SMALLEST_STEP[dtype])
    before, numbers = sizes[0], iter(sizes[1:])
    rows = np.flatnonzero(np.isfinite(before))  # of the samples that have gone as expected
    for place, (time, step) in enumerate(expected.steps):
        guarded = place == 0 and tableau.guard_weights is not None
        errors = [next(numbers) for _ in range(2 if guarded else 1)]
        after = next(numbers)
        steps = control.next_steps(rows)
        as_expected = (control.times(rows) == time) & (steps == step)
        ratios = compute_ratios(errors, before, after, interval)
        as_expected &= control.judge(rows, steps, ratios[rows])
        before, rows = after, rows[as_expected]
    finished: Flags = np.zeros(n, dtype=bool)
    finished[rows] = control.finished(rows)
    return finished


def current_tape() -> Tape | None:
    """Return the tape that records, if there is one."""
    return _tape.get()
