"""All differences of a study with their intervals, the paper's as marks: a forest plot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from ._canvas import COLOURS, PAPER, capitalize, finish, make_figure
from ._claims import METRIC_NAMES, find_paper_difference
from ._statistics import decide, falls_short, is_equal

_ROW_HEIGHT = 0.3  # inches
_UNDECIDED = "0.6"


def draw_forest(study: str, dataset: str, table: pd.DataFrame) -> Any:
    """Return a figure with a row for each pair of networks, a panel for each metric.

    Parameters
    ----------
    study, dataset : str
        Of which study on which data.
    table : DataFrame
        As of `compare_networks`.
    """
    pairs = list(dict.fromkeys(zip(table["first"], table["second"], strict=True)))
    labels = [f"{first} - {second}" for first, second in pairs]
    width = 5 * 2.1 + 0.075 * max(map(len, labels)) + 2.4
    figure, axes = make_figure(len(METRIC_NAMES), width, 1.4 + _ROW_HEIGHT * len(pairs), alike=True)
    for axis, metric in zip(axes, METRIC_NAMES, strict=True):
        rows = table[table.metric == metric].set_index(["first", "second"])
        margin = 100 * rows.margin.max()
        if np.isfinite(margin):
            axis.axvspan(-margin, margin, color="0.93", zorder=0)
        axis.axvline(0, color="0.3", lw=0.8)
        for at, (first, second) in enumerate(pairs):
            _draw_row(axis, at, rows.loc[(first, second)])
            paper = find_paper_difference(study, first, second, metric)
            if paper is not None:
                axis.plot(paper, at, "x", color=PAPER, ms=6)
        axis.set(xlabel="points", title=capitalize(METRIC_NAMES[metric]))
        axis.title.set_fontsize(9)
    axes[0].set_yticks(range(len(pairs)), labels, fontsize=8)
    axes[0].set_ylim(len(pairs) - 0.5, -0.5)
    for label, marker, colour in (
        ("shown to differ", "o", COLOURS[0]),
        ("shown to be equal", "o", COLOURS[2]),
        ("paper's gain excluded", "o", COLOURS[1]),
        ("undecided", "o", _UNDECIDED),
        ("paper", "x", PAPER),
    ):
        axes[-1].plot([], [], marker, color=colour, label=label)
    axes[-1].fill_between([], [], color="0.93", label="counts as equal")
    finish(axes)
    figure.suptitle(
        f"Differences on {dataset}, first network minus second, with 95 % intervals "
        "over seeds and test images"
    )
    return figure


def _draw_row(axis: Any, at: int, row: Any) -> None:
    """Draw a difference and its interval in the colour of what is shown."""
    if decide(row):
        colour = COLOURS[0]
    elif is_equal(row):
        colour = COLOURS[2]
    else:
        colour = COLOURS[1] if falls_short(row) else _UNDECIDED
    axis.hlines(at, 100 * row["low"], 100 * row["high"], color=colour, lw=2)
    axis.plot(100 * row["difference"], at, "o", color=colour, ms=4.5)
