"""What an estimator's `fit` is given beside its images: checked and weighed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._images import (
    CLASS_NAMES,
    RED,
    WHITE,
    LazyImage,
    cell_labels,
    check_masks,
    in_words,
)
from ..datasets import read_labels
from ..ode import warn_caller
from ..prediction import Source, Sources, check_sources


def check_training_images(images: Sources, *, name: str = "images") -> list[Any]:
    """Return images to learn from: checked arrays, and of files lazy images.

    Each file is read once here, so that a damaged one is found before training, and not kept.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If an image is none, or its file cannot be read.
    """
    return [_lazily(source) for source in check_sources(images, name=name)]


def _lazily(source: Source) -> Any:
    if isinstance(source.given, np.ndarray):
        return source.given
    return LazyImage(source.read, source.read().shape)


def read_masks(masks: Any, classes: Sequence[str]) -> Any:
    """Return label maps, those that are given as paths read from their files.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing, or cannot be read.
    """
    of_numbers = isinstance(masks, np.ndarray) and masks.dtype.kind in "buif"
    if of_numbers or isinstance(masks, (str, os.PathLike)) or not hasattr(masks, "__iter__"):
        return masks
    return [
        read_labels(mask, classes=classes) if isinstance(mask, (str, os.PathLike)) else mask
        for mask in masks
    ]


def warn_of_absent_classes(
    masks: Sequence[np.ndarray], classes: Sequence[str] = CLASS_NAMES
) -> None:
    """Warn where label maps lack a class of cells: many tools save 1 for a cell of any class."""
    found = set().union(*(np.unique(mask).tolist() for mask in masks))
    labels_of = cell_labels(classes)
    absent = [
        f"{in_words(name)} ({label})" for name, label in labels_of.items() if label not in found
    ]
    if not absent:
        return
    labels = ", ".join(map(str, sorted(found)))
    text = f"masks hold no {' and no '.join(absent)}, which the network cannot learn then; they "
    text += f"hold the labels {labels}."
    if 1 in found and len(absent) == len(labels_of) - 1:
        named = " and ".join(f"{in_words(name)} {label}" for name, label in labels_of.items())
        text += f" If 1 stands for a cell of any class, give {named}."
    elif any(name not in (WHITE, RED) and label not in found for name, label in labels_of.items()):
        text += " Leave what your label maps do not tell apart out of classes."
    warn_caller(text)


def check_validation(
    X_val: Any, y_val: Any, check_targets: Callable[..., Any] = check_masks
) -> tuple[list[Any], Any] | None:
    """Return the images and targets to validate with, or None where there are none.

    Raises
    ------
    ValueError
        If one is given without the other, or as `check_training_images` and ``check_targets``.
    """
    if (X_val is None) != (y_val is None):
        raise ValueError(
            "X_val and y_val must be given together; "
            f"{'y_val' if y_val is None else 'X_val'} is missing."
        )
    if X_val is None:
        return None
    images = check_training_images(X_val, name="X_val")
    return images, check_targets(y_val, images=images, name="y_val")


def class_weights(
    class_weight: Any,
    masks: Sequence[np.ndarray],
    weights: np.ndarray,
    classes: Sequence[str] = CLASS_NAMES,
) -> np.ndarray | None:
    """Return the weight of each class, 1 on average over the pixels; None for equal weights.

    Parameters
    ----------
    class_weight : "balanced", dict, sequence of floats or None
        As `BloodCellSegmenter` takes it.
    masks : sequence of ndarray
        Label maps of the training images.
    weights : ndarray of shape (n,)
        Weights of the training images.
    classes : sequence of str
        Names of the labels.

    Raises
    ------
    ValueError
        If a class is unknown, or a weight negative or not finite, or no class has a weight.
    """
    if class_weight is None:
        return None
    n_classes = len(classes)
    counts = [np.bincount(mask.ravel(), minlength=n_classes)[:n_classes] for mask in masks]
    pixels = np.average(counts, axis=0, weights=weights)
    if isinstance(class_weight, str):  # "balanced"
        given = np.where(pixels > 0, 1 / np.maximum(pixels, 1e-300), 0.0)
    else:
        given = _given_class_weights(class_weight, classes)
    mean = (given * pixels).sum() / pixels.sum()
    if mean == 0:
        raise ValueError(
            "class_weight must be above zero for a class that the masks hold; "
            f"got {class_weight!r}."
        )
    return given / mean


def _given_class_weights(class_weight: Any, classes: Sequence[str]) -> np.ndarray:
    places = range(len(classes))
    weights: np.ndarray | None
    if isinstance(class_weight, dict):
        labels = {name: label for label, name in enumerate(classes)}
        for key in class_weight:
            if labels.get(key, key) not in places:
                raise ValueError(
                    f"class_weight must name the classes {', '.join(classes)} or "
                    f"{', '.join(map(str, places))}; got {key!r}."
                )
        by_label = {labels.get(key, key): weight for key, weight in class_weight.items()}
        weights = _floats([by_label.get(label, 1) for label in places])
    else:
        weights = _floats(class_weight)
    if weights is None or weights.shape != (len(classes),) or (weights < 0).any():
        raise ValueError(
            f"class_weight must hold {in_letters(len(classes))} finite weights, not negative, for "
            f"{', '.join(classes)}; got {class_weight!r}."
        )
    return weights


def in_letters(number: int) -> str:
    return {2: "two", 3: "three", 4: "four"}.get(number, str(number))


def _floats(values: Any) -> np.ndarray | None:
    """Return finite values as floats, or None where they are no such thing."""
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        return None
    return array if np.isfinite(array).all() else None
