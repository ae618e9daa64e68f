"""Dynamics that one step of the solver can carry: `ode_regularization`."""

import copy

import numpy as np
import pytest
import torch
from messages import raises

from bloodseg import BloodCellCounter, BloodCellSegmenter
from bloodseg.ode import ODEBlock, solve


class Linear(torch.nn.Module):
    """``dh/dt = rate * h``."""

    def __init__(self, rate):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.tensor(rate, dtype=torch.float64))

    def forward(self, t, h):
        return self.rate * h


@pytest.mark.parametrize("method", ["heun", "kutta3", "bosh3", "dopri5", "tsit5", "dopri8"])
@pytest.mark.parametrize("rate", [0.5, 1.0, 2.0, 4.0])
def test_a_step_is_accepted_where_its_error_is_at_most_one(method, rate):
    func, y = Linear(rate), torch.ones(1, 3, dtype=torch.float64)
    for tol in (1e-1, 1e-2, 1e-3, 1e-4):
        block = ODEBlock(func, tol=tol, method=method)
        solution = solve(func, y, rtol=tol, atol=tol, method=method, first_step=1.0)
        one_step = solution.n_accepted[0] == 1 and solution.n_rejected[0] == 0
        assert (block.estimate_error(y).item() <= 1) == one_step, tol


def test_the_error_is_that_of_the_formula():
    # Heun with Euler's: the two differ by h * (k2 - k1) / 2, here rate**2 / 2.
    block = ODEBlock(Linear(0.5), tol=1e-2, method="heun")
    y = torch.ones(2, 5, dtype=torch.float64)
    new = 1 + 0.5 + 0.5**2 / 2
    expected = 0.5**2 / 2 / (1e-2 + 1e-2 * new)
    assert torch.allclose(block.estimate_error(y), torch.full((2,), expected).double())


def test_it_has_a_gradient_and_belongs_to_the_sample():
    block = ODEBlock(Linear(1.0), tol=1e-3)
    y = torch.tensor([[1.0, 2.0], [30.0, 1.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block.estimate_error, (y,))
    both = block.estimate_error(y)
    alone = torch.cat([block.estimate_error(row[None]) for row in y])
    assert torch.equal(both, alone)
    both.sum().backward()
    assert block.func.rate.grad > 0  # slower is calmer


def test_the_function_is_called_as_in_a_solve():
    seen = []

    class Watched(torch.nn.Module):
        def forward(self, t, h):
            seen.append((tuple(t.shape), t.dtype, h.shape))
            return -h

    block = ODEBlock(Watched(), method="bosh3")
    for y in (torch.ones(2), torch.ones(2, 3), torch.ones(2, 3, 4, 5)):
        with torch.no_grad():
            block(y)
        solved = set(seen)
        seen.clear()
        assert block.estimate_error(y).shape == (2,)
        assert set(seen) == solved == {((2, *[1] * (y.ndim - 1)), y.dtype, y.shape)}
        seen.clear()


def test_it_goes_by_the_tolerance_of_the_mode():
    block = ODEBlock(Linear(1.0), tol=1e-3, predict_tol=1e-2, method="bosh3")
    y = torch.ones(1, 2)
    in_training = block.train().estimate_error(y).item()
    assert in_training == pytest.approx(10 * block.eval().estimate_error(y).item())


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_fixed_steps_cannot_judge_their_error(method):
    block = ODEBlock(Linear(1.0), method=method, name="ODE-block at position 5")
    with raises(
        f"ODE-block at position 5: method '{method}' takes fixed steps, which cannot judge their "
        "error. Take method='auto', or one that controls its error.",
    ):
        block.estimate_error(torch.ones(1, 2))


TIGHT = {"ode_tol": 1e-6, "ode_method": "bosh3"}  # far tighter than one step can keep


def errors_of(fitted, images):
    """Return the errors of whole steps in a fitted network's blocks, for training's tolerance."""
    found = []
    network = copy.deepcopy(fitted.network_).eval()
    for block in network.ode_blocks.values():
        block.register_forward_pre_hook(
            lambda block, inputs: found.append(block.estimate_error(*inputs).mean().item())
        )
    with torch.no_grad():
        network(torch.from_numpy(np.moveaxis(images, -1, 1) / 255).float())
    return np.array(found)


@pytest.mark.parametrize("estimator", [BloodCellSegmenter, BloodCellCounter])
def test_training_with_it_makes_calmer_blocks(estimator, smears):
    targets = smears.masks if estimator is BloodCellSegmenter else smears.counts
    settings = {"width": 4, "max_epochs": 4, "batch_size": 2, "random_state": 0}
    settings |= {"learning_rate": 1e-2, "validation_fraction": None, "preprocessor": None}
    settings |= TIGHT
    settings |= {"scale": 1.0} if estimator is BloodCellCounter else {"crop_size": 32}
    free = estimator(**settings).fit(smears.images, targets)
    calm = estimator(**settings, ode_regularization=1.0).fit(smears.images, targets)
    assert (errors_of(calm, smears.images) < errors_of(free, smears.images) / 2).all()


def test_nothing_of_it_changes_nothing(smears, tiny, same_weights):
    free, same, calm = (
        tiny(**TIGHT, **weight, max_epochs=1).fit(smears.images, smears.masks)
        for weight in ({}, {"ode_regularization": 0.0}, {"ode_regularization": 1.0})
    )
    assert same_weights(free, same)
    assert not same_weights(free, calm)


def test_what_one_step_carries_is_left_alone(smears, tiny, same_weights):
    loose = {"ode_tol": 10.0, "ode_method": "bosh3"}
    free = tiny(**loose).fit(smears.images, smears.masks)
    told = tiny(**loose, ode_regularization=1.0).fit(smears.images, smears.masks)
    assert same_weights(free, told)
    loose["ode_tol"] *= float(errors_of(free, smears.images).max()) / 0.2  # up to half is calm
    free, told = (
        tiny(**loose, ode_regularization=weight).fit(smears.images, smears.masks)
        for weight in (0.0, 1.0)
    )
    assert 0.1 < errors_of(told, smears.images).max() < 0.4
    assert same_weights(free, told)


def test_networks_without_blocks_take_no_notice(smears, tiny, same_weights):
    plain = tiny(network="unet").fit(smears.images, smears.masks)
    told = tiny(network="unet", ode_regularization=1.0).fit(smears.images, smears.masks)
    assert same_weights(plain, told)


def test_it_must_not_be_negative(smears, tiny):
    with raises(
        "The 'ode_regularization' parameter of BloodCellSegmenter must be a float in the range "
        "[0.0, inf). Got -1.0 instead.",
    ):
        tiny(ode_regularization=-1.0).fit(smears.images, smears.masks)
