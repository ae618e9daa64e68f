"""Methods of fixed steps: how many, and whether they are enough."""

import math

import numpy as np
import pytest
import torch
from messages import raises
from ode_problems import (
    ADAPTIVE,
    FIXED,
    GRADIENTS,
    Decay,
    Dense,
    Function,
    decay,
    double,
    warns,
)

from bloodseg.ode import (
    BACKENDS,
    FixedStepBlock,
    ODEBlock,
    Status,
    solve,
)
from bloodseg.ode import _search as search_module
from bloodseg.ode.methods import TABLEAUS

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
    named = "kutta3" if method == "auto" else method
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
