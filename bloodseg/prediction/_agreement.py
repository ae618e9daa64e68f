"""Whether a network says the same of an image and of its mirror image.

What lies in a smear has no left and right. A network that knows what it looks at hardly changes its
mind when the image is mirrored; one that guesses does, however high the confidence that it gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from .._images import NOT_LABELLED, ScaledRows
from ..metrics import confusion_matrix
from ._places import Place

# Mean confidence from which nobody asks. Of the real fields of seven laboratories that mirroring
# finds to be wrong, none reaches it; one in seven of those that are right does not, so that most
# images cost nothing more.
SURE = 0.945
STEADY = 0.94  # agreement from which nobody doubts (0.945 and more where right)
SHOWN = 512  # pixels a side of each place, as the network sees them
_LEAST_SHARE = 0.005  # of the pixels: a class of fewer is none to agree about


@dataclass(frozen=True)
class View:
    """A place in an image, and its pixels (h, w, C) as the network takes them."""

    place: Place
    pixels: np.ndarray

    @classmethod
    def of(cls, image: Any, place: Place, factor: float) -> View:
        """Return a place of an enhanced image (H, W[, C]), scaled as for `ScaledRows`."""
        rows, columns = place
        return cls(place, ScaledRows(np.asarray(image[rows])[:, columns], factor)[:])

    def cut_out(self, values: Any) -> np.ndarray:
        """Return values (H, W) of the image there, one a pixel of the view."""
        return _at_size(np.asarray(values[self.place]), self.pixels.shape[:2])


def is_sure(found: Any, places: Sequence[Place]) -> bool:
    """Return whether the mean confidence is such that nobody asks, in each place of several."""
    if len(places) == 1:
        return bool(found.mean_confidence >= SURE)
    for place in places:
        confidence = np.asarray(found.confidence[place])
        if found.outside is not None:  # where it is 0
            confidence = confidence[~np.asarray(found.outside[place])]
        if confidence.mean() < 255 * SURE:
            return False
    return True


def measure_agreement(
    network: Callable[[np.ndarray], tuple[np.ndarray, Any]],
    views: Sequence[View],
    outside: Any,
    class_map: Any = None,
) -> float:
    """Return the mean IoU, in [0, 1], of a class map and that of the mirrored image.

    Parameters
    ----------
    network : callable
        From pixels (h, w, C) to logits (n, h, w), and what they cost.
    views : sequence of View
        What of the image is mirrored and compared, all together.
    outside : array-like of shape (H, W), bool, or None
        What is no picture, and is not compared.
    class_map : array-like of shape (H, W), uint8, optional
        What the network made of the image, if it has been asked.
    """
    matrix: Any = 0
    for view in views:
        logits, _ = network(np.ascontiguousarray(view.pixels[:, ::-1]))
        mirrored = logits.argmax(axis=0)[:, ::-1]
        if class_map is None:
            labels = network(view.pixels)[0].argmax(axis=0)
        else:
            labels = view.cut_out(class_map)
        if outside is not None:
            labels = np.where(view.cut_out(outside) > 0, NOT_LABELLED, labels)
        matrix = matrix + confusion_matrix([labels], [mirrored], n_classes=len(logits))
    return _mean_iou(matrix)


def _at_size(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if values.shape == shape:
        return values
    whole = values.astype(np.uint8, copy=False)
    return cv2.resize(whole, shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def _mean_iou(matrix: np.ndarray) -> float:
    """Return the mean over the classes that hold a share of the pixels; 1 where none does."""
    common = matrix.diagonal()
    either = matrix.sum(axis=0) + matrix.sum(axis=1) - common
    seen = either > _LEAST_SHARE * matrix.sum()
    return float(np.mean(common[seen] / either[seen])) if seen.any() else 1.0
