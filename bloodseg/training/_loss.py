"""Losses over logits and label maps, with class and sample weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LOSSES = ("cross_entropy", "cross_entropy+dice")


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
    """

    class_weight: Tensor | None

    def __init__(self, kind: str = "cross_entropy", class_weight: Tensor | None = None):
        super().__init__()
        self.kind = kind
        self.register_buffer("class_weight", class_weight)

    def forward(self, logits: Tensor, target: tuple[Tensor, Tensor]) -> Tensor:
        """Return the loss of logits (n, K, H, W) for label maps (n, H, W) and weights (n,)."""
        masks, weights = target
        pixel_weights = weights[:, None, None].expand(masks.shape)
        if self.class_weight is not None:
            pixel_weights = pixel_weights * self.class_weight[masks]
        losses = functional.cross_entropy(logits, masks, reduction="none")
        # A batch may hold nothing of weight, for instance one class alone with class weight 0.
        total = pixel_weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)
        loss = (losses * pixel_weights).sum() / total
        return loss if self.kind == "cross_entropy" else loss + _dice_loss(logits, masks, weights)


def _dice_loss(logits: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    probabilities = logits.softmax(dim=1) * weights[:, None, None, None]
    labels = (
        functional.one_hot(masks, logits.shape[1]).movedim(-1, 1) * weights[:, None, None, None]
    )
    axes = (0, 2, 3)
    shared = (logits.softmax(dim=1) * labels).sum(axes)
    # The +1 keeps a class that is absent from the batch from counting as a complete miss.
    dice = (2 * shared + 1) / (probabilities.sum(axes) + labels.sum(axes) + 1)
    return 1 - dice.mean()
