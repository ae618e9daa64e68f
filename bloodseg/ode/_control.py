"""Step-size control, a number a sample, on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Numbers, indices and yes or no of the samples of a chunk.
Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
Flags = NDArray[np.bool_]

_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 10.0
_AFTER_OVERFLOW = 0.1


@dataclass(frozen=True)
class Interval:
    """From where to where, how exactly, and in what steps.

    At most ``max_steps`` that the error control chooses, the first to try of length ``first_step``;
    or ``n_steps`` equal ones.
    """

    t0: float
    t1: float
    rtol: float
    atol: float
    max_steps: int
    first_step: float | None = None
    n_steps: int | None = None

    @property
    def length(self) -> float:
        """Length, positive."""
        return abs(self.t1 - self.t0)

    @property
    def tolerance(self) -> float:
        """The looser of the two tolerances, which the choices of method and first step go by."""
        return max(self.rtol, self.atol)

    def tolerances_at(self, sizes: Floats) -> Floats:
        """Return the error allowed in a step of states of these root mean squares."""
        return self.atol + self.rtol * sizes


def compute_ratios(
    errors: Sequence[Floats], before: Floats, after: Floats, interval: Interval
) -> Floats:
    """Return the errors of an attempt in units of the tolerance.

    Parameters
    ----------
    errors : sequence of ndarray of shape (n,)
        Root mean squares of each error estimate.
    before, after : ndarray of shape (n,)
        Those of the states between which the step lies.
    interval : Interval
        Says what is allowed.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        allowed = interval.tolerances_at(np.maximum(before, after))
        ratios: Floats = np.max(errors, axis=0) / allowed
    return np.where(np.isfinite(after), ratios, np.inf)


class StepControl:
    """Time, next step and counts of each sample of a chunk.

    Times and steps are along the interval, so that both grow whichever way it runs.

    Parameters
    ----------
    interval : Interval
        What to solve; without ``n_steps`` the error control chooses the steps.
    n : int
        Number of samples.
    error_order : int or None
        Power of the step that the error estimate falls with; None for fixed steps.
    smallest : float
        Step at which time no longer moves, relative to the interval.
    """

    def __init__(self, interval: Interval, n: int, error_order: int | None, smallest: float):
        self.interval = interval
        self.error_order = error_order
        self.smallest = smallest * interval.length
        self.elapsed = np.zeros(n)
        self.wanted = np.full(n, interval.length)
        if interval.first_step is not None:
            self.wanted[:] = max(interval.first_step, self.smallest)
        self.n_accepted = np.zeros(n, dtype=int)
        self.n_rejected = np.zeros(n, dtype=int)
        self._grow = np.full(n, _GROW)

    @property
    def sign(self) -> float:
        """Direction of time."""
        return 1.0 if self.interval.t1 > self.interval.t0 else -1.0

    def times(self, rows: Rows) -> Floats:
        """Return the times that samples have come to."""
        return self.interval.t0 + self.sign * self.elapsed[rows]

    def next_steps(self, rows: Rows) -> Floats:
        """Return the signed steps to try next: ``left / ceil(left / wanted)``.

        So the last step ends on t1 and is no shorter than those before it. Of fixed steps:
        ``left / number of steps to go``.
        """
        left: Floats = self.interval.length - self.elapsed[rows]
        if self.interval.n_steps is not None:
            parts: Floats = (self.interval.n_steps - self.n_accepted[rows]).astype(float)
        else:
            parts = np.maximum(np.ceil(left / self.wanted[rows] - 1e-6), 1.0)
        steps: Floats = self.sign * left / parts
        return steps

    def judge(self, rows: Rows, steps: Floats, ratios: Floats) -> Flags:
        """Record an attempt; return which samples accept it.

        ``ratios`` are the errors in units of the tolerance; not finite where the step overflowed.
        A ratio of at most 1 is accepted. The next step to want is
        ``step * 0.9 * ratio ** (-1 / error_order)``, at least a fifth of the step and at most ten
        times it; right after a rejection, at most the step itself.
        """
        accepted = ratios <= 1
        taken = np.abs(steps)
        left = self.interval.length - self.elapsed[rows]
        ends = taken >= left * (1 - 1e-9)
        self.elapsed[rows] = np.where(
            accepted,
            np.where(ends, self.interval.length, self.elapsed[rows] + taken),
            self.elapsed[rows],
        )
        if self.error_order is not None:
            with np.errstate(divide="ignore", invalid="ignore"):
                factors = _SAFETY * ratios ** (-1 / self.error_order)
            factors = np.clip(factors, _SHRINK, self._grow[rows])
            factors[~np.isfinite(ratios)] = _AFTER_OVERFLOW
            self.wanted[rows] = taken * np.where(accepted, factors, np.minimum(factors, _SAFETY))
            self._grow[rows] = np.where(accepted, _GROW, 1.0)  # no growth right after a rejection
        self.n_accepted[rows] += accepted
        self.n_rejected[rows] += ~accepted
        return accepted

    def at_first_attempt(self) -> bool:
        """Return whether nothing was judged yet; all samples make their first attempt together."""
        return not (self.n_accepted.any() or self.n_rejected.any())

    def finished(self, rows: Rows) -> Flags:
        """Return which samples have come to the end."""
        return self.elapsed[rows] >= self.interval.length

    def too_many(self, rows: Rows) -> Flags:
        """Return which samples have used up their steps."""
        return self.n_accepted[rows] + self.n_rejected[rows] >= self.interval.max_steps

    def too_small(self, rows: Rows) -> Flags:
        """Return which samples want steps that no longer move time."""
        return self.wanted[rows] < self.smallest


def expect_steps(interval: Interval, most: int) -> tuple[tuple[float, float], ...] | None:
    """Return the times and signed steps of a sample that wants its first step again and again.

    None where these are more than ``most``.
    """
    control, row = StepControl(interval, 1, 1, 0.0), np.arange(1)
    steps: list[tuple[float, float]] = []
    while not control.finished(row):
        if len(steps) == most:
            return None
        step = control.next_steps(row)
        steps.append((control.times(row).item(), step.item()))
        control.judge(row, step, np.array([_SAFETY]))
    return tuple(steps)
