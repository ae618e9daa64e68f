"""skorch's training loop, with augmentation on the batch and random numbers from seeds."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from skorch import NeuralNet

from ..networks import seed_dropout, seed_globally


class AugmentedNet(NeuralNet):
    """A skorch net whose batches are (images, (targets, weights)), changed at random in training.

    What a step draws depends on the seed, the epoch and the step only: a training that goes on
    from the end of an epoch needs no random states, and threads do not disturb each other.

    Parameters
    ----------
    augmentation : callable or None
        Applied to each training batch's images and targets.
    seed : tuple of int
        Mixed with epoch and step into the seed of what each step draws.
    of_the_package : bool
        Whether dropout of this package is all that the network draws. Another network is taken to
        draw from torch's global generator, which is seeded for each step and put back.
    **settings
        As for `skorch.NeuralNet`.
    """

    def __init__(
        self,
        *args: Any,
        augmentation: Any = None,
        seed: tuple[int, ...] = (0,),
        of_the_package: bool = True,
        **settings: Any,
    ):
        super().__init__(*args, **settings)
        self.augmentation = augmentation
        self.seed = seed
        self.of_the_package = of_the_package

    def train_step(self, batch: Any, **fit_params: Any) -> Any:
        """Augment the batch, then do skorch's step."""
        if self.augmentation is not None:
            images, (targets, weights) = batch
            images, targets = self.augmentation(images, targets, seed=self._step_seed(0))
            batch = images, (targets, weights)
        with self._seed_draws(batch):
            return super().train_step(batch, **fit_params)

    def validation_step(self, batch: Any, **fit_params: Any) -> Any:
        """Do skorch's step."""
        with self._seed_draws(batch):
            return super().validation_step(batch, **fit_params)

    def _step_seed(self, purpose: int) -> int:
        row = self.history[-1]
        return derive_seed(*self.seed, row["epoch"], len(row["batches"]), purpose)

    def _seed_draws(self, batch: Any) -> AbstractContextManager[None]:
        device = next(self.module_.parameters()).device
        if self.of_the_package:
            return seed_dropout(self._step_seed(1), self.module_, device)
        return seed_globally(self._step_seed(1), device)


def derive_seed(*entropy: int) -> int:
    """Return a seed of 63 bits that mixes the given numbers."""
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> np.uint64(1))


def make_distributed_net(*args: Any, **settings: Any) -> AugmentedNet:
    """Return an `AugmentedNet` that trains through Hugging Face Accelerate."""
    from skorch.hf import AccelerateMixin  # an optional dependency

    class DistributedNet(AccelerateMixin, AugmentedNet):
        """An `AugmentedNet` whose batches are shared out among processes."""

    return DistributedNet(*args, **settings)
