"""The paper's protocol (Section 2) on a user's own images, with the split before the copies.

The paper augments first and splits after, so that its validation sees copies of training images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import ndimage
from sklearn.utils import Bunch, check_random_state

from .._images import CLASS_NAMES, WHITE, check_images, check_masks, mask_of
from ..networks import image_tensor
from ..training import Augmentation, check_groups, split_images

_TEST, _VALIDATION = 0.2, 0.25  # 20 of 100 crops; a quarter of the other 80
_COPIES = 10


def paper_protocol(
    images: Any,
    masks: Any,
    *,
    groups: Any = None,
    n_crops: int = 100,
    crop_size: int = 256,
    n_copies: int = _COPIES,
    random_state: Any = None,
) -> Bunch:
    """Cut, split and augment images as the paper did, but split before augmenting.

    A fifth of the images (or groups) is for testing, a quarter of the others for validation; from
    each side come crops in that proportion, which hold a white cell where their image has one. The
    training crops are then joined by changed copies of themselves.

    Parameters
    ----------
    images, masks : images and label maps
        As for `bloodseg.BloodCellSegmenter.fit`, at least ``crop_size`` high and wide.
    groups : array-like of shape (n,), optional
        Images of one group stay on one side; without them, each image is a group.
    n_crops : int, default=100
        Crops in all, copies not counted.
    crop_size : int, default=256
        Side of the crops in pixels.
    n_copies : int, default=10
        Versions of each training crop: itself and ``n_copies - 1`` changed ones.
    random_state : int, RandomState instance or None, default=None
        Fixes split, crops and copies.

    Returns
    -------
    Bunch
        train, valid, test : Bunch
            Each with ``images``, a list of ndarray of shape (crop_size, crop_size, 3), RGB, uint8
            or float, float32 in [0, 1] for changed copies; ``masks``, a list of ndarray of shape
            (crop_size, crop_size), uint8; and ``groups``, an ndarray of int of shape (n,), which
            group each crop comes from.

    Raises
    ------
    ValueError
        If an image is smaller than a crop, or a side of a split would be empty.

    Examples
    --------
    >>> from bloodseg.datasets import make_smears
    >>> from bloodseg.study import paper_protocol
    >>> smears = make_smears(10, image_size=96, random_state=0)
    >>> parts = paper_protocol(
    ...     smears.images, smears.masks, n_crops=20, crop_size=64, random_state=0
    ... )
    >>> [len(part.images) for part in (parts.train, parts.valid, parts.test)]
    [120, 4, 4]
    >>> sorted(set(parts.train.groups) & set(parts.test.groups))
    []
    """
    random = check_random_state(random_state)
    seeds = [int(seed) for seed in random.randint(2**31 - 1, size=2)]
    crops, test = paper_crops(
        images, masks, groups=groups, n_crops=n_crops, crop_size=crop_size, seed=seeds[0]
    )
    train, valid = split_and_augment(crops, seed=seeds[1], n_copies=n_copies)
    return Bunch(train=train, valid=valid, test=test)


def paper_crops(
    images: Any,
    masks: Any,
    *,
    groups: Any = None,
    n_crops: int = 100,
    crop_size: int = 256,
    seed: int = 0,
) -> tuple[Bunch, Bunch]:
    """Return crops to train and validate with, and crops of other images to test with."""
    arrays = check_images(images)
    labels = check_masks(masks, images=arrays)
    for index, mask in enumerate(labels):
        if min(mask.shape) < crop_size:
            raise ValueError(
                f"images[{index}] must be at least {crop_size} pixels high and wide to be cropped; "
                f"got {mask.shape}. Lower crop_size, or leave the image out."
            )
    numbers = check_groups(groups, len(arrays))
    numbers = np.arange(len(arrays)) if numbers is None else numbers
    n_test = round(_TEST * n_crops)
    if not 0 < n_test < n_crops:
        raise ValueError(f"n_crops must be at least 3; got {n_crops!r}.")
    rng = np.random.default_rng(seed)
    rest, held_out = split_images(len(arrays), numbers, _TEST, seed)
    return (
        _cut_crops(arrays, labels, numbers, rest, n_crops - n_test, crop_size, rng),
        _cut_crops(arrays, labels, numbers, held_out, n_test, crop_size, rng),
    )


def _cut_crops(
    arrays: list[np.ndarray],
    labels: list[np.ndarray],
    groups: np.ndarray,
    chosen: np.ndarray,
    n_crops: int,
    size: int,
    rng: np.random.Generator,
) -> Bunch:
    """Cut crops from the chosen images, from each about as many."""
    rounds = [rng.permutation(chosen) for _ in range(-(-n_crops // len(chosen)))]
    sources = np.concatenate(rounds)[:n_crops]
    windows = [_choose_window(labels[source], size, rng) for source in sources]
    return Bunch(
        images=[arrays[i][window] for i, window in zip(sources, windows, strict=True)],
        masks=[labels[i][window] for i, window in zip(sources, windows, strict=True)],
        groups=groups[sources],
    )


def _choose_window(mask: np.ndarray, size: int, rng: np.random.Generator) -> tuple[slice, slice]:
    """Return a random window, around a random white cell where there is one."""
    cells = ndimage.find_objects(ndimage.label(mask_of(mask, CLASS_NAMES, WHITE))[0])
    cell = cells[rng.integers(len(cells))] if cells else (None, None)
    top, left = (
        _choose_start(side, size, part, rng) for side, part in zip(mask.shape, cell, strict=True)
    )
    return slice(top, top + size), slice(left, left + size)


def _choose_start(side: int, size: int, part: slice | None, rng: np.random.Generator) -> int:
    """Return where a window of ``size`` starts so that it covers the part, or else its middle."""
    low, high = 0, side - size
    if part is not None:
        if part.stop - part.start > size:
            middle = (part.start + part.stop) // 2
            part = slice(middle, middle + 1)
        low, high = max(low, part.stop - size), min(high, part.start)
    return int(rng.integers(low, high + 1))


def split_and_augment(crops: Bunch, *, seed: int, n_copies: int = _COPIES) -> tuple[Bunch, Bunch]:
    """Return training crops with their changed copies, and validation crops of other groups."""
    train, valid = (
        Bunch(
            images=[crops.images[i] for i in side],
            masks=[crops.masks[i] for i in side],
            groups=crops.groups[side],
        )
        for side in split_images(len(crops.images), crops.groups, _VALIDATION, seed)
    )
    copies = [_change_at_random(train, seed=seed + k) for k in range(1, n_copies)]
    return Bunch(
        images=[*train.images, *(image for images, _ in copies for image in images)],
        masks=[*train.masks, *(mask for _, masks in copies for mask in masks)],
        groups=np.tile(train.groups, n_copies),
    ), valid


def _change_at_random(crops: Bunch, seed: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return a randomly changed version of each crop."""
    augment = Augmentation(len(crops.masks[0]))
    images, masks = augment(
        torch.stack([image_tensor(image) for image in crops.images]),
        torch.stack([torch.from_numpy(mask.astype(np.int64)) for mask in crops.masks]),
        seed=seed,
    )
    pictures = np.ascontiguousarray(images.movedim(1, -1).numpy())
    return list(pictures), list(masks.numpy().astype(np.uint8))
