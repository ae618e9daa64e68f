"""The border for images and label maps: every dtype, container, shape and error text."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from messages import raises
from PIL import Image

from bloodseg._images import (
    check_images,
    check_masks,
    in_container_of,
    numbered,
    to_rgb,
)
from bloodseg._images._checks import split_batch

DTYPES = [bool, np.uint8, np.uint16, ">u2", np.float16, np.float32, ">f4", np.float64]
IMAGE_SHAPES = [(1, 1), (3, 5), (4, 6, 1), (4, 6, 3), (1, 1, 4)]


def white_level(dtype):
    kind = np.dtype(dtype).kind
    return {"b": True, "f": 1}.get(kind) or np.iinfo(dtype).max


def full(shape, dtype, share=1.0):
    return np.full(shape, share * white_level(dtype)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", IMAGE_SHAPES)
def test_images_of_every_dtype_and_shape_pass_uncopied(shape, dtype):
    image = full(shape, dtype)
    (checked,) = check_images([image])
    assert checked is image
    batch = np.stack([image, image])
    if batch.ndim == 4 or batch.shape[-1] not in (3, 4):
        assert all(np.shares_memory(item, batch) for item in check_images(batch))


@pytest.mark.parametrize("container", [list, tuple])
def test_images_of_several_sizes_and_kinds_in_one_batch(container):
    images = container(full(shape, np.uint8) for shape in IMAGE_SHAPES)
    assert [image.shape for image in check_images(images)] == IMAGE_SHAPES


def test_an_object_array_of_images_passes():
    batch = np.empty(2, dtype=object)
    batch[:] = [full((2, 3), np.uint8), full((4, 5, 3), np.float32)]
    assert [image.shape for image in check_images(batch)] == [(2, 3), (4, 5, 3)]


@pytest.mark.parametrize("mode", ["P", "CMYK", "YCbCr", "HSV", "LA", "RGBA", "L", "1"])
def test_images_of_pillow_are_the_colours_that_their_values_stand_for(mode):
    colours = np.array([[[200, 60, 40], [40, 60, 200], [230, 230, 230]]], np.uint8)
    image = Image.fromarray(colours)
    image = image.quantize(3) if mode == "P" else image.convert(mode)
    (checked,) = check_images([image])
    expected = np.array(image.convert("L").convert("RGB")) if mode in ("LA", "L", "1") else colours
    assert np.abs(to_rgb(checked) - expected.astype(float)).max() <= 6
    transparent = Image.fromarray(colours).quantize(3)
    transparent.info["transparency"] = int(np.array(transparent)[0, 0])
    assert check_images([transparent])[0][0, :, 3].tolist() == [0, 255, 255]


def test_masked_arrays_with_nothing_masked_pass():
    image = np.ma.masked_array(np.zeros((4, 4, 3), np.uint8))
    assert check_images([image])[0].shape == (4, 4, 3)
    with raises("masks[0] must have no masked pixels"):
        check_masks([np.ma.masked_equal(np.eye(4, dtype=np.uint8), 1)])


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (None, "images must be an array or a list of arrays, each image (H, W) or (H, W, 3); got "
         "NoneType. Read files first"),
        ("smear.png", "got str. Read files first, for instance with bloodseg.datasets.load_folder"),
        (["smear.png"], "images[0] must be an array, image (H, W) or (H, W, 3); got str. Read"),
        (np.array(3.0), "images must be an array or a list of arrays"),
        ({"a": np.zeros((4, 4))}, "each image (H, W) or (H, W, 3); got dict. Read files first"),
        ({1, 2}, "each image (H, W) or (H, W, 3); got set."),
        ([io.BytesIO()], "images[0] must be an array; got BytesIO. Read files first, for instance"),
        ([None], "images[0] must be an array; got NoneType."),
        ([[[1, 2], [3]]], "images[0] cannot be taken as an array: setting an array element with"),
        ([torch.zeros(4, 4, requires_grad=True)], "images[0] cannot be taken as an array: Can't "
         "call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."),
        ([np.ma.masked_less(np.eye(4), 1)], "images[0] must have no masked pixels, for what a mask "
         "hides would be counted. Give images a fourth channel, alpha, that is 0 there; label maps "
         "the label of background."),
        ([], "images must hold at least one image (H, W) or (H, W, 3); got none."),
        (np.zeros((0, 4, 4, 3)), "images must hold at least one image"),
        (np.zeros((8, 8, 3)), "got one array of shape (8, 8, 3), which looks like a single image. "
         "Pass images[np.newaxis] or [images]."),
        (np.zeros((8, 8)), "got one array of shape (8, 8). Pass [images]"),
        ([np.zeros((8, 8)), np.zeros((3, 8, 8))], "images[1] must have shape (H, W) or (H, W, C) "
         "with C one of 1 (grey), 3 (RGB) and 4 (RGBA), and hold pixels; got shape (3, 8, 8). "
         "Move the channels to the last axis."),
        ([np.zeros((0, 8))], "images[0] must have shape (H, W) or (H, W, C)"),
        ([np.zeros(8)], "and hold pixels; got shape (8,)"),
        ([np.zeros((4, 4), np.int64)], "images[0] must have dtype bool, uint8, uint16 or floating "
         "point; got int64. Cast 8-bit values with .astype(np.uint8)."),
        ([np.zeros((4, 4), np.uint32)], "floating point; got uint32"),
        ([np.zeros((4, 4), complex)], "floating point; got complex128"),
        ([np.full((4, 4), np.nan)], "images[0] must hold finite values; got NaN or infinity. "
         "Replace them, for instance with np.nan_to_num."),
        ([np.full((4, 4), -np.inf)], "images[0] must hold finite values"),
        ([np.full((4, 4), 200.0)], "images[0] has dtype float64, so its values must lie in [0, 1]; "
         "got values from 200 to 200. Divide by the white level (255 for 8-bit data)."),
        ([np.array([[0, 1.0000001]], np.float32)], "images[0] has dtype float32, so its values "
         "must lie in [0, 1]; got values from 0.0 to 1.0000001. Cut off what rounding has added "
         "with np.clip(image, 0, 1)."),
        ([np.array([[-1e-9, 0.5]])], "got values from -1e-09 to 0.5. Cut off what rounding"),
        ([np.array([[-1e-9, 1.5]])], "got values from -1e-09 to 1.5. Divide by the white level"),
        ([np.full((4, 4), -0.5, np.float16)], "got values from -0.5 to -0.5"),
    ],
)  # fmt: skip
def test_bad_images_are_refused_in_words(images, text):
    with raises(text):
        check_images(images)


def test_errors_call_the_argument_by_its_name():
    with raises("X[0] must have dtype"):
        check_images([np.zeros((4, 4), int)], name="X")
    with raises("y_true[0] must have shape (H, W)"):
        check_masks([np.zeros(4, int)], name="y_true")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", IMAGE_SHAPES)
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_to_rgb_keeps_black_and_white(shape, dtype, share):
    image = full(shape, dtype, share)
    if len(shape) == 3 and shape[2] == 4:
        image[..., 3] = white_level(dtype)
    rgb = to_rgb(image)
    assert rgb.shape == (*shape[:2], 3)
    assert rgb.dtype in (np.uint8, np.float32)
    assert rgb.dtype.isnative
    np.testing.assert_array_equal(rgb, share * white_level(rgb.dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_to_rgb_lays_transparent_pixels_over_white(dtype):
    rgb = to_rgb(full((3, 4, 4), dtype, 0.0))
    np.testing.assert_allclose(rgb, 1.0)
    assert rgb.dtype == np.float32


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)))
def test_to_rgb_repeats_grey_and_agrees_over_dtypes(grey):
    rgb = to_rgb(grey)
    np.testing.assert_array_equal(rgb, np.stack([grey] * 3, axis=-1))
    np.testing.assert_allclose(to_rgb(grey.astype(np.uint16) * 257), rgb / 255, atol=1e-6)
    np.testing.assert_allclose(to_rgb(grey / 255), rgb / 255, atol=1e-6)


def test_to_rgb_does_not_copy_or_change_what_is_rgb_already():
    image = full((4, 5, 3), np.uint8)
    image.flags.writeable = False
    assert to_rgb(image) is image


MASK_DTYPES = [np.uint8, np.int8, np.int64, ">i4", np.uint64, np.float16, np.float64]


@pytest.mark.parametrize("dtype", MASK_DTYPES)
def test_masks_of_every_dtype_become_uint8(dtype):
    mask = np.array([[0, 1, 2], [2, 1, 0]])
    (checked,) = check_masks([mask.astype(dtype)])
    assert checked.dtype == np.uint8
    np.testing.assert_array_equal(checked, mask)


def test_bool_masks_hold_two_classes():
    (checked,) = check_masks(np.eye(3, dtype=bool)[np.newaxis], classes=("background", "cell"))
    np.testing.assert_array_equal(checked, np.eye(3))


def test_uint8_masks_are_not_copied_and_nested_lists_will_do():
    masks = np.zeros((2, 3, 4), np.uint8)
    assert all(np.shares_memory(item, masks) for item in check_masks(masks))
    assert check_masks([[[0, 1], [2, 2]]])[0].tolist() == [[0, 1], [2, 2]]


@given(hnp.arrays(np.int8, (1, 3, 4), elements=st.integers(-2, 4)))
def test_labels_pass_exactly_when_inside_the_classes(masks):
    if masks.min() >= 0 and masks.max() <= 2:
        np.testing.assert_array_equal(check_masks(masks)[0], masks[0])
    else:
        with raises("masks[0] must hold the labels 0 to 2 (background, white, red); got"):
            check_masks(masks)


@pytest.mark.parametrize(
    ("masks", "text"),
    [
        (7, "masks must be an array or a list of arrays, each label map (H, W); got int."),
        ([], "masks must hold at least one label map (H, W); got none."),
        (np.zeros((4, 4)), "masks must be a batch (n, H, W) or a list of label maps (H, W); got "
         "one array of shape (4, 4). Pass [masks] if it is a single label map."),
        (np.zeros((1, 4, 4, 1)), "got one array of shape (1, 4, 4, 1)"),
        ([np.zeros((4, 4, 3))], "masks[0] must have shape (H, W); got (4, 4, 3)."),
        ([np.zeros((4, 0))], "masks[0] must have shape (H, W); got (4, 0)."),
        ([np.full((2, 2), 255)], "masks[0] must hold the labels 0 to 2 (background, white, red); "
         "got 255. Map your labels to these first."),
        ([np.arange(12).reshape(3, 4)], "got 0, 1, 2, 3, 4, 5, 6, 7, .... Map"),
        ([np.full((2, 2), 0.5)], "got 0.5. Map your labels"),
        ([np.full((2, 2), np.nan)], "got nan. Map your labels"),
        ([np.full((2, 2), -1)], "got -1. Map your labels"),
        ([np.full((2, 2), "1")], "masks[0] must hold numbers; got dtype <U1. Cast labels with "
         ".astype(np.uint8)."),
        ([np.full((2, 2), 1j)], "masks[0] must hold numbers; got dtype complex128."),
        ([np.full((2, 2), None)], "masks[0] must hold numbers; got dtype object."),
    ],
)  # fmt: skip
def test_bad_masks_are_refused_in_words(masks, text):
    with raises(text):
        check_masks(masks)


def test_masks_of_other_classes_are_refused_by_their_names():
    with raises("masks[0] must hold the labels 0 to 1 (background, cell); got 2. Map"):
        check_masks([np.full((2, 2), 2)], classes=("background", "cell"))
    with raises("masks[0] must hold the labels 0 to 3; got 4. Map"):
        check_masks([np.full((2, 2), 4)], classes=numbered(4))


def test_masks_must_match_their_images():
    images = [np.zeros((4, 5, 3)), np.zeros((6, 7))]
    masks = [np.zeros((4, 5)), np.zeros((6, 7))]
    assert len(check_masks(masks, images=images)) == 2
    with raises("masks must hold one label map an image; got 1 label maps for 2 images."):
        check_masks(masks[:1], images=images)
    with raises("masks[0] must have shape (4, 5), as its image has; got (6, 7)."):
        check_masks(masks[::-1], images=images)


@pytest.mark.parametrize("check", [check_images, check_masks])
def test_read_only_batches_pass(check):
    batch = np.zeros((2, 4, 5), np.uint8)
    batch.flags.writeable = False
    assert len(check(batch)) == 2


def test_results_go_back_into_the_container_they_came_in():
    arrays = [np.zeros((2, 3)), np.ones((2, 3))]
    assert in_container_of(arrays, np.zeros((2, 2, 3))).shape == (2, 2, 3)
    assert in_container_of(arrays, tuple(arrays)) is arrays
    assert in_container_of(arrays, np.empty(2, dtype=object)) is arrays
    assert len(split_batch(np.zeros((2, 3)), name="a", item="b")) == 2


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_partial_label_maps(dtype):
    mask = np.array([[0, 255], [2, 1]], dtype)
    (checked,) = check_masks([mask], partial=True)
    assert checked.dtype == np.uint8
    assert checked.tolist() == mask.tolist()
    check_masks([np.full((2, 2), 255)], partial=True)
    text = "(background, white, red), or 255 where the class is not known; got 0, 1, 3, 255. Map"
    with raises(text):
        check_masks([np.array([[0, 3], [255, 1]])], partial=True)
