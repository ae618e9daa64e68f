"""Right-hand sides that do what one should not expect of a function: said, or none the worse."""

import math

import numpy as np
import pytest
import torch
from messages import raises
from ode_problems import Function, double, warns
from torch import nn

from bloodseg.ode import BACKENDS, FixedStepBlock, ODEBlock, _fused, solve

IN_PLACE = "block 5: func must not change y, the solver's own memory; it did, in place. Look for "


@pytest.mark.parametrize("method", ["bosh3", "dopri5", "rk4"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_a_function_that_changes_its_input_is_refused(method, backend, context):
    settings = {"method": method, "backend": backend, "name": "block 5"}
    y0 = torch.ones(2, 3)
    for func in (lambda t, y: y.mul_(-1), lambda t, y: -torch.relu_(y), lambda t, y: y[:].neg_()):
        with context(), raises(IN_PLACE):
            solve(func, y0.clone(), **settings)
        with context(), raises(IN_PLACE):
            solve(func, y0, **settings)


def test_so_is_one_in_a_block():
    func = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 3))
    block = ODEBlock(Function(lambda t, y: func(y)), gradient="direct", name="block 5")
    with torch.no_grad(), raises(IN_PLACE):
        block(torch.randn(2, 3))
    exported = FixedStepBlock(Function(lambda t, y: func(y)), "rk4", 4)
    with torch.no_grad(), raises("FixedStepBlock: func must not change y"):
        exported(torch.randn(2, 3))


@pytest.fixture
def uncompiled(monkeypatch):
    """Let compile=True do all but compile, which takes seconds and changes no memory."""
    monkeypatch.setattr(_fused, "_get_compiled", lambda function, *variant: function)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("compile", [False, True])
def test_a_function_may_return_its_input(compile):
    # Without a copy, what is returned would be overwritten with the next stage's state.
    with torch.no_grad():
        y0 = torch.ones(2, 3)
        end = solve(lambda t, y: y, y0, rtol=1e-4, atol=1e-4, method="bosh3", compile=compile).y
    assert end.numpy() == pytest.approx(math.e, abs=1e-3)


@pytest.mark.usefixtures("uncompiled")
def test_a_function_may_return_the_same_tensor_again():
    drift = nn.Parameter(torch.tensor([[0.5, 2.0, -1.0]]))
    with torch.no_grad():
        end = solve(lambda t, y: drift, torch.zeros(1, 3), method="bosh3", compile=True).y
    assert torch.allclose(end, drift, atol=1e-6)


@pytest.mark.usefixtures("uncompiled")
def test_memory_that_is_written_again_is_copied_or_refused():
    memory = torch.empty(2, 3)

    def func(t, y):
        return torch.mul(y, -1, out=memory)

    settings = {"rtol": 1e-4, "atol": 1e-4, "method": "bosh3"}
    expected = solve(lambda t, y: -y, torch.ones(2, 3), **settings).y
    with torch.no_grad():
        assert torch.equal(solve(func, torch.ones(2, 3), **settings, compile=False).y, expected)
        with raises("func must return new memory each time: it has written to what it returned "):
            solve(func, torch.ones(2, 3), **settings, compile=True)
    with torch.inference_mode():  # where memory from outside is known to be another's
        assert torch.equal(solve(func, torch.ones(2, 3), **settings, compile=True).y, expected)


# ---------------------------------------------------------------- time


@pytest.mark.parametrize(("t0", "t1"), [(1e8, 1e8 + 10), (-1e3, -1e3 + 0.05), (1e5, 0.99999e5)])
@pytest.mark.parametrize("method", ["bosh3", "rk4"])
def test_times_that_float32_cannot_tell_apart_are_warned_of(t0, t1, method):
    func = lambda t, y: torch.ones_like(y)  # noqa: E731
    with warns(f"block 5: in float32 times near {t1:g} lie "):
        solve(func, torch.zeros(1, 1), t0, t1, method=method, name="block 5")
    end = solve(func, double([[0.0]]), t0, t1, method=method).y
    assert end.item() == pytest.approx(t1 - t0)


@pytest.mark.parametrize(("t0", "t1"), [(0, 1e8), (100, 101), (-1e-9, 1e-9), (1e3, 0)])
def test_others_are_not(t0, t1, recwarn):
    solve(lambda t, y: torch.zeros_like(y), torch.zeros(1, 1), t0, t1)
    assert not recwarn.list


# ---------------------------------------------------------------- what is no number


@pytest.mark.parametrize("argument", ["rtol", "atol"])
@pytest.mark.parametrize("value", ["1e-3", None, (1e-3,), np.array([1e-3, 1e-2]), torch.ones(2)])
def test_tolerances_that_are_no_numbers(argument, value):
    with raises(f"{argument} must be a positive, finite number; got {value!r}."):
        solve(lambda t, y: -y, torch.ones(1, 1), **{argument: value})


@pytest.mark.parametrize("value", ["1e-3", None, np.array([1e-3, 1e-2])])
def test_tolerances_of_a_block_that_are_no_numbers(value):
    with raises(f"tol must be a positive, finite number; got {value!r}."):
        ODEBlock(nn.Identity(), tol=value)
    if value is not None:
        with raises(f"predict_tol must be a positive, finite number; got {value!r}."):
            ODEBlock(nn.Identity(), predict_tol=value)


@pytest.mark.parametrize("number", [np.float32, np.array, torch.tensor])
def test_numbers_of_numpy_and_torch(number):
    settings = {"rtol": number(1e-2), "atol": number(1e-2), "first_step": number(0.5)}
    solution = solve(lambda t, y: -y, torch.ones(1, 1), number(0.0), number(1.0), **settings)
    assert solution.y.item() == pytest.approx(math.exp(-1), abs=1e-2)


@pytest.mark.parametrize("value", ["1", None, np.array([1.0, 2.0])])
def test_times_and_steps_that_are_no_numbers(value):
    with raises(f"t0 and t1 must be finite and differ; got t0=0.0, t1={value!r}."):
        solve(lambda t, y: -y, torch.ones(1, 1), 0.0, value)
    if value is not None:
        with raises(f"first_step must be None or a positive, finite number; got {value!r}."):
            solve(lambda t, y: -y, torch.ones(1, 1), first_step=value)


@pytest.mark.parametrize("settings", [{}, {"gradient": "adjoint"}, {"backend": "torchdiffeq"}])
def test_no_training_in_float16(settings):
    func = Function(lambda t, y: -y)
    y0 = torch.ones(1, 1, requires_grad=True)
    with raises("precision='float16' is for prediction: small gradients vanish in it."):
        solve(func, y0, precision="float16", **settings)
