"""A class map over its image."""

from __future__ import annotations

from typing import Any

from .._images import CLASS_NAMES, check_images, check_masks
from ._axes import CELL_COLOURS, as_colour, axes_for
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
        Class map: 0 background, 1 white cells, 2 red cells.
    y_true : ndarray of shape (H, W), optional
        Label map, for ``kind="difference"``.

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

    def __init__(self, image: Any, y_pred: Any, *, y_true: Any = None):
        self.image = image
        self.y_pred = y_pred
        self.y_true = y_true

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
        return cls.from_predictions(image, estimator.predict([image])[0], y_true, kind=kind, ax=ax)

    @classmethod
    def from_predictions(
        cls, image: Any, y_pred: Any, y_true: Any = None, *, kind: str = "overlay", ax: Any = None
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

        Returns
        -------
        SegmentationDisplay
        """
        return cls(image, y_pred, y_true=y_true).plot(kind=kind, ax=ax)

    def plot(self, *, kind: str = "overlay", ax: Any = None) -> SegmentationDisplay:
        """Draw.

        Parameters
        ----------
        kind : {"overlay", "map", "difference"}, default="overlay"
            The cells tinted and outlined over the image; the class map alone; or the image in grey
            with every pixel of another class than in ``y_true`` in the colour of what it was
            taken for.
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
        images = check_images([self.image], name="image")
        (y_pred,) = check_masks([self.y_pred], images=images, name="y_pred")
        if kind == "overlay":
            picture = overlay(images[0], y_pred)
        elif kind == "map":
            picture = coloured(y_pred)
        elif self.y_true is None:
            raise ValueError("kind='difference' needs y_true, the label map to compare with.")
        else:
            (y_true,) = check_masks([self.y_true], images=images, name="y_true")
            picture = difference(images[0], y_true, y_pred)
        (self.ax_,) = axes_for(ax, 1, width=5.5, height=5.5)
        self.figure_ = self.ax_.figure
        self.image_ = self.ax_.imshow(picture)
        self.ax_.set_axis_off()
        self._add_legend(kind)
        return self

    def _add_legend(self, kind: str) -> None:
        from matplotlib.patches import Patch

        patches = [
            Patch(color=colour, label=f"{name} cells") for name, colour in CELL_COLOURS.items()
        ]
        if kind == "difference":
            patches.append(Patch(color=as_colour(MISSED), label=CLASS_NAMES[0]))
        self.ax_.legend(
            handles=patches,
            title="taken for" if kind == "difference" else None,
            loc="upper left",
            bbox_to_anchor=(0, 0),
            ncols=3,
            frameon=False,
        )
