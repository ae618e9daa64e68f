"""How a training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..model_selection import last_step
from ._axes import axes_for


class TrainingHistoryDisplay:
    """Losses, mean IoU and evaluations of f over the epochs of a training.

    Make one with `from_estimator` or `from_predictions`.

    Parameters
    ----------
    history : sequence of dict
        One row an epoch, as in ``BloodCellSegmenter.history_``.
    best_epoch : int, optional
        The epoch, from 1, whose weights were kept.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        One a panel; a network without ODE-blocks has none of evaluations, and a training without
        validation none of mean IoU.
    figure_ : matplotlib Figure
        The figure.

    Examples
    --------
    >>> from bloodseg.plotting import TrainingHistoryDisplay
    >>> history = [{"train_loss": 0.9, "valid_loss": 0.8, "valid_mean_iou": 0.5}]
    >>> len(TrainingHistoryDisplay.from_predictions(history).axes_)
    2
    """

    def __init__(self, history: Sequence[Mapping[str, Any]], *, best_epoch: int | None = None):
        self.history = history
        self.best_epoch = best_epoch

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> TrainingHistoryDisplay:
        """Draw the training of a fitted estimator.

        Parameters
        ----------
        estimator : BloodCellSegmenter, BloodCellCounter or Pipeline that ends in one
            Fitted.
        ax : sequence of matplotlib Axes, optional
            Where to draw, one a panel; None makes a figure.

        Returns
        -------
        TrainingHistoryDisplay
        """
        estimator = last_step(estimator)
        return cls(estimator.history_, best_epoch=estimator.best_epoch_).plot(ax=ax)

    @classmethod
    def from_predictions(
        cls, history: Any, *, best_epoch: int | None = None, ax: Any = None
    ) -> TrainingHistoryDisplay:
        """Draw a history that is at hand.

        Parameters
        ----------
        history, best_epoch
            As for the class.
        ax
            As for `from_estimator`.

        Returns
        -------
        TrainingHistoryDisplay
        """
        return cls(history, best_epoch=best_epoch).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> TrainingHistoryDisplay:
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
            If the history is empty, or ``ax`` holds another number of axes than there are panels.
        ImportError
            If matplotlib is missing.
        """
        if not len(self.history):
            raise ValueError("history must hold at least one epoch; got none.")
        panels = self._panels()
        self.axes_ = axes_for(ax, len(panels), width=4.2, height=3.6)
        self.figure_ = self.axes_[0].figure
        epochs = range(1, len(self.history) + 1)
        for axis, (title, lines) in zip(self.axes_, panels.items(), strict=True):
            for key, label in lines.items():
                values = [row.get(key) for row in self.history]
                axis.plot(epochs, values, marker="o", markersize=3, label=label)
            if self.best_epoch is not None:
                axis.axvline(self.best_epoch, color="0.6", linestyle=":", label="weights kept")
            axis.set(xlabel="epoch", title=title)
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.grid(alpha=0.3)
            axis.legend()
        return self

    def _panels(self) -> dict[str, dict[str, str]]:
        """Return the lines of each panel: columns of the history and what to call them."""
        columns = list(dict.fromkeys(key for row in self.history for key in row))
        named = {"train_loss": "training", "valid_loss": "validation"}
        positions = [key for key in columns if key.startswith("evaluations_")]
        panels = {
            "loss": {key: named[key] for key in named if key in columns},
            "mean IoU": {key: "validation" for key in columns if key == "valid_mean_iou"},
            "evaluations of f, an image": {
                key: f"position {key.removeprefix('evaluations_')}" for key in positions
            },
        }
        return {title: lines for title, lines in panels.items() if lines}
