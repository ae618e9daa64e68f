"""Whether the equal steps of a fixed-step method were hopelessly few: it cannot say so itself."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ._arithmetic import Slopes, StepSizes, compute_rms
from ._control import Flags
from .methods import Tableau

# Share of the state's size that the defects of all steps add up to where steps are too few. A step
# h of rk4 for dy/dt = z y adds 5 % at h z = 1, 29 % at 2, 67 % at -2, 290 % at -3.
_HOPELESS = 0.5


class DefectWatch:
    """Compares each equal step with the trapezoidal rule, which needs no further evaluation.

    The defect of the step from y to y' is ``RMS(y' - y - h / 2 * (f(t, y) + f(t + h, y')))``. The
    slope at its end is the first of the next step, so that the last step goes unseen. The defects
    count in relation to the largest state that a step started from.

    Parameters
    ----------
    tableau : Tableau
        A method without an error estimate.
    rows : Tensor of shape (n, elements)
        Memory of a state's size, to work in.
    """

    def __init__(self, tableau: Tableau, rows: Tensor):
        first, *others = tableau.weights
        self._weights = (first - 0.5, *others)  # of y' - y - h / 2 * f(t, y)
        self._rows = rows
        self._sizes: StepSizes | None = None  # of the step before
        self._defects = self._largest = torch.zeros(len(rows), dtype=rows.dtype, device=rows.device)

    def see_start(self, y: Tensor, slopes: Slopes) -> None:
        """Take note of a state and of its slope, the first of the slopes."""
        if self._sizes is not None:
            slopes.weighted_sum(self._rows, self._rows, (-0.5,), self._sizes)
            self._defects = self._defects + compute_rms(self._rows)
        self._largest = torch.maximum(self._largest, compute_rms(y))

    def see_step(self, slopes: Slopes, sizes: StepSizes) -> None:
        """Take note of a step and of all its slopes."""
        slopes.weighted_sum(self._rows, None, self._weights, sizes)
        self._sizes = sizes

    def too_few(self) -> Flags:
        """Return for which samples the steps taken were too few by far."""
        defects, largest = torch.stack([self._defects, self._largest]).double().cpu().numpy()
        too_few: Flags = ~(np.isfinite(defects) & (defects <= _HOPELESS * largest))
        return too_few
