"""The solver against SciPy and torchdiffeq; its steps, one set a sample; failure; precision."""

import functools
import itertools
import logging
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from imports import imported_anew
from messages import raises
from ode_problems import (
    ADAPTIVE,
    COUNTS,
    FIXED,
    GRADIENTS,
    IN_TORCHDIFFEQ,
    Convolutional,
    Decay,
    Dense,
    Function,
    Recorder,
    Watched,
    braked,
    decay,
    double,
    silent,
    warns,
)
from scipy.integrate import solve_ivp

from bloodseg.ode import (
    BACKENDS,
    METHODS,
    PRECISIONS,
    FixedStepBlock,
    ODEBlock,
    SolverError,
    SolverWarning,
    Status,
    solve,
    tolerance_floor,
)
from bloodseg.ode import _precision as precision_module
from bloodseg.ode import _search as search_module
from bloodseg.ode import _solve as solve_module
from bloodseg.ode._control import Interval, StepControl
from bloodseg.ode.methods import TABLEAUS

# ---------------------------------------------------------------- known solutions


@pytest.mark.parametrize(
    ("method", "tol"),
    [("heun", 1e-5), ("bosh3", 1e-7), ("dopri5", 1e-9), ("tsit5", 1e-9), ("dopri8", 1e-10)],
)
@pytest.mark.parametrize(
    ("func", "y0", "t0", "t1", "expected"),
    [
        (decay, [[1.0], [-2.0]], 0, 1, [[np.exp(-1)], [-2 * np.exp(-1)]]),
        (decay, [[1.0]], 1, 0, [[np.e]]),
        (decay, [[1.0]], -2, 3, [[np.exp(-5)]]),
        (lambda t, y: 2 * t * y, [[1.0]], 0, 1, [[np.e]]),
        (lambda t, y: torch.cos(t).expand_as(y), [[0.5]], 0, 2, [[0.5 + np.sin(2)]]),
        (lambda t, y: t.expand_as(y), [[0.0]], 3, 1, [[-4.0]]),
        (
            lambda t, y: torch.stack([y[:, 1], -y[:, 0]], dim=1),
            [[1.0, 0.0]],
            0,
            5,
            [[np.cos(5), -np.sin(5)]],
        ),
        (lambda t, y: torch.zeros_like(y), [[3.0]], 0, 1, [[3.0]]),
    ],
    ids=["decay", "backward", "from -2", "2ty", "cos t", "t backward", "oscillator", "still"],
)
def test_known_solutions(method, tol, func, y0, t0, t1, expected):
    solution = solve(func, double(y0), t0, t1, rtol=tol, atol=tol, method=method)
    assert np.allclose(solution.y, expected, rtol=0, atol=50 * tol)
    assert (solution.status == Status.SUCCESS).all()
    assert solution.method == method


def lotka_volterra(t, y):
    a, b = y[:, 0], y[:, 1]
    return torch.stack([1.5 * a - a * b, a * b - 3 * b], 1)


def van_der_pol(t, y):
    a, b = y[:, 0], y[:, 1]
    return torch.stack([b, 5 * (1 - a * a) * b - a], 1)


def stiff(t, y):
    return -100 * (y - torch.cos(t))


def linear(t, y):
    return y @ double([[-1.0, 2.0], [-3.0, -0.5]])


def driven(t, y):
    return torch.sin(3 * t * y) - t * y


def scipy_end(func, y0, t0, t1):
    def flat(t, y):
        state = torch.from_numpy(y).reshape(y0.shape)
        with torch.no_grad():
            return func(y0.new_full((1, *[1] * (y0.ndim - 1)), t), state).flatten().numpy()

    end = solve_ivp(flat, (t0, t1), y0.flatten().numpy(), method="DOP853", rtol=1e-12, atol=1e-12)
    return end.y[:, -1].reshape(y0.shape)


@functools.cache
def scipy_end_from_1_2(func, t0, t1):
    """Every method is compared with the same ends, each of which takes a while."""
    return scipy_end(func, double([[1.0, 2.0]]), t0, t1)


@pytest.mark.parametrize(
    ("func", "t0", "t1"),
    [
        (lotka_volterra, 0, 3),
        (van_der_pol, 0, 3),
        (stiff, 0, 1),
        (linear, 0, 2),
        (linear, 1, -1),
        (driven, 0, 3),
        (driven, 2, 0),
    ],
)
@pytest.mark.parametrize("method", ["bosh3", "dopri5", "tsit5", "dopri8"])
def test_agrees_with_scipy(func, t0, t1, method):
    end = solve(func, double([[1.0, 2.0]]), t0, t1, rtol=1e-7, atol=1e-7, method=method)
    assert np.allclose(end.y, scipy_end_from_1_2(func, t0, t1), rtol=0, atol=3e-5)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_convolutional_state_agrees_with_scipy(method):
    func = Convolutional(dtype=torch.float64)
    y0 = torch.rand(2, 3, 6, 5, dtype=torch.float64, generator=torch.manual_seed(0))
    tol = 1e-4 if method == "heun" else 1e-7
    end = solve(func, y0, rtol=tol, atol=tol, method=method).y.detach()
    for sample, start in zip(end, y0.split(1), strict=True):
        assert np.allclose(sample, scipy_end(func, start, 0, 1), rtol=0, atol=30 * tol)


@pytest.mark.parametrize("func", [lotka_volterra, stiff, linear, driven])
@pytest.mark.parametrize("method", [name for name in ADAPTIVE if name in IN_TORCHDIFFEQ])
def test_agrees_with_torchdiffeq(func, method):
    y0 = double([[1.0, 2.0], [0.5, -0.1]])
    tol = 1e-4 if method == "heun" else 1e-6
    common = {"rtol": tol, "atol": tol, "method": method}
    ours = solve(func, y0, **common)
    theirs = solve(func, y0, **common, backend="torchdiffeq")
    assert torch.allclose(ours.y, theirs.y, rtol=0, atol=100 * tol)
    assert theirs.method == ours.method
    assert (theirs.status == 0).all()
    assert (theirs.n_evaluations > theirs.n_accepted).all()
    # The same pair at the same tolerance: the controls differ, not what they control.
    assert (ours.n_accepted <= 1.5 * theirs.n_accepted + 2).all()


def test_torchdiffeq_goes_backward_in_time_too():
    solution = solve(decay, double([[1.0]]), 1, -1, rtol=1e-8, atol=1e-8, method="dopri5")
    theirs = solve(
        decay, double([[1.0]]), 1, -1, rtol=1e-8, atol=1e-8, method="dopri5", backend="torchdiffeq"
    )
    assert theirs.y.item() == pytest.approx(np.exp(2), abs=1e-6)
    assert solution.y.item() == pytest.approx(np.exp(2), abs=1e-6)


@pytest.mark.parametrize("method", ADAPTIVE)
def test_error_follows_the_tolerance(method):
    y0 = double([[1.0, 2.0]])
    reference = scipy_end_from_1_2(lotka_volterra, 0, 2)
    errors, costs = [], []
    for tol in (1e-3, 1e-4, 1e-5):
        end = solve(lotka_volterra, y0, 0, 2, rtol=tol, atol=tol, method=method)
        errors.append(np.abs(end.y.numpy() - reference).max())
        costs.append(end.n_evaluations[0])
        assert errors[-1] < 50 * tol
    assert errors[-1] < errors[0] / 10
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("rate", [0.25, 0.5, 1.0, 1.5, 2.0, 4.0])
def test_a_first_step_over_the_whole_interval_keeps_the_tolerance(method, tol, rate):
    # An error estimate is a polynomial of rate times step: its roots must not let errors pass.
    if method == "heun":
        tol = max(tol, 1e-6)  # beyond that are thousands of steps
    settings = {"rtol": tol, "atol": tol, "method": method, "max_steps": 10_000}
    end = solve(lambda t, y: -rate * y, double([[1.0]]), **settings)
    assert end.y.item() == pytest.approx(np.exp(-rate), abs=10 * tol)


@pytest.mark.parametrize(("rtol", "atol"), [(1e-6, 1e-12), (1e-12, 1e-6)])
def test_relative_and_absolute_tolerance_both_count(rtol, atol):
    # The state is a million times larger or smaller than 1: only one of the two has a say.
    scale = 1e6 if rtol > atol else 1e-6
    both = solve(decay, double([[scale]]), rtol=rtol, atol=atol, method="dopri5")
    other = solve(decay, double([[scale]]), rtol=1e-12, atol=1e-12, method="dopri5")
    assert both.n_accepted[0] < other.n_accepted[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tol", [1e-2, 1e-4])
@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), (0.0, 0.37), (2.0, -1.0), (1e3, 1e3 + 0.1)])
def test_never_looks_past_the_end(method, tol, t0, t1):
    recorder = Recorder(lambda t, y: -y * torch.cos(y))
    solve(recorder, double([[0.4], [2.5]]), t0, t1, rtol=tol, atol=tol, method=method)
    slack = 1e-12 * max(abs(t0), abs(t1))
    assert min(recorder.times) >= min(t0, t1) - slack
    assert max(recorder.times) <= max(t0, t1) + slack


@pytest.mark.parametrize("method", METHODS)
def test_there_and_back(method):
    func, y0 = Dense(), double([[0.3, -0.2, 0.9]])
    tight = {"rtol": 1e-8, "atol": 1e-8, "method": method}
    with torch.no_grad():
        there = solve(func, y0, 0, 0.1, **tight).y
        back = solve(func, there, 0.1, 0, **tight).y
    assert (there - y0).abs().max() > 1e-3
    assert torch.allclose(back, y0, atol=1e-3 if method == "euler" else 1e-6)


# ---------------------------------------------------------------- step control, scripted


def control(n=1, *, t0=0.0, t1=1.0, order=3, max_steps=100, smallest=1e-6, n_steps=None):
    interval = Interval(t0, t1, 1e-3, 1e-3, max_steps, n_steps=n_steps)
    return StepControl(interval, n, order, smallest)


def attempt(control, *ratios):
    """Take the next step of the first samples, with these errors; return steps and verdicts."""
    rows = np.arange(len(ratios))
    steps = control.next_steps(rows)
    return steps.tolist(), control.judge(rows, steps, np.array(ratios, float)).tolist()


def wanted(ratio, order=3):
    return 0.9 * ratio ** (-1 / order)


def test_the_first_step_is_the_whole_interval():
    steering = control(t0=2.0, t1=5.0)
    assert attempt(steering, 1.0) == ([3.0], [True])
    assert steering.finished(np.array([0])).all()
    assert steering.times(np.array([0])) == 5.0


def test_steps_point_back_in_time():
    steering = control(t0=1.0, t1=-1.0)
    assert attempt(steering, 8.0) == ([-2.0], [False])
    assert steering.times(np.array([0])) == 1.0
    attempt(steering, 0.5)
    assert steering.times(np.array([0])) == 1 - 2 / 3


@pytest.mark.parametrize("order", [2, 3, 5, 8])
@pytest.mark.parametrize("ratio", [1.01, 2.0, 5.0])
def test_a_rejected_step_shrinks_by_its_error(order, ratio):
    steering = control(order=order)
    attempt(steering, ratio)
    assert steering.wanted[0] == pytest.approx(wanted(ratio, order))
    assert steering.wanted[0] < 1


@pytest.mark.parametrize("ratio", [1e6, 1e300])
def test_a_step_shrinks_fivefold_at_most(ratio):
    steering = control()
    attempt(steering, ratio)
    assert steering.wanted[0] == pytest.approx(0.2)


@pytest.mark.parametrize("ratio", [np.inf, np.nan])
def test_a_step_that_overflows_shrinks_tenfold(ratio):
    steering = control()
    assert attempt(steering, ratio) == ([1.0], [False])
    assert steering.wanted[0] == pytest.approx(0.1)


@pytest.mark.parametrize(("ratio", "growth"), [(0.5, wanted(0.5)), (1e-9, 10), (0.0, 10)])
def test_an_accepted_step_grows_by_its_error_tenfold_at_most(ratio, growth):
    steering = control()
    steering.wanted[:] = 0.01
    (step,), verdict = attempt(steering, ratio)
    assert verdict == [True]
    assert steering.wanted[0] == pytest.approx(step * growth)


def test_an_accepted_step_may_shrink():
    steering = control()
    steering.wanted[:] = 0.1
    (step,), verdict = attempt(steering, 1.0)
    assert verdict == [True]
    assert steering.wanted[0] == pytest.approx(0.9 * step)


def test_no_growth_right_after_a_rejection():
    steering = control()
    attempt(steering, np.nan)
    (first,), _ = attempt(steering, 1e-9)
    assert steering.wanted[0] == pytest.approx(first)
    (second,), _ = attempt(steering, 1e-9)
    assert second == pytest.approx(first)
    assert steering.wanted[0] == pytest.approx(10 * second)


@pytest.mark.parametrize("ratio", [1 + 1e-12, 1.001])
def test_a_barely_rejected_step_is_not_tried_again_unchanged(ratio):
    steering = control()
    attempt(steering, ratio)
    (step,), _ = attempt(steering, 1.0)
    assert step <= 0.9


@pytest.mark.parametrize("wanted", [0.3, 0.26, 0.21, 0.5, 0.99, 1 / 3, 1.0, 7.0])
def test_what_is_left_is_cut_in_equal_parts(wanted):
    steering = control()
    steering.wanted[:] = wanted
    parts = max(1, int(np.ceil(1 / wanted - 1e-6)))
    assert steering.next_steps(np.array([0])) == pytest.approx(1 / parts)


@pytest.mark.parametrize("t1", [1.0, 0.1, 1 / 3, -1e-5, 12345.678])
@pytest.mark.parametrize("ratio", [0.4, 0.7, 0.73])
def test_the_last_step_ends_on_t1_exactly(t1, ratio):
    steering = control(t1=t1, max_steps=10**6)
    attempt(steering, np.nan)
    rows = np.array([0])
    while not steering.finished(rows):
        attempt(steering, ratio)
    assert steering.times(rows) == t1
    assert steering.n_accepted[0] > 2


def test_attempts_are_counted_for_the_sample():
    steering = control(3, max_steps=3)
    attempt(steering, 0.5, 2.0, np.nan)
    assert steering.n_accepted.tolist() == [1, 0, 0]
    assert steering.n_rejected.tolist() == [0, 1, 1]
    everyone = np.arange(3)
    assert steering.finished(everyone).tolist() == [True, False, False]
    assert not steering.too_many(everyone).any()
    for rows, ratio in (([1, 2], 2.0), ([2], 0.5)):
        rows = np.array(rows)
        steering.judge(rows, steering.next_steps(rows), np.full(len(rows), ratio))
    assert steering.n_accepted.tolist() == [1, 0, 1]
    assert steering.n_rejected.tolist() == [0, 2, 2]
    assert steering.too_many(everyone).tolist() == [False, False, True]


@pytest.mark.parametrize("length", [1.0, 1e-3, 1e3])
def test_a_step_too_small_is_one_in_relation_to_the_interval(length):
    steering = control(2, t1=length, smallest=1e-6)
    steering.wanted[:] = [1.01e-6 * length, 0.99e-6 * length]
    assert steering.too_small(np.arange(2)).tolist() == [False, True]


@pytest.mark.parametrize("n_steps", [1, 4, 7, 1000])
def test_fixed_steps_are_equal_ones(n_steps):
    steering = control(t0=1.0, t1=3.0, order=None, n_steps=n_steps)
    for _ in range(n_steps):
        assert not steering.finished(np.array([0])).any()
        assert attempt(steering, 0.0) == ([pytest.approx(2 / n_steps, rel=1e-9)], [True])
    assert steering.finished(np.array([0])).all()


# ---------------------------------------------------------------- fixed steps

POWERS = {"euler": 1, "midpoint": 2, "rk4": 4}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", FIXED)
@pytest.mark.parametrize("n_steps", [1, 3, 49, np.int64(10)])
@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), (0.7, -0.4)])
def test_n_steps_are_taken(method, n_steps, backend, t0, t1):
    solution = solve(
        decay, double([[2.0]]), t0, t1, method=method, n_steps=n_steps, backend=backend
    )
    z = -(t1 - t0) / int(n_steps)
    factor = sum(z**power / math.factorial(power) for power in range(POWERS[method] + 1))
    assert solution.y.item() == pytest.approx(2 * factor ** int(n_steps), rel=1e-12)
    assert solution.n_accepted.tolist() == [n_steps]
    assert solution.n_evaluations.tolist() == [n_steps * TABLEAUS[method].n_stages]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", FIXED)
def test_four_steps_where_the_user_says_nothing(method, backend):
    said, unsaid = (
        solve(decay, torch.ones(1, 1), method=method, n_steps=n_steps, backend=backend)
        for n_steps in (4, None)
    )
    assert torch.equal(said.y, unsaid.y)
    assert unsaid.n_accepted.tolist() == [4]


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradients_pass_n_steps(gradient):
    func, y0 = Decay(1.5).double(), double([[2.0]])
    solve(func, y0, method="euler", n_steps=50, gradient=gradient).y.sum().backward()
    exact = -2 * (1 - 1.5 / 50) ** 49
    assert func.rate.grad.item() == pytest.approx(exact, rel=0.1 if gradient == "adjoint" else 1e-9)


def test_steep_equations_need_their_steps():
    # The same equation: four steps multiply it by 14,000 each, 400 carry it.
    settings = {"method": "rk4", "n_steps": 400}
    end = solve(lambda t, y: -10 * y, double([[1.0]]), 0, 10, **settings).y
    assert end.item() == pytest.approx(np.exp(-100), abs=1e-12)


@pytest.mark.parametrize("method", FIXED)
def test_fixed_steps_that_are_hopelessly_few_are_warned_of(method):
    settings = {"method": method, "name": "block 5"}
    y0 = torch.tensor([[1.0, -2.0], [0.0, 0.0], [3.0, 1.0]])
    with warns(
        f"block 5: 4 equal steps of {method} look too few for 2 of 3 samples, the first sample 0: "
        "the trapezoidal rule on the same slopes differs by more than half of the state's size. A "
        "fixed-step method cannot judge its error: compare with more n_steps, or take "
        "method='auto', which does."
    ):
        solution = solve(lambda t, y: -10 * y, y0, 0, 10, **settings)
    assert solution.status.tolist() == [0, 0, 0]
    with warns("7 equal steps of"):
        solve(lambda t, y: -10 * y, y0, 0, 10, **settings, n_steps=7)


@pytest.mark.parametrize("method", FIXED)
@pytest.mark.parametrize(
    ("func", "y0", "t1"),
    [
        (lambda t, y: -10 * y, [[1.0]], 5.0),
        (lambda t, y: 10 * y, [[1.0]], 5.0),  # grows as it should
        (lambda t, y: t**4 + 0 * y, [[0.0]], 1.0),
        (lambda t, y: torch.cos(t) + 0 * y, [[0.0]], 3.0),
        (lambda t, y: torch.stack([y[:, 1], -y[:, 0]], 1), [[1.0, 0.0]], 5.0),
        (lambda t, y: 0 * y, [[0.0]], 1.0),
        (lambda t, y: 1e30 * torch.ones_like(y), [[1e30]], 1.0),
    ],
    ids=["decay", "growth", "t^4", "cos t", "oscillator", "still", "large"],
)
def test_fixed_steps_that_are_enough_are_not(method, func, y0, t1, recwarn):
    for dtype in (torch.float64, torch.float32) if t1 < 5 and y0[0][0] < 2 else (torch.float64,):
        solve(func, torch.tensor(y0, dtype=dtype), 0, t1, method=method, n_steps=100)
    assert not recwarn.list


@pytest.mark.parametrize("method", FIXED)
def test_looking_whether_fixed_steps_are_enough_changes_nothing(method, monkeypatch):
    func, y0 = Dense(), double([[0.3, -0.2, 0.9], [9.0, 0.5, -7.0]])
    watched = solve(func, y0, method=method)
    monkeypatch.setattr(search_module.DefectWatch, "see_start", lambda *arguments: None)
    monkeypatch.setattr(search_module.DefectWatch, "see_step", lambda *arguments: None)
    alone = solve(func, y0, method=method)
    assert torch.equal(watched.y, alone.y)
    assert watched.n_evaluations.tolist() == alone.n_evaluations.tolist()


def test_more_fixed_steps_than_max_steps():
    solution = solve(decay, torch.ones(1, 1), method="euler", n_steps=30, max_steps=10)
    assert (solution.n_accepted[0], solution.status[0]) == (30, Status.SUCCESS)


@pytest.mark.parametrize("n_steps", [0, -1, 2.5, True, "4", float("nan")])
def test_n_steps_must_be_a_whole_number(n_steps):
    text = f"n_steps must be a whole number of at least 1; got {n_steps!r}."
    for make in (
        lambda: solve(decay, torch.ones(1, 1), method="rk4", n_steps=n_steps),
        lambda: ODEBlock(Decay(), method="rk4", n_steps=n_steps),
        lambda: FixedStepBlock(Decay(), "rk4", n_steps),
    ):
        with raises(text):
            make()


@pytest.mark.parametrize("method", [*ADAPTIVE, "auto"])
def test_n_steps_are_not_for_methods_that_choose_theirs(method):
    named = "bosh3" if method == "auto" else method
    text = (
        f"n_steps=8 is for fixed-step methods (euler, midpoint, rk4); {named!r} takes as many "
        "steps as its tolerance asks for. Leave n_steps at None, or name one of those methods."
    )
    with raises(text):
        solve(decay, torch.ones(1, 1), method=method, n_steps=8)
    with raises(text):
        ODEBlock(Decay(), method=method, n_steps=8)


def test_a_block_of_fixed_steps_does_without_auto():
    with raises("method must be a method's name or a Tableau: 'auto' goes by a tolerance, and a "):
        FixedStepBlock(Decay(), "auto", 4)


@pytest.mark.parametrize("back", [lambda y: y.sum(1, keepdim=True), lambda y: y[:1]])
def test_a_block_of_fixed_steps_refuses_a_slope_of_another_shape(back):
    block = FixedStepBlock(Function(lambda t, y: back(y)), "rk4", 2)
    with raises("FixedStepBlock: func must return dy/dt of y's shape (2, 3); got "):
        block(torch.ones(2, 3))


# ---------------------------------------------------------------- counts


def known_cost(method, accepted, rejected, tol):
    """Return the evaluations of a solve.

    Where the last stage is not the next step's first, each attempt evaluates all stages: which
    samples of a batch were accepted must not show in the count of the others.
    """
    n_stages = {"heun": 2, "bosh3": 4, "dopri5": 7, "tsit5": 7, "dopri8": 13}[method]
    # Of the first step, by a trial step of Euler's.
    guess = 0 if TABLEAUS[method].tries_whole_interval(tol) else 1
    if method in ("heun", "dopri8"):
        first_known = 1 if guess else 0
        return guess + first_known + (accepted + rejected) * n_stages - first_known
    return guess + 1 + (accepted + rejected) * (n_stages - 1)


@pytest.mark.parametrize(
    ("method", "evaluations", "accepted"),
    [
        ("heun", 2, 1),
        ("bosh3", 4, 1),
        ("dopri5", 7, 1),
        ("tsit5", 7, 1),
        ("dopri8", 13, 1),
        ("euler", 4, 4),
        ("midpoint", 8, 4),
        ("rk4", 16, 4),
    ],
)
def test_counts_where_they_are_known(method, evaluations, accepted):
    recorder = Recorder(lambda t, y: torch.zeros_like(y))
    solution = solve(recorder, torch.ones(3, 2), method=method)
    assert solution.n_evaluations.tolist() == [evaluations] * 3
    assert solution.n_accepted.tolist() == [accepted] * 3
    assert solution.n_rejected.tolist() == [0] * 3
    assert recorder.sizes == [3] * evaluations


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("tol", [1e-1, 1e-3, 0.9e-3, 1e-5, 0.9e-5])
@pytest.mark.parametrize("value", [0.1, 5.0, 100.0])
def test_a_step_costs_its_new_stages(method, tol, value):
    recorder = Recorder(braked)
    settings = {"rtol": tol, "atol": tol, "method": method, "max_steps": 100}
    with silent():  # a hundred attempts tell
        solution = solve(recorder, double([[value]]), **settings)
    accepted, rejected = solution.n_accepted[0], solution.n_rejected[0]
    assert solution.n_evaluations[0] == known_cost(method, accepted, rejected, tol)
    assert len(recorder.sizes) == solution.n_evaluations[0]


def test_a_stiff_start_is_rejected():
    solution = solve(lambda t, y: -50 * y, torch.ones(1, 1), method="bosh3")
    assert solution.n_rejected[0] >= 1


# ---------------------------------------------------------------- each sample its own


@pytest.fixture(params=["in one chunk", "one by one"])
def chunks(request, monkeypatch):
    if request.param == "one by one":
        monkeypatch.setattr(solve_module, "_CHUNK_BYTES", 1)
    return request.param


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("method", METHODS)
def test_a_sample_does_not_depend_on_the_others(method, tol, chunks):
    easy, stiff, other = (torch.full((1, 2, 3, 3), value) for value in (0.5, 6.0, -1.7))

    def run(y0):
        return solve(braked, y0, rtol=tol, atol=tol, method=method)

    alone = run(easy)
    for batch, place in (
        ([easy, stiff], 0),
        ([stiff, easy], 1),
        ([stiff, easy, other], 1),
        ([other, other, stiff, easy], 3),
    ):
        together = run(torch.cat(batch))
        assert torch.allclose(together.y[place], alone.y[0], rtol=1e-6, atol=1e-7)
        for count in COUNTS:
            assert getattr(together, count)[place] == getattr(alone, count)[0]


@pytest.mark.parametrize("tol", [1e-2, 3e-4])
@pytest.mark.parametrize("method", ["auto", "heun", "dopri5", "rk4"])
def test_a_convolutional_sample_does_not_depend_on_the_others(method, tol, chunks):
    func = Convolutional()
    y0 = torch.randn(5, 3, 8, 8, generator=torch.manual_seed(1))
    y0 *= torch.tensor([0.1, 6.0, 1.0, 3.0, 0.01]).reshape(-1, 1, 1, 1)
    y0 *= 0.3 if method == "rk4" else 1
    with torch.no_grad():
        together = solve(func, y0, rtol=tol, atol=tol, method=method)
        for i in range(5):
            alone = solve(func, y0[i : i + 1], rtol=tol, atol=tol, method=method)
            assert torch.allclose(together.y[i], alone.y[0], rtol=1e-4, atol=1e-5)
            for count in COUNTS:
                assert getattr(together, count)[i] == getattr(alone, count)[0]
    if method != "rk4":  # whose steps are four, and too long for larger states
        assert len(set(together.n_accepted)) > 2


def test_large_states_are_solved_one_by_one():
    large = torch.ones(3, 2**19)  # 2 MiB a sample
    recorder = Recorder(decay)
    solution = solve(recorder, large)
    assert set(recorder.sizes) == {1}
    assert sum(recorder.sizes) == solution.n_evaluations.sum()
    alone = solve(recorder, large[:1])
    assert torch.allclose(solution.y, alone.y.expand_as(large), rtol=1e-6)


@pytest.mark.parametrize("method", ["bosh3", "tsit5"])
@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_finished_samples_are_evaluated_no_more(method, tol):
    recorder = Recorder(braked)
    y0 = torch.tensor([[0.5], [30.0], [3.0], [0.1]])
    solution = solve(recorder, y0, rtol=tol, atol=tol, method=method)
    # These methods keep their last stage: every attempt costs every sample the same.
    expected = [(solution.n_evaluations > k).sum() for k in range(max(solution.n_evaluations))]
    assert recorder.sizes == expected
    assert recorder.sizes[0] == 4
    assert recorder.sizes[-1] == 1


def test_stopped_samples_are_evaluated_no_more():
    recorder = Recorder(braked)
    with silent():
        solution = solve(recorder, torch.tensor([[0.5], [1e4], [3.0]]), max_steps=15)
    assert solution.status.tolist() == [0, 1, 0]
    assert sum(recorder.sizes) == solution.n_evaluations.sum()


def test_a_finished_sample_keeps_its_state():
    # Easy samples leave first; what is written later must not touch them.
    values = [0.5, 60.0, 0.1, 20.0, 3.0, 0.01]
    y0 = double(values).reshape(-1, 1)
    end = solve(lambda t, y: -y * y.abs(), y0, rtol=1e-6, atol=1e-6, method="bosh3").y
    assert np.allclose(end[:, 0], [v / (1 + v) for v in values], rtol=0, atol=1e-4)


def laid_out(values, layout):
    if layout == "channels_last":
        return values.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        return torch.stack([values, values], dim=-1)[..., 0]
    if layout == "transposed":
        return values.transpose(0, -1).contiguous().transpose(0, -1)
    return values


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    layout=st.sampled_from(["plain", "channels_last", "strided", "transposed"]),
    method=st.sampled_from(METHODS),
    tol=st.sampled_from([1e-1, 1e-2, 5e-4]),
    chunk_bytes=st.sampled_from([1, 64, 2**20]),
    seed=st.integers(0, 9),
)
def test_any_shape_dtype_and_layout(shape, dtype, layout, method, tol, chunk_bytes, seed):
    if layout == "channels_last" and len(shape) != 4:
        layout = "plain"
    values = torch.randn(shape, dtype=dtype, generator=torch.manual_seed(seed))
    values *= torch.linspace(0.1, 6, shape[0], dtype=dtype).reshape(-1, *[1] * (len(shape) - 1))
    values.clamp_(-2, 2)  # four fixed steps must do
    y0 = laid_out(values, layout)
    before = y0.clone()

    def func(t, y):
        assert t.shape == (len(y), *[1] * (y.ndim - 1))
        assert y.shape[1:] == y0.shape[1:]
        assert t.dtype == y.dtype == dtype
        if layout == "channels_last":
            assert y.is_contiguous(memory_format=torch.channels_last)
        return braked(t, y)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(solve_module, "_CHUNK_BYTES", chunk_bytes)
        solution = solve(func, y0, rtol=tol, atol=tol, method=method)
        alone = solve(func, y0[-1:], rtol=tol, atol=tol, method=method)
    assert torch.equal(y0, before)
    assert y0.stride() == before.stride() or layout in ("strided", "transposed")
    assert solution.y.shape == y0.shape
    assert solution.y.dtype == dtype
    if layout == "channels_last":
        assert solution.y.is_contiguous(memory_format=torch.channels_last)
    elif layout == "plain":
        assert solution.y.is_contiguous()
    for count in COUNTS:
        assert getattr(solution, count).shape == (len(y0),)
    assert torch.allclose(solution.y[-1:], alone.y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
def test_channels_last_is_kept_where_a_gradient_is_asked_for(gradient, chunks):
    y0 = torch.randn(3, 4, 5, 6, generator=torch.manual_seed(0))
    y0 = (y0 * torch.tensor([0.1, 5.0, 1.0]).reshape(-1, 1, 1, 1)).to(
        memory_format=torch.channels_last
    )
    y0.requires_grad_()
    end = solve(Convolutional(4), y0, gradient=gradient).y
    assert end.is_contiguous(memory_format=torch.channels_last)
    end.sum().backward()
    assert y0.grad.shape == y0.shape


@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
@pytest.mark.parametrize("recording", [False, True])
def test_a_slope_of_another_dtype_does_not_change_the_state_s(gradient, recording):
    def func(t, y):
        return -y * double([[2.0, 1.0]])

    y0 = torch.ones(3, 2, requires_grad=recording)
    end = solve(Function(func), y0, gradient=gradient).y
    assert end.dtype == torch.float32
    assert end.requires_grad == recording
    if recording:
        end.sum().backward()
        assert y0.grad.dtype == torch.float32


@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
@pytest.mark.parametrize("recording", [False, True])
@pytest.mark.parametrize("max_steps", [1000, 1])
def test_the_solution_lies_in_memory_of_its_own(gradient, recording, max_steps):
    y0 = torch.full((1, 2), 50.0).requires_grad_(recording)
    with silent():  # one step is too few: the solution is y0
        end = solve(Function(braked), y0, max_steps=max_steps, gradient=gradient).y
    end.detach().fill_(7.0)
    assert torch.equal(y0, torch.full((1, 2), 50.0))


# ---------------------------------------------------------------- failure as data


def test_too_many_steps_say_where_why_and_what_to_do():
    with pytest.warns(SolverWarning) as record:
        solution = solve(
            lambda t, y: -1e5 * (y - torch.cos(t)),
            double([[2.0], [3.0]]),
            0,
            3,
            rtol=1e-5,
            atol=2e-5,
            method="dopri5",
            max_steps=20,
            name="block 5",
        )
    n, accepted, rejected = (getattr(solution, count)[0] for count in COUNTS)
    assert accepted + rejected == 20
    assert n == known_cost("dopri5", accepted, rejected, 2e-5)
    (warning,) = record
    text = str(warning.message)
    start = (
        "block 5: 2 of 2 samples stopped before t=3; the first, sample 0, took all of max_steps=20 "
        "steps and is at t="
    )
    end = (
        f" after {n} evaluations ({accepted} accepted and {rejected} rejected steps) at tolerance "
        "2e-05 with dopri5. Its state there is used. The right-hand side has grown stiff: loosen "
        "the tolerance, raise max_steps, or train with a lower learning rate."
    )
    assert text.startswith(start)
    assert text.endswith(end)
    assert 0 < float(text.removeprefix(start).removesuffix(end)) < 3
    assert solution.status.tolist() == [Status.TOO_MANY_STEPS] * 2
    assert warning.filename == __file__


def test_a_sample_that_stops_hands_out_the_state_it_has_come_to():
    def func(t, y):
        return torch.where(y > 10, -1e4 * torch.sin(1e4 * t), torch.ones_like(y))

    y0 = double([[0.0], [20.0], [0.0]])
    with warns("solve: 1 of 3 samples stopped before t=1; the first, sample 1, took all of "):
        solution = solve(func, y0, rtol=1e-6, atol=1e-6, max_steps=30)
    assert solution.status.tolist() == [0, 1, 0]
    assert np.allclose(solution.y[[0, 2]], 1)
    assert 10 < solution.y[1].item() < 30
    assert solution.n_accepted[1] + solution.n_rejected[1] == 30


def test_a_sample_without_one_accepted_step_is_where_it_began():
    with warns("and is at t=0 after 4 evaluations (0 accepted and 1 rejected steps)"):
        solution = solve(lambda t, y: -1e3 * y, torch.ones(1, 2), method="bosh3", max_steps=1)
    assert torch.equal(solution.y, torch.ones(1, 2))


@pytest.mark.parametrize(("extra", "status"), [(0, 0), (-1, 1)])
def test_the_last_step_allowed_may_reach_the_end(extra, status):
    y0 = torch.full((1, 1), 3.0)
    needed = solve(braked, y0, method="bosh3")
    max_steps = int(needed.n_accepted[0] + needed.n_rejected[0]) + extra
    with silent():
        solution = solve(braked, y0, method="bosh3", max_steps=max_steps)
    assert solution.status.tolist() == [status]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", ADAPTIVE)
def test_a_blow_up_ends_in_steps_too_small(dtype, method):
    # y = 1 / (1/5 - t) ends at t = 0.2.
    y0 = torch.tensor([[5.0], [0.1]], dtype=dtype)
    with warns(
        "block 3: 1 of 2 samples stopped before t=1; the first, sample 0, needs steps too small "
        "for the state's dtype and is at t=0."
    ):
        solution = solve(
            lambda t, y: y * y,
            y0,
            rtol=1e-3,
            atol=1e-3,
            method=method,
            max_steps=10**4,
            name="block 3",
        )
    assert solution.status.tolist() == [Status.STEP_UNDERFLOW, Status.SUCCESS]
    assert torch.isfinite(solution.y).all()
    assert solution.y[0].item() > 1e3
    assert solution.y[1].item() == pytest.approx(1 / 9, abs=1e-2)


def test_the_first_sample_that_stops_is_numbered_across_chunks(chunks):
    y0 = torch.tensor([[0.5], [0.2], [1e4], [1e4]])
    with warns("solve: 2 of 4 samples stopped before t=1; the first, sample 2, took all"):
        solve(braked, y0, max_steps=15)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tol", [1e-2, 1e-5])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_state_that_is_not_finite_is_an_error(method, tol, value):
    with raises(
        "block 5: the state that enters the solver is not finite after ", FloatingPointError
    ) as info:
        solve(
            decay,
            torch.tensor([[1.0, 1.0], [1.0, value]]),
            rtol=tol,
            atol=tol,
            method=method,
            name="block 5",
        )
    assert str(info.value).endswith(
        " evaluations. Lower the learning rate; look for NaN in the layers before."
    )


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("tol", [1e-2, 1e-5])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_right_hand_side_that_is_not_finite_is_an_error(method, tol, value):
    with raises("block 5: the right-hand side is not finite after ", FloatingPointError):
        solve(
            lambda t, y: y * value,
            torch.ones(1, 2),
            rtol=tol,
            atol=tol,
            method=method,
            name="block 5",
        )


@pytest.mark.parametrize("method", FIXED)
def test_fixed_steps_that_overflow_are_an_error(method):
    with raises("block 5: the solution is not finite after", FloatingPointError):
        solve(lambda t, y: y * y * 1e30, torch.full((1, 1), 1e8), method=method, name="block 5")


def test_a_state_that_is_not_finite_names_its_block_under_torchdiffeq():
    with raises("block 5: ", FloatingPointError):
        solve(decay, torch.full((2, 1), float("nan")), backend="torchdiffeq", name="block 5")


def test_torchdiffeq_gives_up_with_an_error():
    with raises("block 5: torchdiffeq gave up after ", SolverError) as info:
        solve(
            lambda t, y: -1e5 * (y - torch.cos(t)),
            torch.ones(2, 1),
            rtol=1e-5,
            atol=2e-5,
            method="dopri5",
            max_steps=20,
            backend="torchdiffeq",
            name="block 5",
        )
    assert "at tolerance 2e-05 with dopri5 (max_num_steps exceeded" in str(info.value)
    assert isinstance(info.value, RuntimeError)


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_trial_step_that_overflows_is_tried_again(method, dtype):
    def func(t, y):
        return -torch.sinh(4 * y)  # a step too long goes past what exp can hold

    y0 = torch.tensor([[0.1], [2.0]], dtype=dtype)
    solution = solve(func, y0, rtol=1e-3, atol=1e-3, method=method)
    assert (solution.status == 0).all()
    assert solution.n_rejected[1] >= 1
    reference = scipy_end(func, y0[1:].double(), 0, 1).item()
    assert solution.y[1].item() == pytest.approx(reference, abs=1e-2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_first_step_that_overflows_is_tried_again(backend):
    y0 = torch.full((1, 1), 100.0)
    func = lambda t, y: -y * y.abs()  # noqa: E731
    end = solve(func, y0, rtol=1e-2, atol=1e-2, method="dopri5", backend=backend).y
    assert end.item() == pytest.approx(1 / (1 + 1 / 100), abs=0.1)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("tol", [1e-3, 1e-5])
def test_a_trial_step_that_overflows_is_no_matter_for_numpy(n, tol):
    solution = solve(lambda t, y: -torch.sinh(4 * y), torch.full((1, n), 2.0), rtol=tol, atol=tol)
    assert solution.status.tolist() == [0]


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("tol", [1e-3, 1e-5])
def test_large_states_are_as_exact_as_small_ones(n, tol):
    # Their squares overflow float32 though they do not: the norm must not.
    solution = solve(lambda t, y: -5 * y, torch.full((1, n), 1e25), rtol=tol, atol=tol)
    scaled = solve(lambda t, y: -5 * y, torch.ones(1, n), rtol=tol, atol=tol * 1e-9)
    assert solution.status.tolist() == [0]
    assert torch.allclose(solution.y / 1e25, scaled.y, rtol=10 * tol)
    assert solution.n_accepted[0] == pytest.approx(scaled.n_accepted[0], abs=2)


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_growing_states_keep_their_error_control():
    solution = solve(lambda t, y: 50 * y, torch.ones(1, 4), rtol=1e-5, atol=1e-5, method="dopri5")
    assert np.allclose(solution.y, np.exp(50), rtol=1e-3)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("tol", [1e-3, 1e-5])
def test_a_slope_of_any_size_is_a_step_too_small_at_worst(n, tol):
    with warns("needs steps too small for the state's dtype and is at t=0"):
        solution = solve(lambda t, y: -1e25 * y, torch.ones(1, n), rtol=tol, atol=tol)
    assert solution.status.tolist() == [Status.STEP_UNDERFLOW]
    assert torch.isfinite(solution.y).all()


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("argument", ["rtol", "atol"])
@pytest.mark.parametrize("value", [0, -1e-3, float("nan"), float("inf")])
def test_tolerances_must_be_positive(argument, value):
    with raises(f"{argument} must be a positive, finite number; got {value!r}."):
        solve(decay, torch.ones(1, 1), **{argument: value})


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "10"])
def test_max_steps_must_be_a_whole_number(value):
    with raises(f"max_steps must be a whole number of at least 1; got {value!r}."):
        solve(decay, torch.ones(1, 1), max_steps=value)


def test_max_steps_may_be_numpy_s():
    assert solve(decay, torch.ones(1, 1), max_steps=np.int64(50)).status.tolist() == [0]


@pytest.mark.parametrize(
    ("y0", "text"),
    [
        (torch.ones(1, 1, dtype=torch.bfloat16), "y0 must be float32 or float64; got torch.bfl"),
        (torch.ones(1, 1, dtype=torch.float16), "y0 must be float32 or float64; got torch.float16"),
        (torch.ones(1, 1, dtype=torch.int64), "y0 must be float32 or float64; got torch.int64."),
        (np.ones((1, 1)), "y0 must be a torch.Tensor; got ndarray. Pass torch.as_tensor(y0)."),
        (torch.tensor(1.0), "y0 must have shape (n, ...) with n >= 1 and no empty side; got ()."),
        (torch.ones(0, 3), "y0 must have shape (n, ...) with n >= 1 and no empty side; got (0, 3)"),
        (torch.ones(2, 0), "y0 must have shape (n, ...) with n >= 1 and no empty side; got (2, 0)"),
    ],
)
def test_states_that_are_refused(y0, text):
    with raises(text):
        solve(decay, y0)


def test_slopes_that_are_no_tensors():
    with raises("func must return dy/dt as a torch.Tensor of y's shape (1, 1); got float."):
        solve(lambda t, y: -1.0, torch.ones(1, 1))


@pytest.mark.parametrize(
    ("t0", "t1"), [(0.0, 0.0), (0.0, float("nan")), (float("inf"), 1.0), (0.0, -float("inf"))]
)
def test_intervals_that_are_refused(t0, t1):
    with raises(f"t0 and t1 must be finite and differ; got t0={t0!r}, t1={t1!r}."):
        solve(decay, torch.ones(1, 1), t0, t1)


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        ("method", "method must be 'auto', one of heun, bosh3, dopri5, tsit5, dopri8, euler, mid"),
        ("gradient", "gradient must be one of checkpoint, direct, adjoint; got 'magic'."),
        ("backend", "backend must be one of bloodseg, torchdiffeq; got 'magic'."),
        (
            "precision",
            "precision must be None, for the state's own, or one of float32, tf32, bfloat16, "
            "float16; got 'magic'.",
        ),
    ],
)
def test_unknown_names_are_refused(argument, text):
    with raises(text):
        solve(decay, torch.ones(1, 1), **{argument: "magic"})


@pytest.mark.parametrize(
    ("func", "shape"),
    [
        (lambda t, y: y.sum(dim=1, keepdim=True), "(1, 1)"),
        (lambda t, y: y[:0], "(0, 3)"),
        (lambda t, y: t, "(1, 1)"),
        (lambda t, y: y[..., None], "(1, 3, 1)"),
    ],
    ids=["a sum", "nothing", "the time", "a side more"],
)
@pytest.mark.parametrize("method", ["bosh3", "rk4"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_slope_of_another_shape_is_refused(func, shape, method, backend):
    with raises(f"block 5: func must return dy/dt of y's shape (1, 3); got {shape}."):
        solve(func, torch.ones(1, 3), method=method, backend=backend, name="block 5")


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_what_is_no_module_is_refused_where_weights_must_be_found(gradient):
    with raises(
        f"gradient={gradient!r} needs func to be a torch.nn.Module, to find the weights in it; got "
        "function. Wrap it in a Module, or use gradient='direct'."
    ):
        solve(decay, torch.ones(1, 1), gradient=gradient)


@pytest.mark.parametrize("settings", [{"gradient": "adjoint"}, {"backend": "torchdiffeq"}])
def test_without_torchdiffeq_an_error_says_what_needs_it(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    text = "gradient='adjoint' and backend='torchdiffeq' need torchdiffeq: pip install torchdiffeq."
    with raises(text, ImportError):
        solve(Decay(), torch.ones(1, 1), **settings)
    assert solve(Decay(), torch.ones(1, 1), gradient="checkpoint").status.tolist() == [0]


def test_torchdiffeq_is_imported_where_it_is_asked_for_alone():
    with imported_anew("bloodseg", "torchdiffeq"):
        import bloodseg.networks
        import bloodseg.ode

        assert bloodseg.ode.solve is not solve
        assert "torchdiffeq" not in sys.modules
        bloodseg.ode.solve(lambda t, y: -y, torch.ones(1, 1), backend="torchdiffeq")
        assert "torchdiffeq" in sys.modules


@pytest.mark.parametrize("settings", [{"gradient": "adjoint"}, {"backend": "torchdiffeq"}])
def test_methods_that_torchdiffeq_lacks_are_refused(settings):
    with raises(
        "torchdiffeq, the backend that was asked for or that the adjoint gradient needs, has no "
        "'tsit5'; take 'dopri5'."
    ):
        solve(Decay(), torch.ones(1, 1), method="tsit5", **settings)


@pytest.mark.parametrize("settings", [{"gradient": "adjoint"}, {"backend": "torchdiffeq"}])
@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-10])
def test_auto_finds_a_method_that_torchdiffeq_has(settings, tol):
    solution = solve(Decay(0.7), double([[1.0]]), rtol=tol, atol=tol, **settings)
    assert solution.method in IN_TORCHDIFFEQ
    assert solution.y.item() == pytest.approx(np.exp(-0.7), abs=100 * tol)


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize(
    ("precision", "floor"),
    [("bfloat16", 1e-3), ("tf32", 1e-4), ("float16", 1e-4), ("float32", 1e-6), ("float64", 1e-14)],
)
def test_floors(precision, floor):
    assert tolerance_floor(precision) == floor


def test_every_precision_has_a_floor():
    assert all(tolerance_floor(precision) < 1 for precision in PRECISIONS)


@pytest.mark.parametrize("precision", ["int8", "", None])
def test_what_is_no_precision_has_no_floor(precision):
    with raises("precision must be "):
        tolerance_floor(precision)


@pytest.mark.parametrize(
    ("dtype", "tol", "said"),
    [
        (torch.float32, 1e-8, "tolerance 1e-08 is tighter than float32 serves (1e-06)"),
        (torch.float32, 1e-6, None),
        (torch.float64, 1e-8, None),
        (torch.float64, 1e-15, "tolerance 1e-15 is tighter than float64 serves (1e-14)"),
    ],
)
def test_a_tolerance_below_rounding_is_warned_of(dtype, tol, said):
    def run():
        solve(decay, torch.ones(1, 1, dtype=dtype), 0, 1e-2, rtol=tol, atol=tol, name="block 5")

    if said is None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", pytest.fail)
            run()
        return
    with pytest.warns(SolverWarning) as record:
        run()
    text = f"block 5: {said}: rounding would look like error to the step control, which then only "
    assert str(record[0].message).startswith(text)
    assert record[0].filename == __file__


def test_fixed_steps_have_no_tolerance_to_warn_of(recwarn):
    solve(decay, torch.ones(1, 1), rtol=1e-12, atol=1e-12, method="rk4")
    assert not recwarn.list


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize(
    ("precision", "computed"),
    [
        (None, torch.float32),
        ("float32", torch.float32),
        ("tf32", torch.float32),
        ("bfloat16", torch.bfloat16),
    ],
)
def test_precision_is_the_same_in_forward_and_backward(gradient, precision, computed):
    func = Watched()
    y0 = torch.linspace(-1, 1, 6).reshape(2, 3).requires_grad_()
    end = solve(func, y0, gradient=gradient, precision=precision).y
    n_forward = len(func.seen)
    end.sum().backward()
    assert len(func.seen) > n_forward or gradient == "direct"
    assert set(func.seen) == {(torch.float32, torch.float32, computed)}
    assert end.dtype == y0.grad.dtype == func.linear.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", [None, "float32", "tf32"])
def test_autocast_does_not_reach_a_right_hand_side_on_its_own(backend, precision):
    func = Watched()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        solve(func, torch.ones(2, 3), precision=precision, backend=backend)
        assert torch.is_autocast_enabled("cpu")
    assert set(func.seen) == {(torch.float32,) * 3}


@pytest.mark.parametrize(("precision", "off"), [("bfloat16", 2e-2), ("float16", 2e-3)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_low_precision_costs_little_accuracy(precision, off, backend):
    func, y0 = Dense(torch.float32), torch.linspace(-1, 1, 12).reshape(4, 3)
    with torch.no_grad():
        exact = solve(func, y0, backend=backend).y
        try:
            lowered = solve(func, y0, precision=precision, backend=backend).y
        except RuntimeError as error:
            if "not implemented for 'Half'" in str(error):
                pytest.skip("this CPU has no float16")
            raise
    assert lowered.dtype == torch.float32
    assert not torch.equal(lowered, exact)
    assert torch.allclose(lowered, exact, atol=off)


def test_float64_states_stay_float64_beside_a_lower_precision():
    func = Recorder(lambda t, y: -y)
    end = solve(func, torch.ones(1, 2, dtype=torch.float64), precision="bfloat16").y
    assert end.dtype == torch.float64


@pytest.mark.parametrize(
    ("precision", "tol", "served"),
    [
        (None, 1e-12, None),
        ("float32", 1e-12, "float32"),
        ("bfloat16", 1e-3, "bfloat16"),
        ("bfloat16", 0.99e-3, "float32"),
        ("float16", 1e-4, "float16"),
        ("float16", 0.99e-4, "float32"),
        ("tf32", 1e-4, "tf32"),
        ("tf32", 0.99e-4, "float32"),
    ],
)
def test_a_precision_too_low_for_the_tolerance_is_float32_and_said_once(
    precision, tol, served, caplog
):
    name = f"block for {precision} at {tol}"  # what was said of another is not said again
    with caplog.at_level(logging.INFO, logger="bloodseg"):
        for _ in range(3):
            assert precision_module.settle_precision(precision, tol, name) == served
    expected = 0 if served == precision else 1
    assert len(caplog.records) == expected
    for record in caplog.records:
        assert (record.name, record.levelno) == ("bloodseg", logging.INFO)
        assert record.getMessage() == (
            f"{name}: tolerance {tol:g} is too tight for {precision} (its rounding alone is worth "
            f"{tolerance_floor(precision):g}); the right-hand side computes in float32."
        )


def test_every_tolerance_and_block_is_said(caplog):
    with caplog.at_level(logging.INFO, logger="bloodseg"):
        for tol, name in itertools.product((1e-5, 1e-6), ("first of two", "second of two")):
            precision_module.settle_precision("bfloat16", tol, name)
    assert len(caplog.records) == 4


# ---------------------------------------------------------------- the first step


def test_a_first_step_that_fits_spares_rejections():
    func = lambda t, y: -1.5 * y  # noqa: E731
    unaided = solve(func, torch.ones(1, 4), method="bosh3")
    helped = solve(func, torch.ones(1, 4), method="bosh3", first_step=0.2)
    assert (unaided.n_rejected[0], helped.n_rejected[0]) == (1, 0)
    assert helped.n_evaluations[0] < unaided.n_evaluations[0]


@pytest.mark.parametrize("tol", [1e-2, 1e-5])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_step_is_tried_at_any_tolerance(tol, backend):
    solution = solve(
        decay,
        double([[1.0]]),
        rtol=tol,
        atol=tol,
        method="dopri5",
        first_step=0.25,
        backend=backend,
    )
    assert solution.y.item() == pytest.approx(np.exp(-1), abs=10 * tol)


@pytest.mark.parametrize("first_step", [0.0, -0.5, np.inf, np.nan])
def test_first_steps_that_are_refused(first_step):
    text = f"first_step must be None or a positive, finite number; got {first_step!r}."
    with raises(text):
        solve(decay, torch.ones(1, 1), first_step=first_step)
    with raises(text):
        ODEBlock(torch.nn.Identity(), first_step=first_step)
