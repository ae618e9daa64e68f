"""What a tolerance costs and loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._images import check_classes
from ..metrics import score_as_masks_know
from ..model_selection import share_that_differs, tolerance_curve
from ._axes import axes_for


class ToleranceCurveDisplay:
    """Score, changed pixels and cost of predictions at several tolerances of the solver.

    Make one with `from_estimator` or `from_predictions`.

    Parameters
    ----------
    tolerances : array-like of shape (n_tolerances,)
        The tolerances.
    scores : array-like of shape (n_tolerances,)
        Mean IoU, or another score, at each.
    changed : array-like of shape (n_tolerances,)
        Share of the pixels whose class is not that of the tightest tolerance.
    evaluations : array-like of shape (n_tolerances,), optional
        Evaluations of f for an image.
    score_name : str, default="mean IoU"
        What the scores are.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        One a panel: scores, changed pixels and, where they are known, evaluations.
    figure_ : matplotlib Figure
        The figure.

    Examples
    --------
    >>> from bloodseg.plotting import ToleranceCurveDisplay
    >>> display = ToleranceCurveDisplay([1e-4, 1e-2], [0.91, 0.90], [0.0, 0.01]).plot()
    >>> len(display.axes_)
    2
    """

    def __init__(
        self,
        tolerances: Any,
        scores: Any,
        changed: Any,
        *,
        evaluations: Any = None,
        score_name: str = "mean IoU",
    ):
        self.tolerances = tolerances
        self.scores = scores
        self.changed = changed
        self.evaluations = evaluations
        self.score_name = score_name

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any, *, ax: Any = None, **curve: Any
    ) -> ToleranceCurveDisplay:
        """Predict at several tolerances and draw what each costs and loses.

        Parameters
        ----------
        estimator : BloodCellSegmenter or Pipeline that ends in one
            Fitted, with at least one ODE-block.
        X, y : images and label maps
            As for `bloodseg.model_selection.tolerance_curve`.
        ax : sequence of matplotlib Axes, optional
            Where to draw, one a panel; None makes a figure.
        **curve
            ``tolerances``, ``metric`` and ``n_repeats`` of
            `bloodseg.model_selection.tolerance_curve`.

        Returns
        -------
        ToleranceCurveDisplay
        """
        found = tolerance_curve(estimator, X, y, **curve)
        metric = curve.get("metric")
        name = "mean IoU" if metric is None else getattr(metric, "__name__", "score")
        return cls(
            found.tolerances,
            found.scores,
            found.changed,
            evaluations=found.evaluations,
            score_name=name.replace("_", " "),
        ).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        predictions: Mapping[float, Any],
        *,
        classes: Sequence[str] | None = None,
        ax: Any = None,
    ) -> ToleranceCurveDisplay:
        """Draw predictions that are at hand.

        Parameters
        ----------
        y_true : ndarray of shape (n, H, W) or list of (H, W) ndarrays
            Label maps.
        predictions : dict of float to class maps
            Class maps of the same images at each tolerance.
        classes : sequence of str, optional
            Names of the labels. With them platelets count as background where no label map holds
            one, as in `from_estimator`.
        ax
            As for `from_estimator`.

        Returns
        -------
        ToleranceCurveDisplay

        Raises
        ------
        ValueError
            If there are no predictions, or they do not fit the label maps.
        """
        if not predictions:
            raise ValueError("predictions must hold the class maps of at least one tolerance.")
        tolerances = sorted(predictions)
        maps = [predictions[tolerance] for tolerance in tolerances]
        names = None if classes is None else check_classes(classes)
        scores = [score_as_masks_know(y_true, each, classes=names) for each in maps]
        changed = [share_that_differs(maps[0], each) for each in maps]
        return cls(tolerances, scores, changed).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> ToleranceCurveDisplay:
        """Draw.

        Parameters
        ----------
        ax
            As for `from_estimator`.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If ``ax`` holds another number of axes than there are panels.
        ImportError
            If matplotlib is missing.
        """
        panels = {
            f"{self.score_name}, %": 100 * np.asarray(self.scores, dtype=float),
            "pixels that change, %": 100 * np.asarray(self.changed, dtype=float),
        }
        if self.evaluations is not None:
            panels["evaluations of f, an image"] = np.asarray(self.evaluations, dtype=float)
        self.axes_ = axes_for(ax, len(panels), width=4.2, height=3.6)
        self.figure_ = self.axes_[0].figure
        for axis, (title, values) in zip(self.axes_, panels.items(), strict=True):
            axis.plot(self.tolerances, values, marker="o")
            axis.set(xscale="log", xlabel="tolerance in prediction", title=title)
            axis.grid(alpha=0.3)
        return self
