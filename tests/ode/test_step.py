"""The one differentiable step, and who takes it."""

import numpy as np
import pytest
import torch
from ode_problems import FIXED, Dense, double

from bloodseg.ode import METHODS, FixedStepBlock, solve
from bloodseg.ode._step import take_step
from bloodseg.ode.methods import TABLEAUS


@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_the_quadrature_of_a_power_is_exact_up_to_the_order(method):
    tableau = TABLEAUS[method]
    power = tableau.order - 1
    y = take_step(lambda t, y: t**power + 0 * y, tableau, double([[2.0], [0.0]]), 0.5, 1.5)
    grown = (2.0 ** (power + 1) - 0.5 ** (power + 1)) / (power + 1)
    assert y.flatten().tolist() == pytest.approx([2 + grown, grown], rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_step_for_all_samples_or_one_each_is_the_same(method, dtype):
    func, y = Dense(dtype), torch.linspace(-1, 1, 6, dtype=dtype).reshape(2, 3)
    shared = take_step(func, TABLEAUS[method], y, 0.25, 0.5)
    own = take_step(func, TABLEAUS[method], y, np.array([0.25, 0.25]), np.array([0.5, 0.5]))
    assert torch.allclose(shared, own, rtol=1e-6)
    other = take_step(func, TABLEAUS[method], y, np.array([0.25, 0.75]), np.array([0.5, -0.1]))
    assert torch.allclose(other[0], shared[0], rtol=1e-6)
    second = take_step(func, TABLEAUS[method], y[1:], 0.75, -0.1)
    assert torch.allclose(other[1:], second, rtol=1e-6)


@pytest.mark.parametrize("method", FIXED)
def test_a_block_for_export_takes_the_very_steps_that_gradients_pass(method):
    func, y0 = Dense(torch.float32), torch.linspace(-1, 1, 12).reshape(4, 3)
    with torch.no_grad():
        exported = FixedStepBlock(func, method, 4)(y0)
    assert torch.equal(exported, solve(func, y0, method=method, gradient="direct").y)
