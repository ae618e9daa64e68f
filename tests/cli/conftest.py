"""Fixtures of the command line's tests: model files, and images on disk."""

import pytest
from PIL import Image
from shell import SMEARS, TINY, save_smears

from bloodseg import BloodCellSegmenter
from bloodseg.cli import main


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder of four annotated smears, which nobody changes."""
    return save_smears(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def model(tmp_path_factory, data):
    """A model file that `bloodseg train` has made of them."""
    path = tmp_path_factory.mktemp("model") / "cells.safetensors"
    assert main(["train", str(data), "-o", str(path), *TINY]) == 0
    return path


@pytest.fixture
def broken(tmp_path):
    """A folder of four smears in which three names are bad in three ways."""
    folder = save_smears(tmp_path / "broken")
    (folder / "images/b.png").write_bytes(b"not an image")
    (folder / "masks/c.png").unlink()
    Image.fromarray(SMEARS.masks[3][:32]).save(folder / "masks/d.png")
    return folder


@pytest.fixture
def model_path(fitted, tmp_path):
    """A tiny model, in a folder of its own."""
    (tmp_path / "model").mkdir()
    fitted.save(tmp_path / "model/cells.safetensors")
    return tmp_path / "model/cells.safetensors"


@pytest.fixture
def save_smear(smears):
    """Return a function that writes one of the shared smears as an image file."""

    def save(path, number=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smears.images[number]).save(path, format="PNG")
        return path

    return save


@pytest.fixture
def each_segment(monkeypatch):
    """Return a function that lets a hook see the number of each image before it is predicted."""

    def hook(before):
        segment, calls = BloodCellSegmenter.segment, []

        def segment_after(self, images):
            calls.append(images)
            before(len(calls), images[0])
            return segment(self, images)

        monkeypatch.setattr(BloodCellSegmenter, "segment", segment_after)

    return hook
