"""What all figures of numbers share: colours, panels, ticks, a legend."""

from __future__ import annotations

from typing import Any

from .._extras import import_extra

# Okabe and Ito's colours, which colour-blind people tell apart. https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
PAPER = "0.45"
_MARKERS = "osD^vP"
DPI = 130
PANELS_ACROSS = 5


def make_figure(
    n_panels: int, width: float, height: float, *, alike: bool = False
) -> tuple[Any, Any]:
    need = "figures of studies need matplotlib"
    matplotlib = import_extra("matplotlib.figure", extra="plot", need=need)
    n_rows = -(-n_panels // PANELS_ACROSS)
    figure = matplotlib.Figure(figsize=(width, height * n_rows), layout="constrained")
    n_columns = -(-n_panels // n_rows)
    axes = figure.subplots(n_rows, n_columns, squeeze=False, sharey=alike).ravel()
    for spare in axes[n_panels:]:
        spare.remove()
    return figure, axes[:n_panels]


def write_plain_ticks(axis: Any) -> None:
    """Write 0.5, 1, 2, 5 at a logarithmic axis."""
    axis.yaxis.get_major_locator().set_params(subs=(1, 2, 5))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()


def choose_style(number: int) -> tuple[str, str]:
    return COLOURS[number % len(COLOURS)], _MARKERS[number % len(_MARKERS)]


def capitalize(text: str) -> str:
    return text[0].upper() + text[1:]


def finish(axes: Any) -> None:
    """Add grids, and one legend beside the last panel."""
    for axis in axes:
        axis.grid(alpha=0.3)
    axes[-1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1))
