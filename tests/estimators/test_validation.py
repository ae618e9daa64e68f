"""What is held out and what weighs how much; the history, and when a training ends."""

import json
import re
import warnings

import numpy as np
import pytest
import torch
from fits import PixelNet, break_in
from messages import raises

from bloodseg.ode import SolverError
from bloodseg.training import _callbacks as callbacks

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
        assert row["evaluations_5"] >= 3
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
