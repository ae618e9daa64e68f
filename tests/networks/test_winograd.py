"""Winograd's convolution is the usual one, and taken where a CPU and a loose tolerance allow it."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from bloodseg.networks import NODEsUNet, _winograd, for_prediction
from bloodseg.networks._blocks import ConvODEFunction, PreparedODEFunction


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    height=st.integers(1, 23),
    width=st.integers(1, 23),
    channels_last=st.booleans(),
    at_once=st.sampled_from([1, 2000, 2**20]),
)
def test_it_is_the_usual_convolution(n, channels, height, width, channels_last, at_once):
    (n_in, n_out), layout = channels, torch.channels_last if channels_last else None
    h = normal(n, n_in, height, width, seed=1)
    if layout is not None:
        h = h.to(memory_format=layout)
    filters, bias = normal(n_out, n_in, 3, 3, seed=2), normal(n_out, seed=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_winograd, "_AT_ONCE", at_once)
        found = _winograd.convolve(h, _winograd.transform_filters(filters), bias)
    expected = functional.conv2d(h.double(), filters.double(), bias.double(), padding=1)
    torch.testing.assert_close(found.double(), expected, atol=1e-4, rtol=1e-4)


def test_it_is_rougher_than_the_usual_one_but_not_by_much():
    h, filters = normal(1, 128, 32, 32, seed=1), normal(128, 128, 3, 3, seed=2) / 128
    exact = functional.conv2d(h.double(), filters.double(), padding=1)
    found = _winograd.convolve(h, _winograd.transform_filters(filters), torch.zeros(128))
    usual = functional.conv2d(h, filters, padding=1)
    rough, usual_error = (torch.linalg.norm(each - exact) for each in (found, usual))
    assert usual_error < rough < 3e-6 * torch.linalg.norm(exact)


@pytest.fixture
def counted(monkeypatch):
    """Sizes of the maps that go Winograd's way."""
    sizes, convolve = [], _winograd.convolve

    def count(h, transformed, bias):
        sizes.append(tuple(h.shape))
        return convolve(h, transformed, bias)

    monkeypatch.setattr(_winograd, "convolve", count)
    monkeypatch.setattr(_winograd, "_MOST_THREADS", torch.get_num_threads())  # on any machine
    return sizes


@pytest.mark.parametrize(
    ("channels", "tol", "side", "dtype", "n_calls"),
    [
        (128, 1e-4, 16, None, 2),
        (128, 9e-5, 16, None, 0),  # too tight for what is rough
        (120, 1e-2, 16, None, 0),
        (128, 1e-2, 15, None, 0),
        (128, 1e-2, 16, torch.bfloat16, 0),
    ],
)
def test_it_is_taken_where_it_pays(channels, tol, side, dtype, n_calls, counted):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        func = ConvODEFunction(channels)
    t, h = torch.full((1, 1, 1, 1), 0.3), normal(1, channels, side, side)
    weights, evaluate = PreparedODEFunction(func).prepare(dtype, tol)
    with torch.no_grad():
        slope, expected = evaluate(t, h, *weights), func(t, h)
    assert len(counted) == n_calls
    near = 2e-2 if dtype else 1e-5
    torch.testing.assert_close(slope.float(), expected, atol=near, rtol=near)


def test_many_threads_convolve_the_usual_way(counted, monkeypatch):
    monkeypatch.setattr(_winograd, "_MOST_THREADS", torch.get_num_threads() - 1)
    weights, evaluate = PreparedODEFunction(ConvODEFunction(128)).prepare(None, 1e-2)
    with torch.no_grad():
        evaluate(torch.zeros(1, 1, 1, 1), normal(1, 128, 16, 16), *weights)
    assert counted == []


def test_each_sample_has_its_own_time(counted):
    func = ConvODEFunction(128)
    torch.nn.init.ones_(func.first.time)
    t, h = torch.tensor([0.1, 0.9]).view(2, 1, 1, 1), normal(2, 128, 16, 16)
    weights, evaluate = PreparedODEFunction(func).prepare(None, 1e-3)
    with torch.no_grad():
        torch.testing.assert_close(evaluate(t, h, *weights), func(t, h), atol=1e-5, rtol=1e-5)
    assert len(counted) == 2


def test_a_network_predicts_as_without_it(counted, monkeypatch):
    network = NODEsUNet(width=8, ode_tol=1e-3).eval()  # 128 channels at the bottom
    images = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = for_prediction(network)(images)
        n_calls = len(counted)
        tight = for_prediction(network)
        tight.set_tolerances(1e-5)
        tight(images)
        monkeypatch.setattr(_winograd, "pays_for", lambda filters: False)
        expected = for_prediction(network)(images)
    assert set(counted) == {(1, 128, 16, 16)}
    assert n_calls == len(counted) > 0
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_prepared_network_goes_by_the_tolerance_that_a_block_is_given(counted):
    network = for_prediction(NODEsUNet(width=8, ode_positions=(5,), ode_tol=1e-3).eval())
    (block,) = network.ode_blocks.values()
    images = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    for tol, goes_winograds_way in ((1e-3, True), (1e-5, False), (1e-2, True)):
        block.predict_tol = tol
        counted.clear()
        with torch.inference_mode():
            network(images)
        assert bool(counted) == goes_winograds_way


def test_what_inference_mode_has_prepared_can_be_differentiated_through():
    network = for_prediction(NODEsUNet(width=4, ode_positions=(5,)).eval())
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(images)
    answer = network(images.requires_grad_())
    torch.testing.assert_close(answer, expected)
    answer.sum().backward()
    assert images.grad.abs().max() > 0


def test_what_was_prepared_is_not_sent_to_other_processes():
    prepared = PreparedODEFunction(ConvODEFunction(128))
    before = len(pickle.dumps(prepared))
    weights, _ = prepared.prepare(None, 1e-3)
    assert sum(weight.nbytes for weight in weights) > before
    assert len(pickle.dumps(prepared)) == before
    again, _ = copy.deepcopy(prepared).prepare(None, 1e-3)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(weights, again, strict=True))
