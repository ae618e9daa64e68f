"""The solver's sums compiled by torch: the same results, and no harm where that fails."""

import logging

import pytest
import torch
from torch import nn

from bloodseg.networks import NODEsUNet
from bloodseg.networks._blocks import ConvODEFunction
from bloodseg.ode import ODEBlock, _fused, pays_to_compile, solve
from bloodseg.ode._arithmetic import Slopes


@pytest.fixture(autouse=True)
def _forget_failures(monkeypatch):
    monkeypatch.setattr(_fused._Compiled, "failed", False)


@pytest.fixture
def compile_with(monkeypatch):
    """Return a function that puts another in place of torch.compile."""

    def replace(function):
        monkeypatch.setattr(torch, "compile", function)
        _fused._get_compiled.cache_clear()

    yield replace
    _fused._get_compiled.cache_clear()


def problem():
    torch.manual_seed(0)
    func = ConvODEFunction(4)
    func.second.gain *= 8
    y0 = torch.randn(3, 4, 6, 5) * torch.tensor([1.0, 30.0, 0.1]).reshape(3, 1, 1, 1)
    return func, y0.contiguous(memory_format=torch.channels_last)


def refuse(*arguments, **settings):
    raise RuntimeError("no compiler\nat all")


@pytest.mark.parametrize(("method", "precision"), [("heun", None), ("bosh3", "bfloat16")])
def test_compiled_sums_are_the_same(method, precision):
    func, y0 = problem()
    settings = {"method": method, "precision": precision}
    with torch.no_grad():
        eager = solve(func, y0, compile=False, **settings)
        fused = solve(func, y0, compile=True, **settings)
    assert not _fused._Compiled.failed
    assert eager.n_accepted.tolist() == fused.n_accepted.tolist()
    assert len(set(eager.n_accepted)) > 1  # samples that leave and samples that stay
    assert torch.allclose(eager.y, fused.y, rtol=1e-3, atol=1e-3)
    assert fused.y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("method", ["heun", "kutta3", "bosh3", "tsit5", "rk4"])
@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_sums_of_all_samples_at_a_time_are_the_same(monkeypatch, method, tol):
    """As they are on a GPU."""
    func, y0 = problem()
    settings = {"method": method, "rtol": tol, "atol": tol, "compile": False}
    with torch.no_grad():
        apart = solve(func, y0, **settings)
        monkeypatch.setattr(Slopes, "_together", property(lambda self: True, lambda *_: None))
        together = solve(func, y0, **settings)
    assert together.n_accepted.tolist() == apart.n_accepted.tolist()
    assert together.n_rejected.tolist() == apart.n_rejected.tolist()
    assert torch.allclose(together.y, apart.y, atol=1e-6 * float(apart.y.abs().max()))


def test_compiled_sums_find_the_same_first_steps_and_gradients():
    func, y0 = problem()
    # Guesses its first step there, and has few sums to compile, shared with the test above.
    settings = {"method": "heun", "rtol": 9e-4, "atol": 9e-4, "gradient": "checkpoint"}
    gradients = []
    for compile in (False, True):
        end = solve(func, y0, **settings, compile=compile).y
        gradients.append(torch.autograd.grad(end.square().sum(), func.parameters()))
    for eager, fused in zip(*gradients, strict=True):
        assert torch.allclose(eager, fused, rtol=1e-3, atol=1e-4 * float(eager.abs().max()))


def test_slopes_of_another_layout_are_laid_out_as_the_state(compile_with):
    compile_with(lambda function, **settings: function)
    _, y0 = problem()
    func = lambda t, y: -y.contiguous()  # noqa: E731
    assert torch.allclose(solve(func, y0, compile=True).y, solve(func, y0, compile=False).y)


@pytest.mark.parametrize(
    "func",
    [
        lambda t, y: torch.cat([-y, 7 * y], dim=1).chunk(2, dim=1)[0],
        lambda t, y: torch.stack([-y, 7 * y], dim=1)[:, 0],
        lambda t, y: torch.tensor(0.5).expand_as(y),
    ],
    ids=["half of the channels", "one of two", "one number"],
)
def test_slopes_that_lie_apart_or_on_each_other(compile_with, func):
    compile_with(lambda function, **settings: function)
    y0 = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert torch.allclose(solve(func, y0, compile=True).y, solve(func, y0, compile=False).y)


def test_without_a_compiler_the_solve_goes_on_and_says_why_once(compile_with, caplog):
    func, y0 = problem()
    compile_with(lambda function, **settings: refuse)
    with torch.no_grad(), caplog.at_level(logging.WARNING, logger="bloodseg"):
        solutions = [solve(func, y0, compile=True) for _ in range(2)]
    (record,) = caplog.records
    assert record.getMessage() == (
        "torch.compile does not work here, so the solver goes on without it, slower at large "
        "states (RuntimeError: no compiler). compile=False spares the attempt."
    )
    expected = solve(func, y0, compile=False).y
    assert all(torch.allclose(solution.y, expected, atol=1e-5) for solution in solutions)


def test_auto_compiles_only_large_states_in_long_jobs():
    assert pays_to_compile(2**21, 2**10)
    assert not pays_to_compile(2**21, 100)
    assert not pays_to_compile(2**18, 2**30)


def test_a_short_solve_is_not_compiled(compile_with):
    compile_with(refuse)
    func, y0 = problem()
    assert solve(func, y0).status.tolist() == [0, 0, 0]


@pytest.mark.parametrize("compile", [None, "yes"])
def test_compile_is_checked(compile):
    text = f"compile must be True, False or 'auto'; got {compile!r}."
    with pytest.raises(ValueError, match=text):
        solve(lambda t, y: -y, torch.ones(1, 1), compile=compile)
    with pytest.raises(ValueError, match=text):
        ODEBlock(nn.Identity(), compile=compile)


def test_a_network_decides_for_each_block_from_the_size_of_the_job():
    network = NODEsUNet(width=32, ode_positions=(1, 3, 5))
    found = {}
    for compile in ("auto", True, False):
        network.decide_compilation(compile, 256**2, 1100)
        found[compile] = [block.compile_mode for block in network.ode_blocks.values()]
    assert found == {"auto": [True, False, False], True: [True] * 3, False: [False] * 3}
