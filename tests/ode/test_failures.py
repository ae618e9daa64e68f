"""Solves that stop early, and what is not finite."""

import numpy as np
import pytest
import torch
from messages import raises
from ode_problems import (
    ADAPTIVE,
    COUNTS,
    FIXED,
    braked,
    decay,
    double,
    known_cost,
    scipy_end,
    silent,
    warns,
)

from bloodseg.ode import (
    BACKENDS,
    METHODS,
    SolverError,
    SolverWarning,
    Status,
    one_warning_each,
    solve,
)


def test_a_single_warning_is_not_counted():
    with pytest.warns(SolverWarning) as record, one_warning_each():
        solve(lambda t, y: -1e3 * y, torch.ones(1, 1), max_steps=1)
    assert len(record) == 1


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
    assert str(info.value).endswith(
        "The right-hand side has grown stiff: loosen the tolerance, raise max_steps, or train with "
        "a lower learning rate."
    )
    assert isinstance(info.value, RuntimeError)


class Power(torch.nn.Module):
    """dy/dt = -rate * y ** power: calm forward, a blow-up backward."""

    def __init__(self, rate, power=3):
        super().__init__()
        self.rate, self.power = torch.nn.Parameter(torch.tensor(rate)), power

    def forward(self, t, y):
        return -self.rate * y**self.power


def solve_with_adjoint(func, y0=2.0, **settings):
    y0 = torch.full((1, 3), y0, requires_grad=True)
    return solve(func, y0, gradient="adjoint", name="block 5", **settings).y


BACKWARD_REMEDY = (
    "What is calm forward may grow without bound backward: take gradient='checkpoint', which "
    "solves nothing backward; or loosen the tolerance, raise max_steps, or train with a lower "
    "learning rate."
)


@pytest.mark.parametrize(
    ("rate", "max_steps", "reason"),
    [(100.0, 1000, "underflow in dt"), (50.0, 20, "max_num_steps exceeded (20>=20)")],
)
def test_an_adjoint_that_gives_up_in_backward_says_so(rate, max_steps, reason):
    settings = {"rtol": 1e-4, "atol": 1e-4, "method": "dopri5"}
    y1 = solve_with_adjoint(Power(rate), max_steps=max_steps, **settings)
    text = "block 5: torchdiffeq gave up in the backward solve of gradient='adjoint' after "
    with raises(text, SolverError) as info:
        y1.sum().backward()
    assert f" evaluations at tolerance 0.0001 with dopri5 ({reason}" in str(info.value)
    assert str(info.value).endswith(BACKWARD_REMEDY)


@pytest.mark.parametrize("method", ["bosh3", "rk4"])
def test_a_state_that_blows_up_in_the_adjoint_s_backward_is_an_error(method):
    y1 = solve_with_adjoint(Power(100.0, power=1), method=method)
    what = "a gradient" if method == "rk4" else "the state or its gradient"
    text = f"block 5: {what} in the backward solve of gradient='adjoint' is not finite after "
    with raises(text, FloatingPointError) as info:
        y1.sum().backward()
    assert str(info.value).endswith(f" evaluations. {BACKWARD_REMEDY}")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("method", ["bosh3", "rk4"])
def test_a_gradient_that_is_not_finite_never_enters_the_adjoint(method, value):
    y1 = solve_with_adjoint(Power(1.0), method=method)
    text = (
        "block 5: the gradient that enters the backward solve of gradient='adjoint' is not finite. "
        "Lower the learning rate; look for NaN in the loss and in the layers after."
    )
    with raises(text, FloatingPointError):
        y1.backward(torch.full_like(y1, value))


def test_an_infinite_derivative_is_an_error_of_the_adjoint():
    class Root(torch.nn.Module):
        def forward(self, t, y):
            return -torch.sqrt(y)

    text = "block 5: a gradient in the backward solve of gradient='adjoint' is not finite after "
    with raises(text, FloatingPointError):
        solve_with_adjoint(Root(), 0.0, method="rk4").sum().backward()


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
