"""Training of a network: crops or whole images, augmentation, the losses and skorch's loop."""

from ._augmentation import Augmentation
from ._checkpoint import Checkpoint
from ._data import image_tensor
from ._distributed import make_accelerator, shared_seed
from ._tasks import CountingTask, SegmentationTask, TrainingData
from ._train import TrainingSettings, train_network

__all__ = [
    "Augmentation",
    "Checkpoint",
    "CountingTask",
    "SegmentationTask",
    "TrainingData",
    "TrainingSettings",
    "image_tensor",
    "make_accelerator",
    "shared_seed",
    "train_network",
]
