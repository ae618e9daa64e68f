"""Sums over the stages of a Runge-Kutta step, each one pass over memory.

A chunk of samples is a matrix, one row a sample, in the order that the state lies in memory. Its
slopes are one buffer (samples, stages, elements), so that a weighted sum of stages is a matrix
times a short vector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def make_dense(y: Tensor) -> Tensor:
    """Return a state whose samples lie in memory without gaps; channels_last is kept."""
    channels_last = _CHANNELS_LAST.get(y.ndim)
    if channels_last is not None and y.is_contiguous(memory_format=channels_last):
        return y
    return y.contiguous()


def as_rows(y: Tensor) -> Tensor:
    """View a dense state (n, ...) as (n, elements), in memory order."""
    return y.as_strided((len(y), y[0].numel()), (y[0].numel(), 1))


def share_memory(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors lie in the same block of memory."""
    return one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr()


def as_column(values: Tensor, y: Tensor) -> Tensor:
    """Return one number a sample in the shape that broadcasts against a state."""
    return values.reshape(-1, *[1] * (y.ndim - 1))


def to_device(values: np.ndarray, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return a few numbers of the host on a device, without waiting for what it has to do."""
    return torch.from_numpy(values).to(dtype=dtype).to(device, non_blocking=True)


class Slopes:
    """The slopes of a chunk's stages.

    Parameters
    ----------
    like : Tensor of shape (n, ...)
        A dense state.
    n_stages : int
        Number of stages.
    lowered : dtype, optional
        What the right-hand side takes; the state's own here, where sums can't cast.
    """

    _together = False  # whether to add up all samples at a time; on CPUs such products are slow

    def __init__(self, like: Tensor, n_stages: int, lowered: torch.dtype | None = None):
        n, size = len(like), like[0].numel()
        self.rows = torch.empty((n, n_stages, size), dtype=like.dtype, device=like.device)
        self._shape, self._strides = like.shape[1:], like.stride()[1:]
        self.input_dtype = like.dtype  # of the states that the stages are evaluated at
        self._together = like.device.type != "cpu"

    def write(self, stage: int, n: int, slope: Tensor) -> None:
        """Take the slope of the first n samples, whatever its layout and dtype."""
        n_stages, size = self.rows.shape[1:]
        target = self.rows.as_strided(
            (n, *self._shape), (n_stages * size, *self._strides), stage * size
        )
        target.copy_(slope)

    def first(self, rows: Tensor) -> Tensor:
        """Return the slopes of some samples at the start of the step."""
        return self.rows[rows, 0]

    def keep(self, rows: Tensor) -> None:
        """Move the first slopes of these samples to the front."""
        self.rows[: len(rows), 0] = self.rows[rows, 0]

    def carry_over(self, n: int, chosen: Tensor | None) -> None:
        """Make the last stage the first of the next step, for the first n samples or some."""
        first, last = self.rows[:n, 0], self.rows[:n, -1]
        first.copy_(last if chosen is None else torch.where(chosen[:, None], last, first))

    def weighted_sum(
        self, out: Tensor, y: Tensor | None, weights: Sequence[float], steps: StepSizes
    ) -> None:
        """Write ``y + h * sum(weights * slopes)``, without y where that is None, into out."""
        used = [j for j, weight in enumerate(weights) if weight]
        n = used[-1] + 1
        scaled = steps.scaled(weights[:n])
        slopes = self.rows[: len(out), :n]
        if self._together:
            if y is None:
                torch.bmm(scaled[:, None], slopes, out=out[:, None])
            elif len(used) == 1:  # one pass: the product below copies y first
                torch.addcmul(y, scaled[:, -1:], slopes[:, -1], out=out)
            else:
                torch.baddbmm(y[:, None], scaled[:, None], slopes, out=out[:, None])
            return
        for i, step in enumerate(steps.on_host):
            if y is None:
                torch.mv(slopes[i].T, scaled[i], out=out[i])
            elif len(used) == 1:
                torch.add(y[i], slopes[i, -1], alpha=weights[n - 1] * step, out=out[i])
            else:
                torch.addmv(y[i], slopes[i].T, scaled[i], out=out[i])

    def sizes(
        self,
        work: Tensor,
        new: Tensor,
        estimates: Sequence[Sequence[float]],
        steps: StepSizes,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Return the root mean squares of error estimates and of the new state, a row each.

        ``work`` is rows to work in, ``dtype`` what the squares are summed up in.
        """
        if self._together:  # the slopes are read once for all estimates
            scaled = torch.stack([steps.scaled(weights) for weights in estimates], dim=1)
            errors = torch.bmm(scaled, self.rows[: len(new)])
            return torch.cat([compute_rms(errors, dtype).T, compute_rms(new, dtype)[None]])
        found = []
        for weights in estimates:
            self.weighted_sum(work, None, weights, steps)
            found.append(compute_rms(work, dtype))
        return torch.stack([*found, compute_rms(new, dtype)])


class StepSizes:
    """The signed steps of an attempt and the times of its stages, for a state y."""

    def __init__(self, times: np.ndarray, steps: np.ndarray, nodes: Sequence[float], y: Tensor):
        self.on_host = steps.tolist()
        self._steps, self._like = steps, y
        self._times = self._to_device(times + np.multiply.outer(nodes, steps))

    def scaled(self, weights: Sequence[float]) -> Tensor:
        """Return the steps times each weight, of shape (n, weights)."""
        return self._to_device(np.multiply.outer(self._steps, weights))

    def time(self, stage: int) -> Tensor:
        """Return the times of a stage, of shape (n, 1, ..., 1)."""
        return as_column(self._times[stage], self._like)

    def _to_device(self, values: np.ndarray) -> Tensor:
        return to_device(values, self._like.device, self._like.dtype)


def compute_rms(rows: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return the root mean square of each row, its squares summed up in ``dtype``."""
    norms: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=dtype)
    root: float = rows.shape[-1] ** 0.5
    return norms / root
