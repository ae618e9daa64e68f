"""The red cell as the ruler: which magnification images have, and which the network wants."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from .._images import ScaledRows, middle
from ..cells._diameter import measured_diameter
from ..cells._scale import peak_shift, scale_to

LEAST, MOST = 4, 1000  # pixels: the diameters that may be given

# Where the image alone does not tell, the network is asked about sizes, and shown so much.
_OCTAVE_STEP = 0.5
_ANY_SIZES = 12 * 2 ** np.arange(0, 4.5, _OCTAVE_STEP)  # pixels
_SHOWN = 256  # pixels, as the network sees them


def check_red_cell_diameter(given: Any, of_network: float | None) -> None:
    """Check a parameter that may have been set since ``fit``, and whether the model can use it.

    Raises
    ------
    ValueError
        If it is none of "auto", a number of pixels and None; or the model knows no diameter.
    """
    number = isinstance(given, Real) and not isinstance(given, bool)
    if not (given is None or given == "auto" or (number and LEAST <= given <= MOST)):
        raise ValueError(
            "red_cell_diameter must be 'auto', a number of pixels from "
            f"{LEAST} to {MOST}, or None; got {given!r}."
        )
    if given is not None and of_network is None:
        raise ValueError(
            f"red_cell_diameter={given!r} needs a model that knows how large the red cells of its "
            "training were; this one does not, for its label maps held none or an earlier version "
            "saved it. Fit again, or set red_cell_diameter=None."
        )


class Scaling(NamedTuple):
    """By how much to scale an image, and whether only the network could tell."""

    factor: float
    guessed: bool = False


def scaling_for(
    image: Any,
    prepared: Any,
    given: Any,
    wanted: float | None,
    sureness: Callable[[np.ndarray, float], float],
    *,
    name: str,
) -> Scaling:
    """Return by how much to scale an image for the network; 1 where it goes through as it is.

    Parameters
    ----------
    image, prepared : array-like of shape (H, W[, C])
        As the user gave it, and as the network takes it.
    given : float, "auto" or None
        Diameter of its red cells.
    wanted : float
        The network's.
    sureness : callable
        From an image of at most 256 pixels a side, and how wide its red cells should be, to how
        sure the network is of what it sees: 0 where it sees no cells, up to a half where they are
        of another width. Asked where the image alone does not tell.
    name : str
        What a warning calls the image.
    """
    if given is None or wanted is None:
        return Scaling(1.0)
    if given != "auto":
        return Scaling(scale_to(float(given), wanted))
    diameter, octaves = measured_diameter(image)
    near = diameter
    if octaves:
        if diameter is not None:
            steps = np.arange(-octaves, octaves + _OCTAVE_STEP, _OCTAVE_STEP)
            # More than a half: the cells that the network finds there are as wide as it expects.
            near = _surest(prepared, diameter * 2**steps, wanted, sureness, above=0.5)
        diameter = near or _surest(prepared, _ANY_SIZES, wanted, sureness)
    if diameter is None:
        warnings.warn(
            f"The diameter of red cells cannot be told from {name}, which goes through the network "
            "in its own size; pass red_cell_diameter in pixels.",
            stacklevel=2,
        )
        return Scaling(1.0, guessed=True)
    return Scaling(scale_to(diameter, wanted), guessed=near is None)


def _surest(
    image: Any,
    sizes: np.ndarray,
    wanted: float,
    sureness: Callable[[np.ndarray, float], float],
    *,
    above: float = 0.0,
) -> float | None:
    """Return the diameter at which the network is surest of the middle of an image, if of any."""
    found = np.array([sureness(_shown(image, wanted / size), wanted) for size in sizes])
    best = int(found.argmax())
    if found[best] <= above:
        return None
    if not 0 < best < len(sizes) - 1:
        return float(sizes[best])
    shift = peak_shift(*found[best - 1 : best + 2])
    return float(sizes[best] * 2 ** (_OCTAVE_STEP * shift))


def _shown(image: Any, factor: float) -> np.ndarray:
    return ScaledRows(middle(image, max(1, int(_SHOWN / factor))), factor)[:]
