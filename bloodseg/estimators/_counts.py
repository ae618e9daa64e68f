"""Numbers of cells that a counter learns from: checked, and summed up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._images import CLASS_NAMES, in_words
from ..training import TrainingData
from ._fit_inputs import in_letters


def check_counts(
    counts: Any,
    *,
    images: Sequence[Any],
    names: Sequence[str] = CLASS_NAMES[1:],
    name: str = "counts",
) -> np.ndarray:
    """Return the numbers of cells of the classes of these names as floats of shape (n, k).

    NaN stands for cells that were not counted.

    Raises
    ------
    ValueError
        If there is not a number an image and class, or one is negative or infinite, or all are NaN.
    """
    numbers = as_counts(counts)
    shape = (len(images), len(names))
    if numbers is not None and len(names) == 1 and numbers.shape == shape[:1]:
        numbers = numbers[:, np.newaxis]
    if numbers is None:
        found = "what is no number, or infinite"
    elif numbers.shape != shape:
        found = f"shape {numbers.shape}"
    elif (numbers < 0).any():
        found = "a negative one"
    elif np.isnan(numbers).all():
        found = "nothing but NaN"
    else:
        return numbers
    wanted, of_what = "a number", in_words(names[0])
    if len(names) > 1:
        wanted = f"{in_letters(len(names))} numbers"
        of_what = f"{' and '.join(names)} cells, in this order"
    raise ValueError(
        f"{name} must hold {wanted}, not negative, for each of {len(images)} images: {of_what}, "
        f"NaN where they were not counted; got {found}."
    )


def as_counts(counts: Any) -> np.ndarray | None:
    """Return counts as floats, in which NaN may stand; None where they are no such thing."""
    try:
        numbers = np.asarray(counts, dtype=float)
    except (TypeError, ValueError):
        return None
    return None if np.isinf(numbers).any() else numbers


def is_counted(data: TrainingData) -> np.ndarray:
    """Return which counts are known, and weigh something, as bool of shape (n, k)."""
    return np.isfinite(data.targets) & (data.weights > 0)[:, np.newaxis]


def _weights_of_counts(data: TrainingData) -> tuple[np.ndarray, np.ndarray]:
    """Return weights and counts (n, k), both 0 where cells were not counted."""
    counted = is_counted(data)
    return np.where(counted, data.weights[:, np.newaxis], 0.0), np.where(counted, data.targets, 0.0)


def densities_of(data: TrainingData, area: int) -> list[float]:
    """Return how many cells of each class there are in an area of so many pixels, on average."""
    areas = np.array([math.prod(image.shape[:2]) for image in data.images]) / area
    weights, counts = _weights_of_counts(data)
    totals = np.maximum(weights.T @ areas, 1e-300)  # 0 where nothing was counted
    return ((weights * counts).sum(axis=0) / totals).tolist()


def spread_of(data: TrainingData) -> np.ndarray:
    """Return the standard deviation of each count over the images."""
    weights, counts = _weights_of_counts(data)
    total = np.maximum(weights.sum(axis=0), 1e-300)
    mean = (weights * counts).sum(axis=0) / total
    return np.sqrt((weights * np.square(counts - mean)).sum(axis=0) / total)
