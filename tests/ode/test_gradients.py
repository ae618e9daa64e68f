"""Gradients: by finite differences, each way against the others, in every precision."""

import gc
import weakref

import numpy as np
import pytest
import torch
from messages import raises
from ode_problems import (
    ADAPTIVE,
    FIXED,
    GRADIENTS,
    Convolutional,
    Decay,
    Dense,
    Function,
    Given,
    Recorder,
    double,
    gradients,
    silent,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bloodseg.ode import METHODS, ODEBlock, solve
from bloodseg.ode import _solve as solve_module

OURS = ["direct", "checkpoint"]
MIXED = [[0.3, -0.2], [4.0, 2.0], [-1.5, 0.1]]  # easy, stiff, between
HARD_AND_EASY = torch.tensor([0.1, 4.0, 1.0, 2.5]).reshape(-1, 1, 1, 1)


@pytest.fixture(params=["in one chunk", "one by one", "two by two"])
def chunks(request, monkeypatch):
    if request.param != "in one chunk":
        # What a state takes: 2 or 3 float64 below, so that this is two of them or less than one.
        monkeypatch.setattr(solve_module, "_CHUNK_BYTES", 48 if "two" in request.param else 1)
    return request.param


def cosine(first, second):
    flat = [torch.cat([part.flatten() for part in parts]).double() for parts in (first, second)]
    return torch.cosine_similarity(*flat, dim=0).item()


def relative_error(got, expected):
    return ((got - expected).norm() / expected.norm()).item()


# ---------------------------------------------------------------- against finite differences


@pytest.mark.parametrize("gradient", OURS)
@pytest.mark.parametrize("method", METHODS)
def test_gradcheck(method, gradient):
    def end(y0, rate, bias):
        with silent():
            return solve(
                Given(rate, bias), y0, rtol=1e-2, atol=1e-2, method=method, gradient=gradient
            )

    values = MIXED if method in ADAPTIVE else [[0.3, -0.2], [1.5, 1.0], [-1.0, 0.1]]
    inputs = double(values), double(0.9), double([0.4, -0.6])
    if method in ADAPTIVE:
        assert len(set(end(*inputs).n_accepted)) > 1
    inputs = [each.requires_grad_() for each in inputs]
    # Steps are what is left in equal parts: a small change of the state does not change them.
    assert torch.autograd.gradcheck(lambda *inputs: end(*inputs).y, inputs)


@pytest.mark.parametrize("gradient", OURS)
def test_gradcheck_in_chunks_and_back_in_time(gradient, chunks):
    def end(y0, rate, bias):
        func = Given(rate, bias)
        return solve(func, y0, 1, -0.5, rtol=1e-2, atol=1e-2, gradient=gradient).y

    inputs = double([[0.1, -0.2], [0.9, 0.3], [0.4, 0.4]]), double(0.4), double([0.4, -0.6])
    assert torch.autograd.gradcheck(end, [each.requires_grad_() for each in inputs])


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_gradient_against_finite_differences(gradient):
    def loss(func, y0):
        end = solve(func, y0, rtol=1e-9, atol=1e-9, method="dopri5", gradient=gradient).y
        return (end**3).sum()

    func, y0 = Dense(), double([[0.3, -0.2, 0.9]])
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


# ---------------------------------------------------------------- one way against another


@pytest.mark.parametrize("method", METHODS)
def test_checkpoint_is_direct(method, chunks):
    y0 = double([[0.3, -0.2, 0.9], [9.0, 0.5, -7.0], [0.0, 0.1, 30.0], [1.0, 1.0, 1.0]])
    common = {"rtol": 1e-3, "atol": 1e-3, "method": method}
    direct = gradients(Dense(), y0, **common, gradient="direct")
    checkpoint = gradients(Dense(), y0, **common, gradient="checkpoint")
    for expected, got in zip(direct, checkpoint, strict=True):
        assert expected.abs().max() > 1e-2
        assert torch.allclose(expected, got, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_checkpoint_is_direct_for_convolutions(tol):
    y0 = torch.randn(4, 3, 6, 6, generator=torch.manual_seed(1)) * HARD_AND_EASY
    y0 = y0.to(memory_format=torch.channels_last)
    func = Convolutional()
    assert len(set(solve(func, y0, rtol=tol, atol=tol).n_accepted)) > 1
    direct = gradients(func, y0, rtol=tol, atol=tol, gradient="direct")
    checkpoint = gradients(func, y0, rtol=tol, atol=tol, gradient="checkpoint")
    for expected, got in zip(direct, checkpoint, strict=True):
        assert relative_error(got, expected) < 1e-5


def test_the_solution_is_the_same_with_and_without_a_gradient():
    func, y0 = Dense(), double([[0.3, -0.2, 0.9], [9.0, 0.5, -7.0]])
    with torch.no_grad():
        expected = solve(func, y0)
    for gradient in OURS:
        solution = solve(func, y0, gradient=gradient)
        assert torch.allclose(solution.y, expected.y, rtol=1e-12)
        assert solution.n_evaluations.tolist() == expected.n_evaluations.tolist()


def test_adjoint_comes_close_to_direct():
    y0 = double([[0.3, -0.2, 0.9], [1.0, 0.5, -0.7]])
    direct = gradients(Dense(), y0, rtol=1e-9, atol=1e-9, gradient="direct")
    adjoint = gradients(Dense(), y0, rtol=1e-7, atol=1e-7, gradient="adjoint", method="dopri5")
    for expected, got in zip(direct, adjoint, strict=True):
        assert torch.allclose(expected, got, rtol=1e-4, atol=1e-5)


def test_the_adjoint_s_backward_can_be_asked_twice():
    func, y0 = Dense(), double([[0.3, -0.2, 0.9]])
    y1 = solve(func, y0, gradient="adjoint").y.sum()
    weights = list(func.parameters())
    first = torch.autograd.grad(y1, weights, retain_graph=True)
    again = torch.autograd.grad(y1, weights)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("gradient", OURS)
def test_hooks_see_each_call_of_a_function_that_prepares_its_weights(gradient):
    y0 = double([[0.3, -0.2, 0.9]])
    plain, func, seen = Prepared(), Prepared(), []
    expected = solve(plain, y0, gradient=gradient).y
    handle = func.register_forward_hook(lambda *given: seen.append(given))
    with torch.no_grad():
        solution = solve(func, y0, gradient=gradient)
    assert len(seen) == solution.n_evaluations[0]
    got = solve(func, y0, gradient=gradient).y
    assert torch.allclose(got, expected, rtol=1e-12)
    for end in expected, got:
        end.sum().backward()
    assert torch.allclose(func.weight.grad, plain.weight.grad, rtol=1e-10)
    handle.remove()
    seen.clear()
    solve(func, y0, gradient=gradient)
    assert not seen


@pytest.mark.parametrize("gradient", ["adjoint", "direct"])
@pytest.mark.parametrize("method", ["bosh3", "rk4"])
def test_torchdiffeq_keeps_nothing_alive(gradient, method):
    def lose():
        func = Dense()
        y1 = solve(func, double([[0.3, 0.1, 0.2]]), gradient=gradient, method=method, **theirs).y
        y1.sum().backward()
        return weakref.ref(func)

    theirs = {"backend": "torchdiffeq"}
    lose()
    gc.disable()  # what hangs in a circle would hold its memory until the collector comes by
    try:
        assert lose()() is None
    finally:
        gc.enable()


def test_torchdiffeq_s_gradient_comes_close():
    y0 = double([[0.3, -0.2, 0.9], [1.0, 0.5, -0.7]])
    common = {"rtol": 1e-8, "atol": 1e-8, "method": "dopri5"}
    ours = gradients(Dense(), y0, **common, gradient="checkpoint")
    theirs = gradients(Dense(), y0, **common, backend="torchdiffeq")
    for expected, got in zip(ours, theirs, strict=True):
        assert torch.allclose(expected, got, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("gradient", OURS)
def test_the_gradient_of_a_sample_does_not_depend_on_the_others(gradient, chunks):
    y0 = double([[0.3, -0.2, 0.9], [30.0, 0.5, -7.0], [0.1, 0.1, 0.1]])
    together = gradients(Dense(), y0, gradient=gradient)
    alone = [gradients(Dense(), sample, gradient=gradient) for sample in y0.split(1)]
    assert torch.allclose(together[0], torch.cat([each[0] for each in alone]), rtol=1e-10)
    for i, total in enumerate(together[1:], 1):
        assert torch.allclose(total, sum(each[i] for each in alone), rtol=1e-10)


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize("gradient", OURS)
@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_float32_gradients_are_those_of_float64_through_the_same_steps(gradient, tol):
    # Not so hard that rounding decides on a step.
    y0 = torch.randn(4, 3, 6, 6, generator=torch.manual_seed(1))
    y0 *= torch.tensor([0.1, 1.5, 1.0, 0.5]).reshape(-1, 1, 1, 1)
    single, exact = Convolutional(), Convolutional().double()
    times = []
    for func, start in (single, y0), (exact, y0.double()):
        recorder = Recorder(func)
        with torch.no_grad():
            solve(recorder, start, rtol=tol, atol=tol, method="bosh3")
        times.append(recorder.times)
    assert np.allclose(*times, rtol=0, atol=1e-5)
    common = {"rtol": tol, "atol": tol, "method": "bosh3"}
    expected = gradients(exact, y0.double(), **common, gradient="direct")
    for got, truth in zip(
        gradients(single, y0, **common, gradient=gradient), expected, strict=True
    ):
        assert got.dtype == torch.float32
        assert relative_error(got.double(), truth) < 1e-4


@pytest.mark.parametrize("gradient", OURS)
@pytest.mark.parametrize("make", [Convolutional, lambda: Prepared(torch.float32)])
def test_bfloat16_gradients_point_the_same_way(gradient, make):
    func = make()
    shape = (4, 3, 6, 6) if isinstance(func, Convolutional) else (4, 3)
    y0 = torch.randn(shape, generator=torch.manual_seed(1))
    common = {"rtol": 1e-2, "atol": 1e-2, "gradient": gradient}
    expected = gradients(func, y0, **common)
    got = gradients(func, y0, **common, precision="bfloat16")
    assert not torch.equal(got[0], expected[0])
    for lowered, full in zip(got, expected, strict=True):
        assert lowered.dtype == torch.float32
        assert cosine([lowered], [full]) > 0.99
    assert cosine(got, expected) > 0.99


# ---------------------------------------------------------------- weights prepared once


class Prepared(nn.Module):
    """Standardises its weights: in `forward` each time, or once in `prepare`."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 3, dtype=dtype))
        self.bias = nn.Parameter(torch.randn(3, dtype=dtype))
        self.frozen = nn.Parameter(torch.full((3,), 0.5, dtype=dtype), requires_grad=False)
        self.n_prepared, self.computed = 0, set()

    def standardised(self):
        return self.weight / self.weight.norm(dim=1, keepdim=True)

    def evaluate(self, t, y, weight, bias, frozen):
        self.computed.add(weight.dtype)
        y = y.to(weight.dtype)
        return torch.tanh(y @ weight.T + bias) - frozen * y * t.to(weight.dtype)

    def forward(self, t, y):
        return self.evaluate(t, y, self.standardised(), self.bias, self.frozen)

    def prepare(self, dtype, tol):
        self.n_prepared += 1
        weights = self.standardised(), self.bias, self.frozen
        return tuple(w if dtype is None else w.to(dtype) for w in weights), self.evaluate


@pytest.mark.parametrize("gradient", OURS)
@pytest.mark.parametrize("method", ["bosh3", "dopri8", "euler"])
def test_prepared_weights_give_the_same_solution_and_gradient(gradient, method):
    class Plain(Prepared):
        prepare = property()  # raises AttributeError: as if there were none

    y0 = double([[0.3, -0.2, 0.9], [9.0, 0.5, -7.0], [0.0, 0.1, 2.0]])
    common = {"method": method, "gradient": gradient}
    func, plain = Prepared(), Plain()
    expected, solution = solve(plain, y0, **common), solve(func, y0, **common)
    assert (plain.n_prepared, func.n_prepared) == (0, 1)
    assert torch.allclose(solution.y, expected.y, rtol=1e-12)
    assert solution.n_evaluations.tolist() == expected.n_evaluations.tolist()
    assert solution.y.requires_grad
    for got in solution.y, expected.y:
        (got**2).sum().backward()
    for name in ("weight", "bias"):
        got, truth = getattr(func, name).grad, getattr(plain, name).grad
        assert got is not None
        assert torch.allclose(got, truth, rtol=1e-10)
    assert func.frozen.grad is None


@pytest.mark.parametrize("precision", [None, "float32", "bfloat16"])
@pytest.mark.parametrize("gradient", OURS)
def test_prepared_weights_have_the_precision(precision, gradient):
    func = Prepared(torch.float32)
    y0 = torch.ones(2, 3, requires_grad=True)
    end = solve(func, y0, gradient=gradient, precision=precision).y
    end.sum().backward()
    assert func.computed == {torch.bfloat16 if precision == "bfloat16" else torch.float32}
    assert end.dtype == y0.grad.dtype == func.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_prepared_weights_serve_prediction(context):
    func, y0 = Prepared(), double([[0.3, -0.2, 0.9]])
    expected = solve(func, y0, gradient="checkpoint").y.detach()
    with context():
        assert torch.allclose(solve(func, y0, gradient="checkpoint").y, expected)


# ---------------------------------------------------------------- which weights


@pytest.mark.parametrize("batch", [1, 3])
def test_weights_in_a_closure_get_gradients_with_direct(batch):
    rate = double(0.5).requires_grad_()
    solution = solve(lambda t, y: -rate * y, torch.ones(batch, 1).double(), rtol=1e-9, atol=1e-9)
    solution.y.sum().backward()
    assert rate.grad.item() == pytest.approx(-batch * np.exp(-0.5), rel=1e-6)


def test_a_tensor_that_a_module_holds_gets_its_gradient_with_direct():
    # A condition, say, that another network computed: no parameter, yet part of the graph.
    rate = double(0.5).requires_grad_()
    end = solve(Function(lambda t, y: -rate * y), torch.ones(1, 1).double(), rtol=1e-9, atol=1e-9).y
    assert end.requires_grad
    end.sum().backward()
    assert rate.grad.item() == pytest.approx(-np.exp(-0.5), rel=1e-6)


@pytest.mark.parametrize("gradient", OURS)
def test_frozen_and_idle_weights_get_none(gradient):
    func = Dense()
    func.linear.bias.requires_grad_(False)
    func.idle = nn.Parameter(torch.ones(2))
    solve(func, double([[0.3, -0.2, 0.9]]), gradient=gradient).y.sum().backward()
    assert func.linear.weight.grad.abs().max() > 0
    assert func.linear.bias.grad is None
    assert func.idle.grad is None


@pytest.mark.parametrize("gradient", OURS)
def test_all_weights_frozen_leaves_the_state_s_gradient(gradient):
    func = Dense().requires_grad_(False)
    y0 = double([[0.3, -0.2, 0.9]]).requires_grad_()
    assert not solve(func, y0.detach(), gradient=gradient).y.requires_grad
    solve(func, y0, gradient=gradient).y.sum().backward()
    assert y0.grad.abs().max() > 0


class Sum(nn.Module):
    """Two weights that autograd hands one and the same gradient tensor."""

    def __init__(self, shape):
        super().__init__()
        self.a = nn.Parameter(torch.full(shape, 0.3, dtype=torch.float64))
        self.b = nn.Parameter(torch.full(shape, 0.5, dtype=torch.float64))

    def forward(self, t, y):
        return (self.a + self.b) * y


class Drift(Sum):
    """A slope that is its weights."""

    def forward(self, t, y):
        return self.a + self.b


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [lambda: Sum(()), lambda: Sum((1, 2)), lambda: Drift((1, 2))])
def test_weights_that_share_a_gradient_each_get_their_own(method, make):
    y0 = double([[1.0, 2.0]])
    direct = gradients(make(), y0, 0, 4, method=method, gradient="direct")
    checkpoint = gradients(make(), y0, 0, 4, method=method, gradient="checkpoint")
    for expected, got in zip(direct, checkpoint, strict=True):
        assert torch.allclose(got, expected, rtol=1e-10)


@pytest.mark.parametrize("gradient", OURS)
def test_weights_that_are_swapped_in_get_the_gradient(gradient):
    func, y0 = Dense(), double([[0.3, -0.2, 0.9], [9.0, 0.5, -7.0]])
    weight = (2 * func.linear.weight.detach()).requires_grad_()

    class Solve(nn.Module):
        def __init__(self):
            super().__init__()
            self.func = func

        def forward(self):
            return solve(self.func, y0, gradient=gradient).y

    end = torch.func.functional_call(Solve(), {"func.linear.weight": weight}, ())
    end.sum().backward()
    with torch.no_grad():
        func.linear.weight.mul_(2)
    solve(func, y0, gradient="direct").y.sum().backward()
    assert torch.allclose(weight.grad, func.linear.weight.grad, rtol=1e-10)


@pytest.mark.parametrize("gradient", OURS)
def test_hooks_see_the_whole_gradient_once(gradient):
    func, seen = Dense(), []
    func.linear.weight.register_hook(lambda gradient: seen.append(gradient.clone()))
    y0 = double([[0.3, -0.2, 0.9], [9.0, 0.5, -7.0]])
    solve(func, y0, gradient=gradient).y.sum().backward()
    (whole,) = seen
    assert torch.equal(whole, func.linear.weight.grad)


@pytest.mark.parametrize("gradient", OURS)
def test_one_module_in_two_solves(gradient):
    func, y0 = Dense(), double([[0.3, -0.2, 0.9]])
    twice = solve(func, solve(func, y0, gradient=gradient).y, gradient=gradient).y
    twice.sum().backward()
    expected = Dense()
    y1 = solve(expected, y0, gradient="direct").y
    solve(expected, y1, gradient="direct").y.sum().backward()
    assert torch.allclose(func.linear.weight.grad, expected.linear.weight.grad, rtol=1e-10)


# ---------------------------------------------------------------- memory


class Alive(TorchDispatchMode):
    """Knows which of the tensors that were made under it still live."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.made.append(weakref.ref(tensor))
        return out

    def elements(self, given):
        """Return the numbers in their memory, without that of the given tensors."""
        storages = {}
        for reference in self.made:
            if (tensor := reference()) is not None:
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        for tensor in given:
            storages.pop(tensor.untyped_storage().data_ptr(), None)
        return sum(storages.values()) // 8


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        layers = (nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(8))
        self.layers = nn.Sequential(*layers).double()

    def forward(self, t, y):
        return self.layers(y)


def kept(gradient, tol, method="bosh3"):
    """Return how many numbers live on for backward, in states of 32 x 8 numbers."""
    func, y0 = Deep(), torch.linspace(-1, 1, 32 * 8).double().reshape(32, 8)
    with Alive() as alive:
        solution = solve(func, y0, 0, 20, rtol=tol, atol=tol, method=method, gradient=gradient)
    return alive.elements([y0, *func.parameters()]) / y0.numel(), solution.n_accepted.max()


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_checkpoint_keeps_the_states_between_the_steps(tol):
    numbers, n_steps = kept("checkpoint", tol)
    assert n_steps >= 2
    assert numbers < n_steps + 3


def test_checkpoint_keeps_less_than_direct():
    assert kept("checkpoint", 1e-4)[0] < kept("direct", 1e-4)[0] / 10


# ---------------------------------------------------------------- autograd's rules


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_no_grad_and_inference_mode(gradient, context):
    func, y0 = Dense(), double([[0.3, -0.2, 0.9]])
    expected = solve(func, y0, gradient=gradient).y.detach()
    with context():
        end = solve(func, y0.clone().requires_grad_(), gradient=gradient).y
    assert not end.requires_grad
    assert torch.allclose(end, expected)


@pytest.mark.parametrize("gradient", OURS)
def test_backward_twice_doubles_the_gradient(gradient):
    func = Dense()
    end = solve(func, double([[0.3, -0.2, 0.9]]), gradient=gradient).y.sum()
    end.backward(retain_graph=True)
    once = func.linear.weight.grad.clone()
    end.backward()
    assert torch.allclose(func.linear.weight.grad, 2 * once)


def test_direct_can_be_differentiated_twice():
    def end(y0, rate, bias):
        return solve(Given(rate, bias), y0, method="bosh3", gradient="direct").y

    inputs = double([[0.3, -0.2]]), double(0.9), double([0.4, -0.6])
    assert torch.autograd.gradgradcheck(end, [each.requires_grad_() for each in inputs])


@pytest.mark.parametrize("loss", [torch.sum, lambda end: (end**2).sum()])
@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_the_others_refuse_to_be_differentiated_twice(gradient, loss):
    func, y0 = Dense(), double([[0.3, -0.2, 0.9]]).requires_grad_()
    end = solve(func, y0, gradient=gradient).y
    (first,) = torch.autograd.grad(loss(end), y0, create_graph=True)
    text = (
        "gradient='checkpoint' and gradient='adjoint' have no second derivatives: a gradient "
        "through them cannot be differentiated again. Take gradient='direct'."
    )
    with raises(text):
        (loss(end) + first.sum()).backward()


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_a_gradient_that_records_a_graph_is_the_same(gradient):
    y0 = double([[0.3, -0.2, 0.9]]).requires_grad_()
    end = solve(Dense(), y0, gradient=gradient).y.sum()
    (plain,) = torch.autograd.grad(end, y0, retain_graph=True)
    (first,) = torch.autograd.grad(end, y0, create_graph=True)
    assert torch.equal(first, plain)


@pytest.mark.parametrize("gradient", OURS)
@pytest.mark.parametrize("batch", [1, 2])
def test_the_solution_may_be_changed_in_place(gradient, batch):
    # As ReLU(inplace=True) behind a block does.
    func, y0 = Dense(), torch.full((batch, 3), 0.5).double().requires_grad_()
    torch.relu_(solve(func, y0, gradient=gradient).y).sum().backward()
    got = y0.grad.clone()
    y0.grad = None
    torch.relu(solve(func, y0, gradient=gradient).y).sum().backward()
    assert torch.equal(got, y0.grad)


@pytest.mark.parametrize("gradient", OURS)
def test_a_state_changed_in_place_before_backward_does_not_change_the_gradient(gradient):
    def gradient_at(change):
        x = double([[0.3, -0.2, 2.9]]).requires_grad_()
        h = 1.0 * x
        end = solve(Dense(), h, gradient=gradient).y
        change(h)
        end.sum().backward()
        return x.grad

    expected = gradient_at(lambda h: None)
    try:
        got = gradient_at(lambda h: h.mul_(10))
    except RuntimeError as error:
        said = str(error)
    else:
        said = "nothing"
    assert "inplace" in said or torch.equal(got, expected)


@pytest.mark.parametrize("gradient", OURS)
def test_weights_changed_in_place_before_backward_are_noticed(gradient):
    func, y0 = Dense(), double([[0.3, -0.2, 2.9]]).requires_grad_()
    end = solve(func, y0, gradient=gradient).y
    with torch.no_grad():
        func.linear.weight.mul_(2)
    with raises("modified by an inplace operation", RuntimeError):
        end.sum().backward()


@pytest.mark.parametrize("gradient", OURS)
def test_a_sample_that_stopped_has_the_gradient_of_the_steps_it_took(gradient):
    y0 = double([[0.5], [50.0]]).requires_grad_()
    with silent():
        solution = solve(
            Function(lambda t, y: -y * y.abs()), y0, max_steps=5, method="bosh3", gradient=gradient
        )
    assert solution.status.tolist() == [0, 1]
    solution.y.sum().backward()
    assert torch.isfinite(y0.grad).all()
    assert y0.grad[0].item() == pytest.approx(1 / 1.5**2, abs=1e-2)


@pytest.mark.parametrize("gradient", OURS)
def test_a_sample_without_one_accepted_step_has_the_gradient_of_doing_nothing(gradient):
    y0 = double([[50.0]]).requires_grad_()
    with silent():
        end = solve(Decay(1000.0).double(), y0, max_steps=1, method="bosh3", gradient=gradient).y
    end.sum().backward()
    assert y0.grad.item() == 1


@pytest.mark.parametrize("method", FIXED)
def test_fixed_steps_have_gradients_by_hand(method):
    stability = {
        "euler": lambda z: 1 + z,
        "midpoint": lambda z: 1 + z + z**2 / 2,
        "rk4": lambda z: 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24,
    }[method]
    for gradient in OURS:
        y0 = double([[3.0]]).requires_grad_()
        solve(Decay(1.0).double(), y0, method=method, gradient=gradient).y.backward()
        assert y0.grad.item() == pytest.approx(stability(-0.25) ** 4, rel=1e-12)


def test_training_through_a_block_finds_the_rate():
    torch.manual_seed(0)
    block = ODEBlock(Decay(0.1), tol=1e-4)
    optimiser = torch.optim.Adam(block.parameters(), lr=0.1)
    for _ in range(120):
        optimiser.zero_grad()
        loss = (block(torch.ones(2, 1)) - 0.5).square().mean()
        loss.backward()
        optimiser.step()
    assert block.func.rate.item() == pytest.approx(np.log(2), abs=1e-2)
