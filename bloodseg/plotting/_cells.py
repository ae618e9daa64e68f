"""How large the cells are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._images import CLASS_NAMES, in_words
from ._axes import axes_for, cell_colours

_COLUMNS = ("class", "diameter", "unit", "touches_border")
_UNITS = {"px": "pixels", "um": "micrometres"}


class CellSizeDisplay:
    """Histogram of the cells' diameters, class by class.

    Make one with `from_estimator` or `from_predictions`.

    Parameters
    ----------
    diameters : dict of str to array-like
        Diameters of the cells of each class, by its name, as "white" and "red", in the order of a
        model's classes, which tells the colours.
    unit : str, default="pixels"
        What they are measured in.

    Attributes
    ----------
    ax_, figure_ : matplotlib Axes and Figure
        What `plot` has drawn on.

    Examples
    --------
    >>> from bloodseg.plotting import CellSizeDisplay
    >>> display = CellSizeDisplay({"white": [60, 72], "red": [38, 40, 41, 44]}).plot(bins=5)
    >>> display.ax_.get_xlabel()
    'diameter, pixels'
    """

    def __init__(self, diameters: Any, *, unit: str = "pixels"):
        self.diameters = diameters
        self.unit = unit

    @classmethod
    def from_estimator(
        cls, estimator: Any, images: Any, *, bins: Any = 30, ax: Any = None
    ) -> CellSizeDisplay:
        """Measure the cells of images and draw their sizes.

        Parameters
        ----------
        estimator : BloodCellSegmenter
            Fitted; with a ``pixel_size`` the diameters are in micrometres.
        images : ndarray of shape (n, H, W, 3) or list of (H, W, 3) ndarrays
            The images.
        bins : int or sequence, default=30
            As `numpy.histogram_bin_edges` takes them, over all classes.
        ax : matplotlib Axes, optional
            Where to draw; None makes a figure.

        Returns
        -------
        CellSizeDisplay
        """
        classes = getattr(estimator, "class_names_", CLASS_NAMES)
        return cls.from_predictions(estimator.measure(images), classes=classes, bins=bins, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        cells: Any,
        *,
        classes: Sequence[str] = CLASS_NAMES,
        bins: Any = 30,
        ax: Any = None,
    ) -> CellSizeDisplay:
        """Draw the sizes of cells that are measured already, those cut by a border left out.

        Parameters
        ----------
        cells : DataFrame
            As `bloodseg.BloodCellSegmenter.measure` returns it; its columns class, diameter, unit
            and touches_border are read.
        classes : sequence of str, default=("background", "white", "red")
            Names of all classes: ``class_names_`` of the segmenter. Cells of further ones are
            drawn, too.
        bins, ax
            As for `from_estimator`.

        Returns
        -------
        CellSizeDisplay

        Raises
        ------
        ValueError
            If a column is missing, or the units differ.
        """
        missing = [column for column in _COLUMNS if column not in cells]
        if missing:
            raise ValueError(
                f"cells must have the columns {', '.join(_COLUMNS)}, as measure gives them; "
                f"{missing[0]} is missing."
            )
        units = set(cells["unit"]) or {"px"}
        if len(units) > 1:
            raise ValueError(
                "cells must all be measured in one unit; got pixels for some and micrometres for "
                "others. Set pixel_size, or draw them apart."
            )
        whole = cells[~cells["touches_border"].astype(bool)]
        diameters = {
            name: whole["diameter"][whole["class"] == name].to_numpy()
            for name in dict.fromkeys([*classes[1:], *cells["class"]])
        }
        return cls(diameters, unit=_UNITS[units.pop()]).plot(bins=bins, ax=ax)

    def plot(self, *, bins: Any = 30, ax: Any = None) -> CellSizeDisplay:
        """Draw.

        Parameters
        ----------
        bins, ax
            As for `from_estimator`.

        Returns
        -------
        self

        Raises
        ------
        ImportError
            If matplotlib is missing.
        """
        (self.ax_,) = axes_for(ax, 1, width=6)
        self.figure_ = self.ax_.figure
        values = {name: np.asarray(of, dtype=float) for name, of in self.diameters.items()}
        edges = np.histogram_bin_edges(np.concatenate([*values.values(), []]), bins=bins)
        colours = cell_colours(("background", *values))
        for name, of in values.items():
            label = f"{in_words(name)}: {len(of)}"
            if len(of):
                label += f", median {np.median(of):.3g} {self.unit}"
            self.ax_.hist(of, bins=edges, color=colours[name], alpha=0.65, label=label)
        self.ax_.set(xlabel=f"diameter, {self.unit}", ylabel="cells")
        # Above the axes, where it covers no bar.
        self.ax_.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
        return self
