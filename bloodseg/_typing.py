"""What callers may pass, by name; shapes and ranges stand in the docstrings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

Images: TypeAlias = np.ndarray | Sequence[np.ndarray]
"""Images of one size as one array (n, H, W[, C]), or of any sizes as a sequence of (H, W[, C])."""

Masks: TypeAlias = ArrayLike
"""Label or class maps of one size as (n, H, W), or of any sizes as a sequence of (H, W)."""

Tolerances: TypeAlias = float | Mapping[int, float] | Sequence[float] | str
"""Of the ODE-blocks: one for all, by position, one a position in order, or "paper"."""
