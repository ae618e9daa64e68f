"""Whether a network says the same of an image and of its mirror image.

What lies in a smear has no left and right. A network that knows what it looks at hardly changes its
mind when the image is mirrored; one that guesses does, however high the confidence that it gives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from .._images import NOT_LABELLED, middle
from ..metrics import confusion_matrix

# Mean confidence from which nobody asks. Of the real fields of seven laboratories that mirroring
# finds to be wrong, none reaches it; one in seven of those that are right does not, so that most
# images cost nothing more.
SURE = 0.945
STEADY = 0.94  # agreement from which nobody doubts (0.945 and more where right)
SHOWN = 512  # pixels of the middle, as the network sees them
_LEAST_SHARE = 0.005  # of the pixels: a class of fewer is none to agree about


def measure_agreement(
    network: Callable[[np.ndarray], tuple[np.ndarray, Any]],
    pixels: np.ndarray,
    side: int,
    outside: Any,
    class_map: Any = None,
) -> float:
    """Return the mean IoU, in [0, 1], of a class map and that of the mirrored image.

    Parameters
    ----------
    network : callable
        From pixels (h, w, C) to logits (n, h, w), and what they cost.
    pixels : ndarray of shape (h, w, C)
        The middle of an image as the network takes it, see `scaled_middle`.
    side : int
        What that is in the image's own pixels.
    outside : array-like of shape (H, W), bool, or None
        What is no picture, and is not compared.
    class_map : array-like of shape (H, W), uint8, optional
        What the network made of the image, if it has been asked.
    """
    logits, _ = network(np.ascontiguousarray(pixels[:, ::-1]))
    mirrored = logits.argmax(axis=0)[:, ::-1]
    if class_map is None:
        labels = network(pixels)[0].argmax(axis=0)
    else:
        labels = _at_size(middle(class_map, side), mirrored.shape)
    if outside is not None:
        beyond = _at_size(middle(outside, side).astype(np.uint8), mirrored.shape) > 0
        labels = np.where(beyond, NOT_LABELLED, labels)
    return _mean_iou(confusion_matrix([labels], [mirrored], n_classes=len(logits)))


def _at_size(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if values.shape == shape:
        return values
    return cv2.resize(values, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def _mean_iou(matrix: np.ndarray) -> float:
    """Return the mean over the classes that hold a share of the pixels; 1 where none does."""
    common = matrix.diagonal()
    either = matrix.sum(axis=0) + matrix.sum(axis=1) - common
    seen = either > _LEAST_SHARE * matrix.sum()
    return float(np.mean(common[seen] / either[seen])) if seen.any() else 1.0
