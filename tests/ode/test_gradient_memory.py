"""What a solve keeps for backward."""

import gc
import weakref

import pytest
import torch
from ode_problems import Dense, double
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from bloodseg.ode import solve


class Alive(TorchDispatchMode):
    """Knows which of the tensors that were made under it still live."""

    def __init__(self):
        super().__init__()
        self.made = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.made.append(weakref.ref(tensor))
        return out

    def elements(self, given):
        """Return the numbers in their memory, without that of the given tensors."""
        storages = {}
        for reference in self.made:
            if (tensor := reference()) is not None:
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        for tensor in given:
            storages.pop(tensor.untyped_storage().data_ptr(), None)
        return sum(storages.values()) // 8


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        layers = (nn.Sequential(nn.Linear(8, 8), nn.Tanh()) for _ in range(8))
        self.layers = nn.Sequential(*layers).double()

    def forward(self, t, y):
        return self.layers(y)


def kept(gradient, tol, method="bosh3"):
    """Return how many numbers live on for backward, in states of 32 x 8 numbers."""
    func, y0 = Deep(), torch.linspace(-1, 1, 32 * 8).double().reshape(32, 8)
    with Alive() as alive:
        solution = solve(func, y0, 0, 20, rtol=tol, atol=tol, method=method, gradient=gradient)
    return alive.elements([y0, *func.parameters()]) / y0.numel(), solution.n_accepted.max()


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_checkpoint_keeps_the_states_between_the_steps(tol):
    numbers, n_steps = kept("checkpoint", tol)
    assert n_steps >= 2
    assert numbers < n_steps + 3


def test_checkpoint_keeps_less_than_direct():
    assert kept("checkpoint", 1e-4)[0] < kept("direct", 1e-4)[0] / 10


@pytest.mark.parametrize("gradient", ["adjoint", "direct"])
@pytest.mark.parametrize("method", ["bosh3", "rk4"])
def test_torchdiffeq_keeps_nothing_alive(gradient, method):
    def lose():
        func = Dense()
        y1 = solve(func, double([[0.3, 0.1, 0.2]]), gradient=gradient, method=method, **theirs).y
        y1.sum().backward()
        return weakref.ref(func)

    theirs = {"backend": "torchdiffeq"}
    lose()
    gc.disable()  # what hangs in a circle would hold its memory until the collector comes by
    try:
        assert lose()() is None
    finally:
        gc.enable()
