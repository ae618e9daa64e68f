"""Fixtures of the command line's tests: a model file and images on disk."""

import pytest
from PIL import Image


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
