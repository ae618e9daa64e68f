"""The tableaus against theory, against SciPy's, and by the slopes of their errors."""

import dataclasses
import math
from functools import cache

import numpy as np
import pytest
import scipy.integrate
import torch
from messages import raises
from ode_problems import ADAPTIVE, FIXED, IN_TORCHDIFFEQ, double

from bloodseg.ode import METHODS, choose_method, solve
from bloodseg.ode.methods import TABLEAUS
from bloodseg.ode.methods._tableau import tableau

# The printed coefficients are rounded: tsit5's to 15 digits, dopri8's to 18, and dopri8's largest
# are near 20.
ROUNDING = 1e-13

# ---------------------------------------------------------------- order conditions


def forests(n_nodes, cap):
    """Yield the forests of so many nodes, trees in falling order, none above ``cap``."""
    if n_nodes == 0:
        yield ()
    for size in range(min(n_nodes, cap[0]), 0, -1):
        for index, tree in enumerate(rooted_trees(size)):
            if (size, index) <= cap:
                for rest in forests(n_nodes - size, (size, index)):
                    yield (tree, *rest)


@cache
def rooted_trees(n_nodes):
    """Return the rooted trees of so many nodes, each the tuple of its root's subtrees."""
    return tuple(forests(n_nodes - 1, (n_nodes, 0)))


def count_nodes(tree):
    return 1 + sum(map(count_nodes, tree))


def density(tree):
    return count_nodes(tree) * math.prod(map(density, tree))


def elementary_weights(tree, matrix):
    """Return what each stage of a method makes of a tree (Hairer et al., II.2)."""
    weights = np.ones(len(matrix))
    for subtree in tree:
        weights = weights * (matrix @ elementary_weights(subtree, matrix))
    return weights


def violation(method, weights, order):
    """Return by how much the weights miss the conditions of one order."""
    n = method.n_stages
    matrix = np.zeros((n, n))
    for i, row in enumerate(method.stages):
        matrix[i, : len(row)] = row
    return max(
        abs(np.dot(weights, elementary_weights(tree, matrix)) - 1 / density(tree))
        for tree in rooted_trees(order)
    )


def embedded_weights(method):
    return np.subtract(method.weights, method.error_weights)


def test_there_are_as_many_trees_as_cayley_counted():
    assert [len(rooted_trees(n)) for n in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]


@pytest.mark.parametrize("name", METHODS)
def test_weights_meet_the_order_conditions(name):
    method = TABLEAUS[name]
    for order in range(1, method.order + 1):
        assert violation(method, method.weights, order) < ROUNDING
    assert violation(method, method.weights, method.order + 1) > 1e-8


@pytest.mark.parametrize("name", ADAPTIVE)
def test_embedded_weights_meet_the_order_conditions(name):
    method = TABLEAUS[name]
    for order in range(1, method.embedded_order + 1):
        assert violation(method, embedded_weights(method), order) < ROUNDING
    assert violation(method, embedded_weights(method), method.embedded_order + 1) > 1e-8


@pytest.mark.parametrize(
    ("name", "order", "embedded_order", "n_stages", "first_same_as_last"),
    [
        ("euler", 1, None, 1, False),
        ("midpoint", 2, None, 2, False),
        ("heun", 2, 1, 2, False),
        ("bosh3", 3, 2, 4, True),
        ("rk4", 4, None, 4, False),
        ("dopri5", 5, 4, 7, True),
        ("tsit5", 5, 4, 7, True),
        ("dopri8", 8, 7, 13, False),
    ],
)
def test_facts(name, order, embedded_order, n_stages, first_same_as_last):
    method = TABLEAUS[name]
    assert (method.name, method.order, method.embedded_order) == (name, order, embedded_order)
    assert (method.n_stages, method.first_same_as_last) == (n_stages, first_same_as_last)
    assert method.adaptive == (embedded_order is not None)
    assert method.source


def test_methods_are_complete():
    assert sorted(METHODS) == sorted(ADAPTIVE + FIXED)


# ---------------------------------------------------------------- against others


@pytest.mark.parametrize(
    ("name", "theirs"), [("bosh3", scipy.integrate.RK23), ("dopri5", scipy.integrate.RK45)]
)
def test_scipy_has_the_same_tableau(name, theirs):
    method, n = TABLEAUS[name], theirs.n_stages
    for row, their_row in zip(method.stages[:n], theirs.A, strict=True):
        assert np.allclose(row, their_row[: len(row)], rtol=0, atol=1e-15)
    assert np.allclose(method.nodes[:n], theirs.C, rtol=0, atol=1e-15)
    assert np.allclose(method.weights[:n], theirs.B, rtol=0, atol=1e-15)
    assert np.allclose(method.error_weights, -theirs.E, rtol=0, atol=1e-15)


# torchdiffeq's rk4 is Kutta's other method, the 3/8 rule.
@pytest.mark.parametrize("name", [name for name in IN_TORCHDIFFEQ if name != "rk4"])
def test_torchdiffeq_takes_the_same_steps(name):
    def func(t, y):
        return torch.sin(y + t) - 0.3 * y * y

    y0 = double([[0.3, -0.8, 1.1]])
    loose = {"rtol": 1e3, "atol": 1e3, "method": name}  # one step, or a fixed-step method's four
    ours, theirs = solve(func, y0, **loose), solve(func, y0, **loose, backend="torchdiffeq")
    assert torch.allclose(ours.y, theirs.y, rtol=0, atol=1e-14)
    assert ours.n_accepted == theirs.n_accepted


# ---------------------------------------------------------------- order by slope


@pytest.mark.parametrize(
    ("func", "end"),
    [
        (lambda t, y: -(1 + t) * y * y, lambda t: 1 / (1 + t + t**2 / 2)),
        (lambda t, y: y * torch.cos(t), lambda t: math.exp(math.sin(t))),
    ],
    ids=["nonlinear", "not autonomous"],
)
@pytest.mark.parametrize("name", METHODS)
def test_order_of_convergence(name, func, end):
    # A tolerance this loose accepts the first step, the whole interval; fixed-step methods cut it
    # in four. The error of a fixed number of steps falls as the interval to order + 1.
    order = TABLEAUS[name].order
    intervals = [0.8, 0.65, 0.5] if order == 8 else [0.2, 0.15, 0.1]
    errors = []
    for interval in intervals:
        solution = solve(func, double([[1.0]]), 0, interval, rtol=1e6, atol=1e6, method=name)
        assert solution.n_accepted[0] == (1 if name in ADAPTIVE else 4)
        errors.append(abs(solution.y.item() - end(interval)))
    slope = np.polyfit(np.log(intervals), np.log(errors), 1)[0]
    assert slope > order + 0.5


# ---------------------------------------------------------------- what is refused


HALF = {"source": "a test"}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: tableau("t", 2, [[], [1, 0]], [0.5, 0.5], nodes=[0, 1], **HALF),
            "t: rows of lengths [0, 2] for 2 nodes.",
        ),
        (lambda: tableau("t", 2, [[], [1]], [1], **HALF), "t: rows of lengths [0, 1] for 2 nodes."),
        (
            lambda: tableau("t", 2, [[], [0.5]], [0, 1], nodes=[0, 0.6], **HALF),
            "t: the row of node 0.6 adds up to 0.5.",
        ),
        (
            lambda: tableau("t", 2, [[], [1]], [0.5, 0.25], **HALF),
            "t: the weights add up to 0.75, not 1.",
        ),
        (
            lambda: tableau(
                "t", 2, [[], [1]], [0.5, 0.5], [1, 0.5], 1, whole_interval_tol=1.0, **HALF
            ),
            "t: the error weights must be as many and add up to 0.",
        ),
        (
            lambda: tableau("t", 2, [[], [1]], [0.5, 0.5], [1, 0], 1, **HALF),
            "t: error weights, embedded order and whole_interval_tol need one another.",
        ),
    ],
    ids=["stages", "weights missing", "nodes", "weights", "error weights", "half a pair"],
)
def test_a_broken_tableau_is_refused(make, text):
    with raises(text):
        make()


@pytest.mark.parametrize("stage", range(1, 13))
def test_a_misprint_is_noticed(stage):
    method = TABLEAUS["dopri8"]
    rows = [list(row) for row in method.stages]
    rows[stage][0] += 1e-9
    with raises(f"dopri8: the row of node {method.nodes[stage]} adds up to"):
        dataclasses.replace(method, stages=tuple(map(tuple, rows)))


def test_error_weights_come_as_many_as_stages():
    with raises("bosh3: the error weights must be as many and add up to 0."):
        dataclasses.replace(TABLEAUS["bosh3"], error_weights=(0.5, -0.5))


# ---------------------------------------------------------------- the choice


@pytest.mark.parametrize(
    ("tol", "method"),
    [
        (1, "bosh3"),
        (1e-3, "bosh3"),
        (0.99e-3, "tsit5"),
        (1e-4, "tsit5"),
        (3e-5, "tsit5"),
        (2.9e-5, "dopri8"),
        (1e-6, "dopri8"),
        (1e-14, "dopri8"),
    ],
)
def test_auto_goes_by_tolerance(tol, method):
    assert choose_method(tol) == choose_method(tol, "auto") == method


@pytest.mark.parametrize("method", METHODS)
def test_a_named_method_is_kept(method):
    assert choose_method(1e-3, method) == method


@pytest.mark.parametrize("method", ["dopri6", "adaptive_heun", "BOSH3", ""])
def test_unknown_methods_are_refused(method):
    with raises(
        "method must be 'auto' or one of heun, bosh3, dopri5, tsit5, dopri8, euler, midpoint, rk4; "
        f"got {method!r}."
    ):
        choose_method(1e-3, method)
