"""Trainings that go on: from checkpoints, from weights."""

import pytest
import torch
from fits import Bomb, PixelNet, break_in
from messages import raises

import bloodseg.estimators._base as module
from bloodseg import Preprocessor
from bloodseg.training import _train as train_module

# ---------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("random_state", [0, None])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_a_killed_training_goes_on_to_the_same_weights(
    tiny, smears, monkeypatch, tmp_path, same_weights, random_state, early_stopping
):
    def model(folder):
        return tiny(
            max_epochs=4,
            batch_size=2,
            checkpoint_dir=tmp_path / folder,
            random_state=random_state,
            early_stopping=early_stopping,
            ode_positions=(5,),
        )

    with monkeypatch.context() as patch:
        break_in(patch, 3, OSError("the power went"))
        with raises("the power went", OSError):
            model("a").fit(smears.images, smears.masks)
    (file,) = (tmp_path / "a").iterdir()
    seed = torch.load(file, weights_only=True)["seed"]
    resumed = model("a").fit(smears.images, smears.masks)

    # Without the break, from the seed that the first fit drew.
    monkeypatch.setattr(module, "share_seed", lambda random_state, accelerator: seed)
    whole = model("b").fit(smears.images, smears.masks)
    assert same_weights(resumed, whole)
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in resumed.history_]
    assert strip == [{k: v for k, v in row.items() if k != "seconds"} for row in whole.history_]
    assert resumed.best_epoch_ == whole.best_epoch_
    assert resumed.predict(smears.images).tolist() == whole.predict(smears.images).tolist()


def test_a_finished_training_is_returned_at_once(tiny, smears, tmp_path, monkeypatch, same_weights):
    first = tiny(checkpoint_dir=tmp_path).fit(smears.images, smears.masks)
    monkeypatch.setattr(train_module.AugmentedNet, "train_step", None)
    second = tiny(checkpoint_dir=str(tmp_path), verbose=1, n_jobs=2, predict_ode_tol=0.1)
    second.fit(smears.images, smears.masks)
    assert same_weights(first, second)
    assert second.history_ == first.history_
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 1e-3},
        {"random_state": 1},
        {"ode_tol": 1e-2},
        {"max_epochs": 3},
        {"preprocessor": Preprocessor(clip_limit=3)},
        "masks",
        "images",
        "groups",
        "sample_weight",
        "validation",
    ],
    ids=str,
)
def test_other_data_or_parameters_start_anew(tiny, smears, tmp_path, recorded, change):
    images, masks, extra = smears.images, smears.masks, {}
    tiny(checkpoint_dir=tmp_path).fit(images, masks)
    if change == "masks":
        masks = 2 - masks
    elif change == "images":
        images = 255 - images
    elif change == "groups":
        extra = {"groups": [0, 0, 0, 1, 1, 1]}
    elif change == "sample_weight":
        extra = {"sample_weight": [1, 1, 1, 1, 1, 2]}
    elif change == "validation":
        extra = {"X_val": images, "y_val": masks}
    parameters = change if isinstance(change, dict) else {}
    tiny(checkpoint_dir=tmp_path, **parameters).fit(images, masks, **extra)
    paths = [settings.checkpoint.path for *_, settings in recorded]
    assert paths[0] != paths[1]
    tiny(checkpoint_dir=tmp_path).fit(smears.images.copy(), list(smears.masks))
    assert recorded[2][3].checkpoint.path == paths[0]


def made_by_function():
    return PixelNet()


def test_callables_of_different_code_do_not_share_checkpoints(tiny, smears, tmp_path, recorded):
    for network in (PixelNet, made_by_function):
        tiny(checkpoint_dir=tmp_path, network=network).fit(smears.images, smears.masks)
    assert recorded[0][3].checkpoint.path != recorded[1][3].checkpoint.path


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk", b"PK\x03\x04" + 5000 * b"0"])
def test_a_damaged_checkpoint(tiny, smears, tmp_path, content):
    tiny(checkpoint_dir=tmp_path, max_epochs=1).fit(smears.images, smears.masks)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    with raises(f"{file} cannot be read as a checkpoint (") as caught:
        tiny(checkpoint_dir=tmp_path, max_epochs=1).fit(smears.images, smears.masks)
    assert str(caught.value).endswith("Delete it to train from the start.")


@pytest.mark.parametrize("kept", [-1000, 5000])
def test_a_truncated_checkpoint(tiny, smears, tmp_path, kept):
    tiny(checkpoint_dir=tmp_path, max_epochs=1).fit(smears.images, smears.masks)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:kept])
    with raises("Delete it to train from the start."):
        tiny(checkpoint_dir=tmp_path, max_epochs=1).fit(smears.images, smears.masks)


def test_a_checkpoint_is_not_executed(tiny, smears, tmp_path):
    tiny(checkpoint_dir=tmp_path / "c", max_epochs=1).fit(smears.images, smears.masks)
    (file,) = (tmp_path / "c").iterdir()
    torch.save({"seed": 0, "history": Bomb(tmp_path / "boom")}, file)
    with raises("cannot be read as a checkpoint (UnpicklingError)"):
        tiny(checkpoint_dir=tmp_path / "c", max_epochs=1).fit(smears.images, smears.masks)
    assert not (tmp_path / "boom").exists()


# ---------------------------------------------------------------- starting weights


def test_warm_start_and_pretrained_go_on_from_the_weights(
    tiny, fitted, smears, recorded, tmp_path, same_weights
):
    fitted.save(tmp_path / "m.safetensors")
    before = fitted.network_
    cold = tiny().fit(smears.images, smears.masks)
    from_file = tiny(pretrained=tmp_path / "m.safetensors").fit(smears.images, smears.masks)
    fitted.set_params(warm_start=True).fit(smears.images, smears.masks)
    assert not same_weights(cold, before)
    assert same_weights(from_file, before)
    assert same_weights(fitted, before)
    assert fitted.network_ is not before


def test_without_warm_start_fit_starts_anew(tiny, smears, recorded, same_weights):
    model = tiny().fit(smears.images, smears.masks)
    first = model.network_
    with torch.no_grad():
        first.head.bias += 1
    assert not same_weights(model.fit(smears.images, smears.masks), first)


@pytest.mark.parametrize("parameters", [{"width": 5}, {"network": "unet"}, {"ode_positions": (5,)}])
def test_pretrained_weights_of_another_network(tiny, fitted, smears, tmp_path, parameters):
    fitted.save(tmp_path / "m.safetensors")
    file = tmp_path / "m.safetensors"
    ready = f"or fit BloodCellSegmenter.from_pretrained({str(file)!r})."
    has = f"network='nodes-unet', width=4, ode_positions=(4, 5, 6). Set these parameters, {ready}"
    with raises(f"m.safetensors, which has {has}"):
        tiny(pretrained=file, **parameters).fit(smears.images, smears.masks)


def running_statistics(segmenter):
    buffers = segmenter.network_.named_buffers()
    return {name: value.clone() for name, value in buffers if "running" in name}


def test_pretrained_statistics_are_kept(tiny, fitted, smears, tmp_path, same_weights):
    fitted.save(tmp_path / "m.safetensors")
    before = running_statistics(fitted)
    settings = {"pretrained": tmp_path / "m.safetensors", "keep_statistics": True}
    tuned = tiny(**settings).fit(smears.images[:2], smears.masks[:2])
    assert all(
        torch.equal(value, before[name]) for name, value in running_statistics(tuned).items()
    )
    assert not torch.equal(tuned.network_.head.weight, fitted.network_.head.weight)
    # And not for good, nor without weights to start from.
    tuned.set_params(pretrained=None).fit(smears.images[:2], smears.masks[:2])
    assert same_weights(tuned, tiny().fit(smears.images[:2], smears.masks[:2]))


def test_pretrained_file_that_is_missing(tiny, smears, tmp_path):
    with raises(f"There is no model file at {tmp_path / 'none'}.", FileNotFoundError):
        tiny(pretrained=tmp_path / "none").fit(smears.images, smears.masks)
