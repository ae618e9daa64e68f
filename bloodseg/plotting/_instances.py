"""Single cells over their image."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from .._images import check_images
from ..cells import Cells
from ._axes import add_legend, axes_for
from ._pictures import overlay


class InstanceDisplay:
    """The single cells of an image: each outlined over it, with its number if wanted.

    Make one with `from_estimator` or `from_predictions`.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3)
        The image, as the estimator takes it.
    cells : Cells
        The cells found in it.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        What `plot` has drawn on.
    image_ : matplotlib AxesImage
        The picture in it.
    text_ : list of matplotlib Text
        The numbers, cell by cell.

    Examples
    --------
    >>> from bloodseg.cells import find_cells
    >>> from bloodseg.datasets import make_smears
    >>> from bloodseg.plotting import InstanceDisplay
    >>> smears = make_smears(1, image_size=64, random_state=0)
    >>> cells = find_cells(smears.masks[0])
    >>> display = InstanceDisplay.from_predictions(smears.images[0], cells, numbers=True)
    >>> len(display.text_) == len(cells)
    True
    """

    def __init__(self, image: Any, cells: Cells):
        self.image = image
        self.cells = cells

    @classmethod
    def from_estimator(
        cls, estimator: Any, image: Any, *, numbers: bool = False, ax: Any = None
    ) -> InstanceDisplay:
        """Find the cells of an image and draw them.

        Parameters
        ----------
        estimator : BloodCellSegmenter
            Fitted.
        image : ndarray of shape (H, W, 3)
            One image.
        numbers : bool, default=False
            See `plot`.
        ax : matplotlib Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        InstanceDisplay
        """
        (cells,) = estimator.predict_instances([image])
        return cls.from_predictions(image, cells, numbers=numbers, ax=ax)

    @classmethod
    def from_predictions(
        cls, image: Any, cells: Cells, *, numbers: bool = False, ax: Any = None
    ) -> InstanceDisplay:
        """Draw cells that are at hand.

        Parameters
        ----------
        image : ndarray of shape (H, W, 3)
            One image.
        cells : Cells
            The cells in it, as `bloodseg.BloodCellSegmenter.predict_instances` and
            `bloodseg.cells.find_cells` return them.
        numbers, ax
            As for `from_estimator`.

        Returns
        -------
        InstanceDisplay
        """
        return cls(image, cells).plot(numbers=numbers, ax=ax)

    def plot(self, *, numbers: bool = False, ax: Any = None) -> InstanceDisplay:
        """Draw.

        Parameters
        ----------
        numbers : bool, default=False
            Whether to write each cell's number on it: its ``label`` in tables.
        ax : matplotlib Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        self

        Raises
        ------
        ValueError
            If the image is not as described, or the cells are those of an image of another size.
        ImportError
            If matplotlib is missing.
        """
        (image,) = check_images([self.image], name="image")
        labels, classes = self.cells.labels, self.cells.class_names
        if labels.shape != image.shape[:2]:
            raise ValueError(
                "cells must be those of the image: its labels must have shape "
                f"{image.shape[:2]}; got {labels.shape}."
            )
        class_map = np.concatenate([[0], self.cells.classes])[labels]
        (self.ax_,) = axes_for(ax, 1, width=5.5, height=5.5)
        self.figure_ = self.ax_.figure
        self.image_ = self.ax_.imshow(overlay(image, class_map, labels, classes=classes))
        middles = _middles(labels, len(self.cells)) if numbers else []
        self.text_ = [
            self.ax_.text(x, y, str(number), ha="center", va="center", fontsize="small")
            for number, (y, x) in enumerate(middles, start=1)
        ]
        self.ax_.set_axis_off()
        add_legend(self.ax_, classes)
        return self


def _middles(labels: np.ndarray, n_cells: int) -> list[tuple[float, float]]:
    numbers = np.arange(1, n_cells + 1)
    found: list[tuple[float, float]] = ndimage.center_of_mass(labels > 0, labels, numbers)
    return found
