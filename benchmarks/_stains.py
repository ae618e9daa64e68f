"""Smears in stains drawn at random, each class for itself, and with white cells of other smears."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from skimage.filters import threshold_otsu

# Least and greatest factors of the optical densities of red, green and blue: wider than what the
# laboratories of `_laboratories.TRAINING` differ by, from violet nuclei to magenta ones, and
# from cytoplasm as dense as red cells to cytoplasm that can hardly be seen.
_OF_NUCLEI = (0.4, 0.6, 0.4), (1.6, 2.0, 1.8)
_OF_CYTOPLASM = (0.15, 1.5), (0.7, 1.4)  # of all three together, and of each
_OF_RED_CELLS = (0.5, 1.8), (0.65, 1.5)
_ADDED_TO_RED_CELLS = (-0.02, 0, -0.02), (0.06, 0.02, 0.04)
_OF_LIGHT = (0.6, 1.1), (0.85, 1.17)
_WASHED_OUT, _WHITE = 0.25, (1.0, 1.25)  # share of the images, and how bright glass is there
_PASTED, _LEAST_AREA, _WIDEST = 0.6, 500, 120  # share of the images; pixels of a white cell


def restain(
    images: Sequence[np.ndarray], masks: Sequence[np.ndarray], seed: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return each image in stains drawn at random, and its label map.

    Nuclei, cytoplasm and red cells are stained each for itself, so that no colour tells a class by
    itself; light and glass are drawn, too. Into some images white cells of others are pasted, which
    are in the label maps returned.
    """
    cells = [cell for pair in zip(images, masks, strict=True) for cell in _cut_white_cells(*pair)]
    changed, labels = [], []
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        rng = np.random.default_rng([seed, i])
        if cells and rng.random() < _PASTED:
            image, mask = _paste_white_cells(image, mask, cells, rng)
        changed.append(_restain(image, mask, rng))
        labels.append(mask)
    return changed, labels


def _restain(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    glass = _glass_of(image, mask)
    density = _to_density(image, glass)
    nuclei, cytoplasm, red = (each[..., None] for each in _shares(mask, density))
    factor = (
        1
        + nuclei * (_log_uniform(rng, *_OF_NUCLEI) - 1)
        + cytoplasm * (_draw_factors(rng, _OF_CYTOPLASM) - 1)
        + red * (_draw_factors(rng, _OF_RED_CELLS) - 1)
    )
    density = density * factor + red * rng.uniform(*_ADDED_TO_RED_CELLS)
    light = glass / 255 * _draw_factors(rng, _OF_LIGHT)
    if rng.random() < _WASHED_OUT:
        light *= rng.uniform(*_WHITE) / light.max()
    else:
        light /= max(1, light.max())
    return np.rint(255 * (light * 10**-density).clip(0, 1)).astype(np.uint8)


def _glass_of(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the colour of the glass between the cells."""
    ground = image[mask == 0]
    glass = np.median(ground, axis=0) if len(ground) else np.percentile(image, 95, axis=(0, 1))
    return glass.astype(np.float32)


def _to_density(image: np.ndarray, glass: np.ndarray) -> np.ndarray:
    """Return the optical density over that of the glass."""
    density: np.ndarray = -np.log10((image.astype(np.float32) + 1) / (glass + 1))
    return density


def _shares(mask: np.ndarray, density: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how much of each pixel is nucleus, cytoplasm of a white cell, and red cell."""
    soft = [cv2.GaussianBlur((mask == k).astype(np.float32), (0, 0), 1.0) for k in range(3)]
    known = sum(soft) + 1e-3  # pixels that have no label are as their neighbours
    white, red = soft[1] / known, soft[2] / known
    of_white = density.sum(axis=-1)[mask == 1]
    if len(of_white) < 2 or np.ptp(of_white) == 0:
        return 0 * white, white, red
    width = 0.25 * max(of_white.std(), 0.05)
    above = (density.sum(axis=-1) - threshold_otsu(of_white)) / width
    nucleus = 1 / (1 + np.exp(-above.clip(-20, 20)))
    return white * nucleus, white * (1 - nucleus), red


def _cut_white_cells(image: np.ndarray, mask: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the densities of whole white cells, and where in their boxes they are."""
    n, pieces, stats, _ = cv2.connectedComponentsWithStats((mask == 1).astype(np.uint8))
    if n == 1:
        return []
    density = _to_density(image, _glass_of(image, mask))
    height, width = mask.shape
    cells = []
    for k, (left, top, w, h, area) in enumerate(stats[1:], start=1):
        whole = left > 0 and top > 0 and left + w < width and top + h < height
        if whole and area >= _LEAST_AREA and max(w, h) <= _WIDEST:
            box = np.s_[max(top - 2, 0) : top + h + 2, max(left - 2, 0) : left + w + 2]
            cells.append((density[box], pieces[box] == k))
    return cells


def _paste_white_cells(
    image: np.ndarray,
    mask: np.ndarray,
    cells: Sequence[tuple[np.ndarray, np.ndarray]],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image with one or two white cells more where it has none, and its label map."""
    image, mask = image.copy(), mask.copy()
    glass = _glass_of(image, mask)
    for _ in range(rng.integers(1, 3)):
        turns, cell = rng.integers(4), cells[rng.integers(len(cells))]
        density, inside = (np.ascontiguousarray(np.rot90(each, turns)) for each in cell)
        if rng.random() < 0.5:
            density, inside = density[::-1], inside[::-1]
        h, w = inside.shape
        if h >= mask.shape[0] or w >= mask.shape[1]:
            continue
        top, left = rng.integers(mask.shape[0] - h), rng.integers(mask.shape[1] - w)
        box = np.s_[top : top + h, left : left + w]
        if (mask[box] == 1).any():
            continue
        colours = (glass + 1) * 10 ** (-density * rng.uniform(0.5, 1.1)) - 1
        share = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 0.8)[..., None]
        image[box] = np.rint((share * colours + (1 - share) * image[box]).clip(0, 255))
        mask[box][inside] = 1
    return image, mask


def _draw_factors(
    rng: np.random.Generator, ranges: tuple[tuple[float, float], tuple[float, float]]
) -> np.ndarray:
    """Return factors of three channels: one for all of them times one for each."""
    of_all, of_each = ranges
    return _log_uniform(rng, *of_all) * _log_uniform(rng, *of_each, 3)


def _log_uniform(rng: np.random.Generator, low, high, size=None) -> np.ndarray:
    return np.exp(rng.uniform(np.log(low), np.log(high), size))
