"""Training data on its way to the network: chosen, preprocessed, kept in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import get_tags

from .._images import LazyImage, LazyImages, RecentImages, change_image
from ..preprocessing import transform_images
from ..training import TrainingData, fingerprint

_KEPT_BYTES = 2**30  # of prepared images from files: what does not fit is read anew for each crop


def choose(data: TrainingData, chosen: np.ndarray) -> TrainingData:
    """Return the chosen images with their targets, and weights of mean 1."""
    relative = np.ones(len(chosen))
    # Held-out images that weigh nothing have to choose the epoch all the same.
    if data.weights[chosen].any():
        relative = data.weights[chosen] / data.weights[chosen].mean()
    images, targets = ([each[i] for i in chosen] for each in (data.images, data.targets))
    return TrainingData(images, targets, relative)


def seen_by_fit(preprocessor: Any, images: Sequence[Any]) -> Any:
    """Return the images for the fit of a preprocessor; files are opened as it takes them."""
    if not any(isinstance(image, LazyImage) for image in images):
        return images
    learns = not isinstance(preprocessor, BaseEstimator) or get_tags(preprocessor).requires_fit
    # One that learns nothing still checks its parameters.
    return LazyImages(images if learns else images[:1])


def preprocess(data: TrainingData, preprocessor: Any) -> TrainingData:
    """Return data whose images have gone through a fitted preprocessor, lazy ones when opened."""
    arrays = [image for image in data.images if isinstance(image, np.ndarray)]
    if len(arrays) == len(data.images):
        return replace(data, images=transform_images(preprocessor, arrays))

    def transform(image: np.ndarray) -> np.ndarray:
        return transform_images(preprocessor, [image])[0]

    return replace(data, images=[change_image(image, transform) for image in data.images])


def keep_recent(sides: Iterable[TrainingData | None]) -> Iterator[TrainingData | None]:
    """Yield data whose lazy images stay in memory as long as there is room for all together."""
    recent = RecentImages(_KEPT_BYTES)
    for side in sides:
        yield side and replace(
            side,
            images=[
                recent.keep(image) if isinstance(image, LazyImage) else image
                for image in side.images
            ],
        )


def by_content(data: Any) -> Any:
    """Return what a fingerprint is taken of: lazy images by what they show, not all at a time."""
    if isinstance(data, LazyImage):
        return fingerprint({}, data[...])
    if isinstance(data, (list, tuple)):
        return type(data)(map(by_content, data))
    return data
