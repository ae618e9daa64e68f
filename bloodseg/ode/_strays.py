"""Tensors that need gradients and that a gradient method would pass over without a word."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor


class Watch:
    """A right-hand side for the search, where nothing is recorded; a stray tensor is an error.

    The weights come in detached: what still asks for a gradient in the value came another way. So
    looking costs nothing where nothing is astray.

    Parameters
    ----------
    evaluate : callable
        ``evaluate(t, y, *weights)`` returns dy/dt.
    weights : sequence of Tensor
        What the gradient method knows of.
    gradient, name : str
        What the error calls the gradient method and the solve.
    reached : sequence of Tensor
        Other tensors that the gradient method reaches.
    """

    def __init__(
        self,
        evaluate: Callable[..., Tensor],
        weights: Sequence[Tensor],
        *,
        gradient: str,
        name: str,
        reached: Sequence[Tensor] = (),
    ):
        self._evaluate, self._gradient, self._name = evaluate, gradient, name
        self._weights = [weight.detach() for weight in weights]
        self._reached = {id(tensor) for tensor in reached}
        self._watching = True

    def __call__(self, t: Tensor, y: Tensor) -> Tensor:
        """Return dy/dt without a graph.

        Raises
        ------
        ValueError
            If it depends on a tensor that needs gradients and is none of the weights.
        """
        if not self._watching:
            return self._evaluate(t, y, *self._weights)
        with torch.enable_grad():
            slope = self._evaluate(t, y, *self._weights)
        if slope.requires_grad:
            self._refuse_strays(t, y)
            self._watching = False  # a function that differentiates by itself: asked once is enough
        return slope.detach()

    def _refuse_strays(self, t: Tensor, y: Tensor) -> None:
        # Again, with y a leaf: one that the function makes of a y without a gradient is no stray.
        y = y.detach().requires_grad_()
        with torch.enable_grad():
            slope = self._evaluate(t, y, *self._weights)
        for leaf in _find_leaves(slope):
            if leaf is not y and id(leaf) not in self._reached:
                raise ValueError(
                    f"{self._name}: func depends on a tensor of shape {tuple(leaf.shape)} that "
                    "needs gradients, but not as one of its own parameters: gradient="
                    f"{self._gradient!r} would lose its gradient. Register it with func (as "
                    "nn.Parameter, or its module as a submodule), detach it, or use "
                    "gradient='direct'."
                )


def _find_leaves(value: Tensor) -> Iterator[Tensor]:
    """Yield the tensors that gradients of a value end at."""
    if value.is_leaf:
        yield value
    seen, nodes = set(), [value.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if node.name().endswith("AccumulateGrad"):
            yield cast(Any, node).variable
        nodes.extend(before for before, _ in node.next_functions)
