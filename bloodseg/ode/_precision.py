"""The precisions that a right-hand side may compute in, and how tight a tolerance each serves."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger("bloodseg")

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
"""The precisions that `solve` and `ODEBlock` know."""

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}

# Below its floor a precision's rounding looks like error to the step control: it would buy
# rejected steps, not accuracy. An eighth of bfloat16's eps, about TF32's and float16's eps over
# ten; for states some ten times float32's eps, and float64's.
_FLOORS = {"bfloat16": 1e-3, "tf32": 1e-4, "float16": 1e-4, "float32": 1e-6, "float64": 1e-14}

# Who decides on TF32, by what name, its values for no and yes. torch changed the names in 2.9 and
# fails where both generations are used.
_TF32_SWITCHES: list[tuple[Any, str, Any, Any]]
if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
    _TF32_SWITCHES = [
        (torch.backends.cuda.matmul, "fp32_precision", "ieee", "tf32"),
        (torch.backends.cudnn.conv, "fp32_precision", "ieee", "tf32"),  # type: ignore[attr-defined]
    ]
else:
    _TF32_SWITCHES = [
        (torch.backends.cuda.matmul, "allow_tf32", False, True),
        (torch.backends.cudnn, "allow_tf32", False, True),
    ]


def check_precision(precision: str | None) -> None:
    """Raise a ValueError unless there is a precision of that name."""
    if precision is not None and precision not in PRECISIONS:
        raise ValueError(
            f"precision must be None, for the state's own, or one of {', '.join(PRECISIONS)}; "
            f"got {precision!r}."
        )


def tolerance_floor(precision: str) -> float:
    """Return the tightest tolerance that a precision serves.

    Parameters
    ----------
    precision : {"float64", "float32", "tf32", "bfloat16", "float16"}
        Precision of the right-hand side; float64 where the state has it.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If there is no precision of that name.

    Examples
    --------
    >>> from bloodseg.ode import tolerance_floor
    >>> tolerance_floor("bfloat16"), tolerance_floor("float32")
    (0.001, 1e-06)
    """
    if precision not in _FLOORS:
        raise ValueError(f"precision must be one of {', '.join(_FLOORS)}; got {precision!r}.")
    return _FLOORS[precision]


def settle_precision(precision: str | None, tol: float, name: str) -> str | None:
    """Return the precision, or float32 where the tolerance is too tight for it, said once."""
    if precision in (None, "float32") or tol >= _FLOORS[precision]:
        return precision
    _say_switch(precision, tol, name)
    return "float32"


def find_lower_dtype(precision: str | None) -> torch.dtype | None:
    """Return the dtype below float32 that a precision computes in, if any."""
    return None if precision is None else _DTYPES.get(precision)


def autocast_to(dtype: torch.dtype | None, device: torch.device) -> torch.autocast:
    """Return autocast to a dtype, or none at all, whatever it is set to around it."""
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


@contextmanager
def fix_arithmetic(device: torch.device, precision: str | None) -> Iterator[None]:
    """Turn autocast off and, on CUDA, TF32 on or off; as they were afterwards.

    Without it, "float32" would mean whatever the process happens to be set to.
    """
    with torch.autocast(device.type, enabled=False), _set_tf32(device, precision):
        yield


def keep_arithmetic(end: Tensor, inputs: Iterable[Tensor], precision: str | None) -> None:
    """Make backward, from ``end`` to the inputs, obey `fix_arithmetic` as forward did.

    Other parts of the same backward pass are none of the solver's business, so TF32 is set before
    each operation's backward and reset behind it. Of first derivatives: what ``create_graph=True``
    records is differentiated as the process is set.
    """
    if not (end.requires_grad and _has_tf32(end.device)):
        return
    switch = _BackwardSwitch(end.device, precision)
    seen, nodes = {tensor.grad_fn for tensor in inputs}, [end.grad_fn]
    while nodes:
        node = nodes.pop()
        # A leaf's node lives on with the leaf, and hooks on it would pile up.
        if node is None or node in seen or node.name().endswith("AccumulateGrad"):
            continue
        seen.add(node)
        node.register_prehook(switch.enter)
        node.register_hook(switch.leave)
        nodes.extend(before for before, _ in node.next_functions)


class _BackwardSwitch:
    """Sets TF32 before the backward of an operation and resets it behind."""

    def __init__(self, device: torch.device, precision: str | None):
        self._settings = device, precision
        self._stack = ExitStack()

    def enter(self, gradients: Any) -> None:
        self._stack.close()  # left open where the operation before has failed
        self._stack.enter_context(_set_tf32(*self._settings))

    def leave(self, *gradients: Any) -> None:
        self._stack.close()


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda"


@contextmanager
def _set_tf32(device: torch.device, precision: str | None) -> Iterator[None]:
    if not _has_tf32(device):
        yield
        return
    before = [getattr(owner, name) for owner, name, _, _ in _TF32_SWITCHES]
    try:
        for owner, name, off, on in _TF32_SWITCHES:
            setattr(owner, name, on if precision == "tf32" else off)
        yield
    finally:
        for (owner, name, _, _), value in zip(_TF32_SWITCHES, before, strict=True):
            setattr(owner, name, value)


@lru_cache(maxsize=256)  # says each thing once
def _say_switch(precision: str, tol: float, name: str) -> None:
    logger.info(
        "%s: tolerance %g is too tight for %s (its rounding alone is worth %g); the right-hand "
        "side computes in float32.",
        name,
        tol,
        precision,
        _FLOORS[precision],
    )
