"""Tensors that a gradient method would pass over: an error, at the call, for nothing."""

import numpy as np
import pytest
import torch
from messages import raises
from ode_problems import Dense, Function, Recorder, double
from torch import nn

from bloodseg.ode import ODEBlock, solve

LOSING = ["checkpoint", "adjoint"]


class Scaled(Dense):
    """A module of its own weights and of a factor from elsewhere."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor  # a function without arguments: hides tensors from the module

    def forward(self, t, y):
        return self.factor() * super().forward(t, y)


def make_closure():
    factor = double(0.5).requires_grad_()
    return Scaled(lambda: factor), factor


def make_unregistered():
    layers = [nn.Linear(1, 1, dtype=torch.float64)]
    return Scaled(lambda: layers[0].weight), layers[0].weight


def make_condition():
    encoder = nn.Linear(2, 1, dtype=torch.float64)
    factor = encoder(double([[0.3, 0.4]]))
    return Scaled(lambda: factor), encoder.weight


def make_late():
    # Used from the middle of the interval on alone.
    factor = double(0.5).requires_grad_()

    class Late(Dense):
        def forward(self, t, y):
            return super().forward(t, y) * (factor if t.max() > 0.5 else 1)

    return Late(), factor


STRAYS = [make_closure, make_unregistered, make_condition, make_late]


@pytest.mark.parametrize("make", STRAYS)
@pytest.mark.parametrize("gradient", LOSING)
@pytest.mark.parametrize("frozen", [False, True])
def test_a_gradient_that_would_be_lost_is_an_error(make, gradient, frozen):
    func, stray = make()
    func.requires_grad_(not frozen)
    y0 = double([[0.3, -0.2, 0.9], [1.0, 0.5, -0.7]])
    text = (
        f"block 5: func depends on a tensor of shape {tuple(stray.shape)} that needs gradients, "
        f"but not as one of its own parameters: gradient={gradient!r} would lose its gradient. "
        "Register it with func (as nn.Parameter, or its module as a submodule), detach it, or use "
        "gradient='direct'."
    )
    if make is make_condition:
        text = "block 5: func depends on a tensor of shape "
    with raises(text):
        solve(func, y0, gradient=gradient, name="block 5")
    with raises(text):
        ODEBlock(func, gradient=gradient, name="block 5")(y0)


@pytest.mark.parametrize("make", STRAYS)
def test_direct_gives_it(make):
    func, stray = make()
    solve(func, double([[0.3, -0.2, 0.9]]), gradient="direct").y.sum().backward()
    assert stray.grad.abs().max() > 0


@pytest.mark.parametrize("make", STRAYS)
@pytest.mark.parametrize("gradient", LOSING)
def test_predictions_have_nothing_to_lose(make, gradient):
    func, _ = make()
    y0 = double([[0.3, -0.2, 0.9]])
    expected = solve(func, y0, gradient="direct", method="dopri5").y
    with torch.no_grad():
        end = solve(func, y0, gradient=gradient, method="dopri5").y
    assert torch.allclose(end, expected, atol=1e-3)
    func.requires_grad_(False)
    with torch.inference_mode():
        assert torch.equal(solve(func, y0, gradient=gradient, method="dopri5").y, end)


def test_a_weight_by_another_name_is_lost_by_checkpoint_alone():
    # checkpoint puts other tensors in the place of the weights; the adjoint does not.
    func, y0 = Dense(), double([[0.3, -0.2, 0.9]])
    func.forward = lambda t, y: torch.tanh(y @ weight.T)
    weight = func.linear.weight
    with raises("depends on a tensor of shape (3, 3) that needs gradients"):
        solve(func, y0, gradient="checkpoint")
    settings = {"rtol": 1e-7, "atol": 1e-7, "method": "dopri5"}
    solve(func, y0, gradient="direct", **settings).y.sum().backward()
    expected = weight.grad.clone()
    weight.grad = None
    solve(func, y0, gradient="adjoint", **settings).y.sum().backward()
    assert torch.allclose(weight.grad, expected, rtol=1e-4)


class Energy(nn.Module):
    """A right-hand side that is a gradient itself, as in Hamiltonian networks."""

    def __init__(self, leaf):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.leaf = nn.Linear(3, 3, dtype=torch.float64), leaf

    def forward(self, t, y):
        with torch.enable_grad():
            y = self.leaf(y)
            energy = torch.tanh(self.layer(y)).sum()
            return -torch.autograd.grad(energy, y, create_graph=True)[0]


@pytest.mark.parametrize("gradient", LOSING)
@pytest.mark.parametrize(
    "leaf",
    [
        lambda y: y.requires_grad_(),
        lambda y: y if y.requires_grad else y.clone().requires_grad_(),
    ],
)
def test_a_function_that_differentiates_by_itself_is_no_stray(gradient, leaf):
    y0, found = double([[0.3, -0.2, 0.9], [2.0, 1.0, 0.0]]), []
    for each in "direct", gradient:
        func = Energy(leaf)
        settings = {"rtol": 1e-7, "atol": 1e-7, "method": "dopri5"}
        solve(func, y0.clone().requires_grad_(), gradient=each, **settings).y.sum().backward()
        found.append(func.layer.weight.grad)
    assert torch.allclose(*found, rtol=1e-4)


def test_looking_costs_no_evaluation_and_no_memory():
    func, y0 = Recorder(Dense()), double([[0.3, -0.2, 0.9]])
    calls = []
    func.register_forward_hook(lambda module, inputs, slope: calls.append(slope.requires_grad))
    solution = solve(func, y0, gradient="checkpoint")
    assert len(calls) == solution.n_evaluations[0]
    assert not any(calls)  # nothing was recorded
    assert np.allclose(solution.y.detach(), solve(Dense(), y0).y.detach())


@pytest.mark.parametrize("gradient", LOSING)
def test_frozen_functions_of_modules_pass(gradient):
    factor = double(0.5)
    end = solve(Function(lambda t, y: -factor * y), double([[1.0]]), gradient=gradient).y
    assert end.item() == pytest.approx(np.exp(-0.5), abs=5e-3)
