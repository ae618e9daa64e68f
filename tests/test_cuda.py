"""What only a CUDA device can show: `pytest -m cuda`."""

import pytest
import torch
from torch import nn

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears
from bloodseg.networks import NODEsUNet, for_prediction
from bloodseg.networks._blocks import ConvODEFunction
from bloodseg.ode import solve
from bloodseg.ode._precision import _TF32_SWITCHES

pytestmark = pytest.mark.cuda


def problem():
    torch.manual_seed(0)
    y0 = torch.randn(3, 16, 20, 24) * torch.tensor([1.0, 20.0, 0.1]).reshape(3, 1, 1, 1)
    return ConvODEFunction(16), y0.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("method", ["bosh3", "tsit5", "dopri8", "rk4"])
@pytest.mark.parametrize("compile", [False, True])
def test_the_solution_is_the_cpus(method, compile):
    func, y0 = problem()
    settings = {"rtol": 1e-4, "atol": 1e-4, "method": method}
    expected = solve(func, y0, compile=False, **settings)
    found = solve(func.cuda(), y0.cuda(), compile=compile, **settings)
    assert found.n_accepted.tolist() == expected.n_accepted.tolist()
    assert torch.allclose(found.y.cpu(), expected.y, rtol=1e-3, atol=1e-3)


def test_gradients_are_the_cpus():
    func, y0 = problem()
    gradients = []
    for device in ("cpu", "cuda"):
        func.to(device)
        end = solve(func, y0.to(device), gradient="checkpoint").y
        gradients.append(torch.autograd.grad(end.square().sum(), func.parameters()))
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other.cpu(), rtol=1e-3, atol=1e-3 * float(one.abs().max()))


@pytest.mark.parametrize("precision", [None, "tf32"])
def test_tf32_is_as_asked_within_and_as_it_was_after(precision):
    def settings():
        return [getattr(owner, name) for owner, name, _, _ in _TF32_SWITCHES]

    seen, before = [], settings()

    class Watched(nn.Module):
        def forward(self, t, y):
            seen.append(settings())
            return -y

    solve(Watched(), torch.ones(2, 3, device="cuda"), precision=precision)
    expected = [on if precision == "tf32" else off for _, _, off, on in _TF32_SWITCHES]
    assert all(values == expected for values in seen)
    assert settings() == before


@pytest.mark.parametrize("gradient", ["direct", "checkpoint", "adjoint"])
@pytest.mark.parametrize("precision", [None, "tf32"])
def test_tf32_is_as_asked_in_backward_too(gradient, precision):
    def settings():
        return [getattr(owner, name) for owner, name, _, _ in _TF32_SWITCHES]

    seen, before = [], settings()

    class Note(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            seen.append(settings())
            return gradient

    class Watched(nn.Linear):
        def forward(self, t, y):
            return Note.apply(super().forward(y))

    func = Watched(3, 3).cuda()
    y0 = torch.ones(2, 3, device="cuda", requires_grad=True)
    solve(func, y0, gradient=gradient, precision=precision).y.sum().backward()
    expected = [on if precision == "tf32" else off for _, _, off, on in _TF32_SWITCHES]
    assert seen
    assert all(values == expected for values in seen)
    assert settings() == before


def test_gradients_in_float32_do_not_depend_on_the_process():
    func, y0 = problem()
    func, y0, found = func.cuda(), y0.cuda(), []
    for fast in (False, True):
        torch.backends.cudnn.allow_tf32 = fast
        try:
            end = solve(func, y0, gradient="direct", precision="float32").y
            found.append(torch.autograd.grad(end.square().sum(), func.parameters()))
        finally:
            torch.backends.cudnn.allow_tf32 = True
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5 * float(one.abs().max()))


def test_a_step_waits_for_the_device_once():
    func, y0 = problem()
    func.cuda()
    y0 = y0.cuda()
    with torch.no_grad():
        solve(func, y0)  # libraries load
        with torch.profiler.profile() as profile:
            solution = solve(func, y0)
    copies = [event for event in profile.events() if "Memcpy DtoH" in event.name]
    # One for each attempt, one for the size of the first state.
    assert len(copies) <= (solution.n_accepted + solution.n_rejected).max() + 1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_network_predicts_as_on_the_cpu(precision):
    torch.manual_seed(0)
    network = NODEsUNet(width=8, precision=precision).eval()
    x = torch.rand(2, 3, 64, 80)
    with torch.no_grad():
        expected = for_prediction(network)(x)
        found = for_prediction(network.cuda())(x.cuda()).cpu()
    tolerance = 1e-3 if precision == "float32" else 0.05
    assert torch.allclose(found, expected, atol=tolerance * float(expected.abs().max()))


def test_the_estimator_trains_and_predicts():
    smears = make_smears(4, image_size=64, random_state=0)
    model = BloodCellSegmenter(width=4, max_epochs=2, crop_size=64, device="cuda", random_state=0)
    maps = model.fit(smears.images, smears.masks).predict(smears.images)
    assert maps.shape == smears.masks.shape
