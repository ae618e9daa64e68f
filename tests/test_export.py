"""ONNX files: a twin of fixed steps, run by onnxruntime."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.exceptions import NotFittedError
from torch import nn

from bloodseg import BloodCellCounter, BloodCellSegmenter, Preprocessor
from bloodseg.cli import main
from bloodseg.datasets import make_smears
from bloodseg.export import to_onnx
from bloodseg.ode import METHODS, FixedStepBlock, ODEBlock, choose_n_steps
from bloodseg.ode.methods import TABLEAUS


def run(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"images": images})[0]


def metadata(path):
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def as_input(images, preprocessor):
    pixels = np.stack(preprocessor.transform(images))
    return np.moveaxis(pixels, -1, 1).astype(np.float32) / 255


@pytest.fixture(scope="module")
def written(shared_fitted, smears, tmp_path_factory):
    """What was written of the session's model, with images."""
    path = tmp_path_factory.mktemp("onnx") / "cells.onnx"
    return to_onnx(copy.deepcopy(shared_fitted), path, smears.images)


@pytest.fixture(scope="module")
def session(written):
    return onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])


class Rotation(nn.Module):
    """dh/dt = A h, with a known solution."""

    def forward(self, t, h):
        return torch.stack([-h[:, 1], h[:, 0]], dim=1) + t * h


def rotated(h):
    """Turned by one radian; t h makes it longer by exp(1/2)."""
    cos, sin = np.cos(1), np.sin(1)
    turn = torch.tensor([[cos, -sin], [sin, cos]], dtype=h.dtype)
    return np.exp(0.5) * h @ turn.T


@pytest.mark.parametrize("method", METHODS)
def test_fixed_steps_come_to_the_solution_at_the_methods_order(method):
    h = torch.tensor([[1.0, 2.0], [-3.0, 0.5]], dtype=torch.float64)
    errors = [
        (FixedStepBlock(Rotation(), method, n)(h) - rotated(h)).abs().max().item() for n in (4, 8)
    ]
    slope = np.log2(errors[0] / errors[1])
    assert slope > TABLEAUS[method].order - 0.5  # tsit5 does better than its order here


@pytest.mark.parametrize("method", ["bosh3", "dopri5", "rk4", "heun"])
def test_as_many_steps_as_the_solvers_evaluations_are_enough_for(method):
    h = torch.tensor([[1.0, 2.0], [-3.0, 0.5]], dtype=torch.float64)
    block = ODEBlock(Rotation(), tol=1e-4, method=method).eval()
    exact = block(h)
    steps = choose_n_steps(block, int(block.n_evaluations.max()))
    twin = FixedStepBlock(block.func, method, steps)
    assert (twin(h) - exact).abs().max() < 1e-2 * exact.abs().max()
    assert steps >= 2


def test_without_evaluations_steps_are_as_long_as_the_first():
    block = ODEBlock(Rotation(), tol=1e-3, predict_tol=1e-2, method="bosh3", first_step=0.2)
    assert choose_n_steps(block) == 1  # 0.2 is for another tolerance
    block.predict_tol = None
    assert choose_n_steps(block) == 5
    block.first_step = 1 / 49  # one over that is a little above 49
    assert choose_n_steps(block) == 49
    block.first_step, block.tol = None, 1e-6
    assert choose_n_steps(block) == 4


def test_a_block_that_takes_equal_steps_is_equal_to_its_twin(fitted):
    """With one step a block, twin and network do the same sums."""
    network = fitted.network_
    h = torch.rand(2, 32, 8, 8)
    block = network.ode_blocks[4]
    expected = block(h)
    assert block.n_evaluations.tolist() == [3, 3]
    twin = FixedStepBlock(block.func, "kutta3", choose_n_steps(block, 4))
    torch.testing.assert_close(twin(h), expected, rtol=0, atol=1e-6)


def test_steps_and_share_of_pixels(written, shared_fitted, smears):
    assert written.methods == {4: "kutta3", 5: "kutta3", 6: "kutta3"}
    assert set(written.steps) == {4, 5, 6}
    assert min(written.steps.values()) >= 1
    inputs = as_input(smears.images, shared_fitted.preprocessor_)
    maps = run(written.path, inputs).argmax(axis=1)
    expected = copy.deepcopy(shared_fitted).predict(smears.images)
    assert written.changed == np.mean(maps != expected)
    assert written.changed < 0.005


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70))
def test_any_number_and_size_of_images(session, shared_fitted, n, height, width):
    images = torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(height))
    network = copy.deepcopy(shared_fitted.network_).eval()
    network.precision = "float32"  # as the file is
    with torch.inference_mode():
        expected = network(images).numpy()
    (logits,) = session.run(None, {"images": images.numpy()})
    np.testing.assert_allclose(logits, expected, atol=2e-3 * np.abs(expected).max())


def test_the_file_says_that_it_does_not_scale(fitted, tmp_path):
    segmenter = copy.deepcopy(fitted).set_params(red_cell_diameter="auto")
    said = metadata(to_onnx(segmenter, tmp_path / "a.onnx").path)
    wide = f"red cells are about {segmenter.red_cell_diameter_:.0f} pixels wide"
    assert wide in said["input"]


def test_the_file_says_what_it_is(written, fitted):
    proto = onnx.load(written.path)
    onnx.checker.check_model(proto, full_check=True)
    for value, name in ((proto.graph.input[0], "images"), (proto.graph.output[0], "logits")):
        sides = [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        assert (value.name, sides) == (name, ["n", 3, "height", "width"])
    said = metadata(written.path)
    assert json.loads(said["classes"]) == ["background", "white", "red"]
    assert "not a medical device" in said["notice"]
    assert said["input"].endswith("after the preprocessor. Sides of any length.")
    parameters = json.loads(said["preprocessor"])
    assert parameters.pop("class") == "Preprocessor"
    parameters["tile_grid_size"] = tuple(parameters["tile_grid_size"])
    assert parameters == fitted.preprocessor_.get_params()
    assert json.loads(said["ode_blocks"]) == {
        str(position): {"method": "kutta3", "steps": number, "tolerance": 1e-3}
        for position, number in written.steps.items()
    }


def test_weights_are_kept_once(written, fitted):
    n_weights = sum(weight.numel() for weight in fitted.network_.parameters())
    assert written.path.stat().st_size < 1.15 * 4 * n_weights + 2**16


def test_the_segmenter_is_left_as_it_is(fitted, smears, tmp_path, same_weights):
    before = copy.deepcopy(fitted)
    parameters = fitted.get_params()
    written = to_onnx(fitted, tmp_path / "cells.onnx", smears.images[:1], steps={4: 3})
    assert written.steps[4] == 3
    assert fitted.get_params() == parameters
    assert vars(fitted).keys() == vars(before).keys()
    assert same_weights(fitted, before)
    assert isinstance(fitted.network_.ode_blocks[4], ODEBlock)


def test_without_images_the_last_predict_says_how_many_steps(fitted, smears, tmp_path):
    fitted.set_params(predict_ode_tol=1e-6).predict(smears.images[:1])
    written = to_onnx(fitted, tmp_path / "cells.onnx")
    assert written.changed is None
    assert written.methods == {4: "dopri8", 5: "dopri8", 6: "dopri8"}
    blocks = fitted._copy_network().network.ode_blocks
    for position, counts in fitted.n_function_evaluations_.items():
        block = blocks[position]
        assert written.steps[position] == choose_n_steps(block, int(counts.max()))


@pytest.mark.parametrize("network", ["unet", "resnet-unet", "fcn", "feedback-unet", "d-linknet"])
def test_networks_without_blocks(network, tiny, smears, tmp_path):
    segmenter = tiny(network=network, max_epochs=1, preprocessor=None)
    segmenter.fit(smears.images, smears.masks)
    written = to_onnx(segmenter, tmp_path / "cells.onnx", smears.images)
    assert (written.steps, written.methods) == ({}, {})
    assert written.changed < 1e-3
    assert metadata(written.path)["preprocessor"] == "null"


class Own(nn.Module):
    """A network of a user's own, with an ODE-block in it."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 3, 1)
        self.block = ODEBlock(Slope())

    def forward(self, images):
        return self.block(self.head(images))


class Slope(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, t, h):
        return torch.tanh(self.mix(h)) + t


class Pooled(nn.Module):
    """A network whose forward decides by numpy on the size: tracing it goes wrong."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 3, 1)

    def forward(self, images):
        order = torch.as_tensor(np.arange(images.shape[-1])[::-1].copy())
        return self.head(images).index_select(-1, order)


def test_a_network_of_the_users_own(tiny, smears, tmp_path):
    segmenter = tiny(network=Own, max_epochs=1).fit(smears.images, smears.masks)
    written = to_onnx(segmenter, tmp_path / "own.onnx", smears.images, steps=2)
    assert written.steps == {"block": 2}
    assert written.changed < 0.01


def test_a_network_that_cannot_be_traced_is_refused(tiny, smears, tmp_path):
    segmenter = tiny(network=Pooled, max_epochs=1).fit(smears.images, smears.masks)
    with pytest.raises(ValueError, match="network cannot be exported: traced on one image size"):
        to_onnx(segmenter, tmp_path / "own.onnx")
    assert not list(tmp_path.iterdir())


def test_a_preprocessor_of_the_users_own_is_named(tiny, smears, tmp_path):
    class Darker(Preprocessor):
        pass

    segmenter = tiny(network="unet", max_epochs=1, preprocessor=Darker(clip_limit=3.0))
    segmenter.fit(smears.images, smears.masks)
    written = to_onnx(segmenter, tmp_path / "cells.onnx")
    said = json.loads(metadata(written.path)["preprocessor"])
    assert (said["class"], said["clip_limit"]) == ("Darker", 3.0)


def test_wrong_arguments(fitted, smears, tmp_path):
    path = tmp_path / "cells.onnx"
    with pytest.raises(ValueError, match="a BloodCellSegmenter; got BloodCellCounter"):
        to_onnx(BloodCellCounter(), path)
    with pytest.raises(NotFittedError):
        to_onnx(BloodCellSegmenter(), path)
    with pytest.raises(OSError, match=r"lies in .*nowhere, which is no folder"):
        to_onnx(fitted, tmp_path / "nowhere" / "cells.onnx")
    with pytest.raises(OSError, match="is a folder"):
        to_onnx(fitted, tmp_path)
    with pytest.raises(ValueError, match=r"positions of ODE-blocks, \[4, 5, 6\]; got 3"):
        to_onnx(fitted, path, steps={3: 1})
    for number in (0, 1.5, True):
        with pytest.raises(ValueError, match=f"whole numbers of at least 1; got {number!r}"):
            to_onnx(fitted, path, steps=number)
    with pytest.raises(ValueError, match="images must hold at least one"):
        to_onnx(fitted, path, [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(package, fitted, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'bloodseg\[onnx\]'"):
        to_onnx(fitted, tmp_path / "cells.onnx")


def test_a_write_that_fails_leaves_nothing(fitted, tmp_path, monkeypatch):
    path = tmp_path / "cells.onnx"
    path.write_bytes(b"mine")
    monkeypatch.setattr("bloodseg._files.os.replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        to_onnx(fitted, path)
    assert path.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def command(fitted, tmp_path, smears):
    fitted.save(tmp_path / "cells.safetensors")
    images = tmp_path / "images"
    images.mkdir()
    for number, image in enumerate(smears.images[:2]):
        Image.fromarray(image).save(images / f"{number}.png")
    path = tmp_path / "cells.onnx"
    return ["export", str(tmp_path / "cells.safetensors"), "-o", str(path)], path, images


def test_the_command(command, capsys):
    arguments, path, images = command
    missing = images / "9.png"  # costs no other image
    given = ["--images", str(images), str(missing), "--steps", "4=2,6=3"]
    assert main([*arguments, *given]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ODE-block 4: 2 x kutta3"
    assert lines[2] == "ODE-block 6: 3 x kutta3"
    assert lines[3].endswith("% of the pixels of 2 images change their class.")
    assert lines[4] == f"Network: {path}"
    assert run(path, np.zeros((1, 3, 20, 30), np.float32)).shape == (1, 3, 20, 30)


def test_the_command_without_images_at_another_tolerance(command, capsys):
    arguments, path, _ = command
    assert main([*arguments, "--predict-ode-tol", "1e-6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ODE-block 4: 1 x dopri8"
    assert lines[3:] == [f"Network: {path}"]


def test_the_command_says_what_is_wrong(command, capsys):
    arguments, path, images = command
    for wrong, text in (
        (["--steps", "few"], "numbers of steps are written as"),
        (["--steps", "9=1"], "positions of ODE-blocks, [4, 5, 6]; got 9"),
        (["--images", str(images / "9.png")], "none of the inputs is an image."),
    ):
        assert main([*arguments, *wrong]) == 2
        assert text in capsys.readouterr().err
    model = Path(arguments[1])
    before = model.read_bytes()
    assert main(["export", str(model), "-o", str(model), "--overwrite"]) == 2
    assert f"{model} is the model itself. Choose another name." in capsys.readouterr().err
    assert model.read_bytes() == before
    path.write_bytes(b"mine")
    assert main(arguments) == 2
    assert "exists. Choose another name, or pass --overwrite." in capsys.readouterr().err
    assert path.read_bytes() == b"mine"


def test_further_classes_are_named_in_the_file_and_have_logits(tmp_path):
    smears = make_smears(2, image_size=64, red_cell_diameter=24, platelets="label", random_state=3)
    segmenter = BloodCellSegmenter(
        width=4, max_epochs=1, crop_size=32, classes=smears.target_names, random_state=0
    ).fit(smears.images, smears.masks)
    written = to_onnx(segmenter, tmp_path / "four.onnx")
    said = metadata(written.path)
    assert json.loads(said["classes"]) == list(smears.target_names)
    assert said["output"].startswith("logits: float32 (n, 4, height, width).")
    session = onnxruntime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": np.zeros((1, 3, 32, 32), np.float32)})
    assert logits.shape == (1, 4, 32, 32)
