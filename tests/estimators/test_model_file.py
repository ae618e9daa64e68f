"""Model files that are wrong, hostile or out of place, and what goes into them."""

import json
import os
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors
import torch
from messages import raises
from packaging.version import Version
from safetensors.torch import save_file

from bloodseg import BloodCellSegmenter
from bloodseg.estimators._model_file import read_header
from bloodseg.networks import UNet


def header_of(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["bloodseg"])


def written_with(model, path, change):
    """Write a model file whose header is changed by somebody who leaves no checksum of it."""
    model.save(path)
    header = header_of(path)
    del header["header_checksum"]
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


def architecture(name, value):
    def change(header):
        pairs = header["fitted"]["architecture_"]["__mapping__"]
        header["fitted"]["architecture_"]["__mapping__"] = [
            *(pair for pair in pairs if pair[0] != name),
            [name, value],
        ]

    return change


def fitted_value(name, value):
    return lambda header: header["fitted"].update({name: value})


def parameter(name, value):
    return lambda header: header["parameters"].update({name: value})


def mapping(**values):
    return {"__mapping__": [[int(key[1:]), value] for key, value in values.items()]}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (fitted_value("red_cell_diameter_", 1e6), "red_cell_diameter_ must be a number of pixels"),
        (fitted_value("red_cell_diameter_", 0.0), "red_cell_diameter_ must be a number of pixels"),
        (fitted_value("red_cell_diameter_", -5.0), "red_cell_diameter_ must be a number of"),
        (fitted_value("red_cell_diameter_", float("inf")), "red_cell_diameter_ must be a number"),
        (fitted_value("red_cell_diameter_", float("nan")), "red_cell_diameter_ must be a number"),
        (parameter("n_jobs", 100_000), "The 'n_jobs' parameter of BloodCellSegmenter must be"),
        (parameter("n_jobs", 0), "The 'n_jobs' parameter of BloodCellSegmenter must be"),
        (parameter("device", [[4]]), "The 'device' parameter of BloodCellSegmenter must be"),
        (parameter("tile_size", -64), "tile_size must be 'auto', None, or a multiple of 16"),
        (parameter("pixel_size", float("nan")), "The 'pixel_size' parameter of BloodCellSegmen"),
        (parameter("red_cell_diameter", 0.01), "The 'red_cell_diameter' parameter of BloodCell"),
        (parameter("predict_ode_tol", -1.0), "predict_ode_tol must be positive and finite"),
        (parameter("compile", "yes"), "The 'compile' parameter of BloodCellSegmenter must be"),
        (parameter("unknown", 1), "unexpected keyword argument 'unknown'"),
        (architecture("width", 10**9), "does not hold a model that bloodseg"),
        (architecture("width", -4), "The 'width' parameter of architecture_ must be an int"),
        (architecture("dropout", float("nan")), "The 'dropout' parameter of architecture_ must"),
        (architecture("network", "evil"), "The 'network' parameter of architecture_ must be"),
        (architecture("ode_positions", [4, 99]), "ode_positions must hold different whole"),
        (architecture("ode_positions", [4, 5]), "ode_tol_ must name the positions (4, 5); got"),
        (architecture("ode_method", "x"), "The 'ode_method' parameter of architecture_ must be"),
        (architecture("ode_n_steps", 10**9), "ode_n_steps"),
        (architecture("unknown", 1), "unexpected keyword argument 'unknown'"),
        (architecture(None, 1), "keywords must be strings"),
        (fitted_value("ode_tol_", mapping(_4=0.1)), "ode_tol_ must name the positions (4, 5, 6)"),
        (fitted_value("ode_tol_", mapping(_4=-1, _5=1, _6=1)), "ode_tol_ must be positive"),
        (fitted_value("ode_first_step_", mapping(_4=1e-300, _5=None, _6=1)), "ode_first_step_"),
        (fitted_value("ode_first_step_", mapping(_4="a", _5=None, _6=1)), "ode_first_step_ must"),
        (fitted_value("ode_first_step_", mapping(_4=mapping(), _5=1, _6=1)), "ode_first_step_"),
        (fitted_value("history_", [3]), "history_ must hold a dict of numbers an epoch; got 3."),
        (fitted_value("history_", [mapping(_1="x")]), "history_ must hold a dict of numbers"),
        (fitted_value("best_epoch_", 99), "best_epoch_ must be one of 2 epochs; got 99."),
        (lambda header: header.pop("fitted"), "has a damaged header (KeyError('fitted'))"),
        (lambda header: header.update(parameters=[]), "has a damaged header"),
        (lambda header: header["fitted"].pop("estimator"), "does not hold a model that bloodseg"),
        (
            fitted_value(
                "preprocessor_", {"__preprocessor__": {"__mapping__": [["n_jobs", 10**5]]}}
            ),
            "The 'n_jobs' parameter of Preprocessor must be",
        ),
        (
            fitted_value(
                "preprocessor_", {"__preprocessor__": {"__mapping__": [["clip_limit", -1]]}}
            ),
            "The 'clip_limit' parameter of Preprocessor must be",
        ),
    ],
)
def test_what_a_file_says_is_checked_as_parameters_are(fitted, tmp_path, change, text):
    path = written_with(fitted, tmp_path / "m", change)
    with raises(text) as info:
        BloodCellSegmenter.load(path)
    assert str(info.value).startswith(str(path))


@pytest.mark.parametrize("device", ["meta", "hpu", "cuda:99", "evil"])
def test_a_device_of_a_file_that_is_not_here_gives_way(fitted, smears, tmp_path, device):
    path = written_with(fitted, tmp_path / "m", parameter("device", device))
    loaded = BloodCellSegmenter.load(path)
    assert loaded.device == "auto"
    assert np.array_equal(loaded.predict(smears.images[:1]), fitted.predict(smears.images[:1]))


def written_with_weight(model, path, name, change):
    """Write a model file one of whose weights is changed, without its checksum."""
    model.save(path)
    header = header_of(path)
    del header["checksum"]
    metadata = {"bloodseg": json.dumps(header)}
    weights = {key: each.clone() for key, each in model.network_.state_dict().items()}
    weights[name] = change(weights[name]).contiguous()
    save_file({key: each.contiguous() for key, each in weights.items()}, path, metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("name", "change", "text"),
    [
        ("head.weight", lambda w: w * torch.nan, "holds numbers in head.weight that no training"),
        ("head.weight", lambda w: w.double() * 1e200, "holds numbers in head.weight that no"),
        (
            "head.weight",
            lambda w: w.long(),
            "must hold torch.float32 in head.weight; got torch.int",
        ),
        ("head.weight", lambda w: w.bool(), "must hold torch.float32 in head.weight; got torch.bo"),
        ("head.weight", lambda w: w[:2], "the saved weights do not fit the network that"),
    ],
)
def test_weights_that_no_training_gives_are_refused(fitted, tmp_path, name, change, text):
    path = written_with_weight(fitted, tmp_path / "m", name, change)
    for load in (BloodCellSegmenter.load, lambda path: fit_from(path)):
        with raises(text) as info:
            load(path)
        assert "\n" not in str(info.value)


def test_complex_weights_are_refused(fitted, tmp_path):
    """By hand, for safetensors writes and reads them from 0.7 on only."""
    path = written_with_weight(
        fitted, tmp_path / "m", "head.weight", lambda w: torch.view_as_real(w.to(torch.complex64))
    )
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    entry = header["head.weight"]
    entry["dtype"] = "C64"
    entry["shape"].pop()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    knows_them = Version(safetensors.__version__) >= Version("0.7")
    text = "must hold torch.float32 in head.weight; got torch.complex64."
    for load in (BloodCellSegmenter.load, fit_from):
        with raises(text if knows_them else "cannot be read as a model file: it is damaged"):
            load(path)


def fit_from(path):
    images, masks = np.zeros((2, 32, 32, 3), np.uint8), np.ones((2, 32, 32), np.uint8)
    parameters = {"width": 4, "crop_size": 32, "max_epochs": 1, "validation_fraction": None}
    return BloodCellSegmenter(pretrained=path, **parameters).fit(images, masks)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (parameter("unknown", 1), "BloodCellSegmenter.__init__() got an unexpected keyword"),
        (
            fitted_value("preprocessor_", {"__preprocessor__": {"__mapping__": [["new", 1]]}}),
            "Preprocessor.__init__() got an unexpected keyword argument 'new'",
        ),
    ],
)
def test_a_model_of_a_newer_version_names_it(fitted, tmp_path, change, text):
    def change_both(header):
        header["fitted"]["version"] = "9.0"
        change(header)

    path = written_with(fitted, tmp_path / "m", change_both)
    with raises(" (bloodseg 9.0 wrote it: use that version, or a newer one)") as info:
        BloodCellSegmenter.load(path)
    assert text in str(info.value)


def test_a_model_that_may_not_be_read_is_not_said_to_be_damaged(fitted, tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):  # what modes do to all users but root
        raise PermissionError(13, "Permission denied", str(self))

    fitted.save(tmp_path / "m")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match="Permission denied"):
        BloodCellSegmenter.load(tmp_path / "m")


def test_a_variance_cannot_be_negative(fitted, tmp_path):
    (name, *_) = (key for key in fitted.network_.state_dict() if key.endswith("running_var"))
    path = written_with_weight(fitted, tmp_path / "m", name, lambda weight: -weight - 1)
    with raises(f"holds numbers in {name} that no training gives."):
        BloodCellSegmenter.load(path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_weights_of_other_precisions_are_taken(fitted, tmp_path, dtype):
    path = written_with_weight(fitted, tmp_path / "m", "head.weight", lambda w: w.to(dtype))
    loaded = BloodCellSegmenter.load(path)
    assert loaded.network_.head.weight.dtype == torch.float32
    fit_from(path)


def test_a_fit_from_a_damaged_file_says_so(fitted, tmp_path):
    path = written_with(fitted, tmp_path / "m", lambda header: header.pop("fitted"))
    with raises("has a damaged header (KeyError('fitted'))"):
        fit_from(path)


def test_images_are_not_enlarged_beyond_all_sense(fitted, smears, tmp_path):
    def change(header):
        header["fitted"]["red_cell_diameter_"] = 900.0
        header["parameters"]["red_cell_diameter"] = 4

    loaded = BloodCellSegmenter.load(written_with(fitted, tmp_path / "m", change))
    with raises("images are enlarged at most 32 times; for this model it would be 225 times."):
        loaded.predict(smears.images)
