"""Training of a network: crops or whole images, augmentation, the losses and skorch's loop."""

from ._augmentation import Augmentation
from ._checkpoint import Checkpoint, fingerprint
from ._distributed import make_accelerator, shared_seed
from ._magnification import (
    STANDARD_DIAMETER,
    at_diameter,
    diameter_in_masks,
)
from ._split import check_groups, split_images
from ._tasks import CountingTask, SegmentationTask, TrainingData
from ._train import TrainingResult, TrainingSettings, train_network

__all__ = [
    "STANDARD_DIAMETER",
    "Augmentation",
    "Checkpoint",
    "CountingTask",
    "SegmentationTask",
    "TrainingData",
    "TrainingResult",
    "TrainingSettings",
    "at_diameter",
    "check_groups",
    "diameter_in_masks",
    "fingerprint",
    "make_accelerator",
    "shared_seed",
    "split_images",
    "train_network",
]
