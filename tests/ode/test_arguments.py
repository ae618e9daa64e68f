"""What `solve` refuses, in words."""

import sys

import numpy as np
import pytest
import torch
from imports import imported_anew
from messages import raises
from ode_problems import (
    IN_TORCHDIFFEQ,
    Decay,
    decay,
    double,
)

from bloodseg.ode import (
    BACKENDS,
    solve,
)


@pytest.mark.parametrize("argument", ["rtol", "atol"])
@pytest.mark.parametrize("value", [0, -1e-3, float("nan"), float("inf")])
def test_tolerances_must_be_positive(argument, value):
    with raises(f"{argument} must be a positive, finite number; got {value!r}."):
        solve(decay, torch.ones(1, 1), **{argument: value})


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "10"])
def test_max_steps_must_be_a_whole_number(value):
    with raises(f"max_steps must be a whole number of at least 1; got {value!r}."):
        solve(decay, torch.ones(1, 1), max_steps=value)


def test_max_steps_may_be_numpy_s():
    assert solve(decay, torch.ones(1, 1), max_steps=np.int64(50)).status.tolist() == [0]


@pytest.mark.parametrize(
    ("y0", "text"),
    [
        (torch.ones(1, 1, dtype=torch.bfloat16), "y0 must be float32 or float64; got torch.bfl"),
        (torch.ones(1, 1, dtype=torch.float16), "y0 must be float32 or float64; got torch.float16"),
        (torch.ones(1, 1, dtype=torch.int64), "y0 must be float32 or float64; got torch.int64."),
        (np.ones((1, 1)), "y0 must be a torch.Tensor; got ndarray. Pass torch.as_tensor(y0)."),
        (torch.tensor(1.0), "y0 must have shape (n, ...) with n >= 1 and no empty side; got ()."),
        (torch.ones(0, 3), "y0 must have shape (n, ...) with n >= 1 and no empty side; got (0, 3)"),
        (torch.ones(2, 0), "y0 must have shape (n, ...) with n >= 1 and no empty side; got (2, 0)"),
    ],
)
def test_states_that_are_refused(y0, text):
    with raises(text):
        solve(decay, y0)


def test_ends_that_need_gradients_are_refused():
    end = torch.tensor(1.0, requires_grad=True)
    with raises(
        f"t0 and t1 must not need gradients, for none reach them; got t0=0.0, t1={end!r}. Detach "
        "them; or, for the gradient of a length of time, solve from 0 to 1 and let func multiply "
        "dy/dt by it."
    ):
        solve(decay, torch.ones(1, 1), t1=end)
    with torch.no_grad():
        assert solve(decay, torch.ones(1, 1), t1=end.detach()).status.tolist() == [0]


def test_slopes_that_are_no_tensors():
    with raises("func must return dy/dt as a torch.Tensor of y's shape (1, 1); got float."):
        solve(lambda t, y: -1.0, torch.ones(1, 1))


@pytest.mark.parametrize(
    ("t0", "t1"), [(0.0, 0.0), (0.0, float("nan")), (float("inf"), 1.0), (0.0, -float("inf"))]
)
def test_intervals_that_are_refused(t0, t1):
    with raises(f"t0 and t1 must be finite and differ; got t0={t0!r}, t1={t1!r}."):
        solve(decay, torch.ones(1, 1), t0, t1)


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        (
            "method",
            "method must be 'auto', one of heun, kutta3, bosh3, dopri5, tsit5, dopri8, euler, mid",
        ),
        ("gradient", "gradient must be one of checkpoint, direct, adjoint; got 'magic'."),
        ("backend", "backend must be one of bloodseg, torchdiffeq; got 'magic'."),
        (
            "precision",
            "precision must be None, for the state's own, or one of float32, tf32, bfloat16, "
            "float16; got 'magic'.",
        ),
    ],
)
def test_unknown_names_are_refused(argument, text):
    with raises(text):
        solve(decay, torch.ones(1, 1), **{argument: "magic"})


@pytest.mark.parametrize(
    ("func", "shape"),
    [
        (lambda t, y: y.sum(dim=1, keepdim=True), "(1, 1)"),
        (lambda t, y: y[:0], "(0, 3)"),
        (lambda t, y: t, "(1, 1)"),
        (lambda t, y: y[..., None], "(1, 3, 1)"),
    ],
    ids=["a sum", "nothing", "the time", "a side more"],
)
@pytest.mark.parametrize("method", ["bosh3", "rk4"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_slope_of_another_shape_is_refused(func, shape, method, backend):
    with raises(f"block 5: func must return dy/dt of y's shape (1, 3); got {shape}."):
        solve(func, torch.ones(1, 3), method=method, backend=backend, name="block 5")


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_what_is_no_module_is_refused_where_weights_must_be_found(gradient):
    with raises(
        f"gradient={gradient!r} needs func to be a torch.nn.Module, to find the weights in it; got "
        "function. Wrap it in a Module, or use gradient='direct'."
    ):
        solve(decay, torch.ones(1, 1), gradient=gradient)


@pytest.mark.parametrize("settings", [{"gradient": "adjoint"}, {"backend": "torchdiffeq"}])
def test_without_torchdiffeq_an_error_says_what_needs_it(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    text = "gradient='adjoint' and backend='torchdiffeq' need torchdiffeq: pip install torchdiffeq."
    with raises(text, ImportError):
        solve(Decay(), torch.ones(1, 1), **settings)
    assert solve(Decay(), torch.ones(1, 1), gradient="checkpoint").status.tolist() == [0]


def test_torchdiffeq_is_imported_where_it_is_asked_for_alone():
    with imported_anew("bloodseg", "torchdiffeq"):
        import bloodseg.networks
        import bloodseg.ode

        assert bloodseg.ode.solve is not solve
        assert "torchdiffeq" not in sys.modules
        bloodseg.ode.solve(lambda t, y: -y, torch.ones(1, 1), backend="torchdiffeq")
        assert "torchdiffeq" in sys.modules


@pytest.mark.parametrize("settings", [{"gradient": "adjoint"}, {"backend": "torchdiffeq"}])
def test_methods_that_torchdiffeq_lacks_are_refused(settings):
    with raises(
        "torchdiffeq, the backend that was asked for or that the adjoint gradient needs, has no "
        "'tsit5'; take 'dopri5'."
    ):
        solve(Decay(), torch.ones(1, 1), method="tsit5", **settings)


@pytest.mark.parametrize("settings", [{"gradient": "adjoint"}, {"backend": "torchdiffeq"}])
@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-10])
def test_auto_finds_a_method_that_torchdiffeq_has(settings, tol):
    solution = solve(Decay(0.7), double([[1.0]]), rtol=tol, atol=tol, **settings)
    assert solution.method in IN_TORCHDIFFEQ
    assert solution.y.item() == pytest.approx(np.exp(-0.7), abs=100 * tol)
