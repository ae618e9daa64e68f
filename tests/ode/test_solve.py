"""The solver against SciPy and torchdiffeq; the first step."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from messages import raises
from ode_problems import (
    ADAPTIVE,
    IN_TORCHDIFFEQ,
    Convolutional,
    Dense,
    Function,
    Recorder,
    decay,
    double,
    scipy_end,
)
from torch import nn
from torchdiffeq import odeint

from bloodseg.ode import (
    BACKENDS,
    METHODS,
    ODEBlock,
    Status,
    solve,
)
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


# Of one step over the unit interval from 1 the usual error estimate vanishes, nearly, by accident.
ACCIDENTS = {
    "bosh3": (1e-3, lambda t, y: -2.4 * y**2, 1 / 3.4),
    "tsit5": (1e-4, lambda t, y: -1.1094 * y**2, 1 / 2.1094),
    "dopri5": (1e-5, lambda t, y: y * torch.cos(3.654 * t), np.exp(np.sin(3.654) / 3.654)),
    "dopri8": (1e-7, lambda t, y: 1.667 * y, np.exp(1.667)),
}


@pytest.mark.parametrize("method", ACCIDENTS)
@pytest.mark.parametrize("backend", ["bloodseg", "torchdiffeq"])
def test_no_first_step_passes_whose_estimate_vanishes_by_accident(method, backend):
    tol, func, end = ACCIDENTS[method]
    y0, common = double([[1.0]]), {"rtol": tol, "atol": tol}

    def count_tolerances(method, backend="bloodseg"):
        got = solve(func, y0, **common, method=method, backend=backend).y.item()
        return abs(got - end) / (tol * (1 + max(1, end)))

    unguarded = dataclasses.replace(TABLEAUS[method], guard_weights=None)
    assert count_tolerances(unguarded) > 10
    if method == "tsit5":  # which torchdiffeq has not
        backend = "bloodseg"
    assert count_tolerances(method, backend) < 2


def test_the_adjoint_s_first_step_is_guarded():
    y0, func = double([[1.0]]).requires_grad_(), Function(ACCIDENTS["bosh3"][1])
    settings = {"rtol": 1e-3, "atol": 1e-3, "method": "bosh3", "gradient": "adjoint"}
    solve(func, y0, **settings).y.sum().backward()
    assert y0.grad.item() == pytest.approx(1 / 3.4**2, abs=5e-3)


def test_torchdiffeq_s_guard_costs_nothing_where_the_step_passes():
    settings = {"rtol": 1e-3, "atol": 1e-3, "method": "bosh3", "backend": "torchdiffeq"}
    solution = solve(lambda t, y: 0.3 * y, double([[1.0]]), **settings)
    assert (solution.n_accepted, solution.n_evaluations) == (1, TABLEAUS["bosh3"].n_stages)


def test_torchdiffeq_s_steps_are_those_of_the_solve_that_counts():
    class Counted(nn.Module):
        n_accepted = 0

        def forward(self, t, y):
            return func(t, y)

        def callback_accept_step(self, t, y, dt):
            self.n_accepted += 1

    tol, func, _ = ACCIDENTS["dopri8"]  # the guard refuses its first step
    settings = {"rtol": tol, "atol": tol, "method": "dopri8"}
    counted, ends = Counted(), double([0.0, 1.0])
    odeint(counted, double([[1.0]]), ends, **settings, options={"step_t": ends[1:]})
    solution = solve(func, double([[1.0]]), **settings, backend="torchdiffeq")
    assert solution.n_accepted == counted.n_accepted > 1


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


@pytest.mark.parametrize("first_step", [1e-300, 1e-9, 1e-6])
@pytest.mark.parametrize("length", [1e-3, 1.0, 1e3])
def test_a_first_step_that_is_far_too_short_is_no_failure(first_step, length):
    func = lambda t, y: -y / length  # noqa: E731
    solution = solve(func, torch.ones(1, 1), 0, length, first_step=first_step * length)
    assert solution.status.tolist() == [0]
    assert solution.y.item() == pytest.approx(np.exp(-1), abs=1e-3)


@pytest.mark.parametrize("first_step", [0.0, -0.5, np.inf, np.nan])
def test_first_steps_that_are_refused(first_step):
    text = f"first_step must be None or a positive, finite number; got {first_step!r}."
    with raises(text):
        solve(decay, torch.ones(1, 1), first_step=first_step)
    with raises(text):
        ODEBlock(torch.nn.Identity(), first_step=first_step)
