"""TF32 is as asked in the solver's forward and backward alone: by a stub, as CPUs have none."""

import gc
from types import SimpleNamespace

import pytest
import torch
from ode_problems import GRADIENTS, Dense
from torch import nn

from bloodseg.ode import BACKENDS, solve
from bloodseg.ode import _precision as precision_module


@pytest.fixture
def process(monkeypatch):
    """A switch that stands as the user has set it."""
    process = SimpleNamespace(tf32="as the user has it")
    switches = [(process, "tf32", "off", "on")]
    monkeypatch.setattr(precision_module, "_TF32_SWITCHES", switches)
    monkeypatch.setattr(precision_module, "_has_tf32", lambda device: True)
    return process


class Note(torch.autograd.Function):
    """Passes a tensor and its gradient on, and notes how the switch stands."""

    @staticmethod
    def forward(ctx, x, note):
        ctx.note = note
        note("forward")
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        ctx.note("backward")
        return gradient, None


class Noting(nn.Module):
    def __init__(self, process):
        super().__init__()
        self.layer, self.process, self.seen = Dense(torch.float32), process, set()

    def forward(self, t, y):
        return Note.apply(self.layer(t, y), self.note)

    def note(self, when):
        self.seen.add((when, self.process.tf32))


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("precision", [None, "float32", "tf32"])
def test_forward_and_backward_compute_alike(process, gradient, backend, precision):
    set_to = "on" if precision == "tf32" else "off"
    func, around = Noting(process), set()
    outside = lambda when: around.add((when, process.tf32))  # noqa: E731
    x = torch.linspace(-1, 1, 6).reshape(2, 3).requires_grad_()
    y0 = Note.apply(2 * x, outside)
    end = solve(func, y0, gradient=gradient, backend=backend, precision=precision).y
    assert process.tf32 == "as the user has it"
    Note.apply(end, outside).sum().backward()
    assert x.grad.abs().max() > 0
    assert func.seen == {("forward", set_to), ("backward", set_to)}
    assert around == {(when, "as the user has it") for when in ("forward", "backward")}
    assert process.tf32 == "as the user has it"


@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
def test_a_state_that_needs_no_gradient_leaves_the_weights_theirs(process, gradient):
    func = Noting(process)
    solve(func, torch.ones(2, 3), gradient=gradient).y.sum().backward()
    assert func.seen == {("forward", "off"), ("backward", "off")}
    assert process.tf32 == "as the user has it"


@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
def test_a_backward_that_fails_leaves_the_process_as_it_was(process, gradient):
    func = Noting(process)

    def fail(when):
        if when == "backward":
            raise MemoryError("out of memory")

    func.note = fail
    end = solve(func, torch.ones(2, 3), gradient=gradient).y.sum()
    with pytest.raises(MemoryError):
        end.backward()
    del end
    gc.collect()
    assert process.tf32 == "as the user has it"


def test_hooks_do_not_pile_up_on_weights(process):
    func = Noting(process)
    weight = func.layer.linear.weight
    node = weight.view_as(weight).grad_fn.next_functions[0][0]  # lives as long as this name
    before = len(gc.get_referrers(node))
    for _ in range(3):
        solve(func, torch.ones(2, 3), gradient="direct").y.sum().backward()
    assert len(gc.get_referrers(node)) <= before


def test_without_tf32_nothing_is_hooked(monkeypatch):
    monkeypatch.setattr(precision_module, "_BackwardSwitch", None)
    solve(Dense(), torch.ones(2, 3, dtype=torch.float64), gradient="direct").y.sum().backward()
