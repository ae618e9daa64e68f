"""The histogram of the cells' diameters, as SVG that stands in the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jinja2 import Environment
from markupsafe import Markup

from .._images import in_words

_N_BINS = 30
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 720, 130, 52, 24, 26  # of a panel, pixels

_PANEL = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string("""\
<svg viewBox="0 0 {{ width }} {{ height }}" role="img" aria-label="{{ described }}">
<text x="{{ left }}" y="16" class="panel">{{ described }}</text>
{% for bar in bars %}
<rect x="{{ bar.x }}" y="{{ bar.y }}" width="{{ bar.width }}" height="{{ bar.height }}" \
fill="{{ colour }}"><title>{{ bar.described }}</title></rect>
{% endfor %}
{% for tick in ticks %}
<line x1="{{ tick.x }}" x2="{{ tick.x }}" y1="{{ floor }}" y2="{{ floor + 4 }}" class="axis"/>
<text x="{{ tick.x }}" y="{{ floor + 18 }}" text-anchor="middle">{{ tick.text }}</text>
{% endfor %}
<line x1="{{ left }}" x2="{{ width }}" y1="{{ floor }}" y2="{{ floor }}" class="axis"/>
<text x="{{ left - 6 }}" y="{{ top + 5 }}" text-anchor="end">{{ most }}</text>
<text x="{{ left - 6 }}" y="{{ floor }}" text-anchor="end">0</text>
</svg>
""")


def draw_histogram(cells: pd.DataFrame, names: Sequence[str], colours: Mapping[str, str]) -> str:
    """Return a panel for each class of cells, over one axis of diameters; "" without any.

    Cells that a border cuts are left out, since their size is not known.
    """
    whole = cells[~cells["touches_border"].astype(bool)]
    if whole.empty:
        return ""
    unit = "µm" if (whole["unit"] == "um").any() else "px"
    ticks = _round_numbers(float(whole["diameter"].min()), float(whole["diameter"].max()))
    edges = np.linspace(ticks[0], ticks[-1], _N_BINS + 1)
    panels = []
    for name in names:
        diameters = whole["diameter"][whole["class"] == name].to_numpy(float)
        if len(diameters):
            panels.append(_panel(diameters, edges, ticks, in_words(name), unit, colours[name]))
    return Markup("").join(panels)


def _panel(
    diameters: np.ndarray,
    edges: np.ndarray,
    ticks: Sequence[float],
    noun: str,
    unit: str,
    colour: str,
) -> Markup:
    counts, _ = np.histogram(diameters, edges)
    most, floor = int(counts.max()), _HEIGHT - _BOTTOM
    scale = (_WIDTH - _LEFT - 12) / (edges[-1] - edges[0])
    bars = [
        {
            "x": round(_LEFT + (low - edges[0]) * scale + 0.5, 1),
            "width": round((high - low) * scale - 1, 1),
            "y": round(floor - count / most * (floor - _TOP), 1),
            "height": round(count / most * (floor - _TOP), 1),
            "described": f"{low:.3g} to {high:.3g} {unit}: {count}",
        }
        for low, high, count in zip(edges, edges[1:], counts.tolist(), strict=False)
        if count
    ]
    return Markup(
        _PANEL.render(
            described=f"{noun}: {len(diameters)}, diameters in {unit}, "
            f"median {np.median(diameters):.3g}",
            width=_WIDTH,
            height=_HEIGHT,
            left=_LEFT,
            top=_TOP,
            floor=floor,
            bars=bars,
            ticks=[
                {"x": round(_LEFT + (each - edges[0]) * scale, 1), "text": f"{each:g}"}
                for each in ticks
            ],
            most=most,
            colour=colour,
        )
    )


def _round_numbers(low: float, high: float) -> list[float]:
    """Return 4 to 12 equally spaced round numbers that enclose a range."""
    span = max(high - low, 1e-3 * high)
    step = 10 ** math.floor(math.log10(span))
    step = next(step * part for part in (0.2, 0.25, 0.5, 1, 2) if span / (step * part) <= 9)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 9) for number in range(first, max(last, first + 1) + 1)]
