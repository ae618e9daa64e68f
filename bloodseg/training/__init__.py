"""Training of a network: crops or whole images, augmentation, the losses and skorch's loop."""

from ._augmentation import Augmentation
from ._checkpoint import Checkpoint, fingerprint
from ._distributed import make_accelerator, share_seed
from ._magnification import (
    STANDARD_DIAMETER,
    measure_diameter,
    scale_to_diameter,
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
    "check_groups",
    "fingerprint",
    "make_accelerator",
    "measure_diameter",
    "scale_to_diameter",
    "share_seed",
    "split_images",
    "train_network",
]
