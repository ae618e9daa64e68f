"""Sums over the stages compiled by torch: each one pass over memory, casts and norms included.

Slopes stay where the right-hand side left them, in its precision, and the next stage's input is
written in that precision straight away. For states too large for the caches only: compiling takes
seconds, for all sizes at once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from ._arithmetic import Slopes, StepSizes, as_rows

logger = logging.getLogger("bloodseg")


class FusedSlopes(Slopes):
    """The slopes of a chunk's stages for compiled sums; as `Slopes` to the loop."""

    def __init__(self, like: Tensor, n_stages: int, lowered: torch.dtype | None = None):
        self._strides = like.stride()[1:]
        self._slopes: list[Tensor] = [torch.empty(0)] * n_stages  # until they are written
        self._versions: list[int | None] = [None] * n_stages
        self.input_dtype = lowered or like.dtype

    def write(self, stage: int, n: int, slope: Tensor) -> None:
        """Take the slope of the first n samples; copied only where its layout is another."""
        # The samples' own stride, too: in half of a larger tensor they do not lie side by side.
        strides = (slope[0].numel(), *self._strides)
        if slope.stride() != strides:
            laid_out = torch.empty_strided(
                slope.shape, strides, dtype=slope.dtype, device=slope.device
            )
            slope = laid_out.copy_(slope)
        if slope.is_inference() != torch.is_inference_mode_enabled():
            slope = slope.clone()  # memory of the function's own, which it may write to again
        if any(map(_was_overwritten, self._slopes, self._versions)):
            raise ValueError(
                "func must return new memory each time: it has written to what it returned before, "
                "a slope that is still needed. Return a clone, or use compile=False."
            )
        self._slopes[stage] = as_rows(slope)
        self._versions[stage] = None if slope.is_inference() else slope._version

    def first(self, rows: Tensor) -> Tensor:
        """Return the slopes at the start of the step."""
        return self._slopes[0][rows]

    def keep(self, rows: Tensor) -> None:
        """Drop the first slopes of all other samples."""
        self._slopes[0], self._versions[0] = self._slopes[0][rows], None

    def carry_over(self, n: int, chosen: Tensor | None) -> None:
        """Make the last stage the first of the next step, for all samples or some."""
        first, last = self._slopes[0], self._slopes[-1]
        self._slopes[0] = last if chosen is None else torch.where(chosen[:, None], last, first)
        self._versions[0] = self._versions[-1] if chosen is None else None

    def weighted_sum(
        self, out: Tensor, y: Tensor | None, weights: Sequence[float], steps: StepSizes
    ) -> None:
        """Write ``y + h * sum(weights * slopes)``, without y where that is None, into out."""
        used, slopes = self._select_used(weights)
        variant = (len(used), y is None, out.dtype, slopes[0].dtype)
        _get_compiled(_weighted_sum, *variant)(out, y, steps.scaled(used), *slopes)

    def sizes(
        self,
        work: Tensor,
        new: Tensor,
        estimates: Sequence[Sequence[float]],
        steps: StepSizes,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Return the root mean squares of error estimates and of the new state, a row each."""
        if dtype is not None:
            return super().sizes(work, new, estimates, steps, dtype)
        used = [j for j in range(len(self._slopes)) if any(weights[j] for weights in estimates)]
        slopes = [self._slopes[j] for j in used]
        scaled = [steps.scaled([weights[j] for j in used]) for weights in estimates]
        squares = _get_compiled(_mean_squares, len(used), len(estimates), slopes[0].dtype)
        means: Tensor = squares(new, torch.stack(scaled), *slopes)
        return means.sqrt()

    def _select_used(self, weights: Sequence[float]) -> tuple[list[float], list[Tensor]]:
        used = [j for j, weight in enumerate(weights) if weight]
        return [weights[j] for j in used], [self._slopes[j] for j in used]


def _was_overwritten(slope: Tensor, version: int | None) -> bool:
    return version is not None and slope._version != version


def _weighted_sum(out: Tensor, y: Tensor | None, scaled: Tensor, *slopes: Tensor) -> None:
    out.copy_(_add_up(0.0 if y is None else y, scaled, slopes))


def _mean_squares(new: Tensor, scaled: Tensor, *slopes: Tensor) -> Tensor:
    errors = [_add_up(0.0, weights, slopes) for weights in scaled]
    return torch.stack([rows.square().mean(dim=1) for rows in (*errors, new)])


def _add_up(start: Any, scaled: Tensor, slopes: Sequence[Tensor]) -> Any:
    for i, slope in enumerate(slopes):
        start = start + scaled[:, i, None] * slope.to(scaled.dtype)
    return start


class _Compiled:
    """A function compiled for any sizes; where that fails, the function as it is."""

    failed = False  # for good: a compiler that is missing stays missing

    def __init__(self, function: Any):
        self.function = function
        # torch counts compilations by code object and gives up after a few: one for each variant.
        own = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
        self.compiled = torch.compile(own, dynamic=True, fullgraph=True)

    def __call__(self, *arguments: Any) -> Any:
        if not _Compiled.failed:
            try:
                return self.compiled(*arguments)
            except Exception as error:  # whatever the compiler runs into: the sum needs none
                _Compiled.failed = True
                logger.warning(
                    "torch.compile does not work here, so the solver goes on without it, slower "
                    "at large states (%s: %s). compile=False spares the attempt.",
                    type(error).__name__,
                    next(iter(str(error).strip().splitlines()), ""),
                )
        return self.function(*arguments)


@cache
def _get_compiled(function: Any, *variant: Any) -> _Compiled:
    """Return the one compiled function of a variant."""
    return _Compiled(function)
