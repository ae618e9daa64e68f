"""A class map over its image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._images import CLASS_NAMES, check_classes, check_images, check_masks
from ..cells import find_cells
from ..model_selection import last_step
from ._axes import add_legend, axes_for
from ._pictures import MISSED, coloured, difference, overlay

KINDS = ("overlay", "map", "difference")


class SegmentationDisplay:
    """What was found in an image: cells outlined over it, as a map, or where they are wrong.

    Make one with `from_estimator` or `from_predictions`.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3)
        The image, as the estimator takes it.
    y_pred : ndarray of shape (H, W)
        Class map of labels, places in ``classes``.
    y_true : ndarray of shape (H, W), optional
        Label map, for ``kind="difference"``; 255 where the class is not known.
    classes : sequence of str, default=("background", "white", "red")
        Names of the labels.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        What `plot` has drawn on.
    image_ : matplotlib AxesImage
        The picture in it.

    Examples
    --------
    >>> from bloodseg.datasets import make_smears
    >>> from bloodseg.plotting import SegmentationDisplay
    >>> smears = make_smears(1, image_size=64, random_state=0)
    >>> display = SegmentationDisplay.from_predictions(smears.images[0], smears.masks[0])
    >>> display.ax_.get_legend() is not None
    True
    """

    def __init__(
        self,
        image: Any,
        y_pred: Any,
        *,
        y_true: Any = None,
        classes: Sequence[str] = CLASS_NAMES,
    ):
        self.image = image
        self.y_pred = y_pred
        self.y_true = y_true
        self.classes = classes

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        image: Any,
        y_true: Any = None,
        *,
        kind: str = "overlay",
        ax: Any = None,
    ) -> SegmentationDisplay:
        """Predict an image and draw what was found.

        Parameters
        ----------
        estimator : BloodCellSegmenter or Pipeline
            Fitted.
        image : ndarray of shape (H, W, 3)
            One image.
        y_true : ndarray of shape (H, W), optional
            Its label map.
        kind : {"overlay", "map", "difference"}, default="overlay"
            See `plot`.
        ax : matplotlib Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        SegmentationDisplay
        """
        y_pred = estimator.predict([image])[0]
        classes = getattr(last_step(estimator), "class_names_", CLASS_NAMES)
        return cls.from_predictions(image, y_pred, y_true, kind=kind, classes=classes, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        image: Any,
        y_pred: Any,
        y_true: Any = None,
        *,
        kind: str = "overlay",
        classes: Sequence[str] = CLASS_NAMES,
        ax: Any = None,
    ) -> SegmentationDisplay:
        """Draw a class map that is at hand.

        Parameters
        ----------
        image : ndarray of shape (H, W, 3)
            One image.
        y_pred : ndarray of shape (H, W)
            Its class map.
        y_true, kind, ax
            As for `from_estimator`.
        classes : sequence of str, default=("background", "white", "red")
            Names of the labels.

        Returns
        -------
        SegmentationDisplay
        """
        return cls(image, y_pred, y_true=y_true, classes=classes).plot(kind=kind, ax=ax)

    def plot(self, *, kind: str = "overlay", ax: Any = None) -> SegmentationDisplay:
        """Draw.

        Parameters
        ----------
        kind : {"overlay", "map", "difference"}, default="overlay"
            The cells tinted and outlined over the image, those that touch each by itself; the class
            map alone; or the image in grey with every pixel of another class than in ``y_true`` in
            the colour of what it was taken for.
        ax : matplotlib Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the image, a map or ``kind`` is not as described.
        ImportError
            If matplotlib is missing.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}.")
        classes = check_classes(self.classes)
        images = check_images([self.image], name="image")
        (y_pred,) = check_masks([self.y_pred], images=images, classes=classes, name="y_pred")
        if kind == "overlay":
            cells = find_cells(y_pred, classes=classes).labels
            picture = overlay(images[0], y_pred, cells, classes=classes)
        elif kind == "map":
            picture = coloured(y_pred, classes=classes)
        elif self.y_true is None:
            raise ValueError("kind='difference' needs y_true, the label map to compare with.")
        else:
            (y_true,) = check_masks(
                [self.y_true], images=images, classes=classes, partial=True, name="y_true"
            )
            picture = difference(images[0], y_true, y_pred, classes=classes)
        (self.ax_,) = axes_for(ax, 1, width=5.5, height=5.5)
        self.figure_ = self.ax_.figure
        self.image_ = self.ax_.imshow(picture)
        self.ax_.set_axis_off()
        if kind == "difference":
            add_legend(self.ax_, classes, background=MISSED, title="taken for")
        else:
            add_legend(self.ax_, classes)
        return self
