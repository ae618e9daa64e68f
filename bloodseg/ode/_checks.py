"""What settings of a solve may be, each check with the sentence that says so."""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

GRADIENTS = ("checkpoint", "direct", "adjoint")
BACKENDS = ("bloodseg", "torchdiffeq")


def is_number(value: Any) -> bool:
    """Return whether it is one real number, numpy's and torch's included."""
    return hasattr(value, "__float__") and getattr(value, "ndim", 0) == 0


def check_positive(value: float, name: str) -> None:
    """Raise a ValueError unless a number is positive and finite."""
    if not is_number(value) or not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be a positive, finite number; got {value!r}.")


def check_count(value: Any, name: str) -> None:
    """Raise a ValueError unless it is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1; got {value!r}.")


def check_gradient(gradient: str) -> None:
    """Raise a ValueError unless there is a gradient method of that name."""
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient must be one of {', '.join(GRADIENTS)}; got {gradient!r}.")


def check_backend(backend: str) -> None:
    """Raise a ValueError unless there is a backend of that name."""
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}.")


def check_compile(compile: bool | str) -> None:
    """Raise a ValueError unless it is True, False or "auto"."""
    if compile not in (True, False, "auto"):
        raise ValueError(f"compile must be True, False or 'auto'; got {compile!r}.")


def check_first_step(first_step: float | None) -> None:
    """Raise a ValueError unless it is None or a length."""
    if first_step is not None and not (is_number(first_step) and 0 < first_step < math.inf):
        raise ValueError(
            f"first_step must be None or a positive, finite number; got {first_step!r}."
        )
