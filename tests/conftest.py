"""Fixtures that several test modules share: tiny images, and a tiny model trained on them once."""

import os
import signal

import hypothesis
import numpy as np
import pytest
import torch

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears

# The tensors here are so small that a second thread only costs: beside another busy process,
# threads that wait for each other made the same fit ten times slower.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # likewise in the processes that tests start

# A shell that starts the tests in the background lets them ignore Ctrl-C, which some tests press.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long one example takes says nothing where other processes are busy, too.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

TINY = {"width": 4, "max_epochs": 2, "crop_size": 32, "batch_size": 4, "random_state": 0}


@pytest.fixture(scope="session")
def smears():
    """Six drawn smears of 32 x 32 pixels; read-only, as many tests share them."""
    bunch = make_smears(6, image_size=32, random_state=0)
    bunch.images.flags.writeable = bunch.masks.flags.writeable = False
    return bunch


@pytest.fixture(scope="session")
def odd_smears():
    """Six smears of different sizes, as lists."""
    drawn = [
        make_smears(1, image_size=size, random_state=i)
        for i, size in enumerate([(32, 32), (40, 32), (33, 47), (32, 64), (48, 48), (35, 32)])
    ]
    return [bunch.images[0] for bunch in drawn], [bunch.masks[0] for bunch in drawn]


@pytest.fixture
def spoil_zarr():
    """Return a function that leaves the header of a Zarr array and damages its pixels."""

    def spoil(folder):
        for chunk in folder.rglob("*"):
            if chunk.is_file() and "zarr" not in chunk.name and not chunk.name.startswith("."):
                chunk.write_bytes(b"junk")

    return spoil


@pytest.fixture
def tiny():
    """Return a function that makes an unfitted segmenter that trains in half a second."""

    def make(**parameters):
        return BloodCellSegmenter(**{**TINY, **parameters})

    return make


@pytest.fixture(scope="session")
def shared_fitted(smears):
    """A fitted model. Use `fitted` instead, which gives every test its own."""
    return BloodCellSegmenter(**TINY).fit(smears.images, smears.masks)


@pytest.fixture
def fitted(shared_fitted):
    """A copy of the session's fitted model."""
    import copy

    return copy.deepcopy(shared_fitted)


@pytest.fixture
def same_weights():
    """Return a function that tells whether two fitted models or networks are equal to the bit."""

    def equal(first, second):
        states = [getattr(each, "network_", each).state_dict() for each in (first, second)]
        assert states[0].keys() == states[1].keys()
        return all(torch.equal(states[0][name], states[1][name]) for name in states[0])

    return equal


@pytest.fixture
def rng():
    """A random generator, new for each test."""
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def first_ctrl_c(monkeypatch):
    """Let no test's Ctrl-C be the second one within seconds."""
    from bloodseg.training import _train

    monkeypatch.setattr(_train, "_last_interrupt", float("-inf"))


@pytest.fixture(autouse=True)
def same_weights_in_each_run():
    """Let networks that a test makes have the same weights, whatever has run before it."""
    torch.manual_seed(0)
