"""Images far noisier than those of training are smoothed before they are enhanced."""

import copy
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears
from bloodseg.metrics import mean_iou
from bloodseg.prediction import TileNetwork, _predictor, _sources
from bloodseg.prediction._magnification import Scaling
from bloodseg.prediction._noise import SmoothedRows, is_noisy, measure_noise
from bloodseg.prediction._predictor import Predictor

DIAMETER = 40
SMEARS = make_smears(3, 160, random_state=3, red_cell_diameter=DIAMETER, white_cells=(1, 1))
DOUBT = "it is noisy, and was smoothed"


def add_normal(image, deviation, seed=0):
    noise = np.random.default_rng(seed).normal(scale=deviation, size=image.shape)
    return np.rint(image + noise).clip(0, 255).astype(np.uint8)


def add_grain(image, deviation):
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(size=image.shape), (0, 0), 1)
    return np.rint(image + deviation * noise / noise.std()).clip(0, 255).astype(np.uint8)


def add_impulses(image, share):
    drawn = np.random.default_rng(0).random(image.shape[:2])
    changed = image.copy()
    changed[drawn < share / 2], changed[drawn > 1 - share / 2] = 0, 255
    return changed


def catch_few_photons(image, most):
    caught = np.random.default_rng(0).poisson(image / 255 * most)
    return np.rint(255 / most * caught).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def published():
    return BloodCellSegmenter.from_pretrained(red_cell_diameter=DIAMETER)


@pytest.mark.parametrize("deviation", [5, 10, 20])
def test_white_noise_is_measured(deviation):
    image = add_normal(np.full((200, 300, 3), 128, np.uint8), deviation)
    assert measure_noise(image, 1.0) == pytest.approx(deviation, rel=0.03)
    assert measure_noise(image, 2.0) == measure_noise(image, 1.0)
    assert measure_noise(image / 255.0, 1.0) == pytest.approx(deviation, rel=0.03)
    assert measure_noise(image.astype(np.uint16) * 257, 1.0) == pytest.approx(deviation, rel=0.03)
    # Made smaller, each pixel is a mean of several.
    assert measure_noise(image, 0.25) < 0.35 * deviation


def test_coarse_grain_is_measured():
    image = add_grain(np.full((200, 200, 3), 128, np.uint8), 20)
    assert 7 < measure_noise(image, 1.0) < 20


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_slopes_and_edges_are_no_noise(factor):
    rows, columns = np.mgrid[:200, :200]
    slope = np.stack([rows // 2, columns, rows // 2 + columns // 2], axis=-1)
    checks = np.where((rows // 25 + columns // 25)[..., np.newaxis] % 2, 255, 0)
    for image in (slope, checks):
        assert measure_noise(image.astype(np.uint8).repeat(3, axis=2)[..., :3], factor) < 1


def test_smears_as_they_are_drawn_are_not_noisy():
    assert max(measure_noise(image, 36 / DIAMETER) for image in SMEARS.images) < 3.5
    assert not is_noisy(np.zeros((1, 1), bool), 1.0)


@pytest.mark.parametrize("factor", [0.3, 0.7, 1.0, 2.0])
def test_strips_are_smoothed_as_the_whole(factor):
    image = add_impulses(add_normal(SMEARS.images[0], 30), 0.05)
    rows = SmoothedRows(image, factor)
    whole = rows[:]
    assert whole.shape == image.shape
    assert whole.dtype == np.uint8
    for start, stop in ((0, 7), (7, 60), (60, 61), (61, 160)):
        np.testing.assert_array_equal(rows[start:stop], whole[start:stop])


def test_the_smaller_an_image_is_shown_the_more_it_is_smoothed():
    image = add_normal(np.full((160, 160, 3), 128, np.uint8), 30)
    left = [SmoothedRows(image, factor)[:].std() for factor in (0.3, 0.7, 1.0, 2.0)]
    assert left == sorted(left)
    assert left[0] < 2.5 < 6 < left[-1] < 20


def test_cells_of_any_size_have_a_median_that_opencv_can_count():
    image = np.random.default_rng(0).integers(100, 110, (900, 900, 3), dtype=np.uint8)
    smoothed = SmoothedRows(image, 0.0125)[:]  # 401 pixels for 5 of the network
    assert abs(smoothed.astype(int) - 105).max() <= 1


def test_single_pixels_vanish():
    image = np.full((60, 60), 0.5)
    image[20, 20], image[40, 40] = 0, 1
    np.testing.assert_array_equal(SmoothedRows(image, 1.0)[:], 128)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("damage", "amount", "least"),
    [
        (add_normal, 50, 0.8),
        (catch_few_photons, 15, 0.8),
        (add_impulses, 0.15, 0.9),
        (add_grain, 25, 0.75),
    ],
)
def test_cells_under_noise_are_found(published, damage, amount, least, monkeypatch):
    noisy = [damage(image, amount) for image in SMEARS.images]
    found = list(published.segment(noisy))
    monkeypatch.setattr(_predictor, "is_noisy", lambda pixels, factor: False)
    monkeypatch.setattr(TileNetwork, "adapted_to", lambda self, pixels, share: None)
    before = list(published.segment(noisy))
    assert [each.smoothed for each in found + before] == [True] * 3 + [False] * 3
    smoothed, plain = (
        mean_iou(SMEARS.masks, [each.class_map for each in results]) for results in (found, before)
    )
    assert smoothed > max(least, plain + 0.2)
    # One white cell is in each, and far more in noise.
    assert sum(abs(each.count()["white"] - 1) for each in found) <= 2


@pytest.fixture(scope="module")
def noisy():
    return add_normal(SMEARS.images[0], 40)


@pytest.fixture(scope="module")
def found(noisy, published):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return next(published.segment([noisy]))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_all_methods_smooth_alike(noisy, published, found):
    probabilities = published.predict_proba([noisy])[0]
    np.testing.assert_array_equal(probabilities.argmax(axis=-1), found.class_map)
    clean, beside = published.predict([SMEARS.images[1], noisy])
    np.testing.assert_array_equal(beside, found.class_map)
    np.testing.assert_array_equal(clean, published.predict([SMEARS.images[1]])[0])
    assert DOUBT in published.count([noisy])["doubts"][0]
    assert published.measure([noisy])["doubts"].str.contains(DOUBT).all()
    assert found.image is noisy


def test_it_is_said(noisy, published, caplog):
    with caplog.at_level("INFO", "bloodseg"), pytest.warns(UserWarning, match=DOUBT):
        (found,) = published.segment([noisy])
    assert DOUBT in found.doubts()
    assert "images[0] is noisy: smoothed." in caplog.text


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_files_rows_and_tiles_are_smoothed_as_well(noisy, published, found, tmp_path, monkeypatch):
    Image.fromarray(noisy).save(tmp_path / "noisy.png")
    (of_file,) = published.segment([tmp_path / "noisy.png"])
    np.testing.assert_array_equal(of_file.class_map, found.class_map)
    (in_tiles,) = copy.copy(published).set_params(tile_size=128).segment([noisy])
    assert in_tiles.smoothed
    assert mean_iou(SMEARS.masks[:1], [in_tiles.class_map]) > 0.8
    monkeypatch.setattr(_sources, "_READ_WHOLE", 0)
    (by_rows,) = published.segment([tmp_path / "noisy.png"])
    assert by_rows.smoothed
    assert mean_iou([found.class_map], [by_rows.class_map[:]]) > 0.99


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_noise_does_not_hide_the_size_of_the_cells(published):
    noisy = add_impulses(SMEARS.images[0], 0.2)
    (found,) = copy.copy(published).set_params(red_cell_diameter="auto").segment([noisy])
    assert found.smoothed
    assert found.expected_diameter == pytest.approx(DIAMETER, rel=0.15)


def test_an_image_that_is_not_noisy_is_left_as_it_is(published, monkeypatch):
    image = SMEARS.images[0]
    before = published.predict_proba([image])[0]

    def forbid(*args):
        raise AssertionError("smoothed")

    monkeypatch.setattr(Predictor, "_smooth", staticmethod(forbid))
    np.testing.assert_array_equal(published.predict_proba([image])[0], before)
    auto = copy.copy(published).set_params(red_cell_diameter="auto")
    assert not next(auto.segment([image])).smoothed


def test_images_of_one_laboratory_are_left_as_they_are(noisy, published):
    own = copy.copy(published).set_params(red_cell_diameter=None)
    assert not next(own.segment([noisy])).smoothed


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_another_size_is_smoothed_anew(noisy, published, monkeypatch):
    factors = []
    smooth = Predictor._smooth

    def spy(pixels, factor):
        factors.append(factor)
        return smooth(pixels, factor)

    def measure_again(self, found, scaling, enhanced, network):
        return Scaling(2 * scaling.factor) if len(factors) == 3 else None

    monkeypatch.setattr(Predictor, "_smooth", staticmethod(spy))
    monkeypatch.setattr(_predictor.Ruler, "measure_again", measure_again)
    auto = copy.copy(published).set_params(red_cell_diameter="auto")
    (found,) = auto.segment([noisy])
    # What measures outlines and the network that is asked about sizes see it before that.
    assert factors[:2] == [0.5, 1.0]
    assert factors[3] == 2 * factors[2]
    assert found.smoothed
