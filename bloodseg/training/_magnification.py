"""Measure red cells in label maps, and scale training images to one width of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from .._images import CLASS_NAMES, ScaledRows, change_image, middle, rescale_labels
from ..cells import scale_to, typical_radius
from ._tasks import TrainingData

STANDARD_DIAMETER = 36.0
"""Pixels: how large red cells are for a network that is trained on images of any magnification.

Large enough for outlines and nuclei, small enough to be fast.
"""

_N_MASKS, _SIDE = 32, 1024  # how many label maps, and how much of each, tell the diameter


def measure_diameter(
    masks: Sequence[np.ndarray], classes: Sequence[str] = CLASS_NAMES
) -> float | None:
    """Return the median diameter of typical red cells; None where no label map tells it."""
    step = -(-len(masks) // _N_MASKS)
    measured = [_measure_mask(mask, classes) for mask in masks[::step]]
    found = [diameter for diameter in measured if diameter is not None]
    return float(np.median(found)) if found else None


def _measure_mask(mask: np.ndarray, classes: Sequence[str]) -> float | None:
    radius = typical_radius(middle(mask, _SIDE), classes=classes)
    return None if radius is None else 2 * radius


def scale_to_diameter(
    data: TrainingData, given: Any, wanted: float, classes: Sequence[str] = CLASS_NAMES
) -> TrainingData:
    """Scale images and their label maps so that red cells are as wide as wanted.

    Parameters
    ----------
    data : TrainingData
        Images and label maps; left as they are.
    given : float or "auto"
        Diameter of red cells in all of the images, in pixels. "auto" measures it in each label map;
        one without cells is taken to have the median of the others.
    wanted : float
        The diameter to scale to, in pixels.
    classes : sequence of str
        Names of the labels.

    Returns
    -------
    TrainingData
        With images and label maps of other sizes.

    Raises
    ------
    ValueError
        If no label map has a red or white cell to measure.
    """
    diameters = [given] * len(data.images)
    if given == "auto":
        measured = [_measure_mask(mask, classes) for mask in data.targets]
        known = [diameter for diameter in measured if diameter is not None]
        if not known:
            raise ValueError(
                "red_cell_diameter='auto' needs red or white cells in the label maps to measure, "
                f"in those of training and of validation; got {len(measured)} of one side without "
                "any. Pass the diameter in pixels, or None to take the images as they are."
            )
        diameters = [float(np.median(known)) if each is None else each for each in measured]
    images, masks = [], []
    for image, mask, diameter in zip(data.images, data.targets, diameters, strict=True):
        factor = scale_to(diameter, wanted)
        if factor != 1:
            mask = rescale_labels(mask, factor)
            image = change_image(image, partial(_scale, factor=factor), (*mask.shape, 3))
        images.append(image)
        masks.append(mask)
    return replace(data, images=images, targets=masks)


def _scale(image: np.ndarray, factor: float) -> np.ndarray:
    return ScaledRows(image, factor)[:]
