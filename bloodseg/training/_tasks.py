"""What a network is trained to do: data, batches, loss, scores and augmentation, as they belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler

from .._images import CLASS_NAMES, NOT_LABELLED, LazyImage
from ..metrics import scores_from_confusion
from ._augmentation import Augmentation, WholeImageAugmentation
from ._data import EpochSampler, SameSizeBatches, TrainingCrops, ValidationBlocks, WholeImages
from ._loss import CountLoss, SegmentationLoss


@dataclass(frozen=True)
class TrainingData:
    """Checked images, a target for each, and the weight of each image in the loss.

    Lazy images are opened as crops are cut from them. A target is a label map (H, W) of uint8, or
    the numbers of cells of each class.
    """

    images: Sequence[np.ndarray | LazyImage]
    targets: Sequence[np.ndarray]
    weights: np.ndarray


class Task(Protocol):
    """What `train_network` asks of a task."""

    def make_training_set(self, data: TrainingData, seed: int) -> Any:
        """Return the data set to train on: items (image, (target, weight)); has an ``epoch``."""

    def make_validation_set(self, data: TrainingData) -> Any:
        """Return the data set to validate with, each item a batch."""

    def make_batches(self, training_set: Any, batch_size: int) -> BatchSampler:
        """Return the batches of an epoch."""

    def make_criterion(self) -> nn.Module:
        """Return the loss of outputs and (targets, weights)."""

    def make_augmentation(self) -> Any:
        """Return what changes a training batch's images and targets, given a seed."""

    @property
    def start(self) -> np.ndarray:
        """Sums over no image."""

    def sum_up(self, outputs: Tensor, targets: Tensor) -> np.ndarray:
        """Return what a validation batch adds to the sums."""

    def score(self, sums: np.ndarray) -> dict[str, float]:
        """Return the scores, by name, that sums come to."""


@dataclass(frozen=True)
class SegmentationTask:
    """Label maps, learned from crops; the names are those of `bloodseg.BloodCellSegmenter`."""

    crop_size: int
    loss: str
    class_weight: np.ndarray | None
    strong_augmentation: bool = False
    n_classes: int = len(CLASS_NAMES)

    def make_training_set(self, data: TrainingData, seed: int) -> TrainingCrops:
        """Return random crops."""
        return TrainingCrops(
            data.images, data.targets, data.weights, crop_size=self.crop_size, seed=seed
        )

    def make_validation_set(self, data: TrainingData) -> ValidationBlocks:
        """Return the images, large ones cut into blocks."""
        return ValidationBlocks(data.images, data.targets, data.weights)

    def make_batches(self, training_set: TrainingCrops, batch_size: int) -> BatchSampler:
        """Return batches of crops."""
        return BatchSampler(EpochSampler(training_set), batch_size, drop_last=False)

    def make_criterion(self) -> nn.Module:
        """Return the cross-entropy, or more."""
        weight = self.class_weight
        tensor = None if weight is None else torch.as_tensor(weight, dtype=torch.float32)
        return SegmentationLoss(self.loss, tensor)

    def make_augmentation(self) -> Any:
        """Return changes of crops and their label maps."""
        return Augmentation(self.crop_size, strong=self.strong_augmentation)

    @property
    def start(self) -> np.ndarray:
        """An empty confusion matrix."""
        return np.zeros((self.n_classes, self.n_classes))

    def sum_up(self, logits: Tensor, masks: Tensor) -> np.ndarray:
        """Return the confusion matrix of a batch."""
        pairs = masks * self.n_classes + logits.argmax(dim=1)
        counts = torch.bincount(pairs[masks != NOT_LABELLED], minlength=self.n_classes**2)
        return counts.view(self.n_classes, self.n_classes).cpu().numpy()

    def score(self, sums: np.ndarray) -> dict[str, float]:
        """Return the mean IoU."""
        return {"mean_iou": scores_from_confusion(sums.astype(np.int64))["mean_iou"]}


@dataclass(frozen=True)
class CountingTask:
    """Numbers of cells, learned from whole images: where the cells lie is not known."""

    loss: str
    scale: np.ndarray
    names: tuple[str, ...] = CLASS_NAMES[1:]

    def make_training_set(self, data: TrainingData, seed: int = 0) -> WholeImages:
        """Return the images."""
        return WholeImages(data.images, data.targets, data.weights, seed=seed)

    make_validation_set = make_training_set

    def make_batches(self, training_set: WholeImages, batch_size: int) -> BatchSampler:
        """Return batches of images of one size."""
        sizes = [image.shape[:2] for image in training_set.images]
        return SameSizeBatches(EpochSampler(training_set), sizes, batch_size)

    def make_criterion(self) -> nn.Module:
        """Return the loss of counts."""
        return CountLoss(self.loss, torch.as_tensor(self.scale, dtype=torch.float32))

    def make_augmentation(self) -> Any:
        """Return changes of images that leave the counts."""
        return WholeImageAugmentation()

    @property
    def start(self) -> np.ndarray:
        """No errors of no images."""
        return np.zeros((2, len(self.scale)))

    def sum_up(self, predicted: Tensor, counts: Tensor) -> np.ndarray:
        """Return absolute errors and numbers of counts of a batch."""
        errors = (predicted - counts).abs()
        sums = errors.nansum(dim=0), errors.isfinite().sum(dim=0)  # NaN: not counted
        return np.stack([each.cpu().numpy() for each in sums])

    def score(self, sums: np.ndarray) -> dict[str, float]:
        """Return the mean absolute error of each count, of those that there are."""
        named = zip(self.names, *sums.tolist(), strict=True)
        return {f"mae_{name}": error / number for name, error, number in named if number}
