"""Fit, predict, and everything that can go wrong on the way; model files and checkpoints."""

import json
import os
import pickle
import re
import warnings

import numpy as np
import pytest
import torch
from messages import raises
from safetensors.torch import save_file
from torch import nn

import bloodseg.estimators._base as module
import bloodseg.estimators._segmenter as of_segmenter
from bloodseg import BloodCellSegmenter, Preprocessor
from bloodseg.datasets import make_smears
from bloodseg.metrics import mean_iou
from bloodseg.networks import NETWORKS, NODEsUNet
from bloodseg.ode import SolverError, SolverWarning
from bloodseg.ode.methods import TABLEAUS
from bloodseg.training import TrainingResult, memory_of
from bloodseg.training import _callbacks as callbacks
from bloodseg.training import _train as train_module


class PixelNet(nn.Module):
    """A network for any size of image, as a user might bring one."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.layer(x)


@pytest.fixture
def recorded(monkeypatch):
    """Replace the training by a note of what it was given."""
    notes = []

    def train(network, train, valid, settings):
        notes.append((network, train, valid, settings))
        return TrainingResult([{"epoch": 1, "train_loss": 1.0, "valid_loss": 1.0}], 1)

    monkeypatch.setattr(module, "train_network", train)
    return notes


# ---------------------------------------------------------------- containers, dtypes, sizes


def test_array_in_array_out(fitted, smears):
    maps = fitted.predict(smears.images)
    assert isinstance(maps, np.ndarray)
    assert maps.shape == smears.masks.shape
    assert maps.dtype == np.uint8
    probabilities = fitted.predict_proba(smears.images)
    assert probabilities.shape == (*smears.masks.shape, 3)
    assert probabilities.dtype == np.float32


def test_list_in_list_out(fitted, odd_smears):
    images, _ = odd_smears
    maps, probabilities = fitted.predict(images), fitted.predict_proba(images)
    assert isinstance(maps, list)
    assert isinstance(probabilities, list)
    for image, labels, shares in zip(images, maps, probabilities, strict=True):
        assert labels.shape == image.shape[:2]
        assert shares.shape == (*image.shape[:2], 3)
        assert np.allclose(shares.sum(axis=-1), 1, atol=1e-5)
        assert (shares >= 0).all()
        assert np.array_equal(shares.argmax(axis=-1), labels)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (17, 33), (150, 40)])
def test_images_of_any_size(fitted, size):
    image = make_smears(1, image_size=160, random_state=1).images[0][: size[0], : size[1]]
    assert fitted.predict([image])[0].shape == size


def test_training_on_images_smaller_than_a_crop(tiny):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in [(5, 7), (1, 1), (9, 3)]]
    masks = [rng.integers(0, 3, image.shape[:2]) for image in images]
    model = tiny(max_epochs=1).fit(images, masks)
    assert [labels.shape for labels in model.predict(images)] == [(5, 7), (1, 1), (9, 3)]


@pytest.mark.parametrize(
    ("convert", "tolerance"),
    [
        (lambda x: x / 255, 1e-2),
        (lambda x: (x / 255).astype(np.float32), 1e-2),
        (lambda x: x.astype(np.uint16) * 257, 1e-2),
        (lambda x: x.astype(">u2") * 257, 1e-2),
        (lambda x: np.concatenate([x, np.full_like(x[..., :1], 255)], axis=-1), 0),
        (lambda x: np.asfortranarray(x), 0),
        (lambda x: x[:, ::-1][:, ::-1], 0),
    ],
    ids=["float64", "float32", "uint16", "big-endian", "RGBA", "Fortran", "strided"],
)
@pytest.mark.parametrize("preprocessor", [True, False])
def test_dtypes_give_the_same_answer(fitted, smears, convert, tolerance, preprocessor):
    if not preprocessor:
        fitted.preprocessor_ = None
        tolerance = min(tolerance, 1e-5)
    expected = fitted.predict_proba(smears.images)
    assert np.abs(fitted.predict_proba(convert(smears.images)) - expected).mean() <= tolerance


def test_grey_and_bool_are_repeated_in_three_channels(fitted, smears):
    fitted.preprocessor_ = None
    grey = smears.images[..., 1]
    expected = fitted.predict_proba(np.repeat(grey[..., None], 3, axis=-1))
    assert np.allclose(fitted.predict_proba(grey[..., None]), expected, atol=1e-6)
    assert np.allclose(fitted.predict_proba(list(grey)), expected, atol=1e-6)
    high = grey > 128
    expected = fitted.predict_proba(np.where(high, 255, 0).astype(np.uint8)[..., None])
    assert np.allclose(fitted.predict_proba(high), expected, atol=1e-6)


def test_score_is_mean_iou(fitted, odd_smears):
    images, masks = odd_smears
    assert fitted.score(images, masks) == mean_iou(masks, fitted.predict(images))


@pytest.mark.parametrize("n", [1, 3])
def test_a_batch_is_one_by_one(fitted, odd_smears, n):
    images, _ = odd_smears
    together = fitted.predict_proba(images[:n])
    counts = fitted.n_function_evaluations_
    for index, image in enumerate(images[:n]):
        assert np.array_equal(fitted.predict_proba([image])[0], together[index])
        for position, evaluations in fitted.n_function_evaluations_.items():
            assert evaluations.tolist() == [counts[position][index]]


def test_it_learns(tiny):
    smears = make_smears(4, image_size=48, random_state=1)
    model = tiny(
        network="unet",
        max_epochs=25,
        learning_rate=1e-2,
        augment=False,
        validation_fraction=None,
        dropout=0.0,
    ).fit(smears.images, smears.masks)
    largest = np.bincount(smears.masks.ravel()).argmax()
    guess = mean_iou(smears.masks, np.full_like(smears.masks, largest))
    assert model.score(smears.images, smears.masks) > guess + 0.2


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("network", [*NETWORKS, PixelNet])
def test_every_network(tiny, smears, network):
    model = tiny(network=network, max_epochs=1).fit(smears.images, smears.masks)
    assert model.predict(smears.images).shape == smears.masks.shape
    positions = [4, 5, 6] if network == "nodes-unet" else []
    assert list(model.n_function_evaluations_) == positions
    assert model.ode_method_ == dict.fromkeys(positions, "bosh3")
    assert model.ode_tol_ == dict.fromkeys(positions, 1e-3)
    assert not model.network_.training
    assert model.precision_ in ("float32", "bfloat16")
    assert model.classes_.tolist() == [0, 1, 2]


@pytest.mark.parametrize("gradient", ["direct", "adjoint"])
def test_gradient_methods_train(tiny, smears, gradient):
    model = tiny(ode_gradient=gradient, max_epochs=1, ode_positions=(5,))
    model.fit(smears.images, smears.masks)
    assert np.isfinite(model.history_[0]["train_loss"])


def test_predict_ode_tol_takes_effect_without_fitting_again(fitted, smears):
    def cost():
        fitted.predict(smears.images)
        return {position: n.tolist() for position, n in fitted.n_function_evaluations_.items()}

    as_fit = cost()
    weights = [weight.clone() for weight in fitted.network_.parameters()]
    tight = fitted.set_params(predict_ode_tol=1e-7) and cost()
    assert all(np.greater(tight[position], as_fit[position]).all() for position in (4, 5, 6))
    mixed = fitted.set_params(predict_ode_tol={4: 1e-3, 5: 1e-7, 6: 1e-3}) and cost()
    assert mixed[4] == as_fit[4]
    assert mixed[5] > as_fit[5]
    assert fitted.set_params(predict_ode_tol=None) is fitted
    assert cost() == as_fit
    # ode_tol is fit's: changing it changes no prediction of the model at hand.
    fitted.set_params(ode_tol=1e-8)
    assert cost() == as_fit
    assert all(map(torch.equal, weights, fitted.network_.parameters()))


def test_a_wrong_predict_ode_tol_is_refused_by_predict(fitted, smears):
    with raises("predict_ode_tol must be positive and finite; got -1."):
        fitted.set_params(predict_ode_tol=-1).predict(smears.images)


def test_tolerances_of_fit(tiny, smears):
    model = tiny(ode_tol="paper", max_epochs=1, ode_positions=(5, 6))
    model.fit(smears.images, smears.masks)
    assert model.ode_tol_ == {5: 1e-6, 6: 1e-4}
    assert model.ode_method_ == {5: "dopri8", 6: "tsit5"}


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"network": "vnet"}, "The 'network' parameter of BloodCellSegmenter must be a str among"),
        ({"preprocessor": "clahe"}, "The 'preprocessor' parameter of BloodCellSegmenter must be"),
        (
            {"ode_method": "dopri6"},
            "The 'ode_method' parameter of BloodCellSegmenter must be a str",
        ),
        (
            {"ode_method": TABLEAUS["rk4"]},
            "ode_method must be the name of a method, which a model file can hold; got the Tableau "
            "'rk4'. bloodseg.networks.NODEsUNet takes one, and BloodCellSegmenter such a network: ",
        ),
        ({"ode_n_steps": 0}, "The 'ode_n_steps' parameter of BloodCellSegmenter must be an int in"),
        (
            {"ode_n_steps": 8},
            "ode_n_steps=8 is for fixed-step methods (euler, midpoint, rk4); 'auto' takes as many",
        ),
        ({"ode_gradient": "x"}, "The 'ode_gradient' parameter of BloodCellSegmenter must be a str"),
        ({"width": 0}, "The 'width' parameter of BloodCellSegmenter must be an int in the range"),
        ({"dropout": 1.0}, "must be a float in the range [0.0, 1.0). Got 1.0 instead."),
        ({"loss": "dice"}, "The 'loss' parameter of BloodCellSegmenter must be a str among"),
        ({"max_epochs": 0}, "must be an int in the range [1, inf). Got 0 instead."),
        ({"batch_size": 0}, "The 'batch_size' parameter of BloodCellSegmenter must be an int in"),
        ({"learning_rate": 0}, "must be a float in the range (0.0, inf). Got 0 instead."),
        ({"crop_size": 31}, "must be an int in the range [32, inf). Got 31 instead."),
        ({"augment": "yes"}, "The 'augment' parameter of BloodCellSegmenter must be an instance"),
        ({"validation_fraction": 1.0}, "The 'validation_fraction' parameter of BloodCellSegmenter"),
        ({"patience": 0}, "The 'patience' parameter of BloodCellSegmenter must be an int in the"),
        ({"precision": "half"}, "The 'precision' parameter of BloodCellSegmenter must be a str"),
        ({"accelerator": "gpu"}, "The 'accelerator' parameter of BloodCellSegmenter must be an"),
        ({"random_state": "x"}, "The 'random_state' parameter of BloodCellSegmenter must be an"),
        ({"class_weight": "even"}, "The 'class_weight' parameter of BloodCellSegmenter must be"),
        (
            {"class_weight": (1, 2)},
            "class_weight must hold three finite weights, not negative, for",
        ),
        ({"class_weight": (1, 2, -1)}, "background, white, red; got (1, 2, -1)."),
        ({"class_weight": (1, 2, np.nan)}, "class_weight must hold three finite weights"),
        (
            {"class_weight": {"green": 2}},
            "class_weight must name the classes background, white, red or 0, 1, 2; got 'green'.",
        ),
        ({"ode_positions": (0,)}, "ode_positions must hold different whole numbers from 1 to 9"),
        ({"ode_tol": -1}, "ode_tol must be positive and finite; got -1."),
        ({"ode_tol": (1e-3,)}, "ode_tol must hold one number for each of ode_positions=(4, 5, 6)"),
        ({"ode_tol": {4: 1e-3}}, "ode_tol must name every position in ode_positions=(4, 5, 6)"),
        ({"predict_ode_tol": 0}, "predict_ode_tol must be positive and finite; got 0."),
        ({"device": "abacus"}, "device must be 'auto' or a device that torch reaches on this"),
    ],
    ids=lambda value: (
        "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else ""
    ),
)
def test_parameters_that_are_refused(tiny, smears, parameters, text):
    with raises(text):
        tiny(**parameters).fit(smears.images, smears.masks)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"images": "nan"}, "images[1] must hold finite values; got NaN or infinity."),
        ({"images": "inf"}, "images[1] must hold finite values; got NaN or infinity."),
        ({"images": "range"}, "images[1] has dtype float64, so its values must lie in [0, 1]; got"),
        ({"images": "single"}, "which looks like a single image. Pass images[np.newaxis]"),
        (
            {"masks": "label"},
            "masks[1] must hold the labels 0 to 2 (background, white, red), or 255",
        ),
        ({"masks": "shape"}, "masks[1] must have shape (32, 32), as its image has; got (31, 32)."),
        ({"masks": "short"}, "masks must hold one label map an image; got 5 label maps for 6 im"),
        ({"groups": [1, 2]}, "groups must hold one name or number for each of 6 images, none of "),
        ({"groups": [*"abcde", None]}, "groups must hold one name or number for each of 6"),
        ({"groups": np.ones((6, 2))}, "got shape (6, 2). Give images without a group one of their"),
        ({"sample_weight": ["a"] * 6}, "sample_weight must hold one finite weight, not negative"),
        ({"sample_weight": [1, 2]}, "sample_weight must hold one finite weight, not negative, for"),
        ({"sample_weight": [1, 1, 1, 1, 1, -1]}, "sample_weight must hold one finite weight, not"),
        ({"sample_weight": [1, 1, 1, 1, 1, np.nan]}, "sample_weight must hold one finite weight"),
        (
            {"sample_weight": [0] * 6},
            "sample_weight must be above zero for a training image",
        ),
        ({"X_val": "images"}, "X_val and y_val must be given together; y_val is missing."),
        ({"y_val": "masks"}, "X_val and y_val must be given together; X_val is missing."),
        ({"X_val": "images", "y_val": "short"}, "y_val must hold one label map an image; got 5"),
        ({"X_val": "nan", "y_val": "masks"}, "X_val[1] must hold finite values"),
    ],
    ids=str,
)
def test_data_that_are_refused(tiny, smears, change, text):
    images = smears.images / 255
    spoilt = {name: images.copy() for name in ("nan", "inf", "range")}
    spoilt["nan"][1, 0, 0, 0] = np.nan
    spoilt["inf"][1, 0, 0, 0] = np.inf
    spoilt["range"][1, 0, 0, 0] = 1.5
    masks = list(smears.masks)
    label = smears.masks.copy()
    label[1, 0, 0] = 7
    given = spoilt | {
        "images": images,
        "single": images[0],
        "masks": masks,
        "label": label,
        "shape": [masks[0], masks[1][1:], *masks[2:]],
        "short": masks[1:],
    }
    arguments = {"images": images, "masks": masks}
    for name, value in change.items():
        arguments[name] = given[value] if isinstance(value, str) else value
    model = tiny()
    with raises(text):
        model.fit(arguments.pop("images"), arguments.pop("masks"), **arguments)
    assert not any(name.endswith("_") for name in vars(model))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "save"])
def test_not_fitted(tiny, smears, method, tmp_path):
    argument = tmp_path / "m" if method == "save" else smears.images
    with pytest.raises(Exception, match="This BloodCellSegmenter instance is not fitted yet"):
        getattr(tiny(), method)(argument)


# ---------------------------------------------------------------- validation, weights


@pytest.mark.parametrize("random_state", range(4))
def test_groups_stay_together(tiny, smears, recorded, random_state):
    groups = np.array(["a", "b", "a", "c", "b", "c"])
    images = smears.images.copy()
    images[:, 0, 0, 0] = range(6)  # to tell them apart
    tiny(random_state=random_state, preprocessor=None).fit(images, smears.masks, groups=groups)
    _, train, valid, _ = recorded[0]
    sides = [{int(image[0, 0, 0]) for image in side.images} for side in (train, valid)]
    assert sides[0] | sides[1] == set(range(6))
    assert not {groups[i] for i in sides[0]} & {groups[i] for i in sides[1]}
    assert len(sides[1]) == 2


@pytest.mark.parametrize(("fraction", "n_valid"), [(0.25, 2), (0.5, 3), (None, 0)])
def test_validation_fraction(tiny, smears, recorded, fraction, n_valid):
    model = tiny(validation_fraction=fraction).fit(smears.images, smears.masks)
    _, train, valid, _ = recorded[0]
    assert len(train.images) == 6 - n_valid
    assert (len(valid.images) if valid else 0) == n_valid
    assert model.best_epoch_ == 1


def test_validation_data_replace_the_split(tiny, smears, recorded):
    images, masks = list(smears.images), list(smears.masks)
    tiny(preprocessor=None).fit(images[:4], masks[:4], X_val=images[4:], y_val=masks[4:])
    _, train, valid, _ = recorded[0]
    assert np.array_equal(train.images, images[:4])
    assert np.array_equal(valid.images, images[4:])
    assert np.array_equal(valid.targets, masks[4:])
    assert valid.weights.tolist() == [1, 1]


def test_one_image_has_nothing_to_hold_out(tiny, smears):
    one = smears.images[:1], smears.masks[:1]
    with raises(
        "validation_fraction=0.25 must leave at least one image, or group where groups are given, "
        "on each side; got 1. Pass X_val and y_val, or validation_fraction=None to train on "
        "everything and keep the last weights."
    ):
        tiny().fit(*one)
    with raises("or group where groups are given, on each side; got 1."):
        tiny().fit(smears.images, smears.masks, groups=[7] * 6)
    model = tiny(validation_fraction=None, max_epochs=1).fit(*one)
    assert "valid_loss" not in model.history_[0]
    assert model.best_epoch_ == 1
    tiny(max_epochs=1).fit(*one, X_val=smears.images[1:], y_val=smears.masks[1:])


@pytest.mark.parametrize(
    ("class_weight", "expected"),
    [
        (None, None),
        ({"white": 3}, [1, 3, 1]),
        ({0: 0.5, "red": 2}, [0.5, 1, 2]),
        ({np.int64(2): 4}, [1, 1, 4]),
        ((1, 2, 3), [1, 2, 3]),
        (np.array([1.0, 0.0, 3.0]), [1, 0, 3]),
    ],
)
def test_class_weight(tiny, smears, recorded, class_weight, expected):
    tiny(class_weight=class_weight).fit(smears.images, smears.masks)
    got = recorded[0][3].task.class_weight
    if expected is None:
        assert got is None
        return
    assert np.allclose(got / got.sum(), expected / np.sum(expected))
    masks = recorded[0][1].targets
    assert np.isclose(np.mean([got[mask] for mask in masks]), 1)


def test_balanced_class_weight(tiny, smears, recorded):
    tiny(class_weight="balanced", validation_fraction=None).fit(smears.images, smears.masks)
    pixels = np.bincount(smears.masks.ravel(), minlength=3)
    assert np.allclose(recorded[0][3].task.class_weight, pixels.sum() / (3 * pixels))
    two = np.minimum(smears.masks, 1)
    tiny(class_weight="balanced", validation_fraction=None).fit(smears.images, two)
    assert recorded[1][3].task.class_weight[2] == 0
    assert np.isfinite(recorded[1][3].task.class_weight).all()


def test_what_weighs_nothing_does_not_matter(tiny, smears, same_weights):
    weight = np.array([1, 0, 1, 1, 0.5, 1])
    changed = smears.masks.copy()
    changed[1] = (changed[1] + 1) % 3
    fits = [
        tiny(validation_fraction=None).fit(smears.images, masks, sample_weight=w)
        for masks, w in [(smears.masks, weight), (changed, weight), (changed, None)]
    ]
    assert same_weights(fits[0], fits[1])
    assert not same_weights(fits[0], fits[2])


def test_weights_count_in_the_validation_loss(tiny, smears):
    losses = []
    for weights in (np.ones(6), np.arange(1.0, 7.0)):  # different for whichever are held out
        model = tiny(validation_fraction=0.5, max_epochs=1, learning_rate=1e-12)
        model.fit(smears.images, smears.masks, sample_weight=weights)
        losses.append(model.history_[0]["valid_loss"])
    assert losses[0] != losses[1]


def test_dice_is_added_to_the_loss(tiny, smears):
    losses = [
        tiny(loss=loss, max_epochs=1, learning_rate=1e-9)
        .fit(smears.images, smears.masks)
        .history_[0]["valid_loss"]
        for loss in ("cross_entropy", "cross_entropy+dice")
    ]
    assert 0.3 < losses[0] < 2
    assert 0.1 < losses[1] - losses[0] < 1


# ---------------------------------------------------------------- history, best epoch, stopping


def test_history(tiny, smears):
    model = tiny(max_epochs=2).fit(smears.images, smears.masks)
    columns = ["epoch", "train_loss", "valid_loss", "valid_mean_iou"]
    columns += [f"evaluations_{position}" for position in (4, 5, 6)] + ["learning_rate", "seconds"]
    assert [list(row) for row in model.history_] == [columns] * 2
    assert [row["epoch"] for row in model.history_] == [1, 2]
    for row in model.history_:
        assert row["evaluations_5"] >= 4
        assert 0 <= row["valid_mean_iou"] <= 1
        assert row["seconds"] > 0
    assert json.loads(json.dumps(model.history_)) == model.history_


def test_best_epoch_is_kept(tiny, smears, monkeypatch):
    # Losses as told: the second of four epochs is the best.
    told = iter([3.0, 1.0, 2.0, 1.0])
    snapshots = []
    record = callbacks.EpochScores.on_epoch_end

    def on_epoch_end(self, net, **kwargs):
        record(self, net, **kwargs)
        net.history.record("valid_loss", next(told))
        snapshots.append(callbacks.copy_to_cpu(self.network.state_dict()))

    monkeypatch.setattr(callbacks.EpochScores, "on_epoch_end", on_epoch_end)
    model = tiny(max_epochs=4).fit(smears.images, smears.masks)
    assert model.best_epoch_ == 2
    kept = model.network_.state_dict()
    assert all(torch.equal(kept[name], snapshots[1][name]) for name in kept)
    assert not all(torch.equal(kept[name], snapshots[3][name]) for name in kept)


def test_the_best_valid_loss_is_that_of_the_model(tiny, smears):
    x_val, y_val = smears.images[4:], smears.masks[4:]
    model = tiny(max_epochs=3).fit(smears.images[:4], smears.masks[:4], X_val=x_val, y_val=y_val)
    shares = np.take_along_axis(model.predict_proba(x_val), y_val[..., None].astype(int), axis=-1)
    losses = [row["valid_loss"] for row in model.history_]
    assert -np.log(shares).mean() == pytest.approx(min(losses), rel=1e-4)
    assert losses[model.best_epoch_ - 1] == min(losses)
    best = model.history_[model.best_epoch_ - 1]
    assert model.score(x_val, y_val) == pytest.approx(best["valid_mean_iou"], abs=1e-6)


@pytest.mark.parametrize(("early_stopping", "n_epochs"), [(True, 4), (False, 6)])
def test_early_stopping(tiny, smears, monkeypatch, early_stopping, n_epochs):
    told = iter([3.0, 1.0, 2.0, 1.0, 0.5, 0.4])
    record = callbacks.EpochScores.on_epoch_end

    def on_epoch_end(self, net, **kwargs):
        record(self, net, **kwargs)
        net.history.record("valid_loss", next(told))

    monkeypatch.setattr(callbacks.EpochScores, "on_epoch_end", on_epoch_end)
    model = tiny(network=PixelNet, max_epochs=6, early_stopping=early_stopping, patience=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(smears.images, smears.masks)
    assert len(model.history_) == n_epochs
    assert model.best_epoch_ == (2 if early_stopping else 6)
    assert model.end_reason_ == ("patience" if early_stopping else "epochs")
    assert model.end_message_ == ""


def break_in(monkeypatch, epoch, error):
    """Make the second training step of an epoch fail."""
    begin = callbacks.CosineSchedule.on_batch_begin

    def on_batch_begin(self, net, training=False, **kwargs):
        if training and len(net.history) == epoch and len(net.history[-1]["batches"]) == 2:
            raise error
        begin(self, net, training=training, **kwargs)

    monkeypatch.setattr(callbacks.CosineSchedule, "on_batch_begin", on_batch_begin)


@pytest.mark.parametrize("fraction", [0.25, None])
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (KeyboardInterrupt(), "Training was interrupted after 2 of 4 epochs; the model keeps "),
        (SolverError("steps"), "Training broke down (steps) after 2 of 4 epochs; the model keeps "),
        (FloatingPointError("x"), "Training broke down (x) after 2 of 4 epochs; the model keeps "),
    ],
)
def test_a_training_that_is_cut_short_leaves_a_model(
    tiny, smears, monkeypatch, error, text, fraction
):
    break_in(monkeypatch, 3, error)
    model = tiny(max_epochs=4, batch_size=2, validation_fraction=fraction, network="unet")
    with pytest.warns(UserWarning, match=re.escape(text)) as caught:
        model.fit(smears.images, smears.masks)
    assert str(caught[0].message).endswith(f"the weights of epoch {model.best_epoch_}.")
    assert model.best_epoch_ == 2 or fraction
    assert model.end_reason_ == ("broke down" if "broke" in text else "interrupted")
    assert model.end_message_ == str(caught[0].message)
    assert len(model.history_) == 2
    assert model.predict(smears.images).shape == smears.masks.shape


@pytest.mark.parametrize("error", [SolverError("steps"), FloatingPointError("not finite")])
def test_a_breakdown_in_the_first_epoch_is_an_error(tiny, smears, monkeypatch, error):
    break_in(monkeypatch, 1, error)
    model = tiny(batch_size=2, network="unet")
    with raises(str(error), type(error)):
        model.fit(smears.images, smears.masks)
    assert not hasattr(model, "network_")


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


class Bomb:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


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
    has = "network='nodes-unet', width=4, ode_positions=(4, 5, 6). Set these parameters."
    with raises(f"m.safetensors, which has {has}"):
        tiny(pretrained=tmp_path / "m.safetensors", **parameters).fit(smears.images, smears.masks)


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


# ---------------------------------------------------------------- model files


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


# ---------------------------------------------------------------- randomness


def test_global_random_states_are_left_alone(tiny, smears):
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    before = np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
    model = tiny(max_epochs=1).fit(smears.images, smears.masks)
    model.predict(smears.images)
    after = np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002
    assert np.array_equal(before[0][1], after[0][1])
    assert before[0][2:] == after[0][2:]
    assert torch.equal(before[1], after[1])


def test_random_state(tiny, smears, same_weights):
    def fit(random_state):
        return tiny(max_epochs=1, random_state=random_state).fit(smears.images, smears.masks)

    first = fit(0)
    torch.rand(5)  # wherever the global state is
    assert same_weights(first, fit(0))
    assert not same_weights(first, fit(1))
    assert not same_weights(fit(None), fit(None))
    assert same_weights(fit(np.random.RandomState(3)), fit(np.random.RandomState(3)))


def test_a_block_that_fails_again_and_again_warns_once_a_call(tiny, smears):
    def with_a_block_that_fails():
        network = NODEsUNet(width=4, ode_positions=(5,))
        network.ode_blocks[5].first_step, network.ode_blocks[5].max_steps = 0.1, 1
        return network

    segmenter = tiny(network=with_a_block_that_fails, max_epochs=2)
    for call in (
        lambda: segmenter.fit(smears.images, smears.masks),
        lambda: segmenter.predict(smears.images),
        lambda: segmenter.predict_proba(smears.images),
    ):
        with pytest.warns(SolverWarning) as record:
            call()
        segmenter.network_.ode_blocks[5].first_step = 0.1  # fit has found a better one
        first, last = [str(w.message) for w in record if w.category is SolverWarning]
        assert "took all of max_steps=1 steps" in first
        assert re.fullmatch(
            r"ODE-block at position 5: warned \d+ times; only the first warning is shown.", last
        )


@pytest.mark.parametrize("verbose", [0, 1])
def test_verbose(tiny, smears, capsys, verbose):
    tiny(max_epochs=1, verbose=verbose).fit(smears.images, smears.masks)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert ("training" in printed.err) == bool(verbose)


def test_a_batch_by_the_card(tiny, smears, recorded, monkeypatch, tmp_path):
    asked = []

    def on_a_card(shapes, *sizes, memory, n_processes):
        asked.append((shapes, sizes, memory, n_processes))
        return 16

    model = tiny(batch_size="auto", learning_rate=1e-3, checkpoint_dir=tmp_path)
    model.fit(smears.images, smears.masks)
    monkeypatch.setattr(of_segmenter, "choose_batch_size", on_a_card)
    model.fit(smears.images, smears.masks)
    memory = memory_of(torch.device("cuda")) if torch.cuda.is_available() else None
    assert asked == [([image.shape for image in smears.images], (32, 4), memory, 1)]
    on_cpu, on_card = (settings for *_, settings in recorded)
    assert (on_cpu.batch_size, on_cpu.learning_rate) == (4, 1e-3)
    assert (on_card.batch_size, on_card.learning_rate) == (16, 2e-3)
    # Another batch makes another model: what one has begun, the other does not go on with.
    assert on_cpu.checkpoint.path != on_card.checkpoint.path
    model.save(tmp_path / "m")
    loaded = BloodCellSegmenter.load(tmp_path / "m")
    assert (loaded.batch_size, loaded.batch_size_) == ("auto", 16)


def test_parameters_reach_the_training(tiny, smears, recorded):
    tiny(
        early_stopping=True, patience=3, loss="cross_entropy+dice", augment=False, dropout=0.3
    ).fit(smears.images, smears.masks)
    network, _, _, settings = recorded[0]
    assert settings.patience == 3
    assert settings.task.loss == "cross_entropy+dice"
    assert settings.augment is False
    assert settings.max_epochs == 2
    assert (settings.task.crop_size, settings.batch_size) == (32, 4)
    assert settings.learning_rate == BloodCellSegmenter().learning_rate
    assert network.pool[1].p == 0.3
    assert settings.device == torch.device("cpu") or torch.cuda.is_available()
