"""Gradients through the accepted steps of a solve (discretise, then optimise)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._arithmetic import to_device
from ._derivatives import first_derivatives_only
from ._precision import fix_arithmetic
from ._rhs import RightHandSide
from ._search import AcceptedStep
from ._step import Function, take_step
from .methods import Tableau


def replay(func: Function, tableau: Tableau, steps: list[AcceptedStep], y: Tensor) -> Tensor:
    """Take the accepted steps again, from y, with autograd watching."""
    for step in steps:
        if len(step.rows) == len(y):
            y = _take_again(func, tableau, y, step)
        else:
            rows = to_device(step.rows, y.device)
            y = y.index_put((rows,), _take_again(func, tableau, y[rows], step))
    return y


def _take_again(func: Function, tableau: Tableau, y: Tensor, step: AcceptedStep) -> Tensor:
    """Return the state after an accepted step from y."""
    first = float(step.steps[0])
    steps = first if (step.steps == first).all() else step.steps
    return take_step(func, tableau, y, step.times, steps)


class ReplayedGradient(torch.autograd.Function):
    """Hand out a solution that is known; in backward take its steps again, one at a time.

    Memory: the states between the steps, and what one step records. The weights are inputs of
    their own, so that the hooks of distributed training see their gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rhs: RightHandSide,
        tableau: Tableau,
        precision: str | None,
        chunks: list[list[AcceptedStep]],
        chunk_size: int,
        y1: list[Tensor],
        y0: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        """Return the one y1, the state that the steps lead to from y0.

        In a list, so that what comes out is no view of what went in, and may be changed in place.
        """
        ctx.rhs, ctx.tableau, ctx.precision = rhs, tableau, precision
        ctx.chunks, ctx.chunk_size = chunks, chunk_size
        ctx.save_for_backward(y0, *weights)  # autograd sees whether they are changed meanwhile
        return y1[0]

    @staticmethod
    @first_derivatives_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Return the gradients of y0 and the weights."""
        _, *weights = ctx.saved_tensors
        leaves = [weight.detach().requires_grad_(weight.requires_grad) for weight in weights]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        totals: list[Tensor | None] = [None] * len(wanted)
        func = ctx.rhs.at(leaves)
        gradient = gradient.clone()
        parts = gradient.split(ctx.chunk_size)
        with fix_arithmetic(gradient.device, ctx.precision):
            for chunk, part in zip(ctx.chunks, parts, strict=True):
                for step in reversed(chunk):
                    # All samples, most often: then nothing goes to the device.
                    whole = len(step.rows) == len(part)
                    rows = slice(None) if whole else to_device(step.rows, gradient.device)
                    with torch.enable_grad():
                        y = step.y.detach().requires_grad_()
                        end = _take_again(func, ctx.tableau, y, step)
                    before, *of_weights = torch.autograd.grad(
                        end, (y, *wanted), part[rows], allow_unused=True
                    )
                    totals = list(map(_add, totals, of_weights))
                    part[rows] = before
        found = iter(totals)
        of_leaves = (next(found) if leaf.requires_grad else None for leaf in leaves)
        return (*[None] * 6, gradient, *of_leaves)


def _add(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    # Not in place: autograd may hand out one tensor for two weights.
    return total if part is None else part if total is None else total + part
