"""Each sample has its own steps and counts, whatever is beside it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ode_problems import (
    ADAPTIVE,
    COUNTS,
    Convolutional,
    Function,
    Recorder,
    braked,
    decay,
    double,
    known_cost,
    silent,
    warns,
)

from bloodseg.ode import (
    METHODS,
    solve,
)
from bloodseg.ode import _solve as solve_module

# ---------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("method", "evaluations", "accepted"),
    [
        ("heun", 2, 1),
        ("bosh3", 4, 1),
        ("dopri5", 7, 1),
        ("tsit5", 7, 1),
        ("dopri8", 13, 1),
        ("euler", 4, 4),
        ("midpoint", 8, 4),
        ("rk4", 16, 4),
    ],
)
def test_counts_where_they_are_known(method, evaluations, accepted):
    recorder = Recorder(lambda t, y: torch.zeros_like(y))
    solution = solve(recorder, torch.ones(3, 2), method=method)
    assert solution.n_evaluations.tolist() == [evaluations] * 3
    assert solution.n_accepted.tolist() == [accepted] * 3
    assert solution.n_rejected.tolist() == [0] * 3
    assert recorder.sizes == [3] * evaluations


@pytest.mark.parametrize("method", ADAPTIVE)
@pytest.mark.parametrize("tol", [1e-1, 1e-3, 0.9e-3, 1e-5, 0.9e-5])
@pytest.mark.parametrize("value", [0.1, 5.0, 100.0])
def test_a_step_costs_its_new_stages(method, tol, value):
    recorder = Recorder(braked)
    settings = {"rtol": tol, "atol": tol, "method": method, "max_steps": 100}
    with silent():  # a hundred attempts tell
        solution = solve(recorder, double([[value]]), **settings)
    accepted, rejected = solution.n_accepted[0], solution.n_rejected[0]
    assert solution.n_evaluations[0] == known_cost(method, accepted, rejected, tol)
    assert len(recorder.sizes) == solution.n_evaluations[0]


def test_a_stiff_start_is_rejected():
    solution = solve(lambda t, y: -50 * y, torch.ones(1, 1), method="bosh3")
    assert solution.n_rejected[0] >= 1


# ---------------------------------------------------------------- each sample its own


@pytest.fixture(params=["in one chunk", "one by one"])
def chunks(request, monkeypatch):
    if request.param == "one by one":
        monkeypatch.setattr(solve_module, "_CHUNK_BYTES", 1)
    return request.param


@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("method", METHODS)
def test_a_sample_does_not_depend_on_the_others(method, tol, chunks):
    easy, stiff, other = (torch.full((1, 2, 3, 3), value) for value in (0.5, 6.0, -1.7))

    def run(y0):
        return solve(braked, y0, rtol=tol, atol=tol, method=method)

    alone = run(easy)
    for batch, place in (
        ([easy, stiff], 0),
        ([stiff, easy], 1),
        ([stiff, easy, other], 1),
        ([other, other, stiff, easy], 3),
    ):
        together = run(torch.cat(batch))
        assert torch.allclose(together.y[place], alone.y[0], rtol=1e-6, atol=1e-7)
        for count in COUNTS:
            assert getattr(together, count)[place] == getattr(alone, count)[0]


@pytest.mark.parametrize("tol", [1e-2, 3e-4])
@pytest.mark.parametrize("method", ["auto", "heun", "dopri5", "rk4"])
def test_a_convolutional_sample_does_not_depend_on_the_others(method, tol, chunks):
    func = Convolutional()
    y0 = torch.randn(5, 3, 8, 8, generator=torch.manual_seed(1))
    y0 *= torch.tensor([0.1, 6.0, 1.0, 3.0, 0.01]).reshape(-1, 1, 1, 1)
    y0 *= 0.3 if method == "rk4" else 1
    with torch.no_grad():
        together = solve(func, y0, rtol=tol, atol=tol, method=method)
        for i in range(5):
            alone = solve(func, y0[i : i + 1], rtol=tol, atol=tol, method=method)
            assert torch.allclose(together.y[i], alone.y[0], rtol=1e-4, atol=1e-5)
            for count in COUNTS:
                assert getattr(together, count)[i] == getattr(alone, count)[0]
    if method != "rk4":  # whose steps are four, and too long for larger states
        assert len(set(together.n_accepted)) > 2


def test_large_states_are_solved_one_by_one():
    large = torch.ones(3, 2**19)  # 2 MiB a sample
    recorder = Recorder(decay)
    solution = solve(recorder, large)
    assert set(recorder.sizes) == {1}
    assert sum(recorder.sizes) == solution.n_evaluations.sum()
    alone = solve(recorder, large[:1])
    assert torch.allclose(solution.y, alone.y.expand_as(large), rtol=1e-6)


@pytest.mark.parametrize("method", ["bosh3", "tsit5"])
@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_finished_samples_are_evaluated_no_more(method, tol):
    recorder = Recorder(braked)
    y0 = torch.tensor([[0.5], [30.0], [3.0], [0.1]])
    solution = solve(recorder, y0, rtol=tol, atol=tol, method=method)
    # These methods keep their last stage: every attempt costs every sample the same.
    expected = [(solution.n_evaluations > k).sum() for k in range(max(solution.n_evaluations))]
    assert recorder.sizes == expected
    assert recorder.sizes[0] == 4
    assert recorder.sizes[-1] == 1


def test_stopped_samples_are_evaluated_no_more():
    recorder = Recorder(braked)
    with silent():
        solution = solve(recorder, torch.tensor([[0.5], [1e4], [3.0]]), max_steps=15)
    assert solution.status.tolist() == [0, 1, 0]
    assert sum(recorder.sizes) == solution.n_evaluations.sum()


def test_a_finished_sample_keeps_its_state():
    # Easy samples leave first; what is written later must not touch them.
    values = [0.5, 60.0, 0.1, 20.0, 3.0, 0.01]
    y0 = double(values).reshape(-1, 1)
    end = solve(lambda t, y: -y * y.abs(), y0, rtol=1e-6, atol=1e-6, method="bosh3").y
    assert np.allclose(end[:, 0], [v / (1 + v) for v in values], rtol=0, atol=1e-4)


CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def laid_out(values, layout):
    if layout == "channels_last":
        return values.contiguous(memory_format=CHANNELS_LAST[values.ndim])
    if layout == "strided":
        return torch.stack([values, values], dim=-1)[..., 0]
    if layout == "transposed":
        return values.transpose(0, -1).contiguous().transpose(0, -1)
    return values


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    layout=st.sampled_from(["plain", "channels_last", "strided", "transposed"]),
    method=st.sampled_from(METHODS),
    tol=st.sampled_from([1e-1, 1e-2, 5e-4]),
    chunk_bytes=st.sampled_from([1, 64, 2**20]),
    seed=st.integers(0, 9),
)
def test_any_shape_dtype_and_layout(shape, dtype, layout, method, tol, chunk_bytes, seed):
    if layout == "channels_last" and len(shape) not in CHANNELS_LAST:
        layout = "plain"
    values = torch.randn(shape, dtype=dtype, generator=torch.manual_seed(seed))
    values *= torch.linspace(0.1, 6, shape[0], dtype=dtype).reshape(-1, *[1] * (len(shape) - 1))
    values.clamp_(-2, 2)  # four fixed steps must do
    y0 = laid_out(values, layout)
    before = y0.clone()

    def func(t, y):
        assert t.shape == (len(y), *[1] * (y.ndim - 1))
        assert y.shape[1:] == y0.shape[1:]
        assert t.dtype == y.dtype == dtype
        if layout == "channels_last":
            assert y.is_contiguous(memory_format=CHANNELS_LAST[y.ndim])
        return braked(t, y)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(solve_module, "_CHUNK_BYTES", chunk_bytes)
        solution = solve(func, y0, rtol=tol, atol=tol, method=method)
        alone = solve(func, y0[-1:], rtol=tol, atol=tol, method=method)
    assert torch.equal(y0, before)
    assert y0.stride() == before.stride() or layout in ("strided", "transposed")
    assert solution.y.shape == y0.shape
    assert solution.y.dtype == dtype
    if layout == "channels_last":
        assert solution.y.is_contiguous(memory_format=CHANNELS_LAST[y0.ndim])
    elif layout == "plain":
        assert solution.y.is_contiguous()
    for count in COUNTS:
        assert getattr(solution, count).shape == (len(y0),)
    assert torch.allclose(solution.y[-1:], alone.y, rtol=1e-5, atol=1e-6)


def test_channels_last_is_kept_of_volumes():
    y0 = laid_out(torch.ones(2, 3, 4, 5, 6), "channels_last")
    assert solve(braked, y0).y.stride() == y0.stride()


@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
def test_channels_last_is_kept_where_a_gradient_is_asked_for(gradient, chunks):
    y0 = torch.randn(3, 4, 5, 6, generator=torch.manual_seed(0))
    y0 = (y0 * torch.tensor([0.1, 5.0, 1.0]).reshape(-1, 1, 1, 1)).to(
        memory_format=torch.channels_last
    )
    y0.requires_grad_()
    end = solve(Convolutional(4), y0, gradient=gradient).y
    assert end.is_contiguous(memory_format=torch.channels_last)
    end.sum().backward()
    assert y0.grad.shape == y0.shape


@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
@pytest.mark.parametrize("recording", [False, True])
def test_a_slope_of_another_dtype_does_not_change_the_state_s(gradient, recording):
    def func(t, y):
        return -y * double([[2.0, 1.0]])

    y0 = torch.ones(3, 2, requires_grad=recording)
    end = solve(Function(func), y0, gradient=gradient).y
    assert end.dtype == torch.float32
    assert end.requires_grad == recording
    if recording:
        end.sum().backward()
        assert y0.grad.dtype == torch.float32


@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
@pytest.mark.parametrize("recording", [False, True])
@pytest.mark.parametrize("max_steps", [1000, 1])
def test_the_solution_lies_in_memory_of_its_own(gradient, recording, max_steps):
    y0 = torch.full((1, 2), 50.0).requires_grad_(recording)
    with silent():  # one step is too few: the solution is y0
        end = solve(Function(braked), y0, max_steps=max_steps, gradient=gradient).y
    end.detach().fill_(7.0)
    assert torch.equal(y0, torch.full((1, 2), 50.0))


def test_the_first_sample_that_stops_is_numbered_across_chunks(chunks):
    y0 = torch.tensor([[0.5], [0.2], [1e4], [1e4]])
    with warns("solve: 2 of 4 samples stopped before t=1; the first, sample 2, took all"):
        solve(braked, y0, max_steps=15)
