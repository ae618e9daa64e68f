"""The layer: its settings, its precision, its copies."""

import copy
import logging
import pickle

import numpy as np
import pytest
import torch
from messages import raises
from ode_problems import (
    GRADIENTS,
    Convolutional,
    Decay,
    Dense,
    Function,
    Watched,
    braked,
    double,
    warns,
)
from torch import nn

from bloodseg.ode import BACKENDS, ODEBlock, solve


def test_block_solves_its_equation():
    block = ODEBlock(Decay(2.0), tol=1e-6).eval()
    assert block(torch.ones(2, 3)).detach().numpy() == pytest.approx(np.exp(-2), abs=1e-5)
    assert block.n_evaluations.shape == (2,)


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-5])
def test_block_is_solve_over_the_unit_interval(tol):
    func, h = Dense(torch.float32), torch.linspace(-1, 1, 6).reshape(2, 3)
    block = ODEBlock(func, tol=tol)
    solution = solve(func, h, 0, 1, rtol=tol, atol=tol, gradient="checkpoint")
    assert torch.equal(block(h), solution.y)
    assert block.n_evaluations.tolist() == solution.n_evaluations.tolist()


def test_compilers_leave_the_solve_as_it_is():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = ODEBlock(Decay())

        def forward(self, h):
            return self.block(h.tanh())

    graphs = []

    def note(graph, inputs):
        graphs.append([node.target for node in graph.graph.nodes if "call" in node.op])
        return graph.forward

    network, h = Network(), torch.ones(2, 3, requires_grad=True)
    end = torch.compile(network, backend=note)(h)
    assert torch.equal(end, network(h))
    end.sum().backward()
    assert h.grad is not None
    assert graphs == [["tanh"]]


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize("name", ["tol", "predict_tol"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_tolerances_must_be_positive(name, value):
    text = f"{name} must be a positive, finite number; got {value!r}."
    with raises(text):
        ODEBlock(Decay(), **{name: value})
    block = ODEBlock(Decay(), tol=1e-2, predict_tol=1e-1)
    with raises(text):
        setattr(block, name, value)
    assert (block.tol, block.predict_tol) == (1e-2, 1e-1)


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        (
            "method",
            "dopri6",
            "method must be 'auto', one of heun, kutta3, bosh3, dopri5, tsit5, dopri8, ",
        ),
        ("gradient", "magic", "gradient must be one of checkpoint, direct, adjoint; got 'magic'."),
        ("backend", "scipy", "backend must be one of bloodseg, torchdiffeq; got 'scipy'."),
        ("precision", "int8", "precision must be None, for the state's own, or one of float32, "),
        ("max_steps", 0, "max_steps must be a whole number of at least 1; got 0."),
        ("max_steps", 2.5, "max_steps must be a whole number of at least 1; got 2.5."),
    ],
)
def test_settings_are_checked_at_once(setting, value, text):
    with raises(text):
        ODEBlock(Decay(), **{setting: value})


def test_tolerances_are_no_weights():
    block = ODEBlock(Decay(), tol=1e-2, predict_tol=1e-1)
    assert list(block.state_dict()) == ["func.rate"]
    other = ODEBlock(Decay(7.0), tol=1e-5, predict_tol=1e-6)
    block.load_state_dict(other.state_dict())
    assert (block.tol, block.predict_tol) == (1e-2, 1e-1)
    assert block.func.rate.item() == 7


def test_tolerance_follows_the_mode_and_can_be_set_at_any_time():
    block = ODEBlock(Decay(4.0), tol=1e-2, method="bosh3")

    def cost():
        block(torch.ones(1, 1))
        return int(block.n_evaluations[0])

    assert block.predict_tol == 1e-2
    loose = cost()
    assert block.eval() is block
    assert cost() == loose
    block.predict_tol = 1e-6
    tight = cost()
    assert tight > loose
    assert block.train() is block
    assert cost() == loose
    block.tol = 1e-6
    assert cost() == tight
    block.eval().predict_tol = None
    assert block.predict_tol == 1e-6


def test_settings_can_be_changed_at_any_time():
    block = ODEBlock(Decay(), tol=1e-3)
    block.method = "rk4"
    block(torch.ones(1, 1))
    assert block.n_evaluations.tolist() == [16]
    block.n_steps = 7
    block(torch.ones(1, 1))
    assert block.n_evaluations.tolist() == [28]
    block.method = "bosh3"
    with raises("n_steps=7 is for fixed-step methods"):
        block(torch.ones(1, 1))
    block.n_steps = None
    block.method, block.max_steps, block.name = "bosh3", 1, "late"
    block.func.rate.data.fill_(1e3)
    with warns("late: 1 of 1 samples stopped before t=1"):
        block(torch.ones(1, 1))


def test_evaluations_are_those_of_the_last_pass_and_each_sample_s_own():
    block = ODEBlock(Function(braked), tol=1e-4)
    assert block.n_evaluations.tolist() == []
    block(torch.tensor([[0.5], [30.0], [0.5]]))
    first, second, third = block.n_evaluations
    assert first == third < second
    block(torch.tensor([[0.5]]))
    assert block.n_evaluations.tolist() == [first]


def test_max_steps_reaches_the_solver():
    block = ODEBlock(Decay(1e4), max_steps=3, name="ODE-block at position 7")
    with warns(
        "ODE-block at position 7: 2 of 2 samples stopped before t=1; the first, sample 0, took all "
        "of max_steps=3 steps"
    ):
        assert torch.isfinite(block(torch.ones(2, 1))).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_state_that_is_not_finite_names_the_block(value, backend):
    block = ODEBlock(Decay(), name="ODE-block at position 7", backend=backend)
    with raises("ODE-block at position 7: ", FloatingPointError):
        block(torch.tensor([[1.0], [value]]))


def test_block_prints_its_settings():
    text = "tol=0.001, predict_tol=0.1, method='auto'"
    assert text in repr(ODEBlock(Decay(), tol=1e-3, predict_tol=0.1))


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda block: pickle.loads(pickle.dumps(block))],
    ids=["copy", "pickle"],
)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_block_can_be_copied(copied, gradient):
    block = ODEBlock(
        Dense(torch.float32),
        tol=1e-2,
        predict_tol=1e-5,
        method="dopri5",
        gradient=gradient,
        precision="bfloat16",
        max_steps=77,
        name="b",
    )
    h = torch.ones(2, 3)
    block(h).sum().backward()
    twin = copied(block)
    assert torch.equal(twin.eval()(h), block.eval()(h))
    for name in (
        "tol",
        "predict_tol",
        "method",
        "gradient",
        "precision",
        "max_steps",
        "backend",
        "name",
    ):
        assert getattr(twin, name) == getattr(block, name)
    with torch.no_grad():
        twin.func.linear.weight += 1
    assert not torch.equal(twin(h), block(h))


# ---------------------------------------------------------------- backends


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tol", [1e-3, 1e-5])
def test_backends_give_close_results(backend, tol):
    func = Convolutional()
    h = torch.randn(3, 3, 6, 6, generator=torch.manual_seed(0))
    block = ODEBlock(func, tol=tol, method="dopri5", backend=backend)
    reference = ODEBlock(func, tol=1e-6, method="dopri5")(h)
    # Elementwise, while the tolerance is for the root mean square.
    assert torch.allclose(block(h), reference, rtol=0, atol=100 * tol)
    assert block.n_evaluations.shape == (3,)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tol", [1e-3, 1e-5])
def test_every_gradient_trains_with_every_backend_and_tolerance(gradient, backend, tol):
    block = ODEBlock(Dense(torch.float32), tol=tol, gradient=gradient, backend=backend)
    block(torch.ones(2, 3)).sum().backward()
    assert block.func.linear.weight.grad.abs().max() > 0


# ---------------------------------------------------------------- contexts


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_prediction_records_nothing(context, gradient):
    block = ODEBlock(Dense(torch.float32), gradient=gradient).eval()
    with context():
        end = block(torch.ones(2, 3))
    assert not end.requires_grad
    assert torch.allclose(end, block(torch.ones(2, 3)).detach(), rtol=1e-6)


@pytest.mark.parametrize("gradient", ["checkpoint", "direct"])
def test_a_block_among_layers(gradient):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        ODEBlock(Convolutional(4), gradient=gradient),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 2, 1),
    )
    network(torch.rand(2, 3, 8, 8)).sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in network.parameters())


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize(
    ("tol", "lowered"), [(1e-1, True), (1e-3, True), (0.99e-3, False), (1e-6, False)]
)
@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("training", [True, False])
def test_autocast_reaches_the_right_hand_side_at_loose_tolerances(tol, lowered, gradient, training):
    block = ODEBlock(Watched(), tol=tol, gradient=gradient, method="dopri5").train(training)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        end = block(torch.ones(2, 3, dtype=torch.bfloat16))
    n_forward = len(block.func.seen)
    end.sum().backward()  # outside of autocast, and in the same precision all the same
    assert len(block.func.seen) > n_forward or gradient == "direct"
    computed = torch.bfloat16 if lowered else torch.float32
    assert set(block.func.seen) == {(torch.float32, torch.float32, computed)}
    assert end.dtype == torch.float32
    assert block.func.linear.weight.grad.dtype == torch.float32


@pytest.mark.parametrize("predict_tol", [1e-2, 1e-5])
def test_the_mode_s_tolerance_decides_on_the_precision(predict_tol):
    block = ODEBlock(Watched(), tol=1e-2, predict_tol=predict_tol, precision="bfloat16").eval()
    block(torch.ones(2, 3))
    computed = torch.bfloat16 if predict_tol == 1e-2 else torch.float32
    assert {seen[-1] for seen in block.func.seen} == {computed}


def test_without_autocast_nothing_is_lowered():
    block = ODEBlock(Watched(), tol=1e-1)
    block(torch.ones(2, 3))
    assert set(block.func.seen) == {(torch.float32,) * 3}


def test_a_precision_that_is_named_wins_over_autocast():
    block = ODEBlock(Watched(), tol=1e-1, precision="float32")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        block(torch.ones(2, 3))
    assert set(block.func.seen) == {(torch.float32,) * 3}


def test_a_precision_too_low_is_logged_once(caplog):
    block = ODEBlock(Watched(), tol=1e-5, precision="bfloat16", name="a block of this test")
    with caplog.at_level(logging.INFO, logger="bloodseg"):
        for _ in range(3):
            block(torch.ones(2, 3))
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("bloodseg", logging.INFO)
    assert record.getMessage() == (
        "a block of this test: tolerance 1e-05 is too tight for bfloat16 (its rounding alone is "
        "worth 0.001); the right-hand side computes in float32."
    )
    assert set(block.func.seen) == {(torch.float32,) * 3}


@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16, torch.float32])
def test_states_become_float32_at_least(given):
    assert ODEBlock(Dense(torch.float32))(torch.ones(1, 3).to(given)).dtype == torch.float32


@pytest.mark.parametrize("tol", [1e-3, 1e-6, 1e-12])
def test_float64_is_kept(tol):
    assert ODEBlock(Dense(), tol=tol)(double([[1.0, 2.0, 3.0]])).dtype == torch.float64


@pytest.mark.parametrize("gradient", ["checkpoint", "direct"])
def test_gradients_reach_a_state_of_low_precision(gradient):
    h = torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True)
    ODEBlock(Dense(torch.float32), gradient=gradient)(h).sum().backward()
    assert h.grad.dtype == torch.bfloat16
    assert h.grad.abs().max() > 0


def test_low_precision_costs_little_accuracy():
    h = torch.linspace(-1, 1, 12).reshape(4, 3)
    block = ODEBlock(Dense(torch.float32), tol=1e-3).eval()
    exact = block(h)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lowered = block(h)
    assert not torch.equal(lowered, exact)
    assert torch.allclose(lowered, exact, atol=2e-2)
