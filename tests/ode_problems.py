"""What the tests of `bloodseg.ode` share: right-hand sides, states, small helpers."""

import re
import warnings
from contextlib import contextmanager

import pytest
import torch
from scipy.integrate import solve_ivp
from torch import nn

from bloodseg.ode import METHODS, SolverWarning
from bloodseg.ode.methods import TABLEAUS

ADAPTIVE = ["heun", "kutta3", "bosh3", "dopri5", "tsit5", "dopri8"]
FIXED = ["euler", "midpoint", "rk4"]
IN_TORCHDIFFEQ = [method for method in METHODS if method not in ("kutta3", "tsit5")]
GRADIENTS = ["direct", "checkpoint", "adjoint"]
OURS = ["direct", "checkpoint"]
COUNTS = ["n_evaluations", "n_accepted", "n_rejected"]


def warns(text, category=SolverWarning):
    return pytest.warns(category, match=re.escape(text))


@contextmanager
def silent():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def decay(t, y):
    return -y


def braked(t, y):
    """As stiff as the state is large, and no state is like another's."""
    return -y * y.abs() * (1 + t)


class Function(nn.Module):
    """A function as a module without weights."""

    def __init__(self, func):
        super().__init__()
        self.func = func

    def forward(self, t, y):
        return self.func(t, y)


class Decay(nn.Module):
    def __init__(self, rate=1.0):
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(float(rate)))

    def forward(self, t, h):
        return -self.rate * h


class Dense(nn.Module):
    """A smooth right-hand side that depends on time, with weights."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(3, 3, dtype=dtype)

    def forward(self, t, y):
        return torch.tanh(self.linear(y)) * torch.cos(t)


class Convolutional(nn.Module):
    """What a block of the network computes, steeper for a larger state."""

    def __init__(self, channels=3, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(channels, channels, 3, padding=1, dtype=dtype)
        self.last = nn.Conv2d(channels, channels, 3, padding=1, dtype=dtype)

    def forward(self, t, y):
        steepness = 0.1 + y.square().mean(dim=(1, 2, 3), keepdim=True)
        return self.last(torch.tanh(self.first(y))) * torch.cos(t) - steepness * y


class Given(nn.Module):
    """A stiff or easy right-hand side, by its state, whose weights are tensors that it is given.

    `torch.autograd.gradcheck` wants the weights as inputs.
    """

    def __init__(self, rate, bias):
        super().__init__()
        self.rate, self.bias = rate, bias

    def named_parameters(self, *args, **kwargs):
        return iter((("rate", self.rate), ("bias", self.bias)))

    def forward(self, t, y):
        return -self.rate * y * torch.sqrt(1 + 4 * y * y) + self.bias * torch.cos(t)


class Prepared(nn.Module):
    """Standardises its weights: in `forward` each time, or once in `prepare`."""

    def __init__(self, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 3, dtype=dtype))
        self.bias = nn.Parameter(torch.randn(3, dtype=dtype))
        self.frozen = nn.Parameter(torch.full((3,), 0.5, dtype=dtype), requires_grad=False)
        self.n_prepared, self.computed = 0, set()

    def standardised(self):
        return self.weight / self.weight.norm(dim=1, keepdim=True)

    def evaluate(self, t, y, weight, bias, frozen):
        self.computed.add(weight.dtype)
        y = y.to(weight.dtype)
        return torch.tanh(y @ weight.T + bias) - frozen * y * t.to(weight.dtype)

    def forward(self, t, y):
        return self.evaluate(t, y, self.standardised(), self.bias, self.frozen)

    def prepare(self, dtype, tol):
        self.n_prepared += 1
        weights = self.standardised(), self.bias, self.frozen
        return tuple(w if dtype is None else w.to(dtype) for w in weights), self.evaluate


class Watched(Dense):
    """Notes the dtypes that it is evaluated in."""

    def __init__(self):
        super().__init__(torch.float32)
        self.seen = []

    def forward(self, t, y):
        self.seen.append((t.dtype, y.dtype, self.linear(y).dtype))
        return super().forward(t, y)


class Recorder(nn.Module):
    """Notes the times and the batch sizes of the calls in the search for the steps."""

    def __init__(self, func):
        super().__init__()
        self.func, self.sizes, self.times = func, [], []

    def forward(self, t, y):
        if not torch.is_grad_enabled():
            self.sizes.append(len(y))
            self.times.extend(t.flatten().tolist())
        return self.func(t, y)


def gradients(func, y0, *interval, **settings):
    """Return the gradients of a loss of the solution: of y0, then of func's weights."""
    from bloodseg.ode import solve

    func.zero_grad()
    y0 = y0.detach().clone().requires_grad_()
    solution = solve(func, y0, *interval, **settings)
    (solution.y**2).sum().backward()
    return [y0.grad, *(weight.grad for weight in func.parameters() if weight.requires_grad)]


def relative_error(got, expected):
    return ((got - expected).norm() / expected.norm()).item()


def scipy_end(func, y0, t0, t1):
    def flat(t, y):
        state = torch.from_numpy(y).reshape(y0.shape)
        with torch.no_grad():
            return func(y0.new_full((1, *[1] * (y0.ndim - 1)), t), state).flatten().numpy()

    end = solve_ivp(flat, (t0, t1), y0.flatten().numpy(), method="DOP853", rtol=1e-12, atol=1e-12)
    return end.y[:, -1].reshape(y0.shape)


def known_cost(method, accepted, rejected, tol):
    """Return the evaluations of a solve.

    Where the last stage is not the next step's first, each attempt evaluates all stages: which
    samples of a batch were accepted must not show in the count of the others.
    """
    n_stages = {"heun": 2, "kutta3": 3, "bosh3": 4, "dopri5": 7, "tsit5": 7, "dopri8": 13}[method]
    # Of the first step, by a trial step of Euler's.
    guess = 0 if TABLEAUS[method].tries_whole_interval(tol) else 1
    if method in ("heun", "kutta3", "dopri8"):
        first_known = 1 if guess else 0
        return guess + first_known + (accepted + rejected) * n_stages - first_known
    return guess + 1 + (accepted + rejected) * (n_stages - 1)
