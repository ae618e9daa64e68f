"""A pass that looks at errors once, at its end: the answers and counts of the ordinary way."""

import contextlib
import copy
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from messages import raises
from steep_network import let_half_pass, make_network, predict_ordinarily
from torch import nn

from bloodseg.datasets import make_smears
from bloodseg.networks import CountingNetwork, OptimisticPass, UNet, for_prediction
from bloodseg.ode import SolverWarning, Tape, _optimistic
from bloodseg.ode._control import Interval, StepControl, expect_steps


@pytest.fixture(scope="module")
def images():
    drawn = make_smears(6, image_size=48, random_state=0).images
    return torch.from_numpy(drawn.astype(np.float32) / 255).movedim(-1, 1)


def optimistic(network, images):
    """Return answer and counts of an optimistic pass, and how many samples were refused."""
    forward = OptimisticPass(network, True)
    answer, counts = forward(images)
    blocks = network.ode_blocks
    assert {p: each.tolist() for p, each in counts.items()} == {
        p: block.n_evaluations.tolist() for p, block in blocks.items()
    }
    found = [(b.n_evaluations.tolist(), b.n_rejected.tolist()) for b in blocks.values()]
    assert forward._n_seen == len(images)
    return answer, found, forward._n_refused


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("first_step", "settings", "refused"),
    [
        (None, {"steep": 1.0}, 0),
        (None, {"steep": 2.0}, 1),
        (1 / 2, {"steep": 2.0}, 0),
        (1 / 3, {"steep": 2.0}, 1),  # grows after its first step
        (None, {"ode_method": "tsit5"}, 0),
        (None, {"ode_method": "heun", "ode_tol": 1.0}, 0),  # its last stage is not the next first
    ],
    ids=str,
)
def test_answer_and_counts_of_an_image_are_those_of_the_ordinary_way(
    images, precision, first_step, settings, refused
):
    network = make_network(first_step, precision=precision, **settings)
    expected, counts = predict_ordinarily(network, images[:1])
    answer, found, n_refused = optimistic(network, images[:1])
    assert torch.equal(answer, expected)
    assert found == counts
    assert n_refused == refused


@pytest.mark.parametrize("n", [1, 6])
def test_blocks_may_expect_different_steps(images, n):
    network = make_network(steep=2.0)
    network.set_first_steps({4: 1 / 2, 5: None, 6: 1 / 2})
    expected, counts = predict_ordinarily(network, images[:n])
    answer, found, n_refused = optimistic(network, images[:n])
    assert found == counts == [([6] * n, [0] * n), ([3] * n, [0] * n), ([6] * n, [0] * n)]
    assert not n_refused
    assert torch.allclose(answer, expected, atol=1e-5)


def test_some_samples_of_a_batch_are_refused(images):
    network = make_network(steep=3.0)
    let_half_pass(network, images)
    expected, counts = predict_ordinarily(network, images)
    answer, found, n_refused = optimistic(network, images)
    assert n_refused == 3
    assert found == counts
    # Samples that share their times add them to the bias: another rounding.
    assert torch.allclose(answer, expected, atol=1e-5)
    assert torch.equal(answer.argmax(1), expected.argmax(1))


def test_weights_need_not_be_prepared(images):
    network = make_network(1 / 2, prepared=False)
    expected, counts = predict_ordinarily(network, images[:1])
    answer, found, _ = optimistic(network, images[:1])
    assert torch.equal(answer, expected)
    assert found == counts


def test_a_network_without_blocks_is_as_it_was(images):
    network = for_prediction(UNet(width=4).eval())
    with torch.inference_mode():
        expected = network(images)
    answer, counts = OptimisticPass(network, True)(images)
    assert torch.equal(answer, expected)
    assert counts == {}


def test_numbers_of_cells_are_counted_likewise(images):
    network = CountingNetwork(make_network(prepared=False)).eval()
    expected, counts = predict_ordinarily(network, images[:1])
    answer, found, n_refused = optimistic(network, images[:1])
    assert torch.equal(answer, expected)
    assert found == counts
    assert n_refused == 1


def test_what_is_not_finite_raises_as_it_did(images):
    network = make_network()
    batch = images.clone()
    batch[1] = float("nan")
    text = (
        "ODE-block at position 4: the state that enters the solver is not finite after 0 "
        "evaluations. Lower the learning rate; look for NaN in the layers before."
    )
    with raises(text, FloatingPointError), torch.inference_mode():
        network(batch)
    with raises(text, FloatingPointError):
        OptimisticPass(network, True)(batch)


def test_a_solve_that_ends_early_warns_as_it_did(images):
    network = make_network(1 / 2, steep=4.0)
    for block in network.ode_blocks.values():
        block.max_steps = 2
    with pytest.warns(SolverWarning) as expected:
        predict_ordinarily(network, images[:1])
    with pytest.warns(SolverWarning) as found:
        optimistic(network, images[:1])
    assert [str(each.message) for each in found] == [str(each.message) for each in expected]


# ---------------------------------------------------------------- when it is optimistic


@pytest.fixture
def passes(monkeypatch):
    """A list that grows by one with each optimistic pass."""
    seen, judge = [], Tape.judge
    monkeypatch.setattr(Tape, "judge", lambda self: seen.append(1) or judge(self))
    return seen


def test_a_cpu_has_no_waiting_to_spare(images, passes):
    OptimisticPass(make_network())(images)
    assert not passes


def test_it_ends_where_most_samples_are_refused_and_begins_anew_with_other_tolerances(
    images, passes
):
    network = make_network(steep=3.0)
    forward = OptimisticPass(network, True)
    for _ in range(10):
        forward(images[:1])
    assert len(passes) == 5  # more than half of eight
    network.set_tolerances(1.0)
    for _ in range(10):
        forward(images[:1])
    assert len(passes) == 15
    assert not forward._n_refused


@pytest.mark.parametrize(
    "settings",
    [
        {"ode_method": "rk4"},
        {"ode_method": "bosh3", "ode_tol": 1e-4},  # its first step is a guess from the slope
        {"ode_tol": 1e-7},  # each solve warns of it
        {"ode_gradient": "adjoint"},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:.*tighter than float32 serves")
def test_the_ordinary_way_where_steps_cannot_be_expected(images, passes, settings):
    network = make_network(**settings)
    OptimisticPass(network, True)(images[:1])
    assert not passes


def test_first_steps_were_found_for_one_tolerance(images, passes):
    network = make_network(1 / 2, ode_method="bosh3", ode_tol=1e-4)
    forward = OptimisticPass(network, True)
    forward(images[:1])
    assert len(passes) == 1
    network.set_tolerances(1e-4, 2e-4)
    forward(images[:1])
    assert len(passes) == 1


def test_a_first_step_that_is_tiny_is_not_taken_again_and_again(images, passes):
    network = make_network(1 / 20)
    OptimisticPass(network, True)(images[:1])
    assert not passes


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_see_each_call(images, passes, register):
    network, seen = make_network(), []
    forward = OptimisticPass(network, True)
    with getattr(network.ode_blocks[5], register)(lambda *given: seen.append(1)):
        forward(images[:1])
    assert len(seen) == 1
    assert not passes
    forward(images[:1])
    assert len(passes) == 1


def test_a_network_of_the_users_own_goes_the_ordinary_way(images, passes):
    network = nn.Sequential(make_network())
    OptimisticPass(network, True)(images[:1])
    assert not passes


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_go_to_other_processes(images, copied):
    forward = OptimisticPass(make_network(), True)
    expected, _ = forward(images[:1])
    other = copied(forward)
    assert other.network is not forward.network
    answer, _ = other(images[:1])
    assert torch.equal(answer, expected)


# ---------------------------------------------------------------- what a graph needs


@pytest.mark.parametrize("first_step", [None, 1 / 3])
def test_nothing_waits_for_the_device_in_a_pass(monkeypatch, first_step):
    """Tensors on "meta" have no values: whatever asks for one fails."""
    monkeypatch.setattr(_optimistic, "fix_arithmetic", lambda *_: contextlib.nullcontext())
    network = make_network(first_step).to("meta")
    for block in network.ode_blocks.values():
        block.precision = "float32"  # else it asks autocast, which does not know this device
    images, tape = torch.empty(2, 3, 40, 56, device="meta"), Tape()
    with torch.inference_mode():
        with tape.recording(images):
            assert network(images).shape == images.shape
        # What only depends on steps was copied to the device, and is not again: a graph would
        # read the host's memory where it was.
        monkeypatch.setattr(torch, "tensor", None)
        monkeypatch.setattr(torch, "from_numpy", None)
        with tape.recording(images):
            network(images)
        with pytest.raises(NotImplementedError, match="no data"):
            tape.judge()


@pytest.mark.parametrize("first_step", [None, 1.0, 1 / 2, 1 / 3, 1 / 6, 0.3, 2.0])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (3.0, 1.0)])
def test_expected_steps_are_the_controls(first_step, ends):
    """Of a sample whose errors ask for the same step again and again."""
    interval = Interval(*ends, 1e-3, 1e-3, 100, first_step)
    control, row, taken = StepControl(interval, 1, 3, 0.0), np.arange(1), []
    while not control.finished(row):
        steps = control.next_steps(row)
        taken.append((control.times(row)[0], steps[0]))
        control.judge(row, steps, np.array([0.9**3]))
    assert expect_steps(interval, 100) == tuple(taken)
    assert sum(step for _, step in taken) == pytest.approx(ends[1] - ends[0])


def test_more_steps_than_wanted_are_none():
    interval = Interval(0.0, 1.0, 1e-3, 1e-3, 100, 1 / 4)
    assert expect_steps(interval, 3) is None
    assert len(expect_steps(interval, 4)) == 4


def test_threads_get_the_counts_of_their_own_images(images):
    network = make_network()
    forward, meeting = OptimisticPass(network, False), threading.Barrier(2)

    def meet(*_):  # behind all blocks, where there is nothing to keep the two apart
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait(timeout=0.2)

    network.register_forward_hook(meet)
    batches = [images[:1], images[:3]]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(forward, batches))
    for (_, counts), batch in zip(found, batches, strict=True):
        assert {len(each) for each in counts.values()} == {len(batch)}


def test_threads_share_a_pass(images):
    network = make_network()
    for block in network.ode_blocks.values():
        block.tol = 2e-3
    expected = [predict_ordinarily(network, image[None]) for image in images]
    forward = OptimisticPass(network, True)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(forward, [image[None] for image in images] * 3))
    for (answer, counts), (theirs, theirs_counts) in zip(found, expected * 3, strict=True):
        assert torch.equal(answer, theirs)
        assert [each.tolist() for each in counts.values()] == [each for each, _ in theirs_counts]
