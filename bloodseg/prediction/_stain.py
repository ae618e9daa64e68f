"""Whether the colours of an image are those of a stained smear: pure functions of its pixels.

Romanowsky stains (Wright, Giemsa and their mixtures) make nuclei take away red light more than
blue, for azure is blue, and red cells blue light at least as much as red, nearly, for eosin and
haemoglobin are red; both take away green light most. The numbers below leave a margin about what
smear256/train, leukocyte300/train, folds 1 to 4 of bccd, fields of pbc_barcelona, chula_bangkok,
krd_erbil and nlm_chittagong, and drawn smears show; what those show stands beside each.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .._images import CLASS_NAMES, RED, WHITE, mask_of
from ..preprocessing import light_of, optical_density
from ._focus import check_focus
from ._patterns import check_patterns

_DARKEST_FIELD = 0.18  # density that a tenth of the field exceeds (0.145)
_CONTRASTS = 0.035, 0.6  # density of red cells over that of the field, in green (0.051 to 0.41)
_DARKEST_LIGHT = 0.15  # of white, in 8-bit images: so few levels are too coarse
_BURNT, _BURNT_SHARE = 0.995, 0.12  # of white, in every colour; of the pixels of red cells (0)
_GREY = 0.12  # how far the densities of a stain differ, over the highest (0.21)
_REDDEST = 0.33  # hue of red cells (-0.8 to 0.26)
_BLUER = -0.06  # hue of nuclei less that of red cells (0 and more; stains of magenta -0.22)
_FAR_REDDER = -0.25  # the same, where it is wrong whatever the hue of the nuclei
_BLUEST = -0.1  # hue of nuclei (0.27 and more)
_NUCLEUS, _FEW = 2.0, 0.002  # densities of red cells that are taken for a nucleus; its share
_ENOUGH_RED = 0.02  # share of pixels: red cells to compare with
_DARK_RED = 0.45  # density of a red cell for red light (0.26)
_DARK_GREEN, _LAYERS = 0.5, 3.0  # the same for green, and over that of typical ones (0.4; 3)
_INK, _INK_BLUER = 0.7, 1.05  # density for red light, and over that for green (0.008 cells of it)
_PALE, _OF_CELL = 0.4, 0.4  # of the chroma, and of the contrast, of red cells: a shadow is grey
_PATCH, _SHADOWS = 0.15, 0.045  # of a red cell; of the area of all (0.012; a pointer 0.04)
_STAIN = 0.5  # area in red cells from which what is so dark is no nucleus in a wrong class


def check_colours(
    image: np.ndarray,
    class_map: np.ndarray,
    seen: np.ndarray,
    radius: float,
    classes: Sequence[str] = CLASS_NAMES,
) -> list[str]:
    """Return what is wrong with light, stain and focus: a text a kind, "" for what is not.

    Where nothing is background there is no light to compare with, and no text.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3)
        RGB, uint8 or floating point in [0, 1].
    class_map : ndarray of shape (H, W)
        What the network made of it.
    seen : ndarray of shape (H, W), bool
        What is picture.
    radius : float
        Of a typical red cell in pixels.
    classes : sequence of str
        Names of the labels.
    """
    density = optical_density(image)
    field, red = seen & (class_map == 0), seen & mask_of(class_map, classes, RED)
    if not field.any():
        return []
    white = seen & mask_of(class_map, classes, WHITE)
    unclear = np.percentile(density.max(axis=2)[field], 90) > _DARKEST_FIELD
    dim = image.dtype == np.uint8 and light_of(image).max() < 255 * _DARKEST_LIGHT
    density -= np.median(density[field], axis=0)
    stained, focus = "", ""
    least, shadows, burnt = None, False, False
    if red.any():
        contrast = float(np.median(density[red, 1]))
        least = max(contrast, _CONTRASTS[0])
        shadows = _has_shadows(density, red, least, radius)
        if _CONTRASTS[0] <= contrast <= _CONTRASTS[1]:
            focus = check_focus(density[..., 1], seen & (class_map > 0), seen, contrast, radius)
        else:
            faint = contrast < _CONTRASTS[0]
            stained = f"its red cells are {'hardly stained' if faint else 'too dark'}"
        burnt = _burnt_share(image[red]) > _BURNT_SHARE
    dirty = _has_dirt(density, red, white, radius)
    return [
        "what lies between its cells is not clear and bright" if unclear else "",
        "it is so dark that few levels of brightness are left" if dim else "",
        *check_patterns(density[..., 1], seen, least, radius),
        stained,
        focus,
        "it is over-exposed: its red cells reach the level of white" if burnt else "",
        "some of its cells are too dark or blue for cells; perhaps ink, dirt or a pointer"
        if dirty
        else "",
        "some of its red cells are grey; perhaps dust, a hair or a pointer" if shadows else "",
        _stain(density, red, white, seen),
    ]


def _has_dirt(density: np.ndarray, red: np.ndarray, white: np.ndarray, radius: float) -> bool:
    """Return whether as much as a cell is too dark for a red one, or too blue for a nucleus."""
    through_red, through_green = density[..., 0], density[..., 1]
    layers = _LAYERS * np.median(through_green[red]) if red.any() else 0
    dirt = red & ((through_red > _DARK_RED) | (through_green > max(_DARK_GREEN, layers)))
    dirt |= white & (through_red > _INK) & (through_red > _INK_BLUER * through_green)
    _, _, stats, _ = cv2.connectedComponentsWithStats(dirt.astype(np.uint8), connectivity=4)
    largest = stats[1:, cv2.CC_STAT_AREA].max(initial=0)
    return bool(largest > _STAIN * np.pi * radius**2)


def _has_shadows(density: np.ndarray, red: np.ndarray, contrast: float, radius: float) -> bool:
    """Return whether much of what is taken for red cells has hardly any of their colour."""
    soft = cv2.GaussianBlur(density, (0, 0), max(0.8, 0.08 * radius))
    highest = soft.max(axis=2)
    chroma = np.ptp(soft, axis=2) / np.maximum(highest, 1e-3)
    grey = red & (chroma < _PALE * np.median(chroma[red])) & (highest > _OF_CELL * contrast)
    _, _, stats, _ = cv2.connectedComponentsWithStats(grey.astype(np.uint8), connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]
    patches = areas[areas > _PATCH * np.pi * radius**2].sum()
    return bool(patches > _SHADOWS * np.count_nonzero(red))


def _stain(density: np.ndarray, red: np.ndarray, white: np.ndarray, seen: np.ndarray) -> str:
    """Return what no Romanowsky stain looks like; "" where nothing is wrong."""
    n_seen = np.count_nonzero(seen)
    has_red = np.count_nonzero(red) > _ENOUGH_RED * n_seen
    pale = np.median(density[red if has_red else red | white], axis=0)
    # Where red cells lie over each other it is dark, too, but of their own hue.
    dark = density[..., 1] > _NUCLEUS * max(pale[1], _CONTRASTS[0]) if has_red else white
    nuclei = density[seen & dark]
    nucleus = np.median(nuclei, axis=0) if len(nuclei) > _FEW * n_seen else None
    colours = [pale] if nucleus is None else [pale, nucleus]
    if max(_chroma(colour) for colour in colours) < _GREY:
        return "it is grey, and without colours white cells cannot be told from red ones"
    wrong = has_red and _hue(pale) > _REDDEST
    if nucleus is not None:
        # Dark red cells, as where they overlap, lose some of their hue, but do not turn redder.
        redder = max(min(_hue(pale) + _BLUER, 0), _hue(pale) + _FAR_REDDER)
        wrong |= _hue(nucleus) < (redder if has_red else _BLUEST)
    return "its colours are no blood stain's; perhaps red and blue are swapped" if wrong else ""


def _chroma(density: np.ndarray) -> float:
    """Return how far densities for red, green and blue differ, from 0 for grey to 1 and above."""
    return float(np.ptp(density) / max(density.max(), 1e-3))


def _hue(density: np.ndarray) -> float:
    """Return by how much more red than blue light is taken away, in densities for green."""
    return float((density[0] - density[2]) / max(density[1], 1e-3))


def _burnt_share(pixels: np.ndarray) -> float:
    white = 255 if pixels.dtype == np.uint8 else 1
    return float((pixels.min(axis=-1) >= _BURNT * white).mean())
