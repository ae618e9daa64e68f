"""Colours of one laboratory's smears given to those of another."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

_LEAST_SHARE = 0.5  # of the way to the other colours; at most the whole
_SCALES = 0.5, 2.0  # least and greatest factor of a spread: a field of one colour has hardly any
_BURNT, _GAINS = 0.3, (1.05, 1.4)  # share of the images whose light is raised, and by how much


def exchange_colours(
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    laboratories: Sequence[str],
    seed: int,
) -> list[np.ndarray]:
    """Return each image in the colours of one of another laboratory, drawn at random.

    In CIELAB mean and spread become those of the other image (Reinhard et al. [1]_), of the classes
    that both have and each class as much as another, so that cells crowded or few change nothing.
    Some images are brightened until their background is burnt out.

    .. [1] Reinhard et al., "Color Transfer between Images", IEEE CG&A 2001.
    """
    rng = np.random.default_rng(seed)
    names = np.asarray(laboratories)
    changed = []
    for image, mask, name in zip(images, masks, names, strict=True):
        other = int(rng.choice(np.flatnonzero(names != name)))
        share = rng.uniform(_LEAST_SHARE, 1)
        image = _recolour(image, mask, images[other], masks[other], share)
        if rng.random() < _BURNT:
            image = image * rng.uniform(*_GAINS)
        changed.append(np.rint(255 * image.clip(0, 1)).astype(np.uint8))
    return changed


def _recolour(
    image: np.ndarray, mask: np.ndarray, other: np.ndarray, its_mask: np.ndarray, share: float
) -> np.ndarray:
    """Return an image in [0, 1] on its way to the colours of another."""
    common = [label for label in range(3) if (mask == label).any() and (its_mask == label).any()]
    pixels, others = _to_lab(image), _to_lab(other)
    mean, spread = _describe(pixels, mask, common)
    its_mean, its_spread = _describe(others, its_mask, common)
    scale = np.clip(its_spread / np.maximum(spread, 1e-3), *_SCALES)
    target = (pixels - mean) * scale + its_mean
    mixed = (pixels + share * (target - pixels)).astype(np.float32)
    return cv2.cvtColor(mixed, cv2.COLOR_LAB2RGB)


def _to_lab(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def _describe(
    pixels: np.ndarray, mask: np.ndarray, labels: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of the channels over classes of equal weight."""
    classes = [pixels[mask == label] for label in labels]
    mean = np.mean([each.mean(axis=0) for each in classes], axis=0)
    variance = np.mean([((each - mean) ** 2).mean(axis=0) for each in classes], axis=0)
    return mean, np.sqrt(variance)
