"""Drawn smears."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from bloodseg.datasets import make_smears


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    size=st.tuples(st.integers(16, 130), st.integers(16, 130)),
    diameter=st.sampled_from([8, 17.5, 40, 90, 1000]),
    white=st.tuples(st.integers(0, 2), st.integers(2, 4)),
    density=st.tuples(st.floats(0, 0.5), st.floats(0.5, 2)),
)
def test_label_maps_cells_and_counts_agree(seed, size, diameter, white, density):
    smears = make_smears(
        2, size, seed, red_cell_diameter=diameter, white_cells=white, density=density
    )
    assert smears.images.shape == (2, *size, 3)
    assert smears.images.dtype == np.uint8
    assert smears.masks.dtype == np.uint8
    assert smears.instances.dtype == np.int32
    for mask, instances, counts in zip(smears.masks, smears.instances, smears.counts, strict=True):
        np.testing.assert_array_equal(mask > 0, instances > 0)
        areas = np.bincount(instances.ravel())[1:]
        assert len(areas) == counts.sum()
        assert (areas >= 12).all()
        classes = [np.unique(mask[instances == number]) for number in range(1, len(areas) + 1)]
        assert [c.tolist() for c in classes] == [[1]] * counts[0] + [[2]] * counts[1]
        assert counts[0] <= white[1]


def test_the_same_seed_draws_the_same_bits():
    first, second, third = (make_smears(2, 96, seed) for seed in (3, 3, 4))
    for name in ("images", "masks", "instances", "counts"):
        np.testing.assert_array_equal(first[name], second[name])
    assert not np.array_equal(first.images, third.images)
    assert not np.array_equal(first.images[0], first.images[1])


def test_an_image_does_not_depend_on_the_number_of_images():
    few, many = make_smears(3, 96, 0), make_smears(5, 96, 0)
    for name in ("images", "masks", "instances", "counts"):
        np.testing.assert_array_equal(few[name], many[name][:3])


def test_a_random_state_advances_and_the_global_one_stays():
    rng = np.random.RandomState(0)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = make_smears(1, 64, rng), make_smears(1, 64, rng)
    assert not np.array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.images, make_smears(1, 64, 0).images)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_sizes_and_numbers_are_as_asked():
    smears = make_smears(4, 256, 0, red_cell_diameter=40, white_cells=(1, 1), density=(0.5, 0.5))
    assert (smears.counts[:, 0] == 1).all()
    inner = []
    for instances, (n_white, _) in zip(smears.instances, smears.counts, strict=True):
        edge = np.concatenate([instances[0], instances[-1], instances[:, 0], instances[:, -1]])
        areas = np.bincount(instances.ravel())
        inner += [areas[i] for i in range(n_white + 1, len(areas)) if i not in edge]
    diameters = 2 * np.sqrt(np.array(inner) / np.pi)
    assert 34 < np.median(diameters) < 42  # overlap takes some


def test_white_cells_lie_apart_and_those_without_a_place_are_left_out():
    size = {"image_size": 96, "red_cell_diameter": 16}
    smears = make_smears(6, **size, white_cells=(9, 9), density=(0, 0), random_state=0)
    n_white = smears.counts[:, 0].sum()
    assert n_white < 6 * 9
    assert sum(ndimage.label(mask == 1)[1] for mask in smears.masks) > 0.9 * n_white


def test_no_cells_can_be_asked_for():
    smears = make_smears(1, 64, 0, white_cells=(0, 0), density=(0, 0))
    assert not smears.masks.any()
    assert smears.counts.tolist() == [[0, 0]]


def test_classes_differ_in_colour_from_the_field():
    smears = make_smears(12, 128, 0, white_cells=(1, 1))
    for image, mask in zip(smears.images.astype(float), smears.masks, strict=True):
        field = image[mask == 0].mean(axis=0)
        for label in (1, 2):
            if (mask == label).sum() > 100:
                assert np.abs(image[mask == label].mean(axis=0) - field).max() > 15


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_samples": 0}, "n_samples must be an integer of at least 1; got 0"),
        ({"n_samples": True}, "n_samples must be an integer"),
        ({"image_size": 15}, "image_size must be an integer or .* at least 16; got 15"),
        ({"image_size": (64, 64.0)}, "image_size must be an integer or"),
        ({"image_size": (64, 64, 3)}, "image_size must be an integer or"),
        ({"image_size": "64"}, "image_size must be an integer or"),
        ({"red_cell_diameter": 7}, "red_cell_diameter must be .* from 8 to 1000; got 7"),
        ({"red_cell_diameter": float("nan")}, "red_cell_diameter must be"),
        ({"white_cells": 2}, "white_cells must be two integers .*; got 2. Pass the same number"),
        ({"white_cells": (2, 1)}, "white_cells must be two integers"),
        ({"white_cells": (0, 1.5)}, "white_cells must be two integers"),
        ({"white_cells": (0, 10**9)}, "0 <= least <= greatest <= 1000"),
        ({"density": (-1, 1)}, "density must be two numbers"),
        ({"density": (0, float("inf"))}, "density must be two numbers"),
        ({"random_state": "seed"}, "cannot be used to seed"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_smears(**{"n_samples": 1, "image_size": 32, **arguments})


def test_platelets_can_be_labelled_and_change_nothing_else():
    settings = {"n_samples": 4, "image_size": 200, "red_cell_diameter": 30, "random_state": 3}
    plain = make_smears(**settings)
    more = make_smears(**settings, platelets="label")
    assert np.array_equal(plain.images, more.images)
    assert more.target_names == ("background", "white", "red", "platelet")
    assert more.count_names == ("white", "red", "platelet")
    platelets = more.masks == 3
    assert np.array_equal(np.where(platelets, 0, more.masks), plain.masks)
    assert np.array_equal(np.where(platelets, 0, more.instances), plain.instances)
    assert np.array_equal(more.counts[:, :2], plain.counts)
    assert more.counts[:, 2].sum() > 5
    for instances, mask, counts in zip(more.instances, more.masks, more.counts, strict=True):
        assert instances.max() == counts.sum()
        assert len(np.unique(instances[mask == 3])) == counts[2]
    field = more.images[more.masks == 0].mean()
    assert more.images[platelets].mean() < field - 10


def test_platelets_are_background_or_labelled():
    with pytest.raises(ValueError, match="platelets must be 'background' or 'label'; got True"):
        make_smears(1, platelets=True)
