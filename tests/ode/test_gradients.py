"""Gradients by finite differences, by hand, and each way against the others."""

import numpy as np
import pytest
import torch
from ode_problems import (
    ADAPTIVE,
    FIXED,
    GRADIENTS,
    OURS,
    Convolutional,
    Decay,
    Dense,
    Function,
    Given,
    double,
    gradients,
    relative_error,
    silent,
)

from bloodseg.ode import METHODS, ODEBlock, solve
from bloodseg.ode import _solve as solve_module

MIXED = [[0.3, -0.2], [4.0, 2.0], [-1.5, 0.1]]  # easy, stiff, between
HARD_AND_EASY = torch.tensor([0.1, 4.0, 1.0, 2.5]).reshape(-1, 1, 1, 1)


@pytest.fixture(params=["in one chunk", "one by one", "two by two"])
def chunks(request, monkeypatch):
    if request.param != "in one chunk":
        # What a state takes: 2 or 3 float64 below, so that this is two of them or less than one.
        monkeypatch.setattr(solve_module, "_CHUNK_BYTES", 48 if "two" in request.param else 1)
    return request.param


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
    assert torch.autograd.gradcheck(lambda *inputs: end(*inputs).y, inputs, fast_mode=True)


@pytest.mark.parametrize("gradient", OURS)
def test_gradcheck_in_chunks_and_back_in_time(gradient, chunks):
    def end(y0, rate, bias):
        func = Given(rate, bias)
        return solve(func, y0, 1, -0.5, rtol=1e-2, atol=1e-2, gradient=gradient).y

    inputs = double([[0.1, -0.2], [0.9, 0.3], [0.4, 0.4]]), double(0.4), double([0.4, -0.6])
    inputs = [each.requires_grad_() for each in inputs]
    assert torch.autograd.gradcheck(end, inputs, fast_mode=True)


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
