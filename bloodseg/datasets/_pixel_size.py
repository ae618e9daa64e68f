"""Sizes of pixels, as files give them."""

from __future__ import annotations

import math
import re
from typing import Any

_TO_MICROMETRES = {
    **dict.fromkeys(("µm", "μm", "um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-6),
    **dict.fromkeys(("å", "å", "angstrom"), 1e-4),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("inch", "in"), 25400.0),
}
# Micrometres. More is no microscope but a screen's "72 pixels an inch", less no light microscope.
_FINEST, _COARSEST = 1e-3, 10


def in_micrometres(size: Any, unit: str) -> float | None:
    """Return a length in micrometres; None where it cannot be the side of a pixel."""
    try:
        micrometres = float(size) * _TO_MICROMETRES.get(unit.strip().casefold(), math.nan)
    except (TypeError, ValueError, OverflowError):
        return None
    return micrometres if _FINEST <= micrometres <= _COARSEST else None


def pixel_sides(height: float | None, width: float | None) -> tuple[float, float] | None:
    """Return height and width of a pixel; of one that is not known, that of the other."""
    if height is None or width is None:
        side = width if height is None else height
        return None if side is None else (side, side)
    return height, width


def sides_of_aperio(description: str) -> tuple[float, float] | None:
    """Return the size of pixels in the description of an Aperio slide."""
    found = re.search(r"\|\s*MPP\s*=\s*([0-9.eE+-]+)", description[: 2**16])
    side = in_micrometres(found[1], "µm") if found else None
    return pixel_sides(side, side)
