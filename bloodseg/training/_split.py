"""Which images train and which validate, groups kept together."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, ShuffleSplit


def check_groups(groups: Any, n_images: int) -> np.ndarray | None:
    """Return the number of each image's group, or None where there are no groups.

    Raises
    ------
    ValueError
        If there is not one group an image.
    """
    if groups is None:
        return None
    names = np.asarray(groups, dtype=object)
    if names.shape != (n_images,) or any(name is None or name != name for name in names):
        raise ValueError(
            f"groups must hold one name or number for each of {n_images} images, none of them None "
            f"or NaN; got shape {names.shape}. Give images without a group one of their own."
        )
    return np.unique(names.astype(str), return_inverse=True)[1]


def split_images(
    n_images: int, groups: np.ndarray | None, fraction: float | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of training and of validation images, groups kept together.

    Raises
    ------
    ValueError
        If a side of the split would be empty.
    """
    everything = np.arange(n_images)
    if fraction is None:
        return everything, everything[:0]
    units = n_images if groups is None else len(np.unique(groups))
    if units < 2 or np.ceil(fraction * units) >= units:
        raise ValueError(
            f"validation_fraction={fraction!r} must leave at least one image, or group where "
            f"groups are given, on each side; got {units}. Pass X_val and y_val, or "
            "validation_fraction=None to train on everything and keep the last weights."
        )
    splitter = (ShuffleSplit if groups is None else GroupShuffleSplit)(
        n_splits=1, test_size=fraction, random_state=seed
    )
    return next(splitter.split(everything, groups=groups))
