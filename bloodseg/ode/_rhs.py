"""The right-hand side as the solver calls it: its weights explicit, its precision fixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ._precision import autocast_to, find_lower_dtype
from ._step import Function
from ._strays import Watch


class RightHandSide:
    """``func(t, y)`` with the weights that a gradient may be asked for.

    A module may offer ``prepare(dtype, tol) -> (weights, evaluate)``: tensors computed once for a
    whole solve (normalised, cast) and a function ``evaluate(t, y, *weights)`` whose value may be in
    ``dtype`` and as rough as ``tol`` allows. The gradient reaches the module's parameters through
    the prepared weights. One with hooks is called as any other, so that they see each call.

    Parameters
    ----------
    func : callable
        ``func(t, y)``.
    precision : str or None
        One of `bloodseg.ode.PRECISIONS`; None is the state's own.
    tol : float
        The solver's tolerance.

    Attributes
    ----------
    weights : tuple of Tensor
        As autograd knows them outside of the solve.
    input_dtype : dtype or None
        What y may come in; None is the state's own.
    """

    def __init__(self, func: Callable[[Tensor, Tensor], Tensor], precision: str | None, tol: float):
        dtype = find_lower_dtype(precision)
        self.input_dtype: torch.dtype | None = None
        self.weights: tuple[Tensor, ...]
        self._evaluate: Callable[..., Tensor]
        if hasattr(func, "prepare") and not _has_hooks(func):
            self.input_dtype = dtype
            self.weights, self._evaluate = func.prepare(dtype, tol)
        else:
            named = _find_trainable(func) if isinstance(func, nn.Module) else {}
            self.weights = tuple(named.values())
            self._evaluate = _Plain(func, tuple(named), dtype)

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """Return dy/dt with the weights as they are outside of the solve."""
        return self._evaluate(t, y, *self.weights)

    def at(self, weights: Sequence[Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
        """Return dy/dt as a function of t and y for other tensors in place of the weights."""
        return lambda t, y: self._evaluate(t, y, *weights)

    def watch(self, gradient: str, name: str) -> Watch:
        """Return dy/dt without a graph; what a gradient method would pass over is an error."""
        return Watch(self._evaluate, self.weights, gradient=gradient, name=name)


def watch_module(func: nn.Module, precision: str | None, gradient: str, name: str) -> Watch:
    """Return what `RightHandSide.watch` does, for a gradient method that calls a module itself.

    Such a method reaches a parameter under whatever name the module uses it.
    """
    named = _find_trainable(func)
    evaluate = _Plain(func, tuple(named), find_lower_dtype(precision))
    weights = tuple(named.values())
    return Watch(evaluate, weights, gradient=gradient, name=name, reached=weights)


def evaluate(func: Function, t: Tensor, y: Tensor, name: str) -> Tensor:
    """Return dy/dt, after a look at what the function did.

    Raises
    ------
    ValueError
        If it returned something of another shape than y's, or changed y.
    """
    if y.is_inference():
        y = _count_changes(y)
    version = y._version
    slope = func(t, y)
    if slope.shape != y.shape:
        raise ValueError(
            f"{name}: func must return dy/dt of y's shape {tuple(y.shape)}; got "
            f"{tuple(slope.shape)}."
        )
    if y._version != version:
        raise ValueError(
            f"{name}: func must not change y, the solver's own memory; it did, in place. Look for "
            "inplace=True in its first layer, for y += and for methods that end in _, or let it "
            "begin with y = y.clone()."
        )
    return slope


def _count_changes(y: Tensor) -> Tensor:
    """Return the same memory as a tensor that counts its changes: none of inference mode does."""
    with torch.inference_mode(False):
        counted = torch.empty(0, dtype=y.dtype, device=y.device)
        return counted.set_(y.untyped_storage(), y.storage_offset(), y.shape, y.stride())


def _has_hooks(func: Any) -> bool:
    kinds = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return any(getattr(func, kind, None) for kind in kinds)


def _find_trainable(module: nn.Module) -> dict[str, Tensor]:
    return {name: weight for name, weight in module.named_parameters() if weight.requires_grad}


class _Plain:
    """Evaluate any callable, a module with other tensors in place of its weights, too."""

    def __init__(self, func: Any, names: tuple[str, ...], dtype: torch.dtype | None):
        self.func, self.names, self.dtype = func, names, dtype

    def __call__(self, t: Tensor, y: Tensor, *weights: Tensor) -> Tensor:
        with autocast_to(self.dtype, y.device):
            if weights:
                named = dict(zip(self.names, weights, strict=True))
                slope = functional_call(self.func, named, (t, y))
            else:
                slope = self.func(t, y)
        if not isinstance(slope, Tensor):
            raise ValueError(
                f"func must return dy/dt as a torch.Tensor of y's shape {tuple(y.shape)}; got "
                f"{type(slope).__name__}."
            )
        return slope
