"""skorch's training loop, with augmentation on the batch."""

from __future__ import annotations

from typing import Any

from skorch import NeuralNet

from ._callbacks import derived_seed


class AugmentedNet(NeuralNet):
    """A skorch net whose batches are (images, (targets, weights)), changed at random in training.

    Parameters
    ----------
    augmentation : callable or None
        Applied to each training batch's images and targets.
    augmentation_seed : tuple of int
        Mixed with epoch and step into the seed of each batch's changes.
    **settings
        As for `skorch.NeuralNet`.
    """

    def __init__(
        self,
        *args: Any,
        augmentation: Any = None,
        augmentation_seed: tuple[int, ...] = (0,),
        **settings: Any,
    ):
        super().__init__(*args, **settings)
        self.augmentation = augmentation
        self.augmentation_seed = augmentation_seed

    def train_step(self, batch: Any, **fit_params: Any) -> Any:
        """Augment the batch, then do skorch's step."""
        if self.augmentation is not None:
            images, (targets, weights) = batch
            row = self.history[-1]
            seed = derived_seed(*self.augmentation_seed, row["epoch"], len(row["batches"]))
            images, targets = self.augmentation(images, targets, seed=seed)
            batch = images, (targets, weights)
        return super().train_step(batch, **fit_params)


def distributed_net(*args: Any, **settings: Any) -> AugmentedNet:
    """Return an `AugmentedNet` that trains through Hugging Face Accelerate."""
    from skorch.hf import AccelerateMixin  # an optional dependency

    class DistributedNet(AccelerateMixin, AugmentedNet):
        """An `AugmentedNet` whose batches are shared out among processes."""

    return DistributedNet(*args, **settings)
