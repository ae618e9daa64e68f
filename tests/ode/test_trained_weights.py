"""Which tensors get gradients."""

import numpy as np
import pytest
import torch
from ode_problems import OURS, Dense, Function, double, gradients
from torch import nn

from bloodseg.ode import METHODS, solve


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
def test_one_module_in_two_solves(gradient):
    func, y0 = Dense(), double([[0.3, -0.2, 0.9]])
    twice = solve(func, solve(func, y0, gradient=gradient).y, gradient=gradient).y
    twice.sum().backward()
    expected = Dense()
    y1 = solve(expected, y0, gradient="direct").y
    solve(expected, y1, gradient="direct").y.sum().backward()
    assert torch.allclose(func.linear.weight.grad, expected.linear.weight.grad, rtol=1e-10)
