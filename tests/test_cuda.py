"""What only a CUDA device can show: `pytest -m cuda`."""

import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from messages import raises
from steep_network import let_half_pass, make_network, predict_ordinarily
from torch import nn

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears
from bloodseg.networks import NODEsUNet, OptimisticPass, UNet, for_prediction
from bloodseg.networks._blocks import ConvODEFunction
from bloodseg.ode import solve
from bloodseg.ode._precision import _TF32_SWITCHES
from bloodseg.training._augmentation import Augmentation

pytestmark = pytest.mark.cuda


def problem():
    torch.manual_seed(0)
    y0 = torch.randn(3, 16, 20, 24) * torch.tensor([1.0, 20.0, 0.1]).reshape(3, 1, 1, 1)
    return ConvODEFunction(16), y0.contiguous(memory_format=torch.channels_last)


def draw(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)).cuda()


@pytest.mark.parametrize("method", ["kutta3", "bosh3", "tsit5", "dopri8", "rk4"])
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


def assert_no_waiting(work):
    work()  # libraries load
    with torch.profiler.profile() as profile:
        work()
    names = {event.name for event in profile.events()}
    assert any("Launch" in name for name in names)
    assert not [name for name in names if "StreamSynchronize" in name or "Memcpy DtoH" in name]


@pytest.mark.parametrize("gradient", ["direct", "checkpoint"])
def test_backward_waits_for_nothing(gradient):
    func, y0 = problem()
    func.cuda()
    total = solve(func, y0.cuda(), gradient=gradient, precision="float32").y.square().sum()
    weights = list(func.parameters())
    assert_no_waiting(lambda: torch.autograd.grad(total, weights, retain_graph=True))


def test_changes_of_images_wait_for_nothing():
    change = Augmentation(64)
    images, masks = draw(8, 3, 64, 64), torch.zeros((8, 64, 64), dtype=torch.long, device="cuda")
    assert_no_waiting(lambda: change(images, masks, seed=0))


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


# ---------------------------------------------------------------- graphs


def graphs_of(forward):
    return [graph for graph in forward._graphs.values() if graph is not None]


def assert_same(found, expected, tolerance=1e-4):
    """Compare answers and counts with those of the ordinary way."""
    (answer, counts), (theirs, their_counts) = found, expected
    assert torch.allclose(answer, theirs, atol=tolerance * float(theirs.abs().max()))
    assert (answer.argmax(1) != theirs.argmax(1)).double().mean() < 10 * tolerance
    assert [each.tolist() for each in counts.values()] == [each for each, _ in their_counts]


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("first_step", "steep"), [(None, 1.0), (1 / 2, 2.0)])
def test_a_graph_finds_what_the_ordinary_way_finds(precision, compile, first_step, steep):
    network = make_network(first_step, steep=steep, precision=precision).cuda()
    network.decide_compilation(compile, 1, 1)
    forward = OptimisticPass(network)
    shapes = [(1, 3, 64, 80), (3, 3, 50, 48)]
    for seed in range(4):
        for shape in shapes:
            images = draw(*shape, seed=seed)
            expected = predict_ordinarily(network, images)
            # Captured, cuDNN may take another algorithm, in TF32 outside of the blocks.
            assert_same(forward(images), expected, 5e-3 if precision == "float32" else 2e-2)
    assert len(graphs_of(forward)) == len(shapes)
    assert forward._n_seen == 16
    assert not forward._n_refused


def test_an_answer_outlives_the_next_one():
    forward = OptimisticPass(make_network(steep=1.0).cuda())
    batches = [draw(1, 3, 64, 64, seed=seed) for seed in range(4)]
    answers = [forward(images)[0] for images in batches]
    kept = [answer.clone() for answer in answers]
    for images in batches:
        forward(images)
    assert all(map(torch.equal, answers, kept))
    assert not torch.equal(kept[2], kept[3])


def test_refused_samples_of_a_graph_go_the_ordinary_way():
    network, images = make_network(steep=3.0).cuda(), draw(6, 3, 48, 48)
    images *= torch.linspace(0.3, 1, 6, device="cuda").view(-1, 1, 1, 1)
    let_half_pass(network, images)
    expected = predict_ordinarily(network, images)
    forward = OptimisticPass(network)
    for _ in range(3):  # fewer images may be worth another algorithm of cuDNN's
        assert_same(forward(images), expected, 5e-3)
    assert len(graphs_of(forward)) == 1
    assert forward._n_refused == 9


def test_graphs_are_dropped_where_most_samples_are_refused():
    network, images = make_network(steep=3.0).cuda(), draw(1, 3, 64, 64)
    expected, forward = predict_ordinarily(network, images), OptimisticPass(network)
    for number in range(7):
        assert_same(forward(images), expected)
        assert len(graphs_of(forward)) == (1 <= number < 4)


def test_a_pass_waits_for_the_device_once():
    forward, images = OptimisticPass(make_network(1 / 2).cuda()), draw(1, 3, 64, 64)
    for _ in range(3):
        forward(images)
    with torch.profiler.profile() as profile:
        forward(images)
    names = [event.name for event in profile.events()]
    assert sum("Memcpy DtoH" in name for name in names) == 1
    assert not any("Memcpy HtoD" in name for name in names)
    assert sum("cudaGraphLaunch" in name for name in names) == 1


def test_what_is_not_finite_raises_from_a_graph():
    forward, images = OptimisticPass(make_network(steep=1.0).cuda()), draw(1, 3, 64, 64)
    for _ in range(3):
        forward(images)
    with raises("the state that enters the solver is not finite", FloatingPointError):
        forward(images * float("nan"))


def test_a_graph_sees_what_is_written_into_weights():
    network, images = make_network(steep=1.0, prepared=False).cuda(), draw(1, 3, 64, 64)
    forward = OptimisticPass(network)
    for _ in range(3):
        forward(images)
    (graph,) = graphs_of(forward)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(0.9)
    assert_same(forward(images), predict_ordinarily(network, images))
    assert graphs_of(forward) == [graph]


def test_other_weights_tolerances_and_precision_make_a_graph_anew():
    network, images = make_network(steep=1.0, prepared=False).cuda(), draw(1, 3, 64, 64)
    forward = OptimisticPass(network)

    def replace_weight():
        network.head.weight = nn.Parameter(-network.head.weight.detach())

    def loosen():
        network.set_tolerances(1.0)

    def lower():
        network.precision = "bfloat16"

    for change in (replace_weight, loosen, lower):
        for _ in range(3):
            forward(images)
        assert len(graphs_of(forward)) == 1
        change()
        expected = predict_ordinarily(network, images)
        assert_same(forward(images), expected, 5e-3)
        assert not graphs_of(forward)


def test_graphs_of_the_last_four_sizes_are_kept():
    forward = OptimisticPass(make_network(steep=1.0).cuda())
    for side in range(32, 128, 16):
        for _ in range(2):
            forward(draw(1, 3, side, side))
    assert len(graphs_of(forward)) == 4
    found = forward(draw(1, 3, 64, 64))  # the oldest of those that are left
    assert_same(found, predict_ordinarily(forward.network, draw(1, 3, 64, 64)))


def test_threads_share_graphs_and_capture_side_by_side():
    passes = [OptimisticPass(make_network(steep=1.0).cuda()) for _ in range(2)]
    batches = [draw(1, 3, 64, side, seed=side) for side in (48, 64, 80)] * 8
    expected = [predict_ordinarily(passes[0].network, images) for images in batches]
    jobs = [(each, images) for images in batches for each in passes]

    def work(job):
        forward, images = job
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
            found = forward(images)
            torch.cuda.current_stream().synchronize()
        return found

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, jobs))
    for number, each in enumerate(found):
        assert_same(each, expected[number // 2])
    assert [len(graphs_of(each)) for each in passes] == [3, 3]


class Looks(nn.Module):
    """Waits for the device, which a capture forbids."""

    def forward(self, x):
        return x * x.sum().sign().item()


def test_what_cannot_be_captured_is_predicted_all_the_same(caplog):
    network = UNet(width=4, body=lambda position, channels: Looks()).eval().cuda()
    forward, images, stream = (
        OptimisticPass(network),
        draw(1, 3, 64, 64),
        torch.cuda.current_stream(),
    )
    with torch.inference_mode():
        expected = network(images)
    with caplog.at_level(logging.WARNING, "bloodseg"):
        for _ in range(4):
            assert torch.equal(forward(images)[0], expected)
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        "No CUDA graph could be captured, so prediction goes on without, slower"
    ]
    assert torch.cuda.current_stream() == stream
    assert torch.ones(3, device="cuda").sum().item() == 3


def test_memory_of_graphs_is_given_up_where_images_need_it(monkeypatch):
    forward, images = OptimisticPass(make_network(steep=1.0).cuda()), draw(1, 3, 64, 64)
    for _ in range(3):
        forward(images)
    whole, asked = forward.network.forward, []

    def short_of_memory(x):
        asked.append(len(graphs_of(forward)))
        if asked[-1]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return whole(x)

    monkeypatch.setattr(forward.network, "forward", short_of_memory)
    answer, _ = forward(draw(1, 3, 96, 96))
    assert answer.shape == (1, 3, 96, 96)
    assert asked == [1, 0]


def test_the_estimator_predicts_as_it_does_without_graphs():
    smears = make_smears(6, image_size=96, random_state=0)
    model = BloodCellSegmenter(width=4, max_epochs=2, crop_size=64, device="cuda", random_state=0)
    model.fit(smears.images, smears.masks)
    maps, counts = model.predict(smears.images), model.n_function_evaluations_
    predictor = model._make_predictor()
    predictor.network.forward.optimistic = False
    expected = np.stack([found.class_map for found in predictor.segmented(smears.images)])
    assert (maps != expected).mean() < 1e-3
    for position, theirs in predictor.n_function_evaluations.items():
        assert counts[position].tolist() == theirs.tolist()


def test_the_estimator_trains_and_predicts():
    smears = make_smears(4, image_size=64, random_state=0)
    model = BloodCellSegmenter(width=4, max_epochs=2, crop_size=64, device="cuda", random_state=0)
    maps = model.fit(smears.images, smears.masks).predict(smears.images)
    assert maps.shape == smears.masks.shape
