"""Scores of class maps against labels: pixel accuracy, class pixel accuracy, mean IoU, Dice.

All scores come from one confusion matrix over all pixels of all images, as in the paper's Tables
1 and 2; they are not means over images. Call `confusion_matrix` and `scores_from_confusion`
yourself where the pixels come in pieces, since confusion matrices add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import numpy as np
from numpy.typing import ArrayLike

from .._images import (
    NOT_LABELLED,
    PLATELET,
    check_classes,
    check_masks,
    check_sample_weight,
    label_of,
    numbered,
)
from .._typing import Masks

_BLOCK_PIXELS = 2**20  # counted at a time, which bounds the memory whatever the image's size


def confusion_matrix(
    y_true: Masks,
    y_pred: Masks,
    *,
    n_classes: int = 3,
    sample_weight: ArrayLike | None = None,
) -> np.ndarray:
    """Count the pixels of each true class by the class predicted for them.

    Parameters
    ----------
    y_true : ndarray of shape (n, H, W) or sequence of (H, W) ndarrays
        Labels 0 to ``n_classes - 1``, or 255 for pixels that are not labelled and not counted; maps
        in a list may differ in size.
    y_pred : ndarray of shape (n, H, W) or sequence of (H, W) ndarrays
        Class maps, as many as ``y_true`` and of the same sizes.
    n_classes : int, default=3
        Number of classes, 1 to 255.
    sample_weight : array-like of shape (n,), optional
        How much the pixels of each image count, not negative.

    Returns
    -------
    ndarray of shape (n_classes, n_classes), int64
        Pixels of true class i (row) that were predicted as class j (column), over all images;
        float64 where they are weighted.

    Raises
    ------
    ValueError
        If the two differ in number or size, or hold labels outside the classes, or the weights
        are not as described.

    Examples
    --------
    >>> from bloodseg.metrics import confusion_matrix
    >>> confusion_matrix([[[0, 0, 1], [2, 2, 2]]], [[[0, 1, 1], [2, 2, 0]]])
    array([[1, 1, 0],
           [0, 1, 0],
           [1, 0, 2]])
    """
    pairs = _check_pairs(y_true, y_pred, n_classes=n_classes)
    counts = np.zeros(n_classes * n_classes, np.int64 if sample_weight is None else np.float64)
    weights = check_sample_weight(sample_weight, len(pairs)).astype(counts.dtype)
    for weight, (truth, predicted) in zip(weights, pairs, strict=True):
        counts += weight * _count_pixels(truth, predicted, n_classes)
    return counts.reshape(n_classes, n_classes)


def confusion_matrices(y_true: Masks, y_pred: Masks, n_classes: int, *, name: str) -> np.ndarray:
    """Return the confusion matrix of each image (n, K, K); ``name`` is what ``y_pred`` is called.

    Raises
    ------
    ValueError
        As `confusion_matrix`, and if no pixel is labelled.
    """
    pairs = _check_pairs(y_true, y_pred, n_classes=n_classes, name=name)
    matrices = np.stack([_count_pixels(*pair, n_classes) for pair in pairs])
    if not matrices.any():
        raise ValueError(
            f"y_true must label at least one pixel; all are {NOT_LABELLED}, not known, so that "
            "there is nothing to score."
        )
    return matrices.reshape(-1, n_classes, n_classes)


def _count_pixels(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Return the confusion matrix of an image, flat."""
    counts = np.zeros(n_classes * n_classes, np.int64)
    step = max(1, _BLOCK_PIXELS // truth.shape[1])
    for top in range(0, len(truth), step):
        block = truth[top : top + step]
        cells = block.astype(np.intp) * n_classes
        cells += predicted[top : top + step]
        counts += np.bincount(cells[block != NOT_LABELLED], minlength=counts.size)
    return counts


def labelled_pixels(
    y_true: Masks, y_pred: Masks, n_classes: int, sample_weight: ArrayLike | None = None
) -> np.ndarray:
    """Return the confusion matrix, which holds at least one pixel."""
    matrix = confusion_matrix(y_true, y_pred, n_classes=n_classes, sample_weight=sample_weight)
    if not matrix.any():
        raise ValueError(
            f"y_true must label at least one pixel; all are {NOT_LABELLED}, not known"
            f"{'' if sample_weight is None else ', or of images without weight'}, so that there is "
            "nothing to score. Leave such images out."
        )
    return matrix


def _check_pairs(
    y_true: Masks, y_pred: Masks, *, n_classes: int, name: str = "y_pred"
) -> list[tuple[np.ndarray, np.ndarray]]:
    if not isinstance(n_classes, Integral) or not 1 <= n_classes <= NOT_LABELLED:
        raise ValueError(
            f"n_classes must be an integer from 1 to {NOT_LABELLED}; got {n_classes!r}. "
            "The default, 3, stands for background, white and red cells."
        )
    classes = numbered(n_classes)
    truths = check_masks(y_true, name="y_true", classes=classes, partial=True)
    predictions = check_masks(y_pred, name=name, classes=classes)
    if len(truths) != len(predictions):
        raise ValueError(
            f"{name} must hold one class map for each in y_true; got {len(predictions)} for "
            f"{len(truths)}. Pass the predictions of the same images, in the same order."
        )
    for index, (truth, predicted) in enumerate(zip(truths, predictions, strict=True)):
        if truth.shape != predicted.shape:
            raise ValueError(
                f"{name}[{index}] must have the shape of y_true[{index}], {truth.shape}; got "
                f"{predicted.shape}. Pass the predictions of the same images, in the same order."
            )
    return list(zip(truths, predictions, strict=True))


def know_platelets(matrix: np.ndarray, classes: Sequence[str]) -> bool:
    """Return whether label maps know platelets, if there is such a class at all.

    Most label maps of blood smears, those of three classes above all, hold platelets as background.
    So those of a set do where none of its pixels is labelled "platelet".
    """
    label = label_of(classes, PLATELET)
    return label is None or bool(np.any(matrix[label]))


def as_masks_know(
    matrix: np.ndarray, classes: Sequence[str], *, of_set: np.ndarray | None = None
) -> np.ndarray:
    """Return a confusion matrix in which platelets count as background if label maps know none.

    Of one image, ``of_set`` is the matrix of the set that it belongs to.
    """
    label = label_of(classes, PLATELET)
    if label is None or know_platelets(matrix if of_set is None else of_set, classes):
        return matrix
    known = np.array(matrix)
    known[:, 0] += known[:, label]
    known[:, label] = 0
    return known


def scores_from_confusion(
    matrix: ArrayLike, *, classes: Sequence[str] | None = None
) -> dict[str, float]:
    """Return every score of this module, from a confusion matrix.

    Parameters
    ----------
    matrix : array-like of shape (n_classes, n_classes)
        Pixels of true class i (row) predicted as class j (column), as `confusion_matrix` returns
        them; of several sets, add the matrices.
    classes : sequence of str, optional
        Names of the classes, as ``class_names_`` of a segmenter holds them; by default
        ``background``, ``white`` and ``red`` of three, and the numbers of any other.

    Returns
    -------
    dict of str to float
        ``pixel_accuracy``, ``mean_iou``, ``mean_dice``, then ``cpa_*``, ``iou_*`` and ``dice_*``
        for each class, by name. All in [0, 1]; NaN for a class that does not occur (see the
        function of the score).

    Raises
    ------
    ValueError
        If ``matrix`` is not square, holds negative or non-finite numbers, or no pixels, or has not
        a row for each of the classes.

    Examples
    --------
    >>> from bloodseg.metrics import scores_from_confusion
    >>> scores = scores_from_confusion([[6, 0, 2], [0, 1, 0], [1, 0, 10]])
    >>> scores["pixel_accuracy"], scores["cpa_background"], round(scores["iou_red"], 3)
    (0.85, 0.75, 0.769)
    """
    checked = _check_matrix(matrix)
    names = None if classes is None else check_classes(classes)
    if names is not None and len(names) != len(checked):
        raise ValueError(
            f"classes must name the {len(checked)} rows and columns of matrix; got {names}."
        )
    found = scores_of_each(checked, names)
    return {name: float(score) for name, score in found.items()}


def scores_of_each(
    matrices: np.ndarray, classes: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Return what `scores_from_confusion` does, for each of many matrices (..., K, K).

    They are not checked: one without any pixels has no scores.
    """
    names = numbered(matrices.shape[-1]) if classes is None else classes
    of_classes = {"cpa": _recall(matrices), "iou": _iou(matrices), "dice": _dice(matrices)}
    return {
        "pixel_accuracy": _pixel_accuracy(matrices),
        "mean_iou": _mean_of_present(of_classes["iou"]),
        "mean_dice": _mean_of_present(of_classes["dice"]),
        **{
            f"{score}_{name}": values[..., k]
            for score, values in of_classes.items()
            for k, name in enumerate(names)
        },
    }


def segmentation_report(
    y_true: Masks,
    y_pred: Masks,
    *,
    n_classes: int = 3,
    sample_weight: ArrayLike | None = None,
) -> dict[str, float]:
    """Return every score of this module, reading the class maps once.

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (n, H, W) or sequence of (H, W) ndarrays
        Labels and class maps, as for `confusion_matrix`.
    n_classes : int, default=3
        Number of classes, 1 to 255.
    sample_weight : array-like of shape (n,), optional
        How much the pixels of each image count, not negative.

    Returns
    -------
    dict of str to float
        As from `scores_from_confusion`: plain floats, one row of a CSV file.

    Raises
    ------
    ValueError
        If the two differ in number or size, or hold labels outside the classes, or no pixel is
        labelled.

    Examples
    --------
    >>> from bloodseg.metrics import segmentation_report
    >>> report = segmentation_report([[[0, 0, 1], [2, 2, 2]]], [[[0, 1, 1], [2, 2, 2]]])
    >>> list(report)[:4]
    ['pixel_accuracy', 'mean_iou', 'mean_dice', 'cpa_background']
    >>> report["iou_white"], report["cpa_background"]
    (0.5, 0.5)
    """
    return scores_from_confusion(labelled_pixels(y_true, y_pred, n_classes, sample_weight))


def pixel_accuracy(
    y_true: Masks,
    y_pred: Masks,
    *,
    n_classes: int = 3,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Return the share of pixels with the right class (PA in the paper's Tables 1 and 2).

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (n, H, W) or sequence of (H, W) ndarrays
        Labels and class maps, as for `confusion_matrix`.
    n_classes : int, default=3
        Number of classes, 1 to 255.
    sample_weight : array-like of shape (n,), optional
        How much the pixels of each image count, not negative.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        If the two differ in number or size, or hold labels outside the classes, or no pixel is
        labelled.

    Examples
    --------
    >>> from bloodseg.metrics import pixel_accuracy
    >>> pixel_accuracy([[[0, 0], [1, 2]]], [[[0, 1], [1, 2]]])
    0.75
    """
    return float(_pixel_accuracy(labelled_pixels(y_true, y_pred, n_classes, sample_weight)))


def class_pixel_accuracy(
    y_true: Masks,
    y_pred: Masks,
    *,
    n_classes: int = 3,
    sample_weight: ArrayLike | None = None,
) -> np.ndarray:
    """Return for each class the share of its pixels that were found (CPA, recall).

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (n, H, W) or sequence of (H, W) ndarrays
        Labels and class maps, as for `confusion_matrix`.
    n_classes : int, default=3
        Number of classes, 1 to 255.
    sample_weight : array-like of shape (n,), optional
        How much the pixels of each image count, not negative.

    Returns
    -------
    ndarray of shape (n_classes,), float64
        In [0, 1]; NaN for a class absent from ``y_true``. The order is that of the labels
        (background, white, red), which is not that of the paper's tables.

    Raises
    ------
    ValueError
        If the two differ in number or size, or hold labels outside the classes.

    Examples
    --------
    >>> from bloodseg.metrics import class_pixel_accuracy
    >>> class_pixel_accuracy([[[0, 0], [1, 1]]], [[[0, 2], [1, 1]]])
    array([0.5, 1. , nan])
    """
    matrix = confusion_matrix(y_true, y_pred, n_classes=n_classes, sample_weight=sample_weight)
    return _recall(matrix)


def iou_per_class(
    y_true: Masks,
    y_pred: Masks,
    *,
    n_classes: int = 3,
    sample_weight: ArrayLike | None = None,
) -> np.ndarray:
    """Return intersection over union (Jaccard index) of each class.

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (n, H, W) or sequence of (H, W) ndarrays
        Labels and class maps, as for `confusion_matrix`.
    n_classes : int, default=3
        Number of classes, 1 to 255.
    sample_weight : array-like of shape (n,), optional
        How much the pixels of each image count, not negative.

    Returns
    -------
    ndarray of shape (n_classes,), float64
        In [0, 1]; NaN for a class absent from both.

    Raises
    ------
    ValueError
        If the two differ in number or size, or hold labels outside the classes.

    Examples
    --------
    >>> from bloodseg.metrics import iou_per_class
    >>> iou_per_class([[[0, 0], [0, 1]]], [[[0, 0], [1, 1]]]).round(3)
    array([0.667, 0.5  ,   nan])
    """
    matrix = confusion_matrix(y_true, y_pred, n_classes=n_classes, sample_weight=sample_weight)
    return _iou(matrix)


def mean_iou(
    y_true: Masks,
    y_pred: Masks,
    *,
    n_classes: int = 3,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Return intersection over union, averaged over classes (MIoU in the paper's tables).

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (n, H, W) or sequence of (H, W) ndarrays
        Labels and class maps, as for `confusion_matrix`.
    n_classes : int, default=3
        Number of classes, 1 to 255.
    sample_weight : array-like of shape (n,), optional
        How much the pixels of each image count, not negative.

    Returns
    -------
    float
        In [0, 1]. A class absent from both is left out of the mean.

    Raises
    ------
    ValueError
        If the two differ in number or size, or hold labels outside the classes, or no pixel is
        labelled.

    Examples
    --------
    >>> from bloodseg.metrics import mean_iou
    >>> mean_iou([[[0, 0], [1, 1]]], [[[0, 0], [0, 0]]])
    0.25
    """
    return float(_mean_of_present(_iou(labelled_pixels(y_true, y_pred, n_classes, sample_weight))))


def dice_per_class(
    y_true: Masks,
    y_pred: Masks,
    *,
    n_classes: int = 3,
    sample_weight: ArrayLike | None = None,
) -> np.ndarray:
    """Return the Dice coefficient (F1 score) of each class.

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (n, H, W) or sequence of (H, W) ndarrays
        Labels and class maps, as for `confusion_matrix`.
    n_classes : int, default=3
        Number of classes, 1 to 255.
    sample_weight : array-like of shape (n,), optional
        How much the pixels of each image count, not negative.

    Returns
    -------
    ndarray of shape (n_classes,), float64
        In [0, 1]; NaN for a class absent from both.

    Raises
    ------
    ValueError
        If the two differ in number or size, or hold labels outside the classes.

    Examples
    --------
    >>> from bloodseg.metrics import dice_per_class
    >>> dice_per_class([[[0, 0], [0, 1]]], [[[0, 0], [1, 1]]]).round(3)
    array([0.8  , 0.667,   nan])
    """
    matrix = confusion_matrix(y_true, y_pred, n_classes=n_classes, sample_weight=sample_weight)
    return _dice(matrix)


def mean_dice(
    y_true: Masks,
    y_pred: Masks,
    *,
    n_classes: int = 3,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Return the Dice coefficient (F1 score), averaged over classes.

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (n, H, W) or sequence of (H, W) ndarrays
        Labels and class maps, as for `confusion_matrix`.
    n_classes : int, default=3
        Number of classes, 1 to 255.
    sample_weight : array-like of shape (n,), optional
        How much the pixels of each image count, not negative.

    Returns
    -------
    float
        In [0, 1]. A class absent from both is left out of the mean.

    Raises
    ------
    ValueError
        If the two differ in number or size, or hold labels outside the classes, or no pixel is
        labelled.

    Examples
    --------
    >>> from bloodseg.metrics import mean_dice
    >>> round(mean_dice([[[0, 0], [1, 1]]], [[[0, 0], [0, 0]]]), 3)
    0.333
    """
    return float(_mean_of_present(_dice(labelled_pixels(y_true, y_pred, n_classes, sample_weight))))


def _check_matrix(matrix: ArrayLike) -> np.ndarray:
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(
            f"matrix must have shape (n_classes, n_classes); got {matrix.shape}. "
            "Pass what confusion_matrix returns."
        )
    counts = matrix.dtype.kind in "iuf" and np.isfinite(matrix).all() and (matrix >= 0).all()
    if not counts or not matrix.any():
        raise ValueError(
            "matrix must hold counts of pixels: finite numbers, none below 0, not all 0 (as they "
            f"are where every pixel is labelled {NOT_LABELLED}); got {matrix.tolist()}. "
            "Pass what confusion_matrix returns."
        )
    # Sums of counts, and twice a count, need not fit into a narrower type.
    return matrix.astype(np.float64 if matrix.dtype.kind == "f" else np.int64, copy=False)


# Each of what follows takes matrices (..., K, K).


def _pixel_accuracy(matrices: np.ndarray) -> np.ndarray:
    return divide(_hits(matrices).sum(axis=-1), matrices.sum(axis=(-2, -1)))


def _recall(matrices: np.ndarray) -> np.ndarray:
    return divide(_hits(matrices), matrices.sum(axis=-1))


def _iou(matrices: np.ndarray) -> np.ndarray:
    hits = _hits(matrices)
    return divide(hits, matrices.sum(axis=-2) + matrices.sum(axis=-1) - hits)


def _dice(matrices: np.ndarray) -> np.ndarray:
    return divide(2 * _hits(matrices), matrices.sum(axis=-2) + matrices.sum(axis=-1))


def _hits(matrices: np.ndarray) -> np.ndarray:
    return np.diagonal(matrices, axis1=-2, axis2=-1)


def divide(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide, with NaN where there is nothing to divide by."""
    ratio = np.full(whole.shape, np.nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio


def _mean_of_present(values: np.ndarray) -> np.ndarray:
    present = ~np.isnan(values)
    return divide(np.where(present, values, 0).sum(axis=-1), present.sum(axis=-1))
