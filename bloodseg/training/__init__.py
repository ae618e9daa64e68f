"""Training of a segmentation network: crops, augmentation, the loss and skorch's loop."""

from ._train import TrainingData, TrainingSettings, train_network

__all__ = ["TrainingData", "TrainingSettings", "train_network"]
