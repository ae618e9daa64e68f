"""The rules of autograd: no_grad, backward twice, hooks, changes in place."""

import pytest
import torch
from messages import raises
from ode_problems import GRADIENTS, OURS, Dense, double

from bloodseg.ode import solve


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


def test_the_adjoint_s_backward_can_be_asked_twice():
    func, y0 = Dense(), double([[0.3, -0.2, 0.9]])
    y1 = solve(func, y0, gradient="adjoint").y.sum()
    weights = list(func.parameters())
    first = torch.autograd.grad(y1, weights, retain_graph=True)
    again = torch.autograd.grad(y1, weights)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("gradient", OURS)
def test_hooks_see_the_whole_gradient_once(gradient):
    func, seen = Dense(), []
    func.linear.weight.register_hook(lambda gradient: seen.append(gradient.clone()))
    y0 = double([[0.3, -0.2, 0.9], [9.0, 0.5, -7.0]])
    solve(func, y0, gradient=gradient).y.sum().backward()
    (whole,) = seen
    assert torch.equal(whole, func.linear.weight.grad)


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
