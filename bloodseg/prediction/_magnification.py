"""The red cell as the ruler: which magnification images have, and which the network wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from .._images import CLASS_NAMES, RED, mask_of, scaled_middle
from ..cells import (
    LEAST_DIAMETER,
    MOST_DIAMETER,
    is_diameter,
    measured_diameter,
    peak_shift,
    scale_to,
    typical_radius,
)
from ..ode import warn_caller
from ._doubts import is_about
from ._places import LEAST_CELLS

_MOST_ENLARGED = 32  # times; from the smallest red cells that may be given to 128 pixels

# Where the image alone does not tell, the network is asked about sizes, and shown so much.
_OCTAVE_STEP = 0.5
_ANY_SIZES = 12 * 2 ** np.arange(0, 4.5, _OCTAVE_STEP)  # pixels
_SHOWN = 256  # pixels, as the network sees them


# What an answer counts where no red cell has the size that was shown: no more than a half, so that
# more means that there are some. Where one class fills the image besides, as networks have it that
# see an image far too small: they are very sure of that.
_NO_RULER, _FILLED, _FILLED_SHARE = 0.5, 0.9, 0.9


def check_red_cell_diameter(given: Any, of_network: float | None) -> None:
    """Check a parameter that may have been set since ``fit``, and whether the model can use it.

    Raises
    ------
    ValueError
        If it is none of "auto", a number of pixels and None; or the model knows no diameter.
    """
    if not (given is None or given == "auto" or is_diameter(given)):
        raise ValueError(
            "red_cell_diameter must be 'auto', a number of pixels from "
            f"{LEAST_DIAMETER} to {MOST_DIAMETER}, or None; got {given!r}."
        )
    if given is not None and of_network is None:
        raise ValueError(
            f"red_cell_diameter={given!r} needs a model that knows how large the red cells of its "
            "training were; this one does not, for its label maps held none. Fit again, or set "
            "red_cell_diameter=None."
        )


@dataclass(frozen=True)
class Scaling:
    """By how much to scale an image, and whether only the network could tell."""

    factor: float
    guessed: bool = False


class Sure(Protocol):
    """What tells how sure it is of what it sees in an image, see `TileNetwork`."""

    def measure_sureness(self, pixels: np.ndarray, diameter: float) -> float:
        """Return what `weigh_answer` does, for an image of at most 256 pixels a side."""


@dataclass(frozen=True)
class Ruler:
    """Tells by how much to scale an image, so that its red cells are as wide as a network knows.

    Attributes
    ----------
    given : float, "auto" or None
        Diameter of the images' red cells in pixels; "auto" measures it, None scales nothing.
    wanted : float or None
        Diameter of red cells in pixels as the network knows them.
    """

    given: float | str | None
    wanted: float | None

    def __post_init__(self) -> None:
        check_red_cell_diameter(self.given, self.wanted)

    def expected_diameter(self, scaling: Scaling) -> float | None:
        """Return how wide red cells are in an image's own pixels, if the scaling is right."""
        return None if self.wanted is None else self.wanted / scaling.factor

    def measure(self, image: Any, enhanced: Any, network: Sure, *, label: str) -> Scaling:
        """Return by how much to scale an image; 1 where it goes through as it is.

        Parameters
        ----------
        image, enhanced : array-like of shape (H, W[, C])
            As the user gave it, and as the network takes it.
        network : TileNetwork
            Asked at which size it is surest, where the image alone does not tell.
        label : str
            What a warning calls the image.
        """
        if self.given is None or self.wanted is None:
            return Scaling(1.0)
        if self.given != "auto":
            return Scaling(_check_factor(scale_to(float(self.given), self.wanted)))
        diameter, octaves = measured_diameter(image)
        guessed = False
        if octaves:
            asked = partial(_ask_about, enhanced, self.wanted, network)
            near = None if diameter is None else _find_near(diameter, octaves, asked)
            diameter, guessed = near or _find_anywhere(asked), near is None
        if diameter is None:
            warn_caller(
                f"The diameter of red cells cannot be told from {label}, which goes through the "
                "network in its own size; pass red_cell_diameter in pixels."
            )
            return Scaling(1.0, guessed=True)
        return Scaling(_check_factor(scale_to(diameter, self.wanted)), guessed)

    def measure_again(
        self, found: float, scaling: Scaling, enhanced: Any, network: Sure
    ) -> Scaling | None:
        """Return another scaling, where the cells found with one are of another size.

        It is theirs where the network finds red cells of that width, or else the one that it tells
        without any estimate. None where the cells are as wide as expected, or no other size is
        told.

        Parameters
        ----------
        found : float
            Diameter of the red cells that were found, in the image's own pixels.
        scaling : Scaling
            They were found with.
        enhanced : array-like of shape (H, W[, C])
            As the network takes it.
        network : TileNetwork
            Asked what it sees in the other size.
        """
        expected = self.expected_diameter(scaling)
        if self.wanted is None or expected is None or is_about(found, expected):
            return None
        asked = partial(_ask_about, enhanced, self.wanted, network)
        told: float | None = found
        if self.wanted / found > _MOST_ENLARGED or asked(found) <= _NO_RULER:
            told = _find_anywhere(asked)
        if told is None or is_about(told, expected):
            return None
        return Scaling(scale_to(told, self.wanted), guessed=True)


def _check_factor(factor: float) -> float:
    """Raise where an image would be enlarged beyond all sense, and beyond this machine's memory."""
    if factor > _MOST_ENLARGED:
        raise ValueError(
            f"red_cell_diameter must be such that images are enlarged at most {_MOST_ENLARGED} "
            f"times; for this model it would be {factor:.0f} times. Give a larger one."
        )
    return factor


def weigh_answer(
    probabilities: np.ndarray, diameter: float, classes: Sequence[str] = CLASS_NAMES
) -> float:
    """Return how far what a network sees in an image speaks for the size it was shown in.

    It is the mean probability of the pixels' classes, for networks are unsure of cells of a wrong
    size. But not only of those: at sizes far from those of training they can be sure of what is
    none. So it is half where no red cells are found that are as wide as they should be; the white
    ones do not tell, for those of one smear differ by a factor of two. And of halves, one whose
    image is all white cell, or all red, counts less than one with a field between the cells.

    Parameters
    ----------
    probabilities : ndarray of shape (n_classes, H, W)
        Of the classes.
    diameter : float
        Of red cells in pixels, as the image was scaled for.
    classes : sequence of str
        Names of the classes.

    Returns
    -------
    float
        From 0, where there are no cells, to 1.
    """
    labels = probabilities.argmax(axis=0)
    shares = [(labels == label).mean() for label in range(1, len(probabilities))]
    if sum(shares) < LEAST_CELLS:
        return 0.0
    sure = float(probabilities.max(axis=0).mean())
    red = mask_of(labels, classes, RED)
    radius = typical_radius(red, diameter, classes=("background", RED))
    if radius is not None and is_about(2 * radius, diameter):
        return sure
    return sure * _NO_RULER * (_FILLED if max(shares) > _FILLED_SHARE else 1)


def _ask_about(image: Any, wanted: float, network: Sure, size: float) -> float:
    """Return how sure a network is of the middle of an image whose red cells are so wide."""
    return network.measure_sureness(scaled_middle(image, wanted / size, _SHOWN)[0], wanted)


# Shown far too large, texture has cells of any width, and a network is surer of those than of true
# ones; shown too small, hardly anything has. So the larger sizes tell throughout.


def _find_near(estimate: float, octaves: float, asked: Callable[[float], float]) -> float | None:
    """Return an estimate of the diameter, or a larger size near it, that red cells confirm.

    How sure the network is does not refine an estimate, for that differs little within half an
    octave: on folds 1 and 2 of bccd the surest size was 20 % too small.

    Parameters
    ----------
    estimate : float
        From the image alone, in pixels.
    octaves : float
        By how many it may be off.
    asked : callable
        From a size in pixels to how sure the network is of it.
    """
    for size in estimate * 2 ** np.arange(0, octaves + _OCTAVE_STEP, _OCTAVE_STEP):
        if asked(size) > _NO_RULER:
            return float(size)
    return None


def _find_anywhere(asked: Callable[[float], float]) -> float | None:
    """Return the diameter that a network tells without any estimate; None where it sees no cell.

    Of the sizes that red cells confirm the longest row tells, and of it the surer of the two
    largest; if they confirm none, the peak of its sureness at the largest size.
    """
    found = np.array([asked(size) for size in _ANY_SIZES])
    confirmed = found > _NO_RULER
    if confirmed.any():
        first, last = _longest_run(confirmed)
        return _peak_about(_climb(found, last, least=max(first, last - 1)), found)
    if not found.any():
        return None
    return _peak_about(_climb(found, int(np.flatnonzero(found)[-1])), found)


def _climb(found: np.ndarray, place: int, *, least: int = 0) -> int:
    """Return the place of the first peak from a place on towards smaller sizes."""
    while place > least and found[place - 1] > found[place]:
        place -= 1
    return place


def _longest_run(chosen: np.ndarray) -> tuple[int, int]:
    """Return the first and last place of the longest run of chosen ones; of equals, the last."""
    edges = np.flatnonzero(np.diff(np.pad(chosen, 1).astype(int)))
    first, last = edges[::2], edges[1::2] - 1
    longest = int(np.flatnonzero(last - first == (last - first).max())[-1])
    return int(first[longest]), int(last[longest])


def _peak_about(place: int, found: np.ndarray) -> float:
    """Return one of all sizes, moved to the peak of a parabola through its neighbours."""
    shift = 0.0
    if 0 < place < len(found) - 1:
        # Of the surest of some there may be no peak.
        shift = np.clip(peak_shift(*found[place - 1 : place + 2]), -0.5, 0.5)
    return float(_ANY_SIZES[place] * 2 ** (_OCTAVE_STEP * shift))
