"""What is saved is loaded; files that are damaged or none of ours."""

import json
import pickle

import numpy as np
import pytest
import torch
from fits import Bomb, PixelNet
from messages import raises
from safetensors import safe_open
from safetensors.torch import save_file

from bloodseg import BloodCellSegmenter, Preprocessor


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {
            "preprocessor": Preprocessor(clip_limit=3.5, tile_grid_size=(4, 2)),
            "ode_positions": (6, 5),
            "ode_tol": {5: 1e-2, 6: 1e-3, 1: 1.0},
            "predict_ode_tol": (1e-1, 1e-2),
            "class_weight": {"white": 3, 2: 0.5},
        },
        {
            "preprocessor": None,
            "ode_tol": "paper",
            "ode_positions": np.array([5]),
            "device": torch.device("cpu"),
            "class_weight": [1, 2, 3],
            "width": np.int64(4),
            "learning_rate": np.float64(1e-3),
        },
        {"network": "unet", "random_state": None, "validation_fraction": None},
        {"network": "resnet-unet"},
        {"ode_method": "rk4", "ode_n_steps": np.int64(2)},
    ],
)
def test_save_and_load(tiny, smears, tmp_path, parameters, same_weights):
    model = tiny(max_epochs=1, **parameters).fit(smears.images, smears.masks)
    path = tmp_path / "model.safetensors"
    model.save(str(path))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    loaded = BloodCellSegmenter.load(path)
    assert same_weights(loaded, model)
    assert np.array_equal(loaded.predict_proba(smears.images), model.predict_proba(smears.images))
    for name in ("history_", "best_epoch_", "precision_", "ode_tol_", "ode_method_"):
        assert getattr(loaded, name) == getattr(model, name)
        assert type(getattr(loaded, name)) is type(getattr(model, name))
    assert np.array_equal(loaded.classes_, model.classes_)
    for name, value in model.get_params(deep=False).items():
        got = getattr(loaded, name)
        if isinstance(value, Preprocessor):
            assert got.get_params() == value.get_params()
        elif isinstance(value, (np.ndarray, torch.device)):
            assert str(got) == str(value) or got == value.tolist()
        else:
            assert got == value
            assert isinstance(value, np.generic) or type(got) is type(value)


def test_a_loaded_model_can_be_fitted_and_saved_again(fitted, smears, tmp_path, same_weights):
    fitted.save(tmp_path / "a")
    loaded = BloodCellSegmenter.load(tmp_path / "a")
    loaded.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert same_weights(loaded.fit(smears.images, smears.masks), fitted)


def test_fixed_steps_are_as_many_as_asked_for(tiny, smears, tmp_path):
    model = tiny(max_epochs=1, ode_method="midpoint", ode_n_steps=3)
    model.fit(smears.images, smears.masks).save(tmp_path / "m")
    for each in model, BloodCellSegmenter.load(tmp_path / "m"):
        each.predict(smears.images)
        assert all((counts == 6).all() for counts in each.n_function_evaluations_.values())


def test_a_file_holds_the_tolerances_of_fit(fitted, smears, tmp_path):
    fitted.set_params(ode_tol=1e-7).save(tmp_path / "m")
    loaded = BloodCellSegmenter.load(tmp_path / "m")
    assert loaded.ode_tol_ == fitted.ode_tol_ == {4: 1e-3, 5: 1e-3, 6: 1e-3}


@pytest.mark.parametrize("parameters", [{"width": 8}, {"ode_positions": (5,)}])
def test_parameters_changed_since_fit_do_not_spoil_the_file(fitted, smears, tmp_path, parameters):
    expected = fitted.predict_proba(smears.images)
    fitted.set_params(**parameters).save(tmp_path / "m")
    loaded = BloodCellSegmenter.load(tmp_path / "m")
    assert np.array_equal(loaded.predict_proba(smears.images), expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network", PixelNet),
        ("network", lambda: PixelNet()),
        ("random_state", np.random.RandomState(0)),
    ],
)
def test_what_a_file_cannot_hold_is_refused_by_name(tiny, smears, tmp_path, name, value):
    model = tiny(max_epochs=1, **{name: value}).fit(smears.images, smears.masks)
    with raises(f"A model file holds only what JSON can hold, so {name}=") as caught:
        model.save(tmp_path / "m")
    assert f"Keep the whole object with joblib.dump or, if {name} has done its" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_accelerator_is_no_part_of_the_file(fitted, tmp_path):
    fitted.set_params(accelerator=True).save(tmp_path / "m")
    assert BloodCellSegmenter.load(tmp_path / "m").accelerator is None


@pytest.mark.parametrize("failure", ["header", "disk"])
def test_a_save_that_fails_leaves_the_old_file(fitted, tmp_path, monkeypatch, failure):
    path = tmp_path / "m"
    path.write_bytes(b"old")
    if failure == "header":
        fitted.set_params(network=PixelNet)
    else:

        def write_half(file, data):
            with file.open("wb") as half:
                half.write(data[:9])
            raise OSError("No space left on device")

        monkeypatch.setattr("pathlib.Path.write_bytes", write_half)
    with pytest.raises((ValueError, OSError), match=r"JSON can hold|No space left"):
        fitted.save(path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("content", ["empty", "junk", "truncated", "no weights"])
def test_damaged_files(fitted, tmp_path, content):
    path = tmp_path / "m.safetensors"
    fitted.save(path)
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "junk": b"junk" * 99, "truncated": whole[:-99], "no weights": whole[:5000]}[
            content
        ]
    )
    with raises(
        f"{path} cannot be read as a model file: it is damaged, cut short or of another format ("
    ) as caught:
        BloodCellSegmenter.load(path)
    assert str(caught.value).endswith("Save the model again with its `save`.")


@pytest.mark.parametrize("half_precision", [False, True])
def test_weights_that_have_changed_are_noticed(fitted, tmp_path, half_precision):
    path = tmp_path / "m.safetensors"
    fitted.save(path, half_precision=half_precision)
    BloodCellSegmenter.load(path)
    whole = path.read_bytes()
    for changed in (
        whole[:-1000] + bytes([whole[-1000] ^ 1]) + whole[-999:],
        whole[:-600] + bytes(600),
    ):
        path.write_bytes(changed)
        with raises(f"{path} was damaged after it was written: its checksum does not fit."):
            BloodCellSegmenter.load(path)


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("fitted", "classes", ["background", "red", "white"]),
        ("fitted", "preprocessor_", None),
        ("parameters", "red_cell_diameter", 12),
    ],
)
def test_a_header_that_was_edited_is_noticed(fitted, tmp_path, section, name, value):
    path = tmp_path / "m.safetensors"
    fitted.save(path)
    weights, metadata = contents_of(path)
    metadata[section][name] = value
    save_file(weights, path, metadata={"bloodseg": json.dumps(metadata)})
    with raises(f"{path} has a header that was changed after it was written"):
        BloodCellSegmenter.load(path)


def test_spaces_in_a_header_are_no_change(fitted, tmp_path):
    path = tmp_path / "m.safetensors"
    fitted.save(path)
    weights, metadata = contents_of(path)
    save_file(weights, path, metadata={"bloodseg": json.dumps(metadata, indent=1, sort_keys=True)})
    BloodCellSegmenter.load(path)


def contents_of(path):
    with safe_open(path, framework="pt") as file:
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return weights, json.loads(file.metadata()["bloodseg"])


def test_a_file_without_checksums_is_read(fitted, tmp_path):
    path = tmp_path / "m.safetensors"
    fitted.save(path)
    weights, metadata = contents_of(path)
    del metadata["checksum"], metadata["header_checksum"]
    save_file(weights, path, metadata={"bloodseg": json.dumps(metadata)})
    assert BloodCellSegmenter.load(path).network_.state_dict().keys() == weights.keys()


def test_a_pickle_is_refused_and_not_executed(tmp_path):
    path, boom = tmp_path / "m.safetensors", tmp_path / "boom"
    path.write_bytes(pickle.dumps(Bomb(boom)))
    with raises("cannot be read as a model file"):
        BloodCellSegmenter.load(path)
    torch.save({"weights": Bomb(boom)}, path)
    with raises("cannot be read as a model file"):
        BloodCellSegmenter.load(path)
    assert not boom.exists()


def test_no_file(tmp_path):
    with raises(f"There is no model file at {tmp_path / 'm'}.", FileNotFoundError):
        BloodCellSegmenter.load(tmp_path / "m")


_KIND = {"estimator": "BloodCellSegmenter"}


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        (None, "is a safetensors file, but was not written by `save` of a bloodseg model."),
        ({"format": "pt"}, "is a safetensors file, but was not written by `save`"),
        ({"bloodseg": "{"}, "has a damaged header (JSONDecodeError("),
        ({"bloodseg": "[]"}, "has a damaged header (TypeError("),
        ({"bloodseg": "{}"}, "has a damaged header (KeyError('format'))."),
        (
            {"bloodseg": '{"format": 2}'},
            "has format 2; this version of bloodseg reads format 1. Update bloodseg.",
        ),
        (
            {"bloodseg": '{"format": 1, "parameters": {"width": {"__exec__": 1}}}'},
            "has a damaged header (ValueError(\"unknown mark '__exec__'\")).",
        ),
        ({"bloodseg": '{"format": 1}'}, "has a damaged header (KeyError('parameters'))."),
        (
            {"bloodseg": json.dumps({"format": 1, "parameters": {"depth": 3}, "fitted": _KIND})},
            "unexpected keyword argument 'depth'",
        ),
    ],
)
def test_foreign_files(tmp_path, metadata, text):
    path = tmp_path / "m.safetensors"
    save_file({"x": torch.ones(1)}, path, metadata=metadata)
    with raises(text):
        BloodCellSegmenter.load(path)


def test_a_file_with_an_architecture_out_of_range(fitted, tmp_path):
    fitted.architecture_ = fitted.architecture_ | {"width": 0}
    fitted.save(tmp_path / "m")
    with raises("The 'width' parameter of architecture_ must be an int in the range [1, inf)"):
        BloodCellSegmenter.load(tmp_path / "m")


def test_a_device_that_is_lacking_falls_back(fitted, smears, tmp_path, caplog):
    device = "cuda:63" if torch.cuda.is_available() else "cuda"
    fitted.set_params(device=device).save(tmp_path / "m")
    with caplog.at_level("WARNING", logger="bloodseg"):
        loaded = BloodCellSegmenter.load(tmp_path / "m")
    assert loaded.device == "auto"
    assert "Using device='auto'." in caplog.text
    assert loaded.predict(smears.images).shape == smears.masks.shape
