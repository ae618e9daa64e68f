"""The solver against theory, SciPy and stubs; its gradients three ways; the block's settings."""

import copy
import pickle
import re

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

from bloodseg.ode import METHODS, ODEBlock, SolverError, choose_method, solve
from bloodseg.ode import _solve as solve_module

ORDERS = {
    "euler": 1,
    "midpoint": 2,
    "rk4": 4,
    "adaptive_heun": 2,
    "bosh3": 3,
    "dopri5": 5,
    "dopri8": 8,
}
ADAPTIVE = ["adaptive_heun", "bosh3", "dopri5", "dopri8"]
GRADIENTS = ["direct", "checkpoint", "adjoint"]


def raises(text, error=ValueError):
    return pytest.raises(error, match=re.escape(text))


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def decay(t, y):
    return -y


class Rhs(nn.Module):
    """A smooth right-hand side that depends on time, with weights."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 3, dtype=dtype)

    def forward(self, t, y):
        return torch.tanh(self.linear(y)) * torch.cos(t)


class Decay(nn.Module):
    def __init__(self, rate=1.0):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(float(rate)))

    def forward(self, t, h):
        return -self.rate * h


# ---------------------------------------------------------------- known solutions


@pytest.mark.parametrize(
    ("method", "tol", "slack"),
    [
        ("adaptive_heun", 1e-5, 10),
        ("bosh3", 1e-7, 50),
        ("dopri5", 1e-9, 50),
        ("dopri8", 1e-9, 50),
    ],
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
    ],
    ids=["decay", "backward", "from -2", "2ty", "cos t", "t backward", "oscillator"],
)
def test_known_solutions(method, tol, slack, func, y0, t0, t1, expected):
    solution = solve(func, double(y0), t0, t1, rtol=tol, atol=tol, method=method)
    assert np.allclose(solution.y, expected, rtol=0, atol=slack * tol)
    assert (solution.status == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_order_of_convergence(method):
    # Tolerances this loose accept the first step, which is the whole interval; fixed-step methods
    # cut it in four. The error of a fixed number of steps falls as the interval to order + 1.
    slack = 0.8 if method == "dopri8" else 0.3  # of which smaller intervals drown in rounding
    intervals = [1.0, 0.8, 0.64] if method == "dopri8" else [0.1, 0.05, 0.025]
    errors = []
    for interval in intervals:
        end = solve(
            lambda t, y: -(1 + t) * y * y,
            double([[1.0]]),
            0,
            interval,
            rtol=1e6,
            atol=1e6,
            method=method,
        )
        assert end.n_accepted[0] == (1 if method in ADAPTIVE else 4)
        errors.append(abs(end.y.item() - 1 / (1 + interval + interval**2 / 2)))
    slope = np.polyfit(np.log(intervals), np.log(errors), 1)[0]
    assert slope == pytest.approx(ORDERS[method] + 1, abs=slack + 0.3 * (method == "dopri5"))


@pytest.mark.parametrize("method", ["adaptive_heun", "bosh3", "dopri5", "dopri8"])
def test_error_follows_the_tolerance(method):
    errors, costs = [], []
    for tol in (1e-3, 1e-4, 1e-5):
        end = solve(decay, double([[1.0]]), 0, 2, rtol=tol, atol=tol, method=method)
        errors.append(abs(end.y.item() - np.exp(-2)))
        costs.append(end.n_evaluations[0])
        assert errors[-1] < 30 * tol
    assert errors[0] > errors[1] > errors[2]
    assert costs[0] < costs[2]


def lotka_volterra(t, y):
    a, b = y[..., 0], y[..., 1]
    return (torch if isinstance(y, torch.Tensor) else np).stack(
        [1.5 * a - a * b, a * b - 3 * b], -1
    )


def van_der_pol(t, y):
    a, b = y[..., 0], y[..., 1]
    return (torch if isinstance(y, torch.Tensor) else np).stack([b, 2 * (1 - a * a) * b - a], -1)


@pytest.mark.parametrize("func", [lotka_volterra, van_der_pol])
@pytest.mark.parametrize("method", ["bosh3", "dopri5", "dopri8"])
def test_agrees_with_scipy(func, method):
    reference = solve_ivp(func, (0, 3), [1.0, 2.0], method="DOP853", rtol=1e-12, atol=1e-12)
    tol = 1e-7
    end = solve(func, double([[1.0, 2.0]]), 0, 3, rtol=tol, atol=tol, method=method).y[0]
    assert np.allclose(end, reference.y[:, -1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("t0", "t1"), [(0.0, 1.0), (0.0, 0.37), (2.0, -1.0)])
def test_never_looks_past_the_end(method, t0, t1):
    seen = []

    def watched(t, y):
        seen.extend(t.flatten().tolist())
        return -y

    solve(watched, double([[1.0]]), t0, t1, rtol=1e-5, atol=1e-5, method=method)
    assert min(seen) >= min(t0, t1) - 1e-12
    assert max(seen) <= max(t0, t1) + 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_there_and_back(method):
    y0 = double([[0.3, -0.2, 0.9]])
    func = Rhs()
    settings = {"rtol": 1e-8, "atol": 1e-8, "method": method}
    with torch.no_grad():
        there = solve(func, y0, 0, 0.1, **settings).y
        back = solve(func, there, 0.1, 0, **settings).y
    assert (there - y0).abs().max() > 1e-3
    assert torch.allclose(back, y0, atol=1e-3 if method == "euler" else 1e-5)


# ---------------------------------------------------------------- each sample its own


@pytest.mark.parametrize("method", ["auto", "bosh3", "dopri5", "rk4"])
@pytest.mark.parametrize("tol", [1e-2, 1e-5])
def test_a_sample_does_not_depend_on_the_others(method, tol):
    easy = torch.full((1, 2, 3, 3), 0.5)
    stiff = torch.full((1, 2, 3, 3), 5.0)

    def func(t, y):  # as stiff as the state is large
        return -y * y.abs() * (1 + t)

    def run(y0):
        return solve(func, y0, rtol=tol, atol=tol, method=method)

    alone = run(easy)
    for batch, place in ([easy, stiff], 0), ([stiff, easy], 1), ([stiff, easy, stiff], 1):
        together = run(torch.cat(batch))
        assert torch.equal(together.y[place], alone.y[0])
        for count in ("n_evaluations", "n_accepted", "n_rejected"):
            assert getattr(together, count)[place] == getattr(alone, count)[0]


def test_counts_belong_to_the_sample():
    calls = []

    def func(t, y):
        calls.append(float(y.abs().max()) > 1)
        return -y * y.abs()

    y0 = torch.tensor([[0.5], [30.0], [0.5]])
    solution = solve(func, y0, rtol=1e-4, atol=1e-4, method="bosh3")
    assert solution.n_evaluations.shape == (3,)
    assert solution.n_evaluations.sum() == len(calls)
    assert solution.n_evaluations[0] == solution.n_evaluations[2] < solution.n_evaluations[1]
    # Bogacki-Shampine: the first same as last, so three evaluations a step and one at the start
    # (and one more to guess the first step).
    steps = solution.n_accepted + solution.n_rejected
    assert (solution.n_evaluations - 3 * steps <= 2).all()
    assert solution.n_rejected[1] >= 0
    assert (solution.n_accepted >= 1).all()


@pytest.mark.parametrize(
    ("method", "evaluations"), [("euler", 4), ("midpoint", 8), ("rk4", 16), ("bosh3", 4)]
)
@pytest.mark.parametrize("share_steps", [True, False])
def test_counts_where_they_are_known(method, evaluations, share_steps):
    calls = []

    def func(t, y):
        calls.append(len(y))
        return torch.zeros_like(y)

    solution = solve(func, torch.ones(3, 2), method=method, share_steps=share_steps)
    assert solution.n_evaluations.tolist() == [evaluations] * 3
    assert solution.n_rejected.tolist() == [0] * 3
    assert solution.n_accepted.tolist() == [1 if method == "bosh3" else 4] * 3
    assert calls == ([3] * evaluations if share_steps else [1] * (3 * evaluations))


def test_rejected_steps_are_counted():
    solution = solve(lambda t, y: -50 * y, torch.ones(1, 1), rtol=1e-3, atol=1e-3, method="bosh3")
    assert solution.n_rejected[0] >= 1
    assert solution.n_evaluations[0] == 1 + 3 * (solution.n_accepted[0] + solution.n_rejected[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 3), (3, 4, 5, 6), (2,)])
@pytest.mark.parametrize("share_steps", [True, False])
@pytest.mark.parametrize("method", ["bosh3", "rk4"])
def test_time_comes_in_the_shape_and_dtype_of_the_state(dtype, shape, share_steps, method):
    def func(t, y):
        assert t.shape == (len(y), *[1] * (y.ndim - 1))
        assert t.dtype == y.dtype == dtype
        return -y * t

    y0 = torch.ones(shape, dtype=dtype)
    solution = solve(func, y0, method=method, share_steps=share_steps)
    assert solution.y.dtype == dtype
    assert solution.y.shape == shape
    assert torch.equal(y0, torch.ones(shape, dtype=dtype))


def test_steps_are_shared_only_on_request():
    y0 = torch.tensor([[0.5], [30.0]])
    settings = {"rtol": 1e-4, "atol": 1e-4, "share_steps": True}
    together = solve(lambda t, y: -y * y.abs(), y0, **settings)
    alone = solve(lambda t, y: -y * y.abs(), y0[:1], **settings)
    assert together.n_evaluations[0] == together.n_evaluations[1] > alone.n_evaluations[0]


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
@pytest.mark.parametrize("method", ["rk4", "bosh3", "dopri5"])
@pytest.mark.parametrize("share_steps", [True, False])
def test_gradcheck(gradient, method, share_steps):
    func = Rhs()
    weight, bias = (p.detach().clone().requires_grad_() for p in func.parameters())

    def end(y0, weight, bias):
        def rhs(t, y):
            return torch.func.functional_call(
                func, {"linear.weight": weight, "linear.bias": bias}, (t, y)
            )

        # One step (adaptive) or four: steps that depend on the state are no part of the gradient.
        return solve(
            rhs,
            y0,
            rtol=10,
            atol=10,
            method=method,
            gradient=gradient,
            share_steps=share_steps,
        ).y

    y0 = double([[0.3, -0.2, 0.9], [1.0, 0.5, -0.7]]).requires_grad_()
    assert torch.autograd.gradcheck(end, (y0, weight, bias))


def gradients(gradient, tol, **settings):
    func = Rhs()
    y0 = double([[0.3, -0.2, 0.9], [1.0, 0.5, -0.7]]).requires_grad_()
    solution = solve(func, y0, rtol=tol, atol=tol, gradient=gradient, **settings)
    (solution.y**2).sum().backward()
    return [y0.grad, *(parameter.grad for parameter in func.parameters())]


@pytest.mark.parametrize("method", ["bosh3", "dopri5", "rk4"])
@pytest.mark.parametrize("share_steps", [True, False])
def test_checkpoint_gradient_is_the_direct_one(method, share_steps):
    settings = {"method": method, "share_steps": share_steps}
    direct = gradients("direct", 1e-4, **settings)
    for expected, got in zip(direct, gradients("checkpoint", 1e-4, **settings), strict=True):
        assert expected.abs().max() > 1e-2
        assert torch.equal(expected, got)


@pytest.mark.parametrize("share_steps", [True, False])
def test_adjoint_gradient_comes_close_to_the_direct_one(share_steps):
    direct = gradients("direct", 1e-9, share_steps=share_steps)
    for expected, got in zip(
        direct, gradients("adjoint", 1e-7, share_steps=share_steps), strict=True
    ):
        assert torch.allclose(expected, got, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradient_against_finite_differences(gradient):
    def loss(func, y0):
        end = solve(func, y0, rtol=1e-9, atol=1e-9, method="dopri5", gradient=gradient).y
        return (end**3).sum()

    func, y0 = Rhs(), double([[0.3, -0.2, 0.9]])
    loss(func, y0).backward()
    step = 1e-5
    for index in (0, 0), (1, 2):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                func.linear.weight[index] += sign * step
                values.append(loss(func, y0).item())
                func.linear.weight[index] -= sign * step
        numeric = (values[0] - values[1]) / (2 * step)
        assert func.linear.weight.grad[index].item() == pytest.approx(numeric, rel=1e-4)


def test_checkpoint_keeps_less_than_direct():
    kept = {}
    for gradient in ("direct", "checkpoint"):
        total = []

        def pack(tensor, total=total):
            total.append(tensor.numel())
            return tensor

        block = ODEBlock(Deep(), tol=1e-4, method="bosh3", gradient=gradient)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            block(torch.ones(1, 64))
        kept[gradient] = sum(total)
    assert kept["checkpoint"] < kept["direct"] / 2


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(8))
        )

    def forward(self, t, y):
        return self.layers(y)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_no_grad_and_inference_mode(gradient):
    func = Rhs()
    y0 = double([[0.3, -0.2, 0.9]])
    expected = solve(func, y0, gradient=gradient).y.detach()
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            end = solve(func, y0, gradient=gradient).y
        assert not end.requires_grad
        assert torch.allclose(end, expected)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("argument", ["rtol", "atol"])
@pytest.mark.parametrize("value", [0, -1e-3, float("nan"), float("inf")])
def test_tolerances_must_be_positive(argument, value):
    with raises(f"{argument} must be a positive, finite number; got {value!r}."):
        solve(decay, torch.ones(1, 1), **{argument: value})


@pytest.mark.parametrize(
    ("y0", "text"),
    [
        (torch.ones(1, 1, dtype=torch.bfloat16), "y0 must be float32 or float64; got torch.bfl"),
        (torch.ones(1, 1, dtype=torch.float16), "y0 must be float32 or float64; got torch.float16"),
        (torch.ones(1, 1, dtype=torch.int64), "y0 must be float32 or float64; got torch.int64."),
        (torch.tensor(1.0), "y0 must have shape (n, ...) with n >= 1; got ()."),
        (torch.ones(0, 3), "y0 must have shape (n, ...) with n >= 1; got (0, 3)."),
    ],
)
def test_states_that_are_refused(y0, text):
    with raises(text):
        solve(decay, y0)


@pytest.mark.parametrize(
    ("t0", "t1"), [(0.0, 0.0), (0.0, float("nan")), (float("inf"), 1.0), (0.0, -float("inf"))]
)
def test_intervals_that_are_refused(t0, t1):
    with raises(f"t0 and t1 must be finite and differ; got t0={t0!r}, t1={t1!r}."):
        solve(decay, torch.ones(1, 1), t0, t1)


def test_unknown_names_are_refused():
    methods = "method must be 'auto' or one of bosh3, dopri5, dopri8, adaptive_heun, "
    methods += "euler, midpoint, rk4; got 'dopri6'."
    gradient = "gradient must be one of checkpoint, direct, adjoint; got 'magic'."
    with raises(methods):
        solve(decay, torch.ones(1, 1), method="dopri6")
    with raises(methods):
        choose_method(1e-3, "dopri6")
    with raises(methods):
        ODEBlock(Decay(), method="dopri6")
    with raises(gradient):
        solve(decay, torch.ones(1, 1), gradient="magic")
    with raises(gradient):
        ODEBlock(Decay(), gradient="magic")


@pytest.mark.parametrize("name", ["tol", "predict_tol"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_block_tolerances_must_be_positive(name, value):
    text = f"{name} must be a positive, finite number; got {float(value)!r}."
    with raises(text):
        ODEBlock(Decay(), **{name: value})
    block = ODEBlock(Decay(), tol=1e-2, predict_tol=1e-1)
    with raises(text):
        setattr(block, name, value)
    assert (block.tol, block.predict_tol) == (1e-2, 1e-1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite_names_the_block(value):
    block = ODEBlock(Decay(), name="ODE-block at position 7")
    with raises(
        "ODE-block at position 7: the state that enters the solver is not finite. Lower the "
        "learning rate",
        FloatingPointError,
    ):
        block(torch.tensor([[1.0], [value]]))


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_a_solution_that_is_not_finite_names_the_block(method):
    with raises(
        "block 5: the solution is not finite after",
        FloatingPointError,
    ):
        solve(lambda t, y: y * y * 1e30, torch.full((1, 1), 1e8), method=method, name="block 5")


@pytest.mark.parametrize("method", ["bosh3", "dopri5"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_right_hand_side_that_is_not_finite_is_called_that(method, value):
    with raises("block 5: ", FloatingPointError):
        solve(lambda t, y: y * value, torch.ones(1, 1), method=method, name="block 5")


def test_a_first_step_that_overflows_is_tried_again():
    def func(t, y):
        return -y * y.abs()

    end = solve(func, torch.full((1, 1), 100.0), rtol=1e-2, atol=1e-2, method="dopri5").y
    assert end.item() == pytest.approx(1 / (1 + 1 / 100), abs=0.1)


@pytest.mark.parametrize("share_steps", [True, False])
def test_too_many_steps_say_where_why_and_what_to_do(share_steps, monkeypatch):
    monkeypatch.setattr(solve_module, "MAX_STEPS", 20)
    with raises("block 5: the solver gave up after ", SolverError) as info:
        solve(
            lambda t, y: -1e5 * (y - torch.cos(t)),
            torch.ones(2, 1),
            rtol=1e-5,
            atol=2e-5,
            method="dopri5",
            share_steps=share_steps,
            name="block 5",
        )
    assert re.search(
        r"after \d\d+ evaluations at tolerance 2e-05 with dopri5 \(max_num_steps exceeded "
        r"\(20>=20\)\)\. The right-hand side has grown stiff: train with a lower learning rate, or "
        r"use a looser tolerance\.$",
        str(info.value),
    )
    assert isinstance(info.value, RuntimeError)


def test_a_blow_up_is_an_error():
    with raises("at tolerance 0.0001 with bosh3 (underflow in dt", SolverError):
        solve(lambda t, y: y * y, torch.full((1, 1), 5.0), rtol=1e-4, atol=1e-4)  # at t = 0.2


@pytest.mark.parametrize(
    ("tol", "method"),
    [
        (1, "bosh3"),
        (1e-3, "bosh3"),
        (1e-4, "bosh3"),
        (0.99e-4, "dopri5"),
        (1e-6, "dopri5"),
        (1e-9, "dopri5"),
        (1e-10, "dopri8"),
    ],
)
def test_auto_goes_by_tolerance(tol, method):
    assert choose_method(tol) == method
    assert choose_method(tol, "euler") == "euler"


# ---------------------------------------------------------------- the block


def test_block_solves_its_equation():
    block = ODEBlock(Decay(2.0), tol=1e-6).eval()
    assert block(torch.ones(2, 3)).detach().numpy() == pytest.approx(np.exp(-2), abs=1e-5)
    assert block.n_evaluations.shape == (2,)


def test_block_tolerances_are_no_weights():
    block = ODEBlock(Decay(), tol=1e-2, predict_tol=1e-1)
    assert list(block.state_dict()) == ["func.rate"]
    other = ODEBlock(Decay(7.0), tol=1e-5, predict_tol=1e-6)
    block.load_state_dict(other.state_dict())
    assert (block.tol, block.predict_tol) == (1e-2, 1e-1)
    assert block.func.rate.item() == 7


def test_block_tolerance_follows_the_mode_and_can_be_set_at_any_time():
    block = ODEBlock(Decay(4.0), tol=1e-2, method="bosh3")
    h = torch.ones(1, 1)

    def cost():
        block(h)
        return int(block.n_evaluations[0])

    assert block.predict_tol == 1e-2
    loose = cost()
    assert block.eval() is block
    assert cost() == loose
    block.predict_tol = 1e-6
    tight = cost()
    assert tight > loose
    assert block.train() is block
    assert cost() == loose
    block.tol = 1e-6
    assert cost() == tight
    block.eval().predict_tol = None
    assert block.predict_tol == 1e-6


def test_block_shares_steps_in_training_only():
    def func(t, y):
        return -y * y.abs()

    block = ODEBlock(Function(func), tol=1e-4)
    h = torch.tensor([[0.5], [30.0]])
    assert len(set(block(h) is not None and block.n_evaluations.tolist())) == 1
    block.eval()(h)
    assert len(set(block.n_evaluations.tolist())) == 2


class Function(nn.Module):
    def __init__(self, func):
        super().__init__()
        self.func = func

    def forward(self, t, y):
        return self.func(t, y)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda block: pickle.loads(pickle.dumps(block))],
    ids=["copy", "pickle"],
)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_block_can_be_copied(copied, gradient):
    block = ODEBlock(
        Rhs(torch.float32), tol=1e-2, predict_tol=1e-5, method="dopri5", gradient=gradient, name="b"
    )
    h = torch.ones(2, 3)
    block(h).sum().backward()
    twin = copied(block)
    assert torch.equal(twin.eval()(h), block.eval()(h))
    settings = ("tol", "predict_tol", "method", "gradient", "name")
    for name in settings:
        assert getattr(twin, name) == getattr(block, name)
    with torch.no_grad():
        twin.func.linear.weight += 1
    assert not torch.equal(twin(h), block(h))


def test_block_prints_its_settings():
    text = "tol=0.001, predict_tol=0.1, method='auto'"
    assert text in repr(ODEBlock(Decay(), tol=1e-3, predict_tol=0.1))


class Watched(Rhs):
    """Notes the dtypes that it is evaluated in."""

    def __init__(self):
        super().__init__(torch.float32)
        self.seen = []

    def forward(self, t, y):
        self.seen.append((t.dtype, y.dtype, self.linear(y).dtype))
        return super().forward(t, y)


@pytest.mark.parametrize(
    ("tol", "lowered"), [(1e-1, True), (1e-3, True), (0.99e-3, False), (1e-6, False)]
)
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("training", [True, False])
def test_autocast_reaches_the_right_hand_side_at_loose_tolerances(tol, lowered, gradient, training):
    block = ODEBlock(Watched(), tol=tol, gradient=gradient).train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        end = block(torch.ones(2, 3, dtype=torch.bfloat16))
    n_forward = len(block.func.seen)
    end.sum().backward()  # outside of autocast, and in the same precision all the same
    assert len(block.func.seen) > n_forward or gradient == "direct"
    computed = torch.bfloat16 if lowered else torch.float32
    assert set(block.func.seen) == {(torch.float32, torch.float32, computed)}
    assert end.dtype == torch.float32
    assert block.func.linear.weight.grad.dtype == torch.float32


def test_without_autocast_nothing_is_lowered():
    block = ODEBlock(Watched(), tol=1e-1)
    block(torch.ones(2, 3))
    assert set(block.func.seen) == {(torch.float32,) * 3}


def test_block_keeps_float64():
    assert ODEBlock(Rhs(), tol=1e-6)(double([[1.0, 2.0, 3.0]])).dtype == torch.float64
    assert ODEBlock(Rhs(torch.float32))(torch.ones(1, 3).half()).dtype == torch.float32


def test_low_precision_costs_little_accuracy():
    h = torch.linspace(-1, 1, 12).reshape(4, 3)
    block = ODEBlock(Rhs(torch.float32), tol=1e-3).eval()
    exact = block(h)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = block(h)
    assert not torch.equal(lowered, exact)
    assert torch.allclose(lowered, exact, atol=2e-2)


def test_the_adjoint_refuses_what_is_no_module():
    rate = torch.tensor(2.0, requires_grad=True)
    with raises("gradient='adjoint' needs func to be a torch.nn.Module"):
        solve(lambda t, y: -rate * y, torch.ones(1, 1), gradient="adjoint")
