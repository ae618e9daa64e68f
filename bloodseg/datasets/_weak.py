"""Label maps from boxes alone: sure inside and outside of the cells, silent in between."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike
from skimage.filters import threshold_otsu

from .._images import (
    CLASS_NAMES,
    NOT_LABELLED,
    check_classes,
    check_images,
    to_rgb,
    with_labels,
)
from .._typing import Images
from ..preprocessing import optical_density

_SURE, _AT_MOST = 0.85, 1.1  # of a box's half sides: a cell within, none that is its beyond
_CLEARLY = 0.3  # of the same: a pixel is as much farther inside its box than one of another class
_CUT = 2  # pixels; boxes as close to the border are taken for parts of cells


def masks_from_boxes(
    images: Images,
    boxes: Sequence[ArrayLike],
    labels: Sequence[ArrayLike],
    *,
    classes: Sequence[str] = CLASS_NAMES,
) -> list[np.ndarray]:
    """Make label maps from boxes around cells, as weak labels to train with.

    Cells are about as round as the ellipse in their box: well inside of it is cell, at its rim what
    is stained. Outside of all boxes, what is as clear as the light is background; what is stained,
    perhaps a cell that was missed, is left unlabelled.

    Parameters
    ----------
    images : ndarray of shape (n, H, W, 3) or list of (H, W, 3) ndarrays
        As `bloodseg.BloodCellSegmenter.fit` takes them.
    boxes : sequence of array-like of shape (k, 4)
        xmin, ymin, xmax, ymax of each image's cells in pixels, as `load_voc` returns them.
    labels : sequence of array-like of shape (k,)
        Class of each box, a place in ``classes``: by default 0 background (platelets), 1 white
        cells, 2 red cells.
    classes : sequence of str, default=("background", "white", "red")
        Names of the labels 0, 1, ..., as `bloodseg.BloodCellSegmenter` takes them.

    Returns
    -------
    list of ndarray of shape (H, W), uint8
        Places in ``classes``: by default 0 background, 1 white cells, 2 red cells; 255 not known.

    Raises
    ------
    ValueError
        If the three differ in number, or a box or label is not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from bloodseg.datasets import masks_from_boxes
    >>> image = np.full((40, 40, 3), 240, np.uint8)
    >>> image[10:30, 10:30, 1] = 120
    >>> (mask,) = masks_from_boxes([image], [[[10, 10, 30, 30]]], [[2]])
    >>> int(mask[20, 20]), int(mask[2, 2]), int(mask[10, 10])
    (2, 0, 255)
    """
    arrays = check_images(images)
    names = check_classes(classes)
    for name, given in (("boxes", boxes), ("labels", labels)):
        if len(given) != len(arrays):
            raise ValueError(
                f"{name} must have an entry for each of {len(arrays)} images; got {len(given)}. "
                "Pass an empty one for an image without cells."
            )
    checked = [
        _checked(index, *of_image, shape=image.shape, names=names)
        for index, (image, *of_image) in enumerate(zip(arrays, boxes, labels, strict=True))
    ]
    return [
        _mask_from_boxes(image, *of_image, n_classes=len(names))
        for image, of_image in zip(arrays, checked, strict=True)
    ]


def within_image(
    boxes: ArrayLike, labels: ArrayLike, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Cut boxes off at an image's borders, and leave out what has no area then: stray clicks.

    Parameters
    ----------
    boxes : array-like of shape (k, 4)
        xmin, ymin, xmax, ymax.
    labels : array-like of shape (k,)
        A label for each.
    size : (int, int)
        Height and width of the image.

    Returns
    -------
    boxes : ndarray of shape (n, 4), float64
    labels : ndarray of shape (n,), int64
    n_dropped : int
        How many are left out.
    """
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    corners = np.clip(corners, 0, np.tile(size[::-1], 2))
    kept = (corners[:, 2] > corners[:, 0]) & (corners[:, 3] > corners[:, 1])
    return corners[kept], np.array(labels, np.int64)[kept], int((~kept).sum())


def _checked(
    index: int,
    boxes: ArrayLike,
    labels: ArrayLike,
    *,
    shape: tuple[int, ...],
    names: Sequence[str],
) -> tuple[np.ndarray, np.ndarray]:
    corners = np.asarray(boxes, dtype=float).reshape(-1, 4)
    classes = np.asarray(labels, dtype=int).ravel()
    known = np.isin(classes, range(len(names))).all()
    in_order = (corners[:, 2:] > corners[:, :2]).all()
    if len(classes) != len(corners) or not known or not in_order:
        raise ValueError(
            f"boxes[{index}] must be rows of xmin < xmax and ymin < ymax, each with a label: "
            f"{with_labels(names)}; got {len(corners)} boxes, labels {classes.tolist()}."
        )
    inside = (corners[:, :2] < shape[1::-1]).all() and (corners[:, 2:] > 0).all()
    if not inside:
        raise ValueError(
            f"boxes[{index}] has a box outside of its image of {shape[0]} x {shape[1]} pixels. "
            "Leave such boxes out, or check the order xmin, ymin, xmax, ymax."
        )
    return corners, classes


def _mask_from_boxes(
    image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, *, n_classes: int
) -> np.ndarray:
    density = optical_density(to_rgb(image)).max(axis=2)
    density = cv2.GaussianBlur(density, (0, 0), 1)
    stained = density > threshold_otsu(density)
    # How far out a pixel lies in the box of each class that it is most inside of.
    out = np.full((n_classes, *stained.shape), np.inf, np.float32)
    cut = np.zeros(stained.shape, bool)
    height, width = stained.shape
    for (left, top, right, bottom), label in zip(boxes, labels, strict=True):
        window, distance = _out_of_middle(stained.shape, left, top, right, bottom)
        out[label][window] = np.minimum(out[label][window], distance)
        if min(left, top, width - right, height - bottom) < _CUT:
            cut[window] = True
    nearest, second = np.partition(out, 1, axis=0)[:2]
    mask = np.where(stained, NOT_LABELLED, 0).astype(np.uint8)
    mask[cut & ~stained] = NOT_LABELLED  # the ellipse in what is left of a box is not the cell's
    cell = (nearest < _SURE) | (stained & (nearest < _AT_MOST))
    mask[cell] = out.argmin(axis=0)[cell]
    mask[(second < _AT_MOST) & (second < nearest + _CLEARLY)] = NOT_LABELLED
    return mask


def _out_of_middle(
    shape: tuple[int, ...], left: float, top: float, right: float, bottom: float
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return a box's window and, there, the distance from its middle in units of half its sides."""
    rows = np.arange(max(int(top) - 5, 0), min(int(bottom) + 6, shape[0]))
    columns = np.arange(max(int(left) - 5, 0), min(int(right) + 6, shape[1]))
    y = (2 * rows + 1 - top - bottom) / (bottom - top)
    x = (2 * columns + 1 - left - right) / (right - left)
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return window, np.hypot(y[:, np.newaxis], x).astype(np.float32)
