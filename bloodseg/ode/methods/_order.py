"""The order conditions of Runge-Kutta methods, one for each rooted tree (Butcher).

A method has order p where ``sum_i(b_i * weight_i(tree)) = 1 / density(tree)`` for all rooted trees
of up to p nodes (Hairer, Norsett and Wanner, "Solving Ordinary Differential Equations I", II.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np

Tree = tuple[Any, ...]  # the subtrees of a root, trees themselves; () is a single node

# What rounded coefficients may miss a condition by.
_ROUNDING = 1e-10


def attained_order(
    stages: Sequence[Sequence[float]], weights: Sequence[float], at_most: int
) -> int:
    """Return up to which order, ``at_most`` at the highest, a method meets all conditions."""
    conditions = OrderConditions(stages)
    order = 0
    while order < at_most and conditions.violation(weights, order + 1) <= _ROUNDING:
        order += 1
    return order


class OrderConditions:
    """The conditions on the weights that go with a method's stages."""

    def __init__(self, stages: Sequence[Sequence[float]]):
        self._matrix = np.zeros((len(stages), len(stages)))
        for i, row in enumerate(stages):
            self._matrix[i, : len(row)] = row
        self._of_subtrees: dict[Tree, np.ndarray] = {}

    def violation(self, weights: Sequence[float], order: int) -> float:
        """Return by how much weights miss the conditions of one order, those below left aside."""
        return max(
            abs(float(np.dot(weights, self._at_stages(tree))) - 1 / _density(tree))
            for tree in rooted_trees(order)
        )

    def _at_stages(self, tree: Tree) -> np.ndarray:
        """Return what each stage makes of a tree."""
        product = np.ones(len(self._matrix))
        for subtree in tree:
            if subtree not in self._of_subtrees:
                self._of_subtrees[subtree] = self._matrix @ self._at_stages(subtree)
            product = product * self._of_subtrees[subtree]
        return product


@cache
def rooted_trees(n_nodes: int) -> tuple[Tree, ...]:
    """Return all rooted trees of so many nodes."""
    return tuple(_forests(n_nodes - 1, (n_nodes, 0)))


def _forests(n_nodes: int, cap: tuple[int, int]) -> Iterator[Tree]:
    """Yield the forests of so many nodes, trees in falling order, none above ``cap``."""
    if n_nodes == 0:
        yield ()
    for size in range(min(n_nodes, cap[0]), 0, -1):
        for index, tree in enumerate(rooted_trees(size)):
            if (size, index) <= cap:
                for rest in _forests(n_nodes - size, (size, index)):
                    yield (tree, *rest)


@cache
def _density(tree: Tree) -> int:
    return _count_nodes(tree) * math.prod(map(_density, tree))


@cache
def _count_nodes(tree: Tree) -> int:
    return 1 + sum(map(_count_nodes, tree))
