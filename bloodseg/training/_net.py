"""skorch's training loop, with augmentation on the batch and random numbers from seeds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet
from skorch.utils import to_device
from torch import Tensor

from ..networks import seed_dropout, seed_globally
from ..ode import ODEBlock

_CALM = 0.5  # of the tolerance: error of a whole step that training leaves alone


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
    ode_regularization : float
        Weight in the loss of ``sum over ODE-blocks of mean over samples of max(0, log(2 e))``, with
        e of `bloodseg.ode.ODEBlock.estimate_error`.
    **settings
        As for `skorch.NeuralNet`.
    """

    def __init__(
        self,
        *args: Any,
        augmentation: Any = None,
        seed: tuple[int, ...] = (0,),
        of_the_package: bool = True,
        ode_regularization: float = 0.0,
        **settings: Any,
    ):
        super().__init__(*args, **settings)
        self.augmentation = augmentation
        self.seed = seed
        self.of_the_package = of_the_package
        self.ode_regularization = ode_regularization

    def train_step(self, batch: Any, **fit_params: Any) -> Any:
        """Move the batch to the network, augment it there, then do skorch's step."""
        if self.augmentation is not None:
            images, (targets, weights) = to_device(batch, self.device)
            images, targets = self.augmentation(images, targets, seed=self._step_seed(0))
            batch = images, (targets, weights)
        with self._seed_draws(batch), self._watch_blocks():
            return super().train_step(batch, **fit_params)

    def validation_step(self, batch: Any, **fit_params: Any) -> Any:
        """Do skorch's step."""
        with self._seed_draws(batch):
            return super().validation_step(batch, **fit_params)

    def get_loss(self, *args: Any, training: bool = False, **kwargs: Any) -> Any:
        """Add to the criterion what makes the dynamics of the ODE-blocks calm."""
        loss = super().get_loss(*args, training=training, **kwargs)
        if not (training and self._errors):
            return loss
        # The logarithm: a step that misses the tolerance tenfold shall not drown the criterion. And
        # calmer than that a step is accepted with some room is no use, and costs accuracy.
        bends = [(errors / _CALM).clamp(min=1).log().mean() for errors in self._errors]
        return loss + self.ode_regularization * torch.stack(bends).sum()

    @contextmanager
    def _watch_blocks(self) -> Iterator[None]:
        """Note by how much one step would miss the tolerance, of each ODE-block that is passed."""
        self._errors: list[Tensor] = []
        if self.ode_regularization == 0:
            yield
            return

        def note(block: Any, inputs: tuple[Tensor, ...]) -> None:
            self._errors.append(block.estimate_error(*inputs))

        blocks = [each for each in self.module_.modules() if isinstance(each, ODEBlock)]
        hooks = [block.register_forward_pre_hook(note) for block in blocks]
        try:
            yield
        finally:
            self._errors.clear()
            for hook in hooks:
                hook.remove()

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
