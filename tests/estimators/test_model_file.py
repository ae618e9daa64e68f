"""Model files that are wrong, hostile or out of place, and what goes into them."""

import json
import os
import stat
import struct

import numpy as np
import pytest
import torch
from messages import raises
from safetensors.torch import save_file

from bloodseg import BloodCellSegmenter
from bloodseg.estimators._model_file import read_header
from bloodseg.networks import UNet


def header_of(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["bloodseg"])


def written_with(model, path, change):
    """Write a model file whose header is changed by hand."""
    model.save(path)
    header = header_of(path)
    change(header)
    weights = {name: weight.contiguous() for name, weight in model.network_.state_dict().items()}
    text = header if isinstance(header, str) else json.dumps(header)
    save_file(weights, path, metadata={"bloodseg": text})
    return path


def test_others_may_read_a_model(fitted, tmp_path):
    mask = os.umask(0o022)
    try:
        fitted.save(tmp_path / "m.safetensors")
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "m.safetensors").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("name", "text"), [("missing/m", "which is no folder."), ("", "is a folder.")]
)
def test_a_place_that_takes_no_file_is_named(fitted, tmp_path, name, text):
    with raises(f"The model cannot be written: {tmp_path / name}", OSError) as info:
        fitted.save(tmp_path / name)
    assert str(info.value).endswith(text)
    assert not list(tmp_path.iterdir())


def test_home_is_understood(fitted, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fitted.save("~/m.safetensors")
    assert (tmp_path / "m.safetensors").exists()
    assert BloodCellSegmenter.load("~/m.safetensors").width == fitted.width


def test_a_header_that_asks_for_too_much_allocates_nothing(fitted, tmp_path):
    def grow(header):
        header["fitted"]["architecture_"]["__mapping__"][1][1] = 100_000

    path = written_with(fitted, tmp_path / "m", grow)
    assert header_of(path)["fitted"]["architecture_"]["__mapping__"][1][0] == "width"
    with raises("the saved weights do not fit the network"):
        BloodCellSegmenter.load(path)


def test_deep_nesting_is_a_damaged_header(fitted, tmp_path):
    path = tmp_path / "m"
    fitted.save(path)
    weights = {"a": torch.zeros(1)}
    save_file(weights, path, metadata={"bloodseg": '{"format": 1, "x": ' + "[" * 10**5})
    with raises("has a damaged header"):
        BloodCellSegmenter.load(path)


@pytest.mark.parametrize(
    ("name", "value"), [("preprocessor_", "x"), ("history_", "x"), ("best_epoch_", "1")]
)
def test_attributes_of_other_types_are_refused(fitted, tmp_path, name, value):
    path = written_with(fitted, tmp_path / "m", lambda h: h["fitted"].update({name: value}))
    with raises(f"{name} is {value!r}"):
        BloodCellSegmenter.load(path)


def test_a_file_has_no_say_in_where_this_machine_reads_and_writes(fitted, tmp_path):
    evil = {"checkpoint_dir": "/evil", "pretrained": "/evil", "accelerator": True}
    path = written_with(fitted, tmp_path / "m", lambda h: h["parameters"].update(evil))
    loaded = BloodCellSegmenter.load(path)
    assert loaded.checkpoint_dir is loaded.pretrained is loaded.accelerator is None
    fitted.set_params(checkpoint_dir="/mine", verbose=1).save(path)
    assert not {"checkpoint_dir", "pretrained", "verbose"} & set(header_of(path)["parameters"])


def test_what_is_wrong_for_fit_alone_does_not_spoil_a_file(fitted, smears, tmp_path):
    fitted.set_params(max_epochs=0, ode_positions=(1, 2)).save(tmp_path / "m")
    loaded = BloodCellSegmenter.load(tmp_path / "m")
    assert np.array_equal(loaded.predict(smears.images), fitted.predict(smears.images))


def test_a_file_says_what_auto_decided(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    recorded = read_header(tmp_path / "m")["fitted"]
    assert recorded["precision_"] == fitted.precision_
    assert recorded["ode_method_"] == fitted.ode_method_


def test_a_precision_that_does_not_exist_is_refused(fitted, tmp_path):
    path = written_with(
        fitted, tmp_path / "m", lambda h: h["parameters"].update(precision="float13")
    )
    with raises("The 'precision' parameter of BloodCellSegmenter must be"):
        BloodCellSegmenter.load(path)


def test_weights_loaded_are_not_shared(fitted, smears, tmp_path, tiny):
    """Training from a model leaves that model as it was."""
    before = fitted.predict_proba(smears.images)
    fitted.save(tmp_path / "m")
    warm = tiny(pretrained=tmp_path / "m", max_epochs=1).fit(smears.images, smears.masks)
    assert np.array_equal(before, fitted.predict_proba(smears.images))
    network = warm.network_
    warm.set_params(warm_start=True).fit(smears.images, smears.masks)
    assert warm.network_ is not network
    assert isinstance(network, UNet)
