"""Scorers of class maps for scikit-learn's searches, by the rule of the estimator's own score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import ArrayLike
from sklearn.metrics import make_scorer

from .._images import NOT_LABELLED, numbered
from .._typing import Masks
from ._pixels import as_masks_know, labelled_pixels, scores_of_each


def score_as_masks_know(
    y_true: Masks,
    y_pred: Masks,
    *,
    classes: Sequence[str] | None,
    score: str = "mean_iou",
    sample_weight: ArrayLike | None = None,
) -> float:
    """Return a score of `scores_of_each` of maps of these classes, see `as_masks_know`.

    None stands for any number of classes whose names are not known.
    """
    if classes is None:  # those absent from labels and maps have no say in a score
        classes = numbered(NOT_LABELLED)
    matrix = labelled_pixels(y_true, y_pred, len(classes), sample_weight)
    return float(scores_of_each(as_masks_know(matrix, classes), classes)[score])


_Scorer: Any = type(make_scorer(score_as_masks_know))


class _MapScorer(_Scorer):  # type: ignore[misc]
    """A scorer that asks the fitted estimator for the names of its classes."""

    def _score(self, method_caller: Any, estimator: Any, X: Any, y_true: Any, **named: Any) -> Any:
        classes = _find_class_names(estimator)
        return super()._score(method_caller, estimator, X, y_true, classes=classes, **named)


def _find_class_names(estimator: Any) -> tuple[str, ...] | None:
    """Return the names of an estimator's classes, or of the one in a search or Pipeline."""
    while not hasattr(estimator, "class_names_"):
        if hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        elif hasattr(estimator, "steps"):
            estimator = estimator.steps[-1][1]
        else:
            return None
    return tuple(estimator.class_names_)


def _make(score: str) -> Any:
    return _MapScorer(score_as_masks_know, 1, {"score": score})


pixel_accuracy_scorer = _make("pixel_accuracy")
"""Scorer for ``cross_val_score``, ``GridSearchCV`` and their kin: `pixel_accuracy`."""

mean_iou_scorer = _make("mean_iou")
"""Scorer for ``cross_val_score``, ``GridSearchCV`` and their kin: `mean_iou`."""

mean_dice_scorer = _make("mean_dice")
"""Scorer for ``cross_val_score``, ``GridSearchCV`` and their kin: `mean_dice`."""
