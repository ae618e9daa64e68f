"""Groups, splits, weights and fingerprints; callables and transformers that do not fit."""

from functools import partial

import numpy as np
import pytest
import torch
from messages import raises
from sklearn.base import BaseEstimator
from torch import nn

import bloodseg.training._train as train_module
from bloodseg import BloodCellCounter, BloodCellSegmenter
from bloodseg._hardware import choose_precision
from bloodseg.estimators import _base
from bloodseg.estimators._fit_inputs import class_weights, warn_of_absent_classes
from bloodseg.networks import UNet
from bloodseg.training import check_groups, fingerprint, split_images


def test_groups_may_mix_names_and_numbers():
    assert check_groups(["a", 1, "a", 2.5], 4).tolist() == [2, 0, 2, 1]


@pytest.mark.parametrize(("n", "groups"), [(10, None), (9, [0, 0, 0, 1, 1, 2, 2, 3, 3])])
def test_a_split_is_of_all_and_keeps_groups(n, groups):
    groups = None if groups is None else np.array(groups)
    train, held_out = split_images(n, groups, 0.3, seed=0)
    assert sorted([*train, *held_out]) == list(range(n))
    if groups is not None:
        assert not set(groups[train]) & set(groups[held_out])


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (
            (0, 1),
            r"hold no red cells \(2\), .* hold the labels 0, 1\. If 1 stands for a cell",
        ),
        ((0, 1, 255), r"hold no red cells \(2\), .* labels 0, 1, 255\. If 1 stands"),
        ((0, 2), r"hold no white cells \(1\), .* hold the labels 0, 2\.$"),
        ((0,), r"hold no white cells \(1\) and no red cells \(2\), .* hold the labels 0\.$"),
    ],
)
def test_label_maps_that_lack_a_class_get_a_word(labels, text):
    masks = [np.array([[0, label]]) for label in labels]
    with pytest.warns(UserWarning, match=text):
        warn_of_absent_classes(masks)


def test_label_maps_of_all_classes_get_none(recwarn):
    warn_of_absent_classes([np.array([[0, 1]]), np.array([[2, 255]])])
    assert not recwarn


def test_fit_warns_of_masks_of_cells_of_any_class(smears):
    segmenter = BloodCellSegmenter(width=4, max_epochs=1, crop_size=32, random_state=0)
    with pytest.warns(UserWarning, match="masks hold no red cells"):
        segmenter.fit(smears.images, [(mask > 0).astype(int) for mask in smears.masks])


def test_class_weights_of_a_class_alone():
    masks = [np.zeros((4, 4), np.uint8)]
    assert class_weights("balanced", masks, np.ones(1)).tolist() == [1, 0, 0]
    with raises("class_weight must be above zero for a class that the masks hold; got [0, 1, 1]."):
        class_weights([0, 1, 1], masks, np.ones(1))
    with raises("class_weight must hold three finite weights, not negative"):
        class_weights({"white": "x"}, masks, np.ones(1))


def test_balanced_does_not_count_images_without_weight():
    masks = [np.repeat([[0, 1]], 4, axis=0), np.full((4, 2), 2)]
    assert class_weights("balanced", masks, np.array([2.0, 0.0]))[2] == 0


def narrow(width=2):
    return UNet(width=width)


def test_fingerprints_know_content_not_wrapping(tiny, smears, tmp_path):
    arrays = list(smears.images)
    model = tiny(checkpoint_dir=tmp_path)
    assert model._fingerprint(arrays) == model._fingerprint([a.copy() for a in arrays])
    assert model._fingerprint(arrays) != model._fingerprint([a + np.uint8(1) for a in arrays])
    assert model._fingerprint() == tiny(checkpoint_dir="x", n_jobs=2)._fingerprint()
    assert model._fingerprint() != tiny(width=5)._fingerprint()
    narrower = tiny(network=partial(narrow, 1))._fingerprint()
    assert narrower != tiny(network=partial(narrow, 2))._fingerprint()
    with raises("checkpoint_dir needs parameters that can be recognised in another process"):
        fingerprint({"network": lambda: UNet(width=2)})


def test_training_from_a_saved_model_goes_on_too(tiny, fitted, smears, tmp_path):
    fitted.save(tmp_path / "start")
    for _ in range(2):
        model = tiny(pretrained=tmp_path / "start", checkpoint_dir=tmp_path / "checkpoints")
        model.fit(smears.images, smears.masks)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_a_checkpoint_that_cannot_be_written_costs_no_training(tiny, smears, tmp_path, monkeypatch):
    def full(*args):
        raise OSError("No space left on device")

    (tmp_path / "file").touch()
    with raises("checkpoint_dir must be a folder that can be made and", FileExistsError):
        tiny(checkpoint_dir=tmp_path / "file").fit(smears.images, smears.masks)
    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(UserWarning, match=r"was not written: No space left on device"):
        tiny(checkpoint_dir=tmp_path, max_epochs=1).fit(smears.images, smears.masks).predict(
            smears.images
        )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_second_ctrl_c_is_raised(tiny, smears, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_module.AugmentedNet, "fit_loop", interrupt)
    monkeypatch.setattr(train_module, "_last_interrupt", float("-inf"))
    with pytest.warns(UserWarning, match="Training was interrupted"):
        tiny().fit(smears.images, smears.masks)
    with pytest.raises(KeyboardInterrupt):
        tiny().fit(smears.images, smears.masks)


class TwoClasses(nn.Conv2d):
    def __init__(self):
        super().__init__(3, 2, 1)


@pytest.mark.parametrize(
    ("network", "text"),
    [
        (lambda: 3, "network must return a torch.nn.Module; got 3."),
        (
            TwoClasses,
            "gives logits of shape (1, 3, 33, 47) for images of shape (1, 3, 33, 47)",
        ),
        (partial(nn.Conv2d, 3, 3, 3), "got (1, 3, 31, 45). Pad and crop inside its forward."),
    ],
)
def test_networks_that_do_not_label_every_pixel(tiny, smears, network, text):
    with raises(text):
        tiny(network=network).fit(smears.images, smears.masks)


def test_a_network_without_weights(tiny, smears):
    with raises("network must return a Module with weights to train; got Identity()"):
        tiny(network=nn.Identity).fit(smears.images, smears.masks)


def test_weights_of_another_kind_of_model(tiny, smears, tmp_path):
    counter = BloodCellCounter(width=2, scale=1.0, max_epochs=1, random_state=0)
    counter.fit(smears.images, smears.counts).save(tmp_path / "m")
    with raises("pretrained must be a model that BloodCellSegmenter can start from; ") as caught:
        tiny(pretrained=tmp_path / "m").fit(smears.images, smears.masks)
    assert str(caught.value).endswith("m is a BloodCellCounter.")


@pytest.mark.parametrize("side", ["training", "validation"])
def test_a_side_without_a_labelled_pixel(tiny, smears, side, monkeypatch):
    monkeypatch.setattr(_base, "train_network", None)  # nothing is trained in vain
    masks = smears.masks.copy()
    masks[slice(0, 2) if side == "training" else slice(2, None)] = 255
    text = f"of {side} are 255, not known. Leave such images out, or choose those of validation"
    with raises(text):
        tiny().fit(smears.images[:2], masks[:2], X_val=smears.images[2:], y_val=masks[2:])


@pytest.mark.parametrize("tile_size", [17, 16, -64])
def test_tiles_are_checked_before_training(tiny, smears, tile_size, monkeypatch):
    monkeypatch.setattr(_base, "train_network", None)
    with raises(
        f"tile_size must be 'auto', None, or a multiple of 16 of at least 64; got {tile_size}."
    ):
        tiny(tile_size=tile_size).fit(smears.images, smears.masks)


def test_a_shared_network_is_copied(tiny, smears):
    network = UNet(width=2)
    first = tiny(network=lambda: network).fit(smears.images, smears.masks)
    before = first.predict_proba(smears.images)
    tiny(network=lambda: network, random_state=1).fit(smears.images, smears.masks)
    assert np.array_equal(first.predict_proba(smears.images), before)
    assert first.precision_ == choose_precision(torch.device("cpu"))


class Halve(BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return [image[::2, ::2] for image in X]


def test_a_preprocessor_must_keep_sizes(tiny, smears):
    with raises("preprocessor must keep the number of images and their sizes"):
        tiny(preprocessor=Halve()).fit(smears.images, smears.masks)


def test_out_of_memory_names_the_image(fitted, smears, monkeypatch):
    def fail(images):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 GB")

    monkeypatch.setattr(fitted.network_, "forward", fail)
    with raises(
        "images[0] of 32 x 32 pixels does not fit into memory; use a smaller tile_size", MemoryError
    ):
        fitted.predict(smears.images)


def test_nested_parameters_need_a_transformer():
    with raises("preprocessor__clip_limit needs a transformer to set it on, and preprocessor is N"):
        BloodCellSegmenter(preprocessor=None).set_params(preprocessor__clip_limit=1)
