"""First derivatives of gradient methods that have no others."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

Gradients = tuple[Any, ...]


def first_derivatives_only(
    backward: Callable[[Any, Tensor], Gradients],
) -> Callable[[Any, Tensor], Gradients]:
    """Let what a backward returns raise where it is differentiated.

    torch's ``once_differentiable`` lets that pass where the gradient that comes in needs none, as
    that of a plain sum, and where only some tensors are asked for: the result then lacks the
    solver's part. So what goes out is tied to all that it depends on: the gradient that comes in,
    and the tensors that ``ctx`` has saved.
    """

    @wraps(backward)
    def wrapped(ctx: Any, gradient: Tensor) -> Gradients:
        with torch.no_grad():
            found = backward(ctx, gradient)
        if not torch.is_grad_enabled():
            return found
        apply: Callable[..., Tensor] = _Refusal.apply
        origins = (gradient, *ctx.saved_tensors)
        return tuple(apply(each, *origins) if isinstance(each, Tensor) else each for each in found)

    return wrapped


class _Refusal(torch.autograd.Function):
    """Hand on a gradient that is not to be differentiated with respect to its origins."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *origins: Tensor) -> Tensor:
        """Return the gradient."""
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Raise a ValueError."""
        raise ValueError(
            "gradient='checkpoint' and gradient='adjoint' have no second derivatives: a gradient "
            "through them cannot be differentiated again. Take gradient='direct'."
        )
