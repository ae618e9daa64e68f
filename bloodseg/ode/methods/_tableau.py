"""What a Runge-Kutta method is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .._checks import check_count
from ._order import attained_order

Number = int | float | Fraction

# Coefficients printed in decimals, or as rounded fractions, are exact to about this much.
_ROUNDING = 1e-13


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method as a Butcher tableau, for ``method=`` of `solve`.

    A step of length h from t and y is ``y + h * sum_i(b_i * k_i)``, the slopes
    ``k_i = func(t + c_i * h, y + h * sum_j(a_ij * k_j))``. Numbers may be ints, floats or
    fractions; they are kept as floats.

    Parameters
    ----------
    name : str
        What messages call it.
    order : int
        Order of the solution that is carried on; checked.
    nodes : sequence of float
        c: where in the step each stage lies.
    stages : sequence of sequences of float
        a, one row a stage: the first is empty, each one longer than the one before.
    weights : sequence of float
        b of the solution.
    error_weights : sequence of float, optional
        b minus the weights of an embedded solution: the error estimate. Without them the steps are
        fixed: as many as ``n_steps`` says, their error unknown.
    embedded_order : int, optional
        Order of the embedded solution; checked. Needed with ``error_weights``.
    source : str
        Where the coefficients come from.
    whole_interval_tol : float, optional
        Tightest tolerance at which the first step tried is the whole interval. Where that step is
        accepted, as in most blocks of a trained network, the solve costs half of what it does from
        a cautious first step. None: the first step is always a guess from the slope.
    guard_weights : sequence of float, optional
        A second error estimate that the first attempt must pass, too: over the whole interval the
        usual one may vanish by accident, however large the error.

    Attributes
    ----------
    n_stages : int
        Number of stages.
    adaptive : bool
        Whether the method estimates its error.

    Raises
    ------
    ValueError
        If the coefficients are not those of an explicit method of that order: if a node is not the
        sum of its row, the weights do not add up to 1, error weights not to 0, or an order
        condition is missed.

    Examples
    --------
    Ralston's method of order 2 with Euler's embedded, and one of its steps:

    >>> import torch
    >>> from fractions import Fraction
    >>> from bloodseg.ode import Tableau, solve
    >>> ralston = Tableau(
    ...     name="ralston",
    ...     order=2,
    ...     nodes=(0, Fraction(2, 3)),
    ...     stages=((), (Fraction(2, 3),)),
    ...     weights=(Fraction(1, 4), Fraction(3, 4)),
    ...     error_weights=(Fraction(-3, 4), Fraction(3, 4)),
    ...     embedded_order=1,
    ... )
    >>> solution = solve(lambda t, y: -y, torch.ones(1, 1), rtol=1e-4, atol=1e-4, method=ralston)
    >>> solution.method, round(solution.y.item(), 3)
    ('ralston', 0.368)
    """

    name: str
    order: int
    nodes: Sequence[float]
    stages: Sequence[Sequence[float]]
    weights: Sequence[float]
    error_weights: Sequence[float] | None = None
    embedded_order: int | None = None
    source: str = ""
    whole_interval_tol: float | None = None
    guard_weights: Sequence[float] | None = None

    def __post_init__(self) -> None:
        for field in ("nodes", "weights", "error_weights", "guard_weights"):
            values = getattr(self, field)
            self._set(field, None if values is None else _as_floats(values, field, self.name))
        self._set("stages", tuple(_as_floats(row, "stages", self.name) for row in self.stages))
        self._check_shape()
        self._check_sums()
        self._check_error_estimate()
        self._check_orders()

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
        return None if self.embedded_order is None else min(self.order, self.embedded_order) + 1

    @property
    def first_same_as_last(self) -> bool:
        """Whether the last stage is the first of the next step."""
        return self.n_stages > 1 and (*self.stages[-1], 0.0) == self.weights

    def _set(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)  # as frozen dataclasses do, while they are made

    def _check_shape(self) -> None:
        sizes = [len(row) for row in self.stages]
        if not sizes or sizes != list(range(len(self.nodes))):
            raise ValueError(
                f"{self.name}: stages must be rows of 0, 1, 2, ... numbers, one row for each node; "
                f"got rows of lengths {sizes} for {len(self.nodes)} nodes."
            )
        for field in ("weights", "error_weights", "guard_weights"):
            values = getattr(self, field)
            if values is not None and len(values) != self.n_stages:
                raise ValueError(
                    f"{self.name}: {field} must be {self.n_stages} numbers, one for each node; got "
                    f"{len(values)}."
                )

    def _check_sums(self) -> None:
        for node, row in zip(self.nodes, self.stages, strict=True):
            if not _is_equal(sum(row), node):
                raise ValueError(
                    f"{self.name}: each node must be the sum of its row in stages; the row of node "
                    f"{node} adds up to {sum(row)}."
                )
        for field, total in (("weights", 1), ("error_weights", 0), ("guard_weights", 0)):
            values = getattr(self, field)
            if values is not None and not _is_equal(sum(values), total):
                raise ValueError(
                    f"{self.name}: {field} must add up to {total}; they add up to {sum(values)}."
                )

    def _check_error_estimate(self) -> None:
        if (self.error_weights is None) != (self.embedded_order is None):
            raise ValueError(f"{self.name}: error_weights and embedded_order need each other.")
        if self.error_weights is None:
            if self.whole_interval_tol is not None or self.guard_weights is not None:
                raise ValueError(
                    f"{self.name}: whole_interval_tol and guard_weights are for methods with "
                    "error_weights; without them the steps are fixed."
                )
        elif not any(self.error_weights):
            raise ValueError(
                f"{self.name}: error_weights must not all be 0, or each step would pass for exact."
            )

    def _check_orders(self) -> None:
        self._check_order("order", self.order, "weights", self.weights)
        if self.error_weights is not None:
            pairs = zip(self.weights, self.error_weights, strict=True)
            embedded = [weight - error for weight, error in pairs]
            of = "weights minus error_weights"
            self._check_order("embedded_order", self.embedded_order, of, embedded)

    def _check_order(self, field: str, order: Any, of: str, weights: Sequence[float]) -> None:
        check_count(order, f"{self.name}: {field}")
        attained = attained_order(self.stages, weights, int(order))
        if attained < order:
            raise ValueError(
                f"{self.name}: {field}={order}, but {of} meet the order conditions up to order "
                f"{attained} only. Look for a misprint in stages and weights."
            )


def make_tableau(
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
    """Return a `Tableau` whose nodes and error weights follow, exactly, from what is given.

    ``embedded`` holds the weights of the embedded solution, ``guard`` those of a second estimate;
    nodes are the rows' sums by default.
    """
    error = None
    if embedded is not None:
        error = [float(b - other) for b, other in zip(weights, embedded, strict=True)]
    return Tableau(
        name=name,
        order=order,
        nodes=[float(c) for c in (nodes or [sum(row) for row in stages])],
        stages=[[float(a) for a in row] for row in stages],
        weights=[float(b) for b in weights],
        error_weights=error,
        embedded_order=embedded_order,
        source=source,
        whole_interval_tol=whole_interval_tol,
        guard_weights=None if guard is None else [float(g) for g in guard],
    )


def _as_floats(values: Any, field: str, name: str) -> tuple[float, ...]:
    try:
        floats = tuple(map(float, values))
    except (TypeError, ValueError):
        floats = (math.nan,)
    if not all(map(math.isfinite, floats)):
        raise ValueError(f"{name}: {field} must hold finite numbers; got {values!r}.")
    return floats


def _is_equal(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=_ROUNDING, abs_tol=_ROUNDING)
