"""YUV-CLAHE as invariants: every dtype, shape and limit value, and OpenCV as the reference."""

import tracemalloc
import weakref

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from messages import raises
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags

from bloodseg import preprocessing
from bloodseg.datasets import make_smears
from bloodseg.preprocessing import (
    EnhancedRows,
    Preprocessor,
    _balanced,
    light_of,
    optical_density,
)

DTYPES = [np.uint8, np.uint16, ">u2", np.float16, np.float32, ">f4", np.float64]
SHAPES = [(1, 1), (1, 9), (3, 5), (8, 8, 1), (20, 33, 3), (64, 64, 4), (70, 65)]


def white_level(dtype):
    return np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1


def as_dtype(image, dtype):
    """Turn values of 0 to 255 into an image of a dtype."""
    return (np.asarray(image, dtype=np.float64) / 255 * white_level(dtype)).astype(dtype)


def smear(height, width, seed=0):
    """Draw a smooth RGB picture, uint8, of soft colours as in a stained smear."""
    noise = np.random.default_rng(seed).random((height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.rint(cv2.normalize(smooth, None, 90, 220, cv2.NORM_MINMAX)).astype(np.uint8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_dtype_and_shape_are_kept_and_the_input_untouched(shape, dtype):
    image = as_dtype(np.random.default_rng(0).integers(0, 256, shape), dtype)
    before = image.copy()
    image.flags.writeable = False
    (enhanced,) = Preprocessor().transform([image])
    assert enhanced.dtype == image.dtype
    assert enhanced.shape == shape
    assert not np.shares_memory(enhanced, image)
    assert enhanced.flags.writeable
    assert enhanced.min() >= 0
    assert enhanced.max() <= white_level(dtype)
    np.testing.assert_array_equal(image, before)
    if shape[-1] == 4:
        np.testing.assert_array_equal(enhanced[..., 3], image[..., 3])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("level", [0, 100, 255])
@pytest.mark.parametrize("shape", [*SHAPES, (256, 256, 3)])
def test_a_constant_image_stays_constant_and_near(shape, level, dtype):
    image = as_dtype(np.full(shape, level), dtype)
    (enhanced,) = Preprocessor().transform([image])
    colours = _without_alpha(enhanced).astype(float) / white_level(dtype) * 255
    assert np.ptp(colours) < 0.3
    # A black tile rises by the limit and its share of the rest; whole pixels cost up to 4 levels
    # each, and OpenCV puts the last of the rest on the darkest levels.
    assert np.abs(colours - level).max() <= (16 if shape[0] >= 64 else 3.1)


def _without_alpha(image):
    return image[..., :3] if image.ndim == 3 else image


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_gives_the_same_picture(dtype):
    image = smear(128, 150)
    (expected,) = Preprocessor().transform([image])
    (enhanced,) = Preprocessor().transform([as_dtype(image, dtype)])
    got = enhanced.astype(np.float64) / white_level(dtype) * 255
    np.testing.assert_allclose(got, expected, atol=3)  # half a level in, steep curve, rounding
    assert np.abs(got - expected).mean() < 0.8
    assert expected.std() > 1.15 * image.std()


@pytest.mark.parametrize("size", [(64, 64), (128, 96), (100, 128), (121, 77)])
@pytest.mark.parametrize("clip_limit", [0.5, 2.0, 40.0])
@pytest.mark.parametrize("grid", [(8, 8), (2, 5)])
def test_brightness_is_opencvs(size, clip_limit, grid):
    grey = smear(*size)[..., 0]
    expected = cv2.createCLAHE(clip_limit, grid[::-1]).apply(grey)
    preprocessor = Preprocessor(clip_limit=clip_limit, tile_grid_size=grid)
    np.testing.assert_array_equal(preprocessor.transform([grey])[0], expected)
    fine = preprocessor.transform([grey / 255])[0] * 255
    np.testing.assert_allclose(fine, expected, atol=1.01)  # OpenCV rounds curves and result


def test_colours_follow_the_papers_pseudocode():
    image = smear(128, 128)
    yuv = cv2.cvtColor(image[..., ::-1].copy(), cv2.COLOR_BGR2YUV)
    yuv[..., 0] = cv2.createCLAHE(2.0, (8, 8)).apply(yuv[..., 0])
    expected = cv2.cvtColor(yuv, cv2.COLOR_YUV2BGR)[..., ::-1].astype(int)
    (enhanced,) = Preprocessor().transform([image])
    np.testing.assert_allclose(enhanced, expected, atol=3)  # OpenCV rounds U and V
    assert np.abs(enhanced - expected).mean() < 0.6


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_image_comes_back_where_clahe_does_nothing(dtype, monkeypatch):
    image = as_dtype(np.random.default_rng(0).integers(0, 256, (30, 40, 4)), dtype)
    monkeypatch.setattr(preprocessing, "_equalise", lambda brightness, *_: brightness)
    np.testing.assert_array_equal(Preprocessor().transform([image])[0], image)


def test_a_tiny_clip_limit_leaves_small_images_as_they_are():
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    (enhanced,) = Preprocessor(clip_limit=1e-6).transform([image])
    np.testing.assert_allclose(enhanced.astype(int), image, atol=1)


def test_differences_between_colours_are_kept():
    image = smear(96, 96)
    (enhanced,) = Preprocessor().transform([image])
    inside = ((enhanced > 0) & (enhanced < 255)).all(axis=-1)
    assert inside.mean() > 0.9
    got, expected = (np.diff(array.astype(int), axis=-1)[inside] for array in (enhanced, image))
    np.testing.assert_array_equal(got, expected)


def test_floats_keep_more_than_8_or_16_bits():
    ramp = np.linspace(0.4, 0.4001, 128 * 128).reshape(128, 128)  # one level of 8 bits
    (enhanced,) = Preprocessor().transform([ramp])
    assert len(np.unique(enhanced)) > 128 * 128 // 2


def test_grey_is_the_same_in_two_and_three_dimensions():
    grey = smear(70, 80)[..., 0]
    flat, deep, colour = Preprocessor().transform(
        [grey, grey[..., np.newaxis], np.stack([grey] * 3, axis=-1)]
    )
    np.testing.assert_array_equal(deep[..., 0], flat)
    np.testing.assert_array_equal(colour, np.stack([flat] * 3, axis=-1))


def test_bool_images_come_back_as_copies():
    image = np.eye(12, dtype=bool)
    (enhanced,) = Preprocessor().transform([image])
    np.testing.assert_array_equal(enhanced, image)
    assert enhanced.dtype == bool
    assert not np.shares_memory(enhanced, image)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=20),
    ),
    st.tuples(st.integers(1, 256), st.integers(1, 256)),
    st.floats(1e-3, 1e300),
)
def test_any_size_grid_and_limit_work(image, grid, clip_limit):
    preprocessor = Preprocessor(clip_limit=clip_limit, tile_grid_size=grid)
    (flat,) = preprocessor.transform([image])
    (deep,) = preprocessor.transform(image[np.newaxis, ..., np.newaxis])
    assert flat.shape == image.shape
    np.testing.assert_array_equal(deep[..., 0], flat)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_beyond_256_the_clip_limit_changes_nothing(dtype):
    image = as_dtype(smear(64, 64), dtype)
    reference = Preprocessor(clip_limit=256).transform([image])[0]
    for clip_limit in (300, 1e9, 1e300):
        preprocessor = Preprocessor(clip_limit=clip_limit)
        np.testing.assert_array_equal(preprocessor.transform([image])[0], reference)
        rows = EnhancedRows(preprocessor, image)[0:64]
        np.testing.assert_allclose(
            rows.astype(float), reference, atol=1 if dtype is np.uint8 else 1e-6
        )


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_looking_up_in_blocks_changes_nothing(dtype, monkeypatch):
    image = as_dtype(smear(75, 40), dtype)
    (whole,) = Preprocessor().transform([image])
    monkeypatch.setattr(preprocessing, "_BLOCK_PIXELS", 100)
    np.testing.assert_array_equal(Preprocessor().transform([image])[0], whole)


def test_containers_are_kept():
    batch = np.stack([smear(32, 40, seed) for seed in range(3)])
    stacked = Preprocessor().transform(batch)
    assert isinstance(stacked, np.ndarray)
    for container in (list, tuple):
        listed = Preprocessor().transform(container(batch))
        assert isinstance(listed, list)
        np.testing.assert_array_equal(np.stack(listed), stacked)


@pytest.mark.parametrize("n_jobs", [2, -1])
def test_threads_change_neither_result_nor_opencvs_setting(n_jobs):
    images = [smear(60 + seed, 90 - seed, seed) for seed in range(6)]
    images += [image.astype(np.uint16) * 257 for image in images[:2]]
    threads = cv2.getNumThreads()
    for got, expected in zip(
        Preprocessor(n_jobs=n_jobs).transform(images), Preprocessor().transform(images), strict=True
    ):
        np.testing.assert_array_equal(got, expected)
    assert cv2.getNumThreads() == threads


@pytest.mark.parametrize(
    "view", [np.s_[::2, ::2], np.s_[::-1, :, ::-1], np.s_[:, 3:40]], ids=["step", "bgr", "crop"]
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_views_of_any_layout_work(view, dtype):
    image = as_dtype(smear(140, 150), dtype)[view]
    expected = Preprocessor().transform([np.ascontiguousarray(image)])[0]
    np.testing.assert_array_equal(Preprocessor().transform([image])[0], expected)
    fortran = np.asfortranarray(image[..., 0])
    np.testing.assert_allclose(
        Preprocessor().transform([fortran])[0],
        Preprocessor().transform([np.ascontiguousarray(fortran)])[0],
    )


@pytest.mark.parametrize("method", ["fit", "transform"])
@pytest.mark.parametrize("clip_limit", [0, -1.0, np.nan, np.inf, "2", None])
def test_bad_clip_limits_are_refused_in_words(method, clip_limit):
    text = (
        "The 'clip_limit' parameter of Preprocessor must be a float in the range (0.0, inf). "
        f"Got {clip_limit!r} instead."
    )
    with raises(text):
        getattr(Preprocessor(clip_limit=clip_limit), method)([smear(8, 8)])


# ---------------------------------------------------------------- white balance


def tinted(dtype):
    """A smear under white and under green light."""
    image = make_smears(1, 96, random_state=0).images[0] / 255 * 0.8
    images = image, image * np.array([0.6, 1.0, 0.8])
    if np.dtype(dtype).kind == "f":
        return [each.astype(dtype) for each in images]
    return [np.rint(each * np.iinfo(dtype).max).astype(dtype) for each in images]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_white_balance_takes_the_lamps_colour_away(dtype):
    images = tinted(dtype)
    given = [image.copy() for image in images]
    white = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    white_light, green_light = Preprocessor(white_balance=True).transform(images)
    assert white_light.dtype == green_light.dtype == dtype
    difference = np.abs(white_light.astype(float) - green_light) / white
    assert difference.mean() < 0.02
    plain = Preprocessor().transform(images)
    assert np.abs(plain[0].astype(float) - plain[1]).mean() / white > 0.1
    for image, before in zip(images, given, strict=True):
        np.testing.assert_array_equal(image, before)


def test_the_light_of_a_slide_is_found_in_bounded_memory():
    image = np.random.default_rng(0).integers(0, 255, (1500, 700, 3), dtype=np.uint8)
    image[1::2] //= 2  # which every second row, as it is looked at, does not show
    given = []

    class Rows:
        shape = image.shape

        def __getitem__(self, rows):
            assert sum(strip() is not None for strip in given) <= 1
            strip = image[rows].copy()
            given.append(weakref.ref(strip))
            return strip

    assert light_of(Rows(), strip_height=101).tolist() == light_of(image).tolist()
    assert len(given) > 10


def test_a_wide_slide_is_enhanced_in_bounded_memory(monkeypatch):
    image = np.random.default_rng(0).integers(0, 255, (512, 2048, 3), dtype=np.uint8)
    expected = EnhancedRows(Preprocessor(), image)[0:512]
    monkeypatch.setattr(preprocessing, "_STRIP_PIXELS", 2**16)
    tracemalloc.start()
    rows = EnhancedRows(Preprocessor(), image)
    counted = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    strip = rows[0:512]
    enhanced = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(strip, expected)
    assert enhanced < 4 * image.nbytes  # the pieces, and all together
    assert counted < 4 * image.nbytes


def test_white_balance_leaves_a_balanced_image_about_as_it_is():
    image = np.full((64, 64, 3), 235, np.uint8)
    image[20:40, 20:40] = (200, 100, 120)
    light = light_of(image)
    assert light.tolist() == [235, 235, 235]
    balanced = _balanced(image, light)
    assert np.abs(balanced.astype(int) - image).max() <= 1
    assert balanced[0, 0].tolist() == [235, 235, 235]  # 0.92 of white, rounded and not cut off


def test_the_light_of_a_black_image_is_not_zero():
    assert light_of(np.zeros((8, 8, 3), np.uint8)).tolist() == [1, 1, 1]
    assert np.isfinite(optical_density(np.zeros((8, 8, 3)))).all()


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 4), (1, 1, 3)])
def test_white_balance_of_every_shape(shape):
    image = np.full(shape, 120, np.uint8)
    changed = Preprocessor(white_balance=True).transform([image])[0]
    assert changed.shape == shape
    if shape[-1] == 4:
        assert (changed[..., 3] == 120).all()
    black = Preprocessor(white_balance=True).transform([np.zeros(shape, np.uint8)])[0]
    assert black.max() < 200 or shape[-1] == 4


def test_optical_density():
    image = np.full((30, 30, 3), 200, np.uint8)
    image[:5] = 20
    density = optical_density(image)
    assert density[10:] == pytest.approx(0)
    assert density[:5] == pytest.approx(1)


@pytest.mark.parametrize("method", ["fit", "transform"])
@pytest.mark.parametrize(
    "grid", [(0, 8), (8, -1), (8,), (8, 8, 8), [8, 257], (8.0, 8), (True, 8), (None, 8)]
)
def test_bad_grids_are_refused_in_words(method, grid):
    text = (
        "The 'tile_grid_size' parameter of Preprocessor must be two integers from 1 to 256, rows "
        f"and columns of tiles. Got {grid!r} instead. The default is (8, 8)."
    )
    with raises(text):
        getattr(Preprocessor(tile_grid_size=grid), method)([smear(8, 8)])


@pytest.mark.parametrize("grid", [8, "88", None])
def test_grids_that_are_no_pair_are_refused_in_words(grid):
    with raises("The 'tile_grid_size' parameter of Preprocessor must be an instance of 'tuple' or"):
        Preprocessor(tile_grid_size=grid).fit([smear(8, 8)])


def test_bad_threads_and_images_are_refused_in_words():
    with raises("The 'white_balance' parameter of Preprocessor must be an instance of 'bool'"):
        Preprocessor(white_balance="yes").fit([smear(8, 8)])
    with raises(
        "The 'n_jobs' parameter of Preprocessor must be an int in the range (-inf, -1], an"
    ):
        Preprocessor(n_jobs=1.5).fit([smear(8, 8)])
    for method in (Preprocessor().fit, Preprocessor().transform):
        with raises("X[0] must have dtype bool, uint8, uint16 or floating point; got int64."):
            method([np.zeros((8, 8), np.int64)])
        with raises("X must be a batch (n, H, W, C) or a list of images"):
            method(smear(8, 8))


def test_fit_learns_nothing_and_parameters_stay_as_given():
    grid = [np.int64(4), 4]
    preprocessor = Preprocessor(clip_limit=3, tile_grid_size=grid)
    before = dict(vars(preprocessor))
    assert preprocessor.fit([smear(32, 32)], y=[np.zeros((32, 32))]) is preprocessor
    preprocessor.transform([smear(32, 32)])
    assert vars(preprocessor) == before
    assert preprocessor.tile_grid_size is grid


def test_tags_say_images_and_no_fit_needed():
    tags = get_tags(Preprocessor())
    assert not tags.requires_fit
    assert not tags.input_tags.two_d_array
    assert tags.input_tags.three_d_array
    assert not tags.target_tags.required


def test_it_works_in_a_pipeline_and_is_never_wrapped():
    pipeline = make_pipeline(Preprocessor(), Preprocessor(clip_limit=1.0))
    pipeline.set_params(**{"preprocessor-2__clip_limit": 4.0})
    images = [smear(32, 40), smear(50, 30)]
    assert [image.shape for image in pipeline.fit_transform(images)] == [(32, 40, 3), (50, 30, 3)]
    assert not hasattr(Preprocessor(), "set_output")
