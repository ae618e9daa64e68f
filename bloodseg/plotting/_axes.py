"""What the displays share: axes to draw on, and the colours of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._extras import import_extra
from .._images import colours_of, in_words


def as_colour(rgb: tuple[int, int, int]) -> tuple[float, float, float]:
    """Return a colour as matplotlib takes it."""
    red, green, blue = rgb
    return red / 255, green / 255, blue / 255


def cell_colours(classes: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Return the colours of the classes of cells, by name, as matplotlib takes them."""
    return {name: as_colour(rgb) for name, rgb in colours_of(classes).items()}


def add_legend(
    ax: Any,
    classes: Sequence[str],
    *,
    background: tuple[int, int, int] | None = None,
    title: str | None = None,
) -> None:
    """Say below axes which colour stands for which class, the background's too if it has one."""
    from matplotlib.patches import Patch

    patches = [
        Patch(color=colour, label=in_words(name)) for name, colour in cell_colours(classes).items()
    ]
    if background is not None:
        patches.append(Patch(color=as_colour(background), label="background"))
    place = {"loc": "upper left", "bbox_to_anchor": (0, 0), "ncols": 3}
    ax.legend(handles=patches, title=title, frameon=False, **place)


def axes_for(ax: Any, n: int, *, width: float = 5.0, height: float = 4.0) -> np.ndarray:
    """Return the axes given, n of them, or those of a new figure, side by side.

    Raises
    ------
    ImportError
        If matplotlib is missing.
    ValueError
        If axes are given, but not n.
    """
    if ax is None:
        pyplot = import_extra("matplotlib.pyplot", extra="plot", need="plots need matplotlib")
        _, axes = pyplot.subplots(
            1, n, figsize=(n * width, height), squeeze=False, layout="constrained"
        )
        return axes[0]
    given = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(given) != n:
        raise ValueError(
            f"ax must hold as many axes as there are panels, {n}; got {len(given)}. Make them "
            f"with matplotlib.pyplot.subplots(1, {n}), or pass None."
        )
    return given
