"""Whether an image looks like what a network has learned to read: reasons for doubt, in words."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from .._images import RED, middle, to_rgb
from ..cells._scale import typical_radius
from ..preprocessing import optical_density

_WINDOW = 1024  # pixels: the middle of a large image tells enough
LEAST_CELLS = 0.005  # share of the pixels
_SIZES = 0.7, 1.45  # of the diameter that the network expects
_DARKEST_FIELD = 0.11  # density that a tenth of the field exceeds
_CONTRASTS = 0.05, 0.6  # density of red cells over that of the field, in green
_BLURRED = 0.13  # steepest part of outlines, in contrasts a pixel at 36 pixels a cell
_UNSURE = 0.8  # mean confidence

# The numbers above leave a margin about what smear256/train, leukocyte300/train, folds 1 to 4 of
# bccd and drawn smears show.


def doubts(
    image: Any,
    class_map: Any,
    confidence: Any,
    expected_diameter: float | None,
    *,
    guessed: bool = False,
) -> list[str]:
    """Return why an image is perhaps no stained smear in focus; nothing where it looks like one.

    Parameters
    ----------
    image : array-like of shape (H, W[, C])
        A checked image; of a large one the middle is looked at.
    class_map, confidence : array-like of shape (H, W), uint8
        What the network made of it; confidence in 255ths.
    expected_diameter : float or None
        How wide red cells are in this image if it has the magnification that the network was shown.
    guessed : bool
        Whether only the network could tell that; of 183 real fields, one.
    """
    pixels, classes, sure = (middle(each, _WINDOW) for each in (image, class_map, confidence))
    cells = classes > 0
    radius = typical_radius(classes, expected_diameter)
    if radius is None or cells.mean() < LEAST_CELLS:
        return ["it has no cells"]
    checks = [_sizes(radius, expected_diameter), _confidence(sure)]
    if guessed:
        checks.append("no outlines in it tell how wide red cells are")
    if not cells.all():
        checks += _colours(to_rgb(pixels), classes, radius)
    return [text for text in checks if text]


def is_about(diameter: float, expected: float) -> bool:
    """Return whether cells measured in a class map are as wide as the network expects."""
    return _SIZES[0] <= diameter / expected <= _SIZES[1]


def _sizes(radius: float, expected: float | None) -> str:
    if expected is None or is_about(2 * radius, expected):
        return ""
    return f"its cells are {2 * radius:.0f} pixels wide, not about {expected:.0f}"


def _confidence(sure: np.ndarray) -> str:
    mean = sure.mean() / 255
    return "" if mean >= _UNSURE else f"the network is unsure (mean confidence {mean:.2f})"


def _colours(image: np.ndarray, classes: np.ndarray, radius: float) -> list[str]:
    """Check the field, the stain of the red cells, and the focus."""
    density = optical_density(image)
    field, green = classes == 0, density[..., 1]
    texts = []
    dark = np.percentile(density.max(axis=2)[field], 90)
    if dark > _DARKEST_FIELD:
        texts.append("what lies between its cells is not clear and bright")
    if (classes == RED).any():
        contrast = float(np.median(green[classes == RED]) - np.median(green[field]))
        if not _CONTRASTS[0] <= contrast <= _CONTRASTS[1]:
            faint = contrast < _CONTRASTS[0]
            texts.append(f"its red cells are {'hardly stained' if faint else 'too dark'}")
        elif _sharpness(green, classes > 0, contrast, radius) < _BLURRED:
            texts.append("it is out of focus")
    return texts


def _sharpness(green: np.ndarray, cells: np.ndarray, contrast: float, radius: float) -> float:
    """Return how steep outlines are, in contrasts a pixel at 36 pixels a cell."""
    scale = max(1.0, radius / 18)
    rows, columns = np.gradient(cv2.GaussianBlur(green, (0, 0), 0.5 * scale))
    outline = cv2.morphologyEx(cells.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
    return float(np.percentile(np.hypot(rows, columns)[outline], 75)) * scale / contrast
