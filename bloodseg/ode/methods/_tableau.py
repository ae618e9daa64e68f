"""What a Runge-Kutta method is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

Number = int | float | Fraction

# Coefficients printed in decimals, or as rounded fractions, are exact to about this much.
_ROUNDING = 1e-13


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method as a Butcher tableau.

    Checks itself when it is made: shapes, each node the sum of its row, weights that add up to 1,
    error weights to 0. The order is a matter for tests (rooted trees, slopes).

    Attributes
    ----------
    name : str
        What users call it.
    order : int
        Order of the solution that is carried on.
    nodes : tuple of float
        c: where in the step each stage lies.
    stages : tuple of tuples of float
        a, one row a stage, strictly lower triangular.
    weights : tuple of float
        b of the solution.
    error_weights : tuple of float, optional
        b minus the weights of the embedded solution; without them the steps are fixed.
    embedded_order : int, optional
        Order of the embedded solution.
    source : str
        Where the coefficients come from.
    whole_interval_tol : float, optional
        Tightest tolerance at which the first step tried is the whole interval; an adaptive method
        has one. Where that step is accepted, as in most blocks of a trained network, the solve
        costs half of what it does from a cautious first step.
    guard_weights : tuple of float, optional
        A second error estimate for a first step that is the whole interval, where the usual one
        vanishes for some linear equation.
    """

    name: str
    order: int
    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    error_weights: tuple[float, ...] | None
    embedded_order: int | None
    source: str
    whole_interval_tol: float | None = None
    guard_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        sizes = [len(row) for row in self.stages]
        if sizes != list(range(len(self.nodes))) or len(self.weights) != len(self.nodes):
            raise ValueError(f"{self.name}: rows of lengths {sizes} for {len(self.nodes)} nodes.")
        for node, row in zip(self.nodes, self.stages, strict=True):
            if not _equal(sum(row), node):
                raise ValueError(f"{self.name}: the row of node {node} adds up to {sum(row)}.")
        if not _equal(sum(self.weights), 1):
            raise ValueError(f"{self.name}: the weights add up to {sum(self.weights)}, not 1.")
        needed = (self.error_weights, self.embedded_order, self.whole_interval_tol)
        if len({part is None for part in needed}) > 1:
            raise ValueError(
                f"{self.name}: error weights, embedded order and whole_interval_tol need one "
                "another."
            )
        for estimate in (self.error_weights, self.guard_weights):
            if estimate is not None and (
                len(estimate) != len(self.nodes) or not _equal(sum(estimate), 0)
            ):
                raise ValueError(f"{self.name}: the error weights must be as many and add up to 0.")

    @property
    def n_stages(self) -> int:
        """Number of stages."""
        return len(self.nodes)

    @property
    def adaptive(self) -> bool:
        """Whether the method estimates its error."""
        return self.error_weights is not None

    def tries_whole_interval(self, tolerance: float) -> bool:
        """Return whether the first step to try at a tolerance is the whole interval."""
        return self.whole_interval_tol is not None and tolerance >= self.whole_interval_tol

    @property
    def error_order(self) -> int | None:
        """Power of the step that the error estimate falls with, if there is one."""
        return None if self.embedded_order is None else self.embedded_order + 1

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is the first of the next step."""
        return self.n_stages > 1 and (*self.stages[-1], 0.0) == self.weights


def tableau(
    name: str,
    order: int,
    stages: Sequence[Sequence[Number]],
    weights: Sequence[Number],
    embedded: Sequence[Number] | None = None,
    embedded_order: int | None = None,
    *,
    nodes: Sequence[Number] | None = None,
    guard: Sequence[Number] | None = None,
    whole_interval_tol: float | None = None,
    source: str,
) -> Tableau:
    """Return a `Tableau` from exact or decimal coefficients; nodes are the rows' sums by default.

    ``embedded`` holds the weights of the embedded solution, ``guard`` those of a second estimate.
    """
    error = None
    if embedded is not None:
        error = tuple(float(b - other) for b, other in zip(weights, embedded, strict=True))
    return Tableau(
        name=name,
        order=order,
        nodes=tuple(float(c) for c in (nodes or [sum(row) for row in stages])),
        stages=tuple(tuple(map(float, row)) for row in stages),
        weights=tuple(map(float, weights)),
        error_weights=error,
        embedded_order=embedded_order,
        source=source,
        whole_interval_tol=whole_interval_tol,
        guard_weights=None if guard is None else tuple(map(float, guard)),
    )


def _equal(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
