"""BloodCellCounter: what it learns, what it promises about area, and scikit-learn's contract."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import raises
from sklearn.base import clone, is_regressor
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from torch.nn import functional

from bloodseg import BloodCellCounter, BloodCellSegmenter, Preprocessor
from bloodseg.datasets import make_smears
from bloodseg.estimators._base import NetworkEstimator
from bloodseg.networks import CountingNetwork, NODEsUNet, ResNetUNet, UNet, for_prediction, unet_of
from bloodseg.training._augmentation import WholeImageAugmentation
from bloodseg.training._data import EpochSampler, SameSizeBatches, WholeImages
from bloodseg.training._loss import CountLoss
from bloodseg.training._tasks import CountingTask

TINY = {"width": 2, "max_epochs": 2, "scale": 1, "random_state": 0}


@pytest.fixture
def tiny():
    """Return a function that makes an unfitted counter that trains in half a second."""

    def make(**parameters):
        return BloodCellCounter(**{**TINY, **parameters})

    return make


@pytest.fixture(scope="module")
def shared_fitted(smears):
    return BloodCellCounter(**TINY).fit(smears.images, smears.counts)


@pytest.fixture
def fitted(shared_fitted):
    return copy.deepcopy(shared_fitted)


@pytest.fixture(scope="module")
def odd_smears():
    """Six smears of different sizes, as a list, with their counts."""
    sizes = [(32, 32), (40, 32), (33, 47), (32, 64), (48, 48), (32, 32)]
    drawn = [make_smears(1, image_size=size, random_state=i) for i, size in enumerate(sizes)]
    return [bunch.images[0] for bunch in drawn], np.concatenate([bunch.counts for bunch in drawn])


# ---------------------------------------------------------------- the network


def counting(backbone=UNet, **parameters):
    torch.manual_seed(0)
    network = CountingNetwork(backbone(width=4, **parameters), densities=(0.02, 0.3)).eval()
    # Away from the start, where all places count alike.
    torch.nn.init.normal_(network.regression.weight)
    return network


@pytest.mark.parametrize("backbone", [UNet, ResNetUNet, NODEsUNet])
def test_every_backbone(backbone):
    network = counting(backbone)
    images = torch.rand(2, 3, 40, 33)
    counts = network(images)
    assert counts.shape == (2, 2)
    assert counts.dtype == torch.float32
    assert (counts > 0).all()
    assert unet_of(network) is network.backbone
    assert list(network.ode_blocks) == ([4, 5, 6] if backbone is NODEsUNet else [])
    with torch.inference_mode():
        assert torch.allclose(for_prediction(network)(images), counts, rtol=1e-4)


def test_a_new_network_answers_with_the_densities_it_was_given():
    network = CountingNetwork(UNet(width=4), densities=(0.02, 0.3)).eval()
    with torch.no_grad():
        network.regression.weight.zero_()
        counts = network(torch.rand(1, 3, 32, 48))
    assert torch.allclose(counts, 6 * torch.tensor([[0.02, 0.3]]))


def test_none_at_all_is_a_density_too():
    assert torch.isfinite(CountingNetwork(UNet(width=2), (0, 0)).regression.bias).all()


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 70), st.integers(1, 70))
def test_the_count_is_the_density_summed_over_the_area(height, width):
    network = counting()
    x = torch.rand(1, 3, height, width)
    with torch.no_grad():
        densities, count = network.densities(x)[0], network(x)[0]
    assert densities.shape == (2, -(-height // 16), -(-width // 16))
    # Each pixel has its block's density; those beyond the image do not count.
    pixels = densities.repeat_interleave(16, 1).repeat_interleave(16, 2)[:, :height, :width] / 256
    assert torch.allclose(pixels.sum((1, 2)), count, rtol=1e-4)


def test_twice_the_area_holds_twice_the_cells():
    network = counting()
    tile = torch.rand(1, 3, 64, 64)
    mirrored = torch.cat([tile, tile.flip(-1)], dim=-1)
    with torch.no_grad():
        one, both = network(tile), network(torch.cat([mirrored] * 4, dim=-1))
        field = network.densities(torch.cat([mirrored] * 4, dim=-1))
    assert torch.allclose(both, 8 * one, rtol=0.2)
    # Exact where the network sees no border: 128 pixels on, all is the same again.
    assert torch.allclose(field[..., 10:18], field[..., 18:26], rtol=1e-3)


def test_a_bfloat16_backbone_counts_in_float32():
    network = counting()
    images = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        exact = network(images)
        network.backbone.precision = "bfloat16"
        rough, prepared = network(images), for_prediction(network)(images)
    assert rough.dtype == prepared.dtype == torch.float32
    assert torch.allclose(rough, exact, rtol=0.1)
    assert torch.allclose(prepared, exact, rtol=0.1)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("kind", ["huber", "squared_error", "poisson"])
def test_losses_by_hand(kind):
    predicted = torch.tensor([[1.0, 8.0], [2.0, 10.0]], requires_grad=True)
    counts, weights = torch.tensor([[1.0, 10.0], [0.0, 10.0]]), torch.tensor([1.0, 3.0])
    scale = torch.tensor([0.5, 4.0])
    loss = CountLoss(kind, scale)(predicted, (counts, weights))
    if kind == "squared_error":
        expected = ((2 / 4) ** 2 + 3 * (2 / 0.5) ** 2) / 4
    elif kind == "huber":
        expected = (0.5 * 0.5**2 + 3 * 0.5 * (4 - 0.25)) / 4
    else:
        expected = ((8 - 10 + 10 * np.log(10 / 8)) / 4 + 3 * 2 / 0.5) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert torch.isfinite(predicted.grad).all()
    assert predicted.grad[0, 1] < 0 < predicted.grad[1, 0]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=20), st.integers(1, 5))
def test_batches_are_of_one_size_and_hold_every_image_once(sizes, batch_size):
    images = [np.zeros((16, 16, 3), np.uint8)] * len(sizes)
    data = WholeImages(images, np.zeros((len(sizes), 2)), np.ones(len(sizes)), seed=0)
    batches = SameSizeBatches(EpochSampler(data), sizes, batch_size)
    found = list(batches)
    assert len(found) == len(batches)
    assert sorted(number for batch in found for number in batch) == list(range(len(sizes)))
    for batch in found:
        assert len({sizes[number] for number in batch}) == 1
        assert len(batch) <= batch_size
    assert found == list(batches)  # fixed by seed and epoch
    if len(set(sizes)) == 1:
        assert [len(batch) for batch in found[:-1]] == [batch_size] * (len(found) - 1)


def test_augmentation_keeps_whole_images():
    # Of one colour but for a corner: where that is, says how the image was turned.
    images = torch.full((8, 3, 32, 48), 0.7)
    images[..., :8, :8] = 0.2
    given_images, counts = images.clone(), torch.rand(8, 2)
    augment = WholeImageAugmentation()
    state = torch.random.get_rng_state()
    turned = [augment(images, counts, seed=seed) for seed in range(6)]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(images, given_images)
    corners = set()
    for changed, same in turned:
        assert same is counts
        assert changed.shape[-2:] in {(32, 48), (48, 32)}
        assert 0 <= changed.min() <= changed.max() <= 1
        dark = functional.avg_pool2d(changed.mean(1, keepdim=True), 8).flatten(2)
        width = changed.shape[-1] // 8
        corners |= {divmod(int(place), width) for place in dark.argmin(-1).flatten()}
    assert corners == {(0, 0), (0, 5), (3, 0), (3, 5), (0, 3), (5, 0), (5, 3)}
    again, _ = augment(images, counts, seed=0)
    assert torch.equal(again, turned[0][0])
    assert len({changed.flatten()[-1].item() for changed, _ in turned}) > 3  # colours, too


def test_it_learns(tiny):
    def draw(n, seed):
        return make_smears(n, 48, seed, red_cell_diameter=12, density=(0.05, 0.9))

    train, test = draw(64, 0), draw(24, 1)
    model = tiny(
        network="unet",
        width=4,
        max_epochs=12,
        batch_size=8,
        learning_rate=2e-2,
        augment=False,
        dropout=0.0,
        preprocessor=None,
        validation_fraction=None,
    ).fit(train.images, train.counts)
    errors = np.abs(model.predict(test.images) - test.counts).mean(axis=0)
    guess = np.abs(train.counts.mean(axis=0) - test.counts).mean(axis=0)
    assert (errors < 0.8 * guess).all()
    score = model.score(test.images, test.counts)
    assert score > 0.3
    assert score == r2_score(test.counts, model.predict(test.images))


def test_history(fitted):
    scores = {"train_loss", "valid_loss", "valid_mae_white", "valid_mae_red"}
    evaluations = {f"evaluations_{position}" for position in (4, 5, 6)}
    for row in fitted.history_:
        assert set(row) == {"epoch", "learning_rate", "seconds"} | scores | evaluations
    assert len(fitted.history_) == 2
    best = min(fitted.history_, key=lambda row: row["valid_loss"])
    assert fitted.best_epoch_ == best["epoch"]


def test_the_history_says_what_the_model_does(tiny, odd_smears):
    images, counts = odd_smears
    model = tiny(max_epochs=1).fit(images, counts, X_val=images, y_val=counts)
    errors = np.abs(model.predict(images) - counts).mean(axis=0)
    row = model.history_[0]
    assert [row["valid_mae_white"], row["valid_mae_red"]] == pytest.approx(errors, rel=1e-3)


def test_what_weighs_nothing_does_not_matter(tiny, smears, same_weights):
    changed = smears.counts.copy()
    changed[1] += 50
    weight = np.array([1, 0, 1, 1, 0.5, 1])
    restore_size = {"validation_fraction": None, "preprocessor": None}
    fits = [
        tiny(**restore_size).fit(smears.images, counts, sample_weight=w)
        for counts, w in [(smears.counts, weight), (changed, weight), (changed, None)]
    ]
    assert same_weights(fits[0], fits[1])
    assert not same_weights(fits[0], fits[2])


def test_random_state(tiny, odd_smears, same_weights):
    images, counts = odd_smears
    first, second = (tiny().fit(images, counts) for _ in range(2))
    assert same_weights(first, second)
    assert np.array_equal(first.predict(images), second.predict(images))
    assert not same_weights(first, tiny(random_state=1).fit(images, counts))


def test_a_killed_training_goes_on_to_the_same_weights(
    tiny, smears, tmp_path, monkeypatch, same_weights
):
    from bloodseg.training import _callbacks as callbacks

    begin = callbacks.EpochNumber.on_epoch_begin

    def killed(self, net, **kwargs):
        if len(net.history) == 2:
            raise OSError("the power went")
        begin(self, net, **kwargs)

    monkeypatch.setattr(callbacks.EpochNumber, "on_epoch_begin", killed)
    with pytest.raises(OSError, match="the power went"):
        tiny(checkpoint_dir=tmp_path).fit(smears.images, smears.counts)
    monkeypatch.setattr(callbacks.EpochNumber, "on_epoch_begin", begin)
    model = tiny(checkpoint_dir=tmp_path).fit(smears.images, smears.counts)
    assert same_weights(model, tiny().fit(smears.images, smears.counts))
    tiny(checkpoint_dir=tmp_path).fit(smears.images, smears.counts + 1)
    assert len(list(tmp_path.glob("*.pt"))) == 2  # other counts are another training


# ---------------------------------------------------------------- predictions


def test_predictions(fitted, odd_smears):
    images, _ = odd_smears
    counts = fitted.predict(images)
    assert counts.shape == (6, 2)
    assert counts.dtype == np.float64
    assert (counts >= 0).all()
    assert {n.shape for n in fitted.n_function_evaluations_.values()} == {(6,)}
    for index, image in enumerate(images):
        assert np.array_equal(fitted.predict([image])[0], counts[index])
    assert np.array_equal(fitted.predict(np.stack(images[::5])), counts[::5])


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (17, 33), (150, 40)])
def test_images_of_any_size(fitted, size):
    assert np.isfinite(fitted.predict([np.zeros((*size, 3), np.uint8)])).all()


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x / np.float32(255),
        lambda x: (x * np.uint16(257)).astype(np.uint16),
        lambda x: np.concatenate([x, np.full_like(x[..., :1], 255)], axis=-1),
    ],
    ids=["float", "uint16", "rgba"],
)
def test_dtypes_give_the_same_answer(smears, tiny, convert):
    model = tiny(scale=0.75, preprocessor=None, max_epochs=1).fit(smears.images, smears.counts)
    # Means of uint8 are rounded when images are shrunk; those of the others are not.
    counts = model.predict(smears.images)
    assert np.allclose(model.predict(convert(smears.images)), counts, rtol=1e-2)


def test_scale_shrinks_the_images(tiny, rng):
    halves = rng.integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
    doubled = halves.repeat(2, axis=1).repeat(2, axis=2)
    counts = rng.integers(0, 9, (6, 2))
    model = tiny(scale=0.5).fit(doubled, counts)
    alone = tiny().fit(halves, counts)
    assert np.array_equal(model.predict(doubled), alone.predict(halves))
    assert not np.allclose(model.predict(halves), alone.predict(halves))


def test_predict_ode_tol_takes_effect_without_fitting_again(fitted, smears):
    fitted.predict(smears.images)
    before = fitted.n_function_evaluations_
    fitted.set_params(predict_ode_tol=1e-5).predict(smears.images)
    assert all((fitted.n_function_evaluations_[p] > before[p]).all() for p in (4, 5, 6))


def test_out_of_memory_names_the_image_as_it_came(tiny, smears, monkeypatch):
    model = tiny(scale=0.75, max_epochs=1).fit(smears.images, smears.counts)

    def fail(images):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 GB")

    monkeypatch.setattr(model.network_, "forward", fail)
    text = (
        "images[0] of 32 x 32 pixels does not fit into memory; cut it into parts, whose counts add "
        "up."
    )
    with raises(text, MemoryError):
        model.predict(smears.images)


# ---------------------------------------------------------------- one count, gaps


def test_one_count_in_the_form_that_it_was_given(tiny, smears, tmp_path, same_weights):
    n_red = smears.counts[:, 1]
    flat = tiny().fit(smears.images, n_red)
    column = tiny().fit(smears.images, n_red[:, np.newaxis])
    named = tiny(classes=("background", "red")).fit(smears.images, n_red)
    assert flat.class_names_ == column.class_names_ == ("background", "cells")
    assert named.class_names_ == ("background", "red")
    assert "valid_mae_cells" in flat.history_[0]
    assert same_weights(flat, column)
    assert same_weights(flat, named)
    counts = flat.predict(smears.images)
    assert counts.shape == (6,)
    assert np.array_equal(column.predict(smears.images), counts[:, np.newaxis])
    assert flat.score(smears.images, n_red) == pytest.approx(r2_score(n_red, counts))
    flat.save(tmp_path / "m")
    assert np.array_equal(BloodCellCounter.load(tmp_path / "m").predict(smears.images), counts)
    assert len(cross_val_score(clone(flat), list(smears.images), n_red, cv=2)) == 2


def test_cells_that_were_not_counted_teach_nothing(tiny, smears, tmp_path):
    only_red = np.where([True, False], np.nan, smears.counts)
    settings = {"validation_fraction": None, "learning_rate": 1e-2}
    with_gap = tiny(**settings).fit(smears.images, only_red)
    assert with_gap.not_counted_ == ("white",)
    counts = with_gap.predict(smears.images)
    assert np.isnan(counts[:, 0]).all()
    # The loss is a mean over both classes: half of it, as AdamW takes gradients of any size.
    alone = tiny(**settings).fit(smears.images, smears.counts[:, 1])
    assert counts[:, 1] == pytest.approx(alone.predict(smears.images), rel=0.05)
    expected = r2_score(smears.counts[:, 1], counts[:, 1])
    assert with_gap.score(smears.images, smears.counts) == pytest.approx(expected)
    with_gap.save(tmp_path / "m")
    loaded = BloodCellCounter.load(tmp_path / "m")
    assert np.array_equal(loaded.predict(smears.images), counts, equal_nan=True)


def test_gaps_here_and_there(tiny, smears):
    counts = smears.counts.astype(float)
    counts[0, 0] = counts[3, 1] = np.nan
    other = counts.copy()
    model = tiny(max_epochs=1, validation_fraction=None).fit(smears.images, counts)
    assert np.isfinite(model.predict(smears.images)).all()
    assert model.not_counted_ == ()
    known = np.isfinite(other)
    predicted = model.predict(smears.images)
    each = [r2_score(other[rows, i], predicted[rows, i]) for i, rows in enumerate(known.T)]
    assert model.score(smears.images, counts) == pytest.approx(np.mean(each))


def test_losses_and_errors_leave_out_what_was_not_counted():
    predicted = torch.tensor([[1.0, 8.0], [2.0, 10.0]], requires_grad=True)
    counts = torch.tensor([[1.0, np.nan], [0.0, 10.0]])
    for kind in ("huber", "squared_error", "poisson"):
        filled = counts.nan_to_num(8.0)  # as predicted: no error
        loss, expected = (
            CountLoss(kind, torch.ones(2))(predicted, (each, torch.ones(2)))
            for each in (counts, filled)
        )
        assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
        (gradient,) = torch.autograd.grad(loss, predicted)
        assert gradient[0, 1] == 0
        assert torch.isfinite(gradient).all()
    task = CountingTask("huber", np.ones(2))
    sums = task.start + task.sum_up(predicted.detach(), counts)
    assert task.score(sums) == {"mae_white": 1.0, "mae_red": 0.0}
    nothing = task.start + task.sum_up(predicted.detach()[:1], counts[:1])
    assert task.score(nothing) == {"mae_white": 0.0}


def test_files_of_before_counters_of_one_count(fitted, smears, tmp_path, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr(BloodCellCounter, "_saved_attributes", NetworkEstimator._saved_attributes)
        fitted.save(tmp_path / "m")
    loaded = BloodCellCounter.load(tmp_path / "m")
    assert np.array_equal(loaded.predict(smears.images), fitted.predict(smears.images))


# ---------------------------------------------------------------- what is refused

WRONG_COUNTS = {
    "three columns": (lambda c: np.c_[c, c[:, :1]], "got shape (6, 3)"),
    "too few": (lambda c: c[:5], "got shape (5, 2)"),
    "negative": (lambda c: c - 100, "got a negative one"),
    "infinite": (lambda c: c + np.inf, "got what is no number, or infinite"),
    "NaN": (lambda c: c * np.nan, "got nothing but NaN"),
    "text": (lambda c: c.astype(str).astype(object) + "x", "got what is no number, or infinite"),
    "label maps": (lambda c: np.zeros((6, 32, 32)), "got shape (6, 32, 32)"),
}


@pytest.mark.parametrize(("change", "text"), WRONG_COUNTS.values(), ids=WRONG_COUNTS)
@pytest.mark.parametrize("name", ["counts", "y_val"])
def test_counts_that_are_refused(tiny, smears, change, text, name):
    wrong, extra = change(smears.counts), {}
    if name == "y_val":
        wrong, extra = smears.counts, {"X_val": smears.images, "y_val": wrong}
    with raises(
        f"{name} must hold two numbers, not negative, for each of 6 images: white and red cells, "
        f"in this order, NaN where they were not counted; {text}."
    ):
        tiny().fit(smears.images, wrong, **extra)


def test_counts_of_validation_are_of_the_form_of_the_others(tiny, smears):
    with raises("y_val must hold two numbers, not negative, for each of 6 images: white and red"):
        tiny().fit(smears.images, smears.counts, X_val=smears.images, y_val=smears.counts[:, 1])
    with raises("y_val must hold a number, not negative, for each of 6 images: cells, NaN"):
        tiny().fit(smears.images, smears.counts[:, 1], X_val=smears.images, y_val=smears.counts)


def test_validation_by_other_cells_than_those_of_training(tiny, smears):
    only_red = np.where([True, False], np.nan, smears.counts)
    with raises(
        "counts must hold numbers of the same kinds of cells among the images of training and "
        "among those of validation, in which others are NaN. Choose those of validation with X_val "
        "and y_val, or set validation_fraction=None."
    ):
        tiny().fit(smears.images, smears.counts, X_val=smears.images, y_val=only_red)


def test_a_score_without_a_count(tiny, smears):
    only_red = np.where([True, False], np.nan, smears.counts)
    only_white = np.where([False, True], np.nan, smears.counts)
    model = tiny(max_epochs=1).fit(smears.images, only_red)
    with raises("numbers of cells that fit was given some of, of the class red; got none."):
        model.score(smears.images, only_white)


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"scale": 0}, "The 'scale' parameter of BloodCellCounter must be a float in the range"),
        ({"scale": 1.5}, "(0.0, 1.0]. Got 1.5 instead."),
        ({"loss": "dice"}, "The 'loss' parameter of BloodCellCounter must be a str among"),
        ({"network": UNet}, "The 'network' parameter of BloodCellCounter must be a str among"),
        ({"network": "fcn"}, "The 'network' parameter of BloodCellCounter must be a str among"),
        (
            {"ode_method": "bosh3", "ode_n_steps": 8},
            "ode_n_steps=8 is for fixed-step methods (euler, midpoint, rk4); 'bosh3' takes as many",
        ),
        ({"ode_positions": (0,)}, "ode_positions must hold different whole numbers from 1 to 9"),
    ],
)
def test_parameters_that_are_refused(tiny, smears, parameters, text):
    with raises(text):
        tiny(**parameters).fit(smears.images, smears.counts)


def test_images_that_shrink_to_nothing(tiny, smears):
    with raises(
        "images must have a side of more than 16 pixels once they are shrunk by scale=0.5; got one "
        "of 16 x 16 then. Raise scale, or leave out tiny images."
    ):
        tiny(scale=0.5).fit(smears.images, smears.counts)


def test_nan_in_an_image(tiny, smears):
    images = smears.images / 255
    images[2, 3, 4] = np.nan
    with raises("images[2] must hold finite values; got NaN or infinity."):
        tiny().fit(images, smears.counts)


# ---------------------------------------------------------------- model files


def test_save_and_load(tiny, odd_smears, tmp_path, same_weights):
    images, counts = odd_smears
    model = tiny(scale=0.7, ode_positions=(5,), ode_tol=1e-2, preprocessor=Preprocessor(3.0))
    model.fit(images, counts).save(tmp_path / "m.safetensors")
    loaded = BloodCellCounter.load(tmp_path / "m.safetensors")
    assert same_weights(model, loaded)
    assert repr(loaded.get_params()) == repr(model.get_params())
    assert np.array_equal(loaded.predict(images), model.predict(images))
    assert loaded.history_ == model.history_
    warm = clone(loaded).set_params(pretrained=tmp_path / "m.safetensors", learning_rate=1e-12)
    assert np.allclose(warm.fit(images, counts).predict(images), model.predict(images), rtol=0.1)


def test_files_of_the_other_estimator(tiny, smears, tmp_path):
    path = tmp_path / "m"
    tiny(max_epochs=1).fit(smears.images, smears.counts).save(path)
    with raises(f"{path} does not hold a model that bloodseg") as caught:
        BloodCellSegmenter.load(path)
    assert str(caught.value).endswith(
        "it is a BloodCellCounter; open it with BloodCellCounter.load"
    )
    segmenter = BloodCellSegmenter(width=2, max_epochs=1, crop_size=32, random_state=0)
    segmenter.fit(smears.images, smears.masks).save(path)
    with raises("it is a BloodCellSegmenter; open it with BloodCellSegmenter.load"):
        BloodCellCounter.load(path)


def test_it_starts_from_a_segmenter(tiny, smears, tmp_path):
    segmenter = BloodCellSegmenter(width=2, max_epochs=1, crop_size=32, random_state=3)
    segmenter.fit(smears.images, smears.masks).save(tmp_path / "m")
    model = tiny(pretrained=tmp_path / "m", learning_rate=1e-12, max_epochs=1)
    model.fit(smears.images, smears.counts)
    trained = dict(segmenter.network_.named_parameters())
    for name, weight in model.network_.backbone.named_parameters():
        assert torch.allclose(weight, trained[name], atol=1e-6)
    with raises("pretrained must be a model of the network that the parameters describe, "):
        tiny(pretrained=tmp_path / "m", width=3).fit(smears.images, smears.counts)


# ---------------------------------------------------------------- scikit-learn


def test_tags():
    tags = get_tags(BloodCellCounter(random_state=0))
    assert is_regressor(BloodCellCounter())
    assert tags.target_tags.required
    assert tags.target_tags.multi_output
    assert tags.target_tags.single_output
    assert not tags.input_tags.two_d_array
    assert not tags.non_deterministic


def test_pipeline_search_and_cross_validation(tiny, odd_smears):
    images, counts = odd_smears
    model = tiny(max_epochs=1, ode_positions=(5,), preprocessor=Preprocessor())
    groups = [0, 0, 1, 1, 2, 2]
    scores = cross_val_score(
        model,
        images,
        counts,
        groups=groups,
        cv=GroupKFold(3),
        scoring="neg_mean_absolute_error",
        error_score="raise",
    )
    assert scores.shape == (3,)
    search = GridSearchCV(
        model, {"scale": [0.6, 1], "preprocessor__clip_limit": [1.0]}, cv=2, error_score="raise"
    ).fit(images, counts)
    assert search.predict(images).shape == (6, 2)
    pipeline = make_pipeline(Preprocessor(), tiny(preprocessor=None, max_epochs=1))
    alone = tiny(max_epochs=1).fit(images, counts)
    assert np.array_equal(pipeline.fit(images, counts).predict(images), alone.predict(images))
    assert pipeline.score(images, counts) == alone.score(images, counts)
