"""Training of a segmentation network: crops, augmentation, the loss and skorch's loop."""

from ._augmentation import Augmentation
from ._checkpoint import Checkpoint
from ._data import image_tensor
from ._distributed import make_accelerator, shared_seed
from ._train import TrainingData, TrainingSettings, train_network

__all__ = [
    "Augmentation",
    "Checkpoint",
    "TrainingData",
    "TrainingSettings",
    "image_tensor",
    "make_accelerator",
    "shared_seed",
    "train_network",
]
