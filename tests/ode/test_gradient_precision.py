"""Gradients in float32 and bfloat16 against those in more."""

import numpy as np
import pytest
import torch
from ode_problems import OURS, Convolutional, Prepared, Recorder, gradients, relative_error

from bloodseg.ode import solve


def cosine(first, second):
    flat = [torch.cat([part.flatten() for part in parts]).double() for parts in (first, second)]
    return torch.cosine_similarity(*flat, dim=0).item()


@pytest.mark.parametrize("gradient", OURS)
@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_float32_gradients_are_those_of_float64_through_the_same_steps(gradient, tol):
    # Not so hard that rounding decides on a step.
    y0 = torch.randn(4, 3, 6, 6, generator=torch.manual_seed(1))
    y0 *= torch.tensor([0.1, 1.5, 1.0, 0.5]).reshape(-1, 1, 1, 1)
    single, exact = Convolutional(), Convolutional().double()
    times = []
    for func, start in (single, y0), (exact, y0.double()):
        recorder = Recorder(func)
        with torch.no_grad():
            solve(recorder, start, rtol=tol, atol=tol, method="bosh3")
        times.append(recorder.times)
    assert np.allclose(*times, rtol=0, atol=1e-5)
    common = {"rtol": tol, "atol": tol, "method": "bosh3"}
    expected = gradients(exact, y0.double(), **common, gradient="direct")
    for got, truth in zip(
        gradients(single, y0, **common, gradient=gradient), expected, strict=True
    ):
        assert got.dtype == torch.float32
        assert relative_error(got.double(), truth) < 1e-4


@pytest.mark.parametrize("gradient", OURS)
@pytest.mark.parametrize("make", [Convolutional, lambda: Prepared(torch.float32)])
def test_bfloat16_gradients_point_the_same_way(gradient, make):
    func = make()
    shape = (4, 3, 6, 6) if isinstance(func, Convolutional) else (4, 3)
    y0 = torch.randn(shape, generator=torch.manual_seed(1))
    common = {"rtol": 1e-2, "atol": 1e-2, "gradient": gradient}
    expected = gradients(func, y0, **common)
    got = gradients(func, y0, **common, precision="bfloat16")
    assert not torch.equal(got[0], expected[0])
    for lowered, full in zip(got, expected, strict=True):
        assert lowered.dtype == torch.float32
        assert cosine([lowered], [full]) > 0.99
    assert cosine(got, expected) > 0.99
