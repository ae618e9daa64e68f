"""Images in another size by strips, label maps in another size, and values brought back."""

import warnings
from functools import partial

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import raises
from sklearn.model_selection import GridSearchCV
from torch import nn

from bloodseg import BloodCellSegmenter
from bloodseg._images import ScaledRows, blend_tiles, rescale_labels, rescaled_shape, restore_size
from bloodseg.cells import estimate_red_cell_diameter
from bloodseg.cells._scale import typical_radius
from bloodseg.datasets import make_smears
from bloodseg.estimators import _base
from bloodseg.metrics import mean_iou
from bloodseg.prediction import Ruler
from bloodseg.prediction._magnification import Scaling
from bloodseg.training import TrainingResult

sides = st.integers(1, 90)
factors = st.floats(0.1, 6)


@pytest.fixture(scope="module")
def field():
    return make_smears(1, image_size=(150, 121), random_state=0, red_cell_diameter=24).images[0]


def smooth(height, width):
    """Return values (2, height, width) that say where in the image a pixel lies."""
    rows, columns = (np.arange(side) + 0.5 for side in (height, width))
    return np.stack(
        [np.repeat(rows[:, None], width, 1) / height, np.repeat(columns[None], height, 0) / width]
    ).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, bool])
@pytest.mark.parametrize("factor", [0.37, 1.0, 1.9])
def test_strips_are_the_whole(field, dtype, factor):
    image = {bool: field > 128, np.float32: field / np.float32(255)}.get(dtype, field.astype(dtype))
    scaled = ScaledRows(image, factor)
    whole = scaled[:]
    assert whole.shape == scaled.shape == (*rescaled_shape(image.shape, factor), 3)
    assert whole.dtype == (np.uint8 if dtype in (np.uint8, bool) else np.float32)
    for top in range(0, scaled.shape[0], 17):
        assert np.array_equal(scaled[top : top + 17], whole[top : top + 17])


def test_factor_1_changes_nothing(field):
    assert np.array_equal(ScaledRows(field, 1)[:], field)
    assert np.array_equal(rescale_labels(field[..., 0], 1), field[..., 0])
    values = np.moveaxis(field, -1, 0).astype(np.float32)
    ((rows, columns, same), *rest) = restore_size(
        [(slice(0, 150), slice(0, 121), values)], field.shape, field.shape
    )
    assert (rows.start, columns) == (0, slice(0, 121))
    assert np.array_equal(np.concatenate([same, *(each[2] for each in rest)], axis=1), values)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 1), (20, 30, 4)])
def test_all_kinds_of_images_become_rgb(rng, shape):
    image = rng.integers(0, 256, shape).astype(np.uint8)
    assert ScaledRows(image, 0.5)[3:5].shape == (2, 15, 3)


def test_an_image_is_resampled_as_pillow_does(field):
    from PIL import Image

    for factor in (0.4, 2.5):
        scaled = ScaledRows(field, factor)
        height, width = scaled.shape[:2]
        expected = np.asarray(Image.fromarray(field).resize((width, height), Image.BICUBIC))
        assert np.abs(scaled[:].astype(int) - expected).max() <= 1


def test_halving_is_the_mean_where_an_image_is_even():
    image = np.full((40, 40, 3), 200, np.uint8)
    assert (ScaledRows(image, 0.5)[:] == 200).all()


@given(height=sides, width=sides, factor=factors)
@settings(max_examples=40, deadline=None)
def test_places_come_back(height, width, factor):
    """Values that say where they are lie where they say, after the way there and back."""
    scaled = rescaled_shape((height, width), factor)
    block = (slice(0, scaled[0]), slice(0, scaled[1]), smooth(*scaled))
    back = np.full((2, height, width), np.nan, np.float32)
    for rows, columns, values in restore_size([block], scaled, (height, width)):
        assert np.isnan(back[:, rows, columns]).all()  # each pixel once
        back[:, rows, columns] = values
    expected = smooth(height, width)
    for place, pair in enumerate(zip(scaled, (height, width), strict=True)):
        coarse = 1 / min(pair)  # a pixel of the coarser image
        # At the border there is no neighbour to interpolate with.
        inner = (expected[place] > 2 * coarse) & (expected[place] < 1 - 2 * coarse)
        assert np.abs(back[place] - expected[place])[inner].max(initial=0) < 0.1 * coarse
    assert not np.isnan(back).any()


@pytest.mark.parametrize("factor", [0.21, 0.8, 1.3, 4.7])
def test_blocks_are_brought_back_as_the_whole(rng, factor):
    shape = (250, 190) if factor < 1 else (60, 50)
    scaled = rescaled_shape(shape, factor)
    image = rng.random(scaled).astype(np.float32)
    blocks = [
        (rows, columns, values)
        for rows, columns, values, _ in blend_tiles(
            image, lambda tile: (tile[None], None), side=64, overlap=32
        )
    ]
    values = np.empty((1, *scaled), np.float32)
    for rows, columns, block in blocks:
        values[:, rows, columns] = block
    whole = [(slice(0, scaled[0]), slice(0, scaled[1]), values)]
    results = []
    for given_blocks in (blocks, whole):
        result = np.full((1, *shape), np.nan, np.float32)
        for rows, columns, block in restore_size(given_blocks, scaled, shape):
            result[:, rows, columns] = block
        results.append(result)
    assert np.array_equal(*results)


@given(height=sides, width=sides, factor=factors, seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_labels_stay_labels(height, width, factor, seed):
    labels = np.random.default_rng(seed).choice([0, 1, 2, 255], (height, width)).astype(np.uint8)
    scaled = rescale_labels(labels, factor)
    assert scaled.shape == rescaled_shape(labels.shape, factor)
    assert scaled.dtype == np.uint8
    assert set(np.unique(scaled)) <= set(np.unique(labels))


def test_a_label_takes_the_most_of_a_pixel():
    labels = np.zeros((80, 80), np.uint8)
    labels[:, 30:50] = 2
    labels[40:, 50:] = 255
    half = rescale_labels(labels, 0.5)
    assert (half[:, 15:25] == 2).all()
    assert (half[20:, 25:] == 255).all()
    assert np.array_equal(rescale_labels(labels, 2)[::2, ::2], labels)


# ---------------------------------------------------------------- estimation from the image


@pytest.mark.parametrize("diameter", [9, 16, 40, 120])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_diameter_is_estimated(diameter, seed):
    size = 5 * diameter + 60
    image = make_smears(1, size, seed, red_cell_diameter=diameter).images[0]
    assert estimate_red_cell_diameter(image) == pytest.approx(diameter, rel=0.12)


def test_the_estimate_does_not_depend_on_the_dtype():
    image = make_smears(1, 200, 3, red_cell_diameter=30).images[0]
    expected = estimate_red_cell_diameter(image)
    for same in (
        image / 255,
        image.astype(np.uint16) * 257,
        np.dstack([image, image[..., 0] | 255]),
    ):
        assert estimate_red_cell_diameter(same) == pytest.approx(expected, rel=1e-3)


def test_of_large_images_windows_tell():
    smear = make_smears(1, 300, 0, red_cell_diameter=24).images[0]
    large = np.full((2500, 3100, 3), smear.reshape(-1, 3).max(axis=0), np.uint8)
    large[1100:1400, 1300:1600] = smear
    assert estimate_red_cell_diameter(large) == pytest.approx(24, rel=0.12)


def test_sixteen_bits_of_which_eight_are_used_tell_the_same():
    image = make_smears(1, 200, red_cell_diameter=30, random_state=0).images[0]
    diameter = estimate_red_cell_diameter(image)
    for bits in (8, 10, 12, 16):
        dim = image.astype(np.uint16) << (bits - 8)
        assert estimate_red_cell_diameter(dim) == pytest.approx(diameter, rel=0.01), bits


@pytest.mark.parametrize("kind", ["even", "noise", "ramp", "white cell", "tiny"])
def test_no_cells_no_diameter(rng, kind):
    ramp = np.linspace(150, 240, 256)
    image = {
        "even": np.full((200, 200, 3), 230),
        "noise": rng.normal(220, 6, (200, 200, 3)),
        "ramp": np.repeat(np.repeat(ramp[None, :, None], 256, 0), 3, 2),
        "white cell": np.where(_disc(200, 40)[..., None], (70, 40, 150), (240, 235, 230)),
        "tiny": np.full((3, 2, 3), 99),
    }[kind]
    assert estimate_red_cell_diameter(image.clip(0, 255).astype(np.uint8)) is None


def _disc(side, radius):
    rows, columns = np.indices((side, side)) - side / 2
    return np.hypot(rows, columns) < radius


@pytest.mark.parametrize("image", [np.zeros((4, 5, 7), np.uint8), np.zeros(3), [[300, 1]]])
def test_only_images_are_estimated(image):
    with pytest.raises(ValueError, match=r"image\[0\] must have (shape|dtype)"):
        estimate_red_cell_diameter(image)


# ---------------------------------------------------------------- the segmenter


@pytest.fixture
def recorded(monkeypatch):
    """Replace the training by a note of what it was given."""
    notes = []

    def train(network, train, valid, settings):
        notes.append((train, valid))
        return TrainingResult([{"epoch": 1, "train_loss": 1.0, "valid_loss": 1.0}], 1)

    monkeypatch.setattr(_base, "train_network", train)
    return notes


@pytest.fixture(scope="module")
def smear():
    bunch = make_smears(1, 150, 5, red_cell_diameter=20, white_cells=(0, 0))
    return bunch.images[0], bunch.masks[0]


class Blurred(nn.Module):
    """Takes for red what is dark on the average of 9 x 9 pixels, however large the cells."""

    def __init__(self, level=0.75):
        super().__init__()
        self.blur = nn.AvgPool2d(9, 1, 4, count_include_pad=False)
        self.level = nn.Parameter(torch.tensor(level))

    def forward(self, x):
        dark = 40 * (self.level - self.blur(x)[:, 1:2])
        return torch.cat([-dark, torch.full_like(dark, -30), dark], 1)


@pytest.fixture
def fitted(smear, recorded):
    """A segmenter around this network, made without training."""
    image, mask = smear
    level = (image[mask == 0, 1].mean() + image[mask == 2, 1].mean()) / 510
    model = BloodCellSegmenter(None, network=partial(Blurred, level), validation_fraction=None)
    return model.fit([image], [mask])


def test_fit_measures_the_cells_in_the_masks(fitted):
    assert fitted.red_cell_diameter is None
    assert fitted.red_cell_diameter_ == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize("factor", [0.6, 2.0, 3.1])
def test_maps_do_not_depend_on_the_magnification(fitted, smear, factor):
    (at_home,) = fitted.predict([smear[0]])
    assert mean_iou([smear[1]], [at_home]) > 0.8
    expected = rescale_labels(at_home, factor)
    other = ScaledRows(smear[0], factor)[:]
    scores = []
    for diameter in (None, "auto", fitted.red_cell_diameter_ * factor):
        (class_map,) = fitted.set_params(red_cell_diameter=diameter).predict([other])
        scores.append(mean_iou([expected], [class_map]))
    as_it_is, by_estimate, by_pixels = scores
    assert by_pixels > 0.95
    assert by_estimate > 0.92
    assert as_it_is < by_estimate


def test_probabilities_are_the_maps(fitted, smear):
    image = ScaledRows(smear[0], 1.7)[:]
    fitted.set_params(red_cell_diameter="auto")
    (probabilities,) = fitted.predict_proba([image])
    assert probabilities.shape == (*image.shape[:2], 3)
    assert np.allclose(probabilities.sum(axis=-1), 1, atol=1e-5)
    (segmented,) = fitted.segment([image])
    assert np.array_equal(probabilities.argmax(axis=-1), segmented.class_map)
    confidence = probabilities.max(axis=-1) * 255
    assert np.abs(confidence - segmented.confidence).max() <= 0.51


def test_sizes_of_cells_are_those_in_the_image(fitted, smear):
    image = smear[0]
    (found,) = fitted.set_params(red_cell_diameter="auto").segment([ScaledRows(image, 2)[:]])
    assert found.radii.red == pytest.approx(20, rel=0.15)
    assert len(found.cells()) == found.count()["white"] + found.count()["red"]


@pytest.mark.parametrize("given", [11, 36, "auto"])
def test_files_by_strips_are_arrays(fitted, smear, tmp_path, given):
    image = np.tile(smear[0], (2, 1, 1))
    tifffile.imwrite(tmp_path / "a.tif", image, tile=(64, 64))
    fitted.set_params(red_cell_diameter=given, tile_size=64)
    from_array, from_file = fitted.predict([image, str(tmp_path / "a.tif")])
    assert np.array_equal(from_array, from_file)
    fitted.predict_file(tmp_path / "a.tif", tmp_path / "map.tif")
    assert np.array_equal(tifffile.imread(tmp_path / "map.tif"), from_array)
    fitted.set_params(tile_size=None)
    assert (fitted.predict([image])[0] == from_array).mean() > 0.98


def test_the_diameter_of_the_network_changes_nothing(fitted, smear):
    expected = fitted.predict_proba([smear[0]])[0]
    fitted.set_params(red_cell_diameter=fitted.red_cell_diameter_)
    assert np.array_equal(fitted.predict_proba([smear[0]])[0], expected)


def test_an_image_without_cells_goes_through_as_it_is(fitted, smear, tmp_path):
    empty = np.full((60, 70, 3), 240, np.uint8)
    expected = fitted.predict([empty])[0]
    fitted.set_params(red_cell_diameter="auto")
    text = r"cannot be told from images\[1\], which .* pass red_cell_diameter in pixels"
    with pytest.warns(UserWarning, match=text):
        maps = fitted.predict([smear[0], empty])
    assert np.array_equal(maps[1], expected)
    tifffile.imwrite(tmp_path / "empty.tif", empty)
    with pytest.warns(UserWarning, match=r"cannot be told from .*empty\.tif"):
        fitted.predict([tmp_path / "empty.tif"])


def test_an_image_is_measured_again_where_its_cells_contradict(fitted, smear, monkeypatch):
    image = smear[0]
    expected = fitted.predict([image])[0]
    wrong = Scaling(2.0)  # as if red cells were half as wide as they are
    monkeypatch.setattr(Ruler, "measure", lambda *_, **__: wrong)
    fitted.set_params(red_cell_diameter="auto")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the size is guessed
        (result,) = fitted.segment([image])
        (proba,) = fitted.predict_proba([image])
    assert result.guessed_diameter
    assert result.expected_diameter == pytest.approx(fitted.red_cell_diameter_, rel=0.25)
    assert (result.class_map == expected).mean() > 0.97
    assert np.array_equal(proba.argmax(axis=-1), result.class_map)
    assert all(len(each) == 1 for each in fitted.n_function_evaluations_.values())


def test_a_network_is_sure_of_nothing_where_it_sees_no_cells(fitted, smear):
    predictor = fitted._make_predictor()
    network = predictor.network
    assert 0.5 < network.measure_sureness(smear[0], 20) < 1
    assert network.measure_sureness(np.full_like(smear[0], 240), 20) == 0
    assert predictor.evaluations == []  # evaluations are those of predictions


@pytest.mark.parametrize("times", [0.5, 2])
def test_cells_of_another_size_than_looked_for_halve_the_trust(fitted, smear, times):
    network = fitted._copy_network()
    trust = network.measure_sureness(smear[0], 20)
    assert network.measure_sureness(smear[0], times * 20) == pytest.approx(trust / 2)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("given", ["auto", 18])
def test_training_sees_cells_of_the_standard_diameter(tiny, recorded, given):
    smears = make_smears(5, 100, 0, red_cell_diameter=18)
    masks = smears.masks.copy()
    masks[2] = 0  # measured by the others
    model = tiny(red_cell_diameter=given).fit(smears.images, masks)
    assert model.red_cell_diameter_ == 36
    for side in recorded[0]:
        for image, mask in zip(side.images, side.targets, strict=True):
            assert image.shape[:2] == mask.shape
            assert mask.shape[0] == pytest.approx(200, rel=0.3)
            assert mask.dtype == np.uint8
            assert not mask.any() or 2 * typical_radius(mask) == pytest.approx(36, rel=0.15)


def test_validation_data_are_scaled_too(tiny, recorded):
    large, small = (make_smears(2, 4 * d, 0, red_cell_diameter=d) for d in (72, 24))
    model = tiny(red_cell_diameter="auto")
    model.fit(large.images, large.masks, X_val=small.images, y_val=small.masks)
    for side in recorded[0]:
        assert all(mask.shape[0] == pytest.approx(144, rel=0.3) for mask in side.targets)


def test_training_goes_on_at_the_diameter_it_started_with(tiny, recorded, tmp_path):
    smears = make_smears(4, 60, 0, red_cell_diameter=15)
    first = tiny().fit(smears.images, smears.masks)
    first.save(tmp_path / "first.safetensors")
    known = first.red_cell_diameter_
    larger = make_smears(4, 120, 0, red_cell_diameter=30)
    second = tiny(pretrained=tmp_path / "first.safetensors", red_cell_diameter=30)
    assert second.fit(larger.images, larger.masks).red_cell_diameter_ == known
    first.set_params(warm_start=True, red_cell_diameter="auto").fit(larger.images, larger.masks)
    assert first.red_cell_diameter_ == known
    for train, _ in recorded[1:]:
        assert all(mask.shape[0] == pytest.approx(60, rel=0.2) for mask in train.targets)
    fresh = first.set_params(warm_start=False).fit(larger.images, larger.masks)
    assert fresh.red_cell_diameter_ == 36


def test_none_trains_on_the_images_as_they_are(tiny, recorded, smears):
    tiny(preprocessor=None, validation_fraction=None).fit(smears.images, smears.masks)
    ((train, _),) = recorded
    assert all(map(np.array_equal, train.images, smears.images))


def test_masks_without_cells(tiny, recorded, smears):
    empty = np.zeros_like(smears.masks)
    model = tiny().fit(smears.images, empty)
    assert model.red_cell_diameter_ is None
    with raises("red_cell_diameter='auto' needs a model that knows how large the red cells of its"):
        model.set_params(red_cell_diameter="auto").predict(smears.images)
    with raises("red_cell_diameter='auto' needs red or white cells in the label maps to measure"):
        tiny(red_cell_diameter="auto").fit(smears.images, empty)
    assert tiny(red_cell_diameter=36).fit(smears.images, empty).red_cell_diameter_ == 36


@pytest.mark.parametrize("diameter", [3, 1001, "large", True, float("nan"), -20])
def test_bad_diameters(tiny, fitted, smears, diameter):
    with raises("The 'red_cell_diameter' parameter of BloodCellSegmenter must be"):
        tiny(red_cell_diameter=diameter).fit(smears.images, smears.masks)
    text = "red_cell_diameter must be 'auto', a number of pixels from 4 to 1000, or None; got"
    with raises(f"{text} {diameter!r}."):
        fitted.set_params(red_cell_diameter=diameter).predict(smears.images)


@pytest.fixture
def untrained(tiny, smear, recorded):
    return tiny(network="unet", validation_fraction=None).fit([smear[0]], [smear[1]])


def test_model_files_hold_the_diameter(untrained, smear, tmp_path):
    path = tmp_path / "model.safetensors"
    fitted = untrained
    fitted.set_params(red_cell_diameter="auto").save(path)
    loaded = BloodCellSegmenter.load(path)
    assert loaded.red_cell_diameter == "auto"
    assert loaded.red_cell_diameter_ == fitted.red_cell_diameter_
    image = ScaledRows(smear[0], 2)[:]
    assert np.array_equal(loaded.predict([image])[0], fitted.predict([image])[0])


def test_the_diameter_tells_fits_apart(tiny, smears):
    names = {tiny(red_cell_diameter=d)._fingerprint(smears.masks) for d in (None, "auto", 30, 31)}
    assert len(names) == 4


def test_a_search_over_the_diameter(tiny, smears):
    search = GridSearchCV(tiny(max_epochs=1), {"red_cell_diameter": [None, 30]}, cv=2)
    search.fit(smears.images, smears.masks)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
