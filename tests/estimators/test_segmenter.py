"""What goes in and comes out; networks and tolerances; randomness."""

import re
import sys

import numpy as np
import pytest
import torch
from fits import PixelNet
from messages import raises

import bloodseg.estimators._segmenter as of_segmenter
from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears
from bloodseg.metrics import mean_iou
from bloodseg.networks import NETWORKS, NODEsUNet
from bloodseg.ode import SolverWarning
from bloodseg.training import memory_of

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
    assert model.ode_method_ == dict.fromkeys(positions, "kutta3")
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


def test_a_log_has_a_line_an_epoch(tiny, smears, capsys):
    model = tiny(max_epochs=2, verbose=1).fit(smears.images, smears.masks)
    model.predict(smears.images)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "\r" not in printed.err
    lines = printed.err.splitlines()
    assert len(lines) == 2  # prediction took no half minute
    for epoch, (line, row) in enumerate(zip(lines, model.history_, strict=True), start=1):
        assert line.startswith(
            f"training: epoch {epoch} of 2: train_loss {row['train_loss']:.4g}, "
        )
        assert f"valid_mean_iou {row['valid_mean_iou']:.4g}" in line
        assert line.endswith(f"seconds {row['seconds']:.4g}")


def test_a_terminal_has_bars(tiny, smears, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    model = tiny(max_epochs=2, verbose=1, tile_size=64).fit(smears.images, smears.masks)
    shown = capsys.readouterr().err
    assert "training: 100%" in shown
    assert "epoch=2/2" in shown
    assert "valid_mean_iou=" in shown
    assert "\n" not in shown.rstrip("\n")
    field = np.tile(smears.images[0], (4, 2, 1))
    model.predict([field, field])
    shown = capsys.readouterr().err
    assert "predicting: 100%" in shown
    assert "2/2" in shown
    assert shown.count("128/128") >= 2  # rows of each in tiles


def test_silent_is_the_default(tiny, smears, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    tiny(max_epochs=1).fit(smears.images, smears.masks).predict(smears.images)
    assert capsys.readouterr() == ("", "")


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
