"""Losses over label maps and over counts, with class and sample weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .._images import NOT_LABELLED

_KNEE = 0.5  # errors above this, in units of a count's spread, count by their size, not its square
_TINY = 1e-8  # keeps the logarithm of a count finite


class SegmentationLoss(nn.Module):
    """Categorical cross-entropy over pixels, on its own or with the soft Dice loss.

    The paper's Equation 7 is the binary form of what its text calls categorical cross-entropy;
    this is the categorical form.

    Parameters
    ----------
    kind : {"cross_entropy", "cross_entropy+dice"}
        The Dice part is one minus the mean over classes of the soft Dice coefficient.
    class_weight : Tensor of shape (n_classes,), optional
        Weight of each class in the cross-entropy.

    Notes
    -----
    Weights of images and classes should average 1 over the pixels of the training set: the loss
    then keeps its scale, and so does the learning rate.
    """

    class_weight: Tensor | None

    def __init__(self, kind: str = "cross_entropy", class_weight: Tensor | None = None):
        super().__init__()
        self.kind = kind
        self.register_buffer("class_weight", class_weight)

    def forward(self, logits: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss of logits (n, K, H, W) for label maps (n, H, W) and weights (n,).

        Pixels that are not labelled (255) add nothing.

        The mean over pixels of weight times loss: weights act across batches, not only in one.
        """
        masks, weights = target
        losses = functional.cross_entropy(
            logits, masks, self.class_weight, ignore_index=NOT_LABELLED, reduction="none"
        )
        loss = (losses * weights[:, None, None]).mean()
        return (
            loss
            if self.kind == "cross_entropy"
            else loss + _compute_dice_loss(logits, masks, weights)
        )


def _compute_dice_loss(logits: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    known = masks != NOT_LABELLED
    weights = weights[:, None, None, None] * known[:, None]
    probabilities = logits.softmax(dim=1)
    labels = functional.one_hot(masks * known, logits.shape[1]).movedim(-1, 1) * weights
    axes = (0, 2, 3)
    shared = (probabilities * labels).sum(axes)
    # The +1 keeps a class that is absent from the batch from counting as a complete miss.
    total = (probabilities * weights).sum(axes) + labels.sum(axes)
    return 1 - ((2 * shared + 1) / (total + 1)).mean()


class CountLoss(nn.Module):
    """A loss over counts, in units of each count's own spread, so that none outweighs another.

    Parameters
    ----------
    kind : {"huber", "squared_error", "poisson"}
        The Huber loss, squares of errors up to half a unit, or half the Poisson deviance.
    scale : Tensor of shape (n_counts,)
        What errors are measured in.
    """

    scale: Tensor

    def __init__(self, kind: str, scale: Tensor):
        super().__init__()
        self.kind = kind
        self.register_buffer("scale", scale)

    def forward(self, predicted: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss of predicted counts (n, K) for counts (n, K) and weights (n,).

        What was not counted (NaN) adds nothing.
        """
        counts, weights = target
        counted = counts.isfinite()
        counts = counts.where(counted, predicted.detach())
        if self.kind == "poisson":
            # Of counts apart from the prediction: xlogy has no gradient where both are zero.
            surprise = torch.xlogy(counts, counts) - counts * (predicted + _TINY).log()
            losses = (predicted - counts + surprise) / self.scale
        elif self.kind == "squared_error":
            losses = ((predicted - counts) / self.scale).square()
        else:
            errors = (predicted - counts) / self.scale
            losses = functional.huber_loss(errors, torch.zeros_like(errors), "none", _KNEE)
        return (losses.where(counted, 0) * weights[:, None]).mean()
