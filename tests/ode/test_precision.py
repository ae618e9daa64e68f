"""In which precision a solve computes, and which tolerances that serves."""

import itertools
import logging

import pytest
import torch
from messages import raises
from ode_problems import (
    GRADIENTS,
    Dense,
    Recorder,
    Watched,
    decay,
)

from bloodseg.ode import (
    BACKENDS,
    PRECISIONS,
    SolverWarning,
    solve,
    tolerance_floor,
)
from bloodseg.ode import _precision as precision_module


@pytest.mark.parametrize(
    ("precision", "floor"),
    [("bfloat16", 1e-3), ("tf32", 1e-4), ("float16", 1e-4), ("float32", 1e-6), ("float64", 1e-14)],
)
def test_floors(precision, floor):
    assert tolerance_floor(precision) == floor


def test_every_precision_has_a_floor():
    assert all(tolerance_floor(precision) < 1 for precision in PRECISIONS)


@pytest.mark.parametrize("precision", ["int8", "", None])
def test_what_is_no_precision_has_no_floor(precision):
    with raises("precision must be "):
        tolerance_floor(precision)


@pytest.mark.parametrize(
    ("dtype", "tol", "said"),
    [
        (torch.float32, 1e-8, "tolerance 1e-08 is tighter than float32 serves (1e-06)"),
        (torch.float32, 1e-6, None),
        (torch.float64, 1e-8, None),
        (torch.float64, 1e-15, "tolerance 1e-15 is tighter than float64 serves (1e-14)"),
    ],
)
def test_a_tolerance_below_rounding_is_warned_of(dtype, tol, said):
    def run():
        solve(decay, torch.ones(1, 1, dtype=dtype), 0, 1e-2, rtol=tol, atol=tol, name="block 5")

    if said is None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", pytest.fail)
            run()
        return
    with pytest.warns(SolverWarning) as record:
        run()
    text = f"block 5: {said}: rounding would look like error to the step control, which then only "
    assert str(record[0].message).startswith(text)
    assert record[0].filename == __file__


def test_fixed_steps_have_no_tolerance_to_warn_of(recwarn):
    solve(decay, torch.ones(1, 1), rtol=1e-12, atol=1e-12, method="rk4")
    assert not recwarn.list


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize(
    ("precision", "computed"),
    [
        (None, torch.float32),
        ("float32", torch.float32),
        ("tf32", torch.float32),
        ("bfloat16", torch.bfloat16),
    ],
)
def test_precision_is_the_same_in_forward_and_backward(gradient, precision, computed):
    func = Watched()
    y0 = torch.linspace(-1, 1, 6).reshape(2, 3).requires_grad_()
    end = solve(func, y0, gradient=gradient, precision=precision).y
    n_forward = len(func.seen)
    end.sum().backward()
    assert len(func.seen) > n_forward or gradient == "direct"
    assert set(func.seen) == {(torch.float32, torch.float32, computed)}
    assert end.dtype == y0.grad.dtype == func.linear.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", [None, "float32", "tf32"])
def test_autocast_does_not_reach_a_right_hand_side_on_its_own(backend, precision):
    func = Watched()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        solve(func, torch.ones(2, 3), precision=precision, backend=backend)
        assert torch.is_autocast_enabled("cpu")
    assert set(func.seen) == {(torch.float32,) * 3}


@pytest.mark.parametrize(("precision", "off"), [("bfloat16", 2e-2), ("float16", 2e-3)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_low_precision_costs_little_accuracy(precision, off, backend):
    func, y0 = Dense(torch.float32), torch.linspace(-1, 1, 12).reshape(4, 3)
    with torch.no_grad():
        exact = solve(func, y0, backend=backend).y
        try:
            lowered = solve(func, y0, precision=precision, backend=backend).y
        except RuntimeError as error:
            if "not implemented for 'Half'" in str(error):
                pytest.skip("this CPU has no float16")
            raise
    assert lowered.dtype == torch.float32
    assert not torch.equal(lowered, exact)
    assert torch.allclose(lowered, exact, atol=off)


def test_float64_states_stay_float64_beside_a_lower_precision():
    func = Recorder(lambda t, y: -y)
    end = solve(func, torch.ones(1, 2, dtype=torch.float64), precision="bfloat16").y
    assert end.dtype == torch.float64


@pytest.mark.parametrize(
    ("precision", "tol", "served"),
    [
        (None, 1e-12, None),
        ("float32", 1e-12, "float32"),
        ("bfloat16", 1e-3, "bfloat16"),
        ("bfloat16", 0.99e-3, "float32"),
        ("float16", 1e-4, "float16"),
        ("float16", 0.99e-4, "float32"),
        ("tf32", 1e-4, "tf32"),
        ("tf32", 0.99e-4, "float32"),
    ],
)
def test_a_precision_too_low_for_the_tolerance_is_float32_and_said_once(
    precision, tol, served, caplog
):
    name = f"block for {precision} at {tol}"  # what was said of another is not said again
    with caplog.at_level(logging.INFO, logger="bloodseg"):
        for _ in range(3):
            assert precision_module.settle_precision(precision, tol, name) == served
    expected = 0 if served == precision else 1
    assert len(caplog.records) == expected
    for record in caplog.records:
        assert (record.name, record.levelno) == ("bloodseg", logging.INFO)
        assert record.getMessage() == (
            f"{name}: tolerance {tol:g} is too tight for {precision} (its rounding alone is worth "
            f"{tolerance_floor(precision):g}); the right-hand side computes in float32."
        )


def test_every_tolerance_and_block_is_said(caplog):
    with caplog.at_level(logging.INFO, logger="bloodseg"):
        for tol, name in itertools.product((1e-5, 1e-6), ("first of two", "second of two")):
            precision_module.settle_precision("bfloat16", tol, name)
    assert len(caplog.records) == 4
