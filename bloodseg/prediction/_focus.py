"""Whether an image is in focus: how steep the outlines of its cells are, in all and part by part.

The numbers leave a margin about what the fields named in `_stain` show, as those there do.
"""

from __future__ import annotations

import cv2
import numpy as np

_BLURRED, _STEEP = 0.13, 0.25  # contrasts a pixel at 36 pixels a cell; share of outlines above
_WIDE = 0.08  # the same for a part, in contrasts of what lies half a radius around
_FAINT = 0.2  # contrast that outlines have to have there, in those of red cells
_NEAR, _LEAST = 2.5, 1.5  # red cells' radii: side of a part; length of the outlines that judge it
_IN_PARTS = 0.15  # share of the outlines that lie where they are blurred (0.12)
_LOST, _BESIDE = 0.5, 0.25  # contrast of what may be a cell that is lost in blur; radii to others
_SMEARED = 0.5  # steepness across the direction that is the most blurred, over the least (0.6)
_DIRECTIONS = 4  # of normals of outlines that are told apart


def check_focus(
    green: np.ndarray, cells: np.ndarray, seen: np.ndarray, contrast: float, radius: float
) -> str:
    """Return what is wrong with the focus of an image; "" for nothing.

    Parameters
    ----------
    green : ndarray of shape (H, W)
        Optical density for green light, that of the field taken away.
    cells, seen : ndarray of shape (H, W), bool
        What is cells, and what is picture.
    contrast : float
        Density of red cells.
    radius : float
        Of a typical red cell in pixels.
    """
    if min(green.shape) < 2:
        return ""  # nothing is steep across a single row
    outline = _outline(cells)
    scale = max(1.0, radius / 18)
    smooth = cv2.GaussianBlur(green, (0, 0), 0.5 * scale)
    slope = np.hypot(*np.gradient(smooth)) * scale
    if np.mean(slope[outline] >= _BLURRED * contrast) < _STEEP:
        return "it is out of focus"
    if _is_smeared(slope[outline], cells, outline, radius):
        return "it is blurred along one direction; perhaps stage or camera moved"
    # Some cells are paler than others, and so are their outlines: narrow ones are sharp, too.
    around = np.ones((2 * round(0.5 * radius) + 1,) * 2, np.uint8)
    local = cv2.dilate(smooth, around) - cv2.erode(smooth, around)
    steep = slope >= np.minimum(_BLURRED * contrast, _WIDE * local)
    outline |= _outline_of_lost(green, cells, contrast, radius) & seen
    if _blurred_share(steep, outline & (local >= _FAINT * contrast), radius) > _IN_PARTS:
        return "part of it is out of focus"
    return ""


def _outline(mask: np.ndarray) -> np.ndarray:
    """Return the pixels on both sides of the outlines of a mask."""
    ones = np.ones((3, 3), np.uint8)
    return cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, ones) > 0


def _is_smeared(slope: np.ndarray, cells: np.ndarray, outline: np.ndarray, radius: float) -> bool:
    """Return whether outlines across one direction are much less steep than across another."""
    # Normals are those of the cells: where an image is blurred, its own slopes turn.
    soft = cv2.GaussianBlur(cells.astype(np.float32), (0, 0), max(1.0, 0.1 * radius))
    down, right = (each[outline] for each in np.gradient(soft))
    direction = np.rint(np.arctan2(down, right) * _DIRECTIONS / np.pi) % _DIRECTIONS
    parts = [slope[direction == each] for each in range(_DIRECTIONS)]
    if min(map(len, parts)) < 4 * radius:  # fewer outlines than about one cell has
        return False
    steepest = [np.percentile(part, 75) for part in parts]
    return bool(min(steepest) < _SMEARED * max(steepest))


def _outline_of_lost(
    green: np.ndarray, cells: np.ndarray, contrast: float, radius: float
) -> np.ndarray:
    """Return outlines of what is as dark as cells but none: of cells that are lost in blur, too."""
    side = 2 * round(_BESIDE * radius) + 1
    apart = cv2.dilate(cells.astype(np.uint8), np.ones((side, side), np.uint8)) == 0
    soft = cv2.GaussianBlur(green, (0, 0), max(1.0, 0.1 * radius))
    return _outline(apart & (soft > _LOST * contrast)) & apart


def _blurred_share(steep: np.ndarray, outline: np.ndarray, radius: float) -> float:
    """Return the share of outlines around which few are steep, of those with enough to tell."""
    side = (2 * round(_NEAR * radius / 2) + 1,) * 2

    def count_near(mask: np.ndarray) -> np.ndarray:
        around = cv2.BORDER_CONSTANT
        return cv2.boxFilter(mask.astype(np.float32), -1, side, normalize=False, borderType=around)

    near = count_near(outline)[outline]
    enough = near >= _LEAST * radius
    blurred = count_near(outline & steep)[outline] < _STEEP * near
    return float(np.mean(blurred[enough])) if enough.any() else 0.0
