"""The tableaus against theory, against SciPy's, and by the slopes of their errors."""

import copy
import dataclasses
import math
import pickle

import numpy as np
import pytest
import scipy.integrate
import torch
from messages import raises
from ode_problems import ADAPTIVE, FIXED, IN_TORCHDIFFEQ, Function, decay, double

from bloodseg.ode import (
    METHODS,
    FixedStepBlock,
    ODEBlock,
    Tableau,
    check_n_steps,
    choose_method,
    solve,
)
from bloodseg.ode.methods import TABLEAUS
from bloodseg.ode.methods._order import OrderConditions, rooted_trees

# The printed coefficients are rounded: tsit5's to 15 digits, dopri8's to 18, and dopri8's largest
# are near 20.
ROUNDING = 1e-13

# ---------------------------------------------------------------- order conditions


def violation(method, weights, order):
    return OrderConditions(method.stages).violation(weights, order)


def embedded_weights(method):
    return np.subtract(method.weights, method.error_weights)


def test_there_are_as_many_trees_as_cayley_counted():
    assert [len(rooted_trees(n)) for n in range(1, 9)] == [1, 1, 2, 4, 9, 20, 48, 115]


def test_conditions_of_order_four_are_those_in_the_books():
    # Hairer et al., II.1: b c^3 = 1/4, b (c * A c) = 1/8, b A c^2 = 1/12, b A A c = 1/24.
    rng = np.random.default_rng(0)
    matrix, weights = np.tril(rng.random((4, 4)), -1), rng.random(4)
    nodes = matrix.sum(axis=1)
    missed = [
        weights @ nodes**3 - 1 / 4,
        weights @ (nodes * (matrix @ nodes)) - 1 / 8,
        weights @ matrix @ nodes**2 - 1 / 12,
        weights @ matrix @ matrix @ nodes - 1 / 24,
    ]
    stages = [row[:i] for i, row in enumerate(matrix)]
    assert OrderConditions(stages).violation(weights, 4) == pytest.approx(max(map(abs, missed)))


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
        ("kutta3", 3, 2, 3, False),
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


HEUN = {
    "name": "mine",
    "order": 2,
    "nodes": (0, 1),
    "stages": ((), (1,)),
    "weights": (0.5, 0.5),
    "error_weights": (-0.5, 0.5),
    "embedded_order": 1,
}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"stages": ((), (1, 0))},
            "mine: stages must be rows of 0, 1, 2, ... numbers, one row for each node; got rows of "
            "lengths [0, 2] for 2 nodes.",
        ),
        ({"nodes": (), "stages": ()}, "got rows of lengths [] for 0 nodes."),
        ({"weights": (1,)}, "mine: weights must be 2 numbers, one for each node; got 1."),
        (
            {"error_weights": (0.5, 0, -0.5)},
            "mine: error_weights must be 2 numbers, one for each node; got 3.",
        ),
        (
            {"nodes": (0, 0.6)},
            "mine: each node must be the sum of its row in stages; the row of node 0.6 adds up to ",
        ),
        ({"weights": (0.5, 0.25)}, "mine: weights must add up to 1; they add up to 0.75."),
        (
            {"error_weights": (0.5, 0.5)},
            "mine: error_weights must add up to 0; they add up to 1.0.",
        ),
        ({"embedded_order": None}, "mine: error_weights and embedded_order need each other."),
        ({"error_weights": None}, "mine: error_weights and embedded_order need each other."),
        (
            {"error_weights": None, "embedded_order": None, "whole_interval_tol": 1.0},
            "mine: whole_interval_tol and guard_weights are for methods with error_weights; "
            "without them the steps are fixed.",
        ),
        (
            {"error_weights": (0, 0)},
            "mine: error_weights must not all be 0, or each step would pass for exact.",
        ),
        ({"weights": (0.5, math.nan)}, "mine: weights must hold finite numbers; got (0.5, nan)."),
        ({"weights": "bh"}, "mine: weights must hold finite numbers; got 'bh'."),
        ({"stages": ((), 1)}, "mine: stages must hold finite numbers; got 1."),
        ({"order": 0}, "mine: order must be a whole number of at least 1; got 0."),
        (
            {"embedded_order": 1.5},
            "mine: embedded_order must be a whole number of at least 1; got 1.5.",
        ),
        (
            {"order": 3},
            "mine: order=3, but weights meet the order conditions up to order 2 only. Look for a "
            "misprint in stages and weights.",
        ),
        (
            {"embedded_order": 2},
            "mine: embedded_order=2, but weights minus error_weights meet the order conditions up "
            "to order 1 only.",
        ),
    ],
)
def test_a_broken_tableau_is_refused(change, text):
    Tableau(**HEUN)
    with raises(text):
        Tableau(**{**HEUN, **change})


@pytest.mark.parametrize("stage", range(1, 13))
def test_a_misprint_is_noticed(stage):
    method = TABLEAUS["dopri8"]
    rows = [list(row) for row in method.stages]
    rows[stage][0] += 1e-9
    with raises(f"the row of node {method.nodes[stage]} adds up to"):
        dataclasses.replace(method, stages=tuple(map(tuple, rows)))


def test_a_misprint_that_keeps_the_sums_is_noticed():
    method = TABLEAUS["rk4"]
    with raises("rk4: order=4, but weights meet the order conditions up to order 1 only."):
        dataclasses.replace(method, weights=(1 / 6, 1 / 6, 1 / 3, 1 / 3))
    with raises("rk4: order=4, but weights meet the order conditions up to order 2 only."):
        dataclasses.replace(method, stages=((), (0.5,), (0.5, 0), (0, 0, 1)))


# ---------------------------------------------------------------- methods of one's own


def from_lists(method):
    """Return a method as a user would type it: with lists and arrays, without fine tuning."""
    return Tableau(
        name="mine",
        order=method.order,
        nodes=np.array(method.nodes),
        stages=[list(row) for row in method.stages],
        weights=list(method.weights),
        error_weights=None if method.error_weights is None else list(method.error_weights),
        embedded_order=method.embedded_order,
        whole_interval_tol=method.whole_interval_tol,
        guard_weights=method.guard_weights,
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_method_of_ones_own_is_one_of_ours(name):
    mine, y0 = from_lists(TABLEAUS[name]), double([[0.3, -0.8], [2.0, 9.0]])
    assert (mine.adaptive, mine.first_same_as_last) == (
        TABLEAUS[name].adaptive,
        TABLEAUS[name].first_same_as_last,
    )
    ours, theirs = solve(decay, y0, method=name), solve(decay, y0, method=mine)
    assert torch.equal(ours.y, theirs.y)
    assert ours.n_evaluations.tolist() == theirs.n_evaluations.tolist()
    assert theirs.method == "mine"


def test_a_method_without_whole_interval_tol_guesses_its_first_step():
    mine = dataclasses.replace(TABLEAUS["dopri5"], whole_interval_tol=None)
    solution = solve(decay, double([[1.0]]), rtol=1e-2, atol=1e-2, method=mine)
    assert solution.n_evaluations[0] > solve(decay, double([[1.0]]), method="dopri5").n_evaluations
    assert solution.y.item() == pytest.approx(math.exp(-1), abs=1e-2)


def test_the_error_falls_with_the_lower_of_the_two_orders():
    # Heun's method carried on by Euler's solution: the estimate is the same.
    mine = Tableau(
        **HEUN
        | {"order": 1, "weights": (1, 0), "error_weights": (0.5, -0.5)}
        | {"embedded_order": 2}
    )
    assert mine.error_order == TABLEAUS["heun"].error_order == 2


def test_a_fixed_step_method_of_ones_own_takes_n_steps():
    mine = from_lists(TABLEAUS["rk4"])
    y0 = double([[1.0]])
    expected = solve(decay, y0, method="rk4", n_steps=7).y
    assert torch.equal(solve(decay, y0, method=mine, n_steps=7).y, expected)
    assert torch.allclose(FixedStepBlock(Function(decay), mine, 7)(y0), expected)
    block = ODEBlock(Function(decay), method=mine, n_steps=7)
    assert torch.equal(block(y0), expected)
    assert block.method_at(1e-3) == "mine"
    assert "method='mine', n_steps=7" in repr(block)
    for copied in copy.deepcopy(block), pickle.loads(pickle.dumps(block)):
        assert copied.method == mine
        assert torch.equal(copied(y0), expected)


@pytest.mark.parametrize("settings", [{"gradient": "adjoint"}, {"backend": "torchdiffeq"}])
def test_torchdiffeq_takes_methods_by_name(settings):
    mine = from_lists(TABLEAUS["dopri5"])
    text = "the adjoint gradient needs, takes methods by name only; got the Tableau 'mine'."
    with raises(text):
        solve(Function(decay), torch.ones(1, 1), method=mine, **settings)
    with raises(text):
        ODEBlock(Function(decay), method=mine, **settings)


# ---------------------------------------------------------------- the choice


@pytest.mark.parametrize(
    ("tol", "method"),
    [
        (1, "kutta3"),
        (1e-3, "kutta3"),
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


def test_auto_sees_what_changes_late_in_the_interval():
    def late(t, y):
        return 10 * torch.sigmoid(200 * (t - 0.9)).expand_as(y)

    solution = solve(late, double([[0.0]]), rtol=1e-3, atol=1e-3)
    assert solution.method == "kutta3"
    assert solution.y.item() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("step", [0.5, 1.0, -1.0, -2.0])
def test_the_estimate_of_kutta3_vanishes_for_no_linear_equation(step):
    block = ODEBlock(Function(lambda t, y: step * y), tol=1e-3, method="kutta3")
    error = block.estimate_error(torch.ones(1, 1)).item()
    end = abs(1 + step + step**2 / 2 + step**3 / 6)
    expected = abs(step) ** 3 / 24 / (1e-3 * (1 + max(1, end)))
    assert error == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("tol", [0.0, -1.0, float("nan"), float("inf"), None])
def test_tolerances_that_choose_no_method(tol):
    with raises(f"tol must be a positive, finite number; got {tol!r}."):
        choose_method(tol)


def test_a_backend_that_there_is_not_has_no_method():
    with raises("backend must be one of bloodseg, torchdiffeq; got 'torchdifeq'."):
        choose_method(1e-4, backend="torchdifeq")


@pytest.mark.parametrize("method", METHODS)
def test_a_named_method_is_kept(method):
    assert choose_method(1e-3, method) == method


@pytest.mark.parametrize("method", ["dopri6", "adaptive_heun", "BOSH3", "", None, ["rk4"]])
@pytest.mark.parametrize(
    "ask",
    [
        lambda method: choose_method(1e-3, method),
        lambda method: check_n_steps(None, method),
        lambda method: solve(decay, torch.ones(1, 1), method=method),
        lambda method: FixedStepBlock(Function(decay), method, 4),
    ],
)
def test_unknown_methods_are_refused(method, ask):
    with raises(
        "method must be 'auto', one of heun, kutta3, bosh3, dopri5, tsit5, dopri8, euler, "
        f"midpoint, rk4, or a Tableau; got {method!r}."
    ):
        ask(method)
