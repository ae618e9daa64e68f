"""The paper's protocol: crops, split, copies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bloodseg.datasets import make_smears
from bloodseg.study import _run as running
from bloodseg.study import paper_protocol, run_study
from bloodseg.study._protocol import _choose_window

SMEARS = make_smears(12, image_size=80, random_state=0, red_cell_diameter=16, white_cells=(0, 2))
GROUPS = np.repeat([f"slide {k}" for k in range(6)], 2)


@pytest.fixture(scope="module")
def parts():
    return paper_protocol(
        SMEARS.images,
        SMEARS.masks,
        groups=GROUPS,
        n_crops=30,
        crop_size=48,
        n_copies=4,
        random_state=0,
    )


def holds(crop, image):
    """Whether the crop is a part of the image."""
    windows = np.lib.stride_tricks.sliding_window_view(image, crop.shape)
    return (windows == crop).all(axis=(-3, -2, -1)).any()


def test_sizes_and_proportions(parts):
    assert len(parts.test.images) == 6
    assert len(parts.train.images) % 4 == 0
    assert len(parts.train.images) // 4 + len(parts.valid.images) == 24
    for part in parts.values():
        assert len(part.images) == len(part.masks) == len(part.groups)
        assert {image.shape for image in part.images} == {(48, 48, 3)}
        assert {mask.shape for mask in part.masks} == {(48, 48)}
        assert {mask.dtype for mask in part.masks} == {np.dtype(np.uint8)}
        assert set(np.unique(part.masks)) <= {0, 1, 2}


def test_no_group_is_on_two_sides(parts):
    sides = [set(part.groups) for part in parts.values()]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 6


def test_crops_are_of_images_of_their_group(parts):
    for part in (parts.test, parts.valid):
        for image, group in zip(part.images, part.groups, strict=True):
            assert any(holds(image, SMEARS.images[i]) for i in (2 * group, 2 * group + 1))


def test_copies_are_changed_and_only_of_training_crops(parts):
    quarter = len(parts.train.images) // 4
    for image in parts.train.images[:quarter]:
        assert image.dtype == np.uint8
    copies = parts.train.images[quarter::quarter]  # of the first crop
    assert len({image.tobytes() for image in copies}) == len(copies) == 3
    changed = []
    for number, image in enumerate(parts.train.images[quarter:]):
        original = parts.train.images[number % quarter] / 255
        assert image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1
        changed.append(not np.allclose(image, original, atol=1 / 255))
        assert parts.train.groups[quarter + number] == parts.train.groups[number % quarter]
    assert np.mean(changed) > 0.9  # chance leaves a few as they are


def test_the_same_seed_gives_the_same_parts(parts):
    options = {"groups": GROUPS, "n_crops": 30, "crop_size": 48, "n_copies": 4}
    again = paper_protocol(SMEARS.images, SMEARS.masks, random_state=0, **options)
    for name, part in parts.items():
        assert all(map(np.array_equal, part.images, again[name].images))
        assert all(map(np.array_equal, part.masks, again[name].masks))
    other = paper_protocol(SMEARS.images, SMEARS.masks, random_state=1, **options)
    assert not all(map(np.array_equal, parts.test.images, other.test.images))


@given(
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(1, 25),
    st.integers(1, 25),
    st.integers(0, 9),
)
@settings(max_examples=80)
def test_windows_hold_a_white_cell(top, left, height, width, seed):
    mask = np.full((40, 37), 2, np.uint8)
    cell = mask[top : top + height, left : left + width]
    cell[:] = 1
    rows, columns = _choose_window(mask, 20, np.random.default_rng(seed))
    window = mask[rows, columns]
    assert window.shape == (20, 20)
    assert (window == 1).any()
    if max(cell.shape) <= 20:
        assert (window == 1).sum() == cell.size


def test_windows_without_a_white_cell():
    mask = np.zeros((30, 20), np.uint8)
    starts = {_choose_window(mask, 20, np.random.default_rng(k))[0].start for k in range(100)}
    assert min(starts) == 0
    assert max(starts) == 10


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"images\[0\] must be at least 256 pixels high and wide"):
        paper_protocol(SMEARS.images, SMEARS.masks)
    with pytest.raises(ValueError, match="n_crops must be at least 3; got 2"):
        paper_protocol(SMEARS.images, SMEARS.masks, crop_size=48, n_crops=2)
    with pytest.raises(ValueError, match="on each side"):
        paper_protocol(SMEARS.images[:1], SMEARS.masks[:1], crop_size=48)
    with pytest.raises(ValueError, match="groups must hold one name"):
        paper_protocol(SMEARS.images, SMEARS.masks, crop_size=48, groups=[1])


def test_a_study_of_one_folder(tmp_path, monkeypatch):
    """Each seed has a split of its own; the test crops are the same for all."""
    seen = []

    class Watched(running.BloodCellSegmenter):
        def fit(self, images, masks, *, groups=None, X_val=None, y_val=None):
            seen.append((images, X_val, groups))
            assert not self.augment
            assert self.crop_size == 64
            return super().fit(images[:4], masks[:4], X_val=X_val[:2], y_val=y_val[:2])

    monkeypatch.setattr(running, "BloodCellSegmenter", Watched)
    table = run_study(
        "networks",
        SMEARS,
        output=tmp_path,
        networks=["U-Net"],
        seeds=[0, 1],
        protocol="paper",
        width=4,
        max_epochs=1,
        crop_size=64,
    )
    assert table.seed.tolist() == [0, 1]
    (images, valid, groups), (_, other_valid, _) = seen
    assert len(images) == len(groups)
    assert len(images) // 10 + len(valid) == 80
    different = len(valid) != len(other_valid)
    assert different or not all(map(np.array_equal, valid, other_valid))
