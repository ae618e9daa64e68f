"""Images in another size by strips, label maps in another size, and values brought back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodseg._rescaling import ScaledRows, scaled_labels, scaled_shape, unscaled
from bloodseg.datasets import make_smears
from bloodseg.tiling import blended

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
    image = field > 128 if dtype == bool else (field / 255).astype(np.float32)
    if dtype in (np.uint8, np.uint16):
        image = field.astype(dtype)
    scaled = ScaledRows(image, factor)
    whole = scaled[:]
    assert whole.shape == scaled.shape == (*scaled_shape(image.shape, factor), 3)
    assert whole.dtype == (np.uint8 if dtype in (np.uint8, bool) else np.float32)
    for top in range(0, scaled.shape[0], 17):
        assert np.array_equal(scaled[top : top + 17], whole[top : top + 17])


def test_factor_1_changes_nothing(field):
    assert np.array_equal(ScaledRows(field, 1)[:], field)
    assert np.array_equal(scaled_labels(field[..., 0], 1), field[..., 0])
    values = np.moveaxis(field, -1, 0).astype(np.float32)
    ((rows, columns, same), *rest) = unscaled(
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
    scaled = scaled_shape((height, width), factor)
    block = (slice(0, scaled[0]), slice(0, scaled[1]), smooth(*scaled))
    back = np.full((2, height, width), np.nan, np.float32)
    for rows, columns, values in unscaled([block], scaled, (height, width)):
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
    shape = (230, 170)
    scaled = scaled_shape(shape, factor)
    image = rng.random(scaled).astype(np.float32)
    blocks = [
        (rows, columns, values)
        for rows, columns, values, _ in blended(
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
        for rows, columns, block in unscaled(given_blocks, scaled, shape):
            result[:, rows, columns] = block
        results.append(result)
    assert np.array_equal(*results)


@given(height=sides, width=sides, factor=factors, seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_labels_stay_labels(height, width, factor, seed):
    labels = np.random.default_rng(seed).choice([0, 1, 2, 255], (height, width)).astype(np.uint8)
    scaled = scaled_labels(labels, factor)
    assert scaled.shape == scaled_shape(labels.shape, factor)
    assert scaled.dtype == np.uint8
    assert set(np.unique(scaled)) <= set(np.unique(labels))


def test_a_label_takes_the_most_of_a_pixel():
    labels = np.zeros((80, 80), np.uint8)
    labels[:, 30:50] = 2
    labels[40:, 50:] = 255
    half = scaled_labels(labels, 0.5)
    assert (half[:, 15:25] == 2).all()
    assert (half[20:, 25:] == 255).all()
    assert np.array_equal(scaled_labels(labels, 2)[::2, ::2], labels)
