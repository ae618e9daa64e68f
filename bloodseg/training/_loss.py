"""Losses over logits and label maps, with class and sample weights."""

from __future__ import annotations

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

        The mean over pixels of weight times loss: weights act across batches, not only in one.
        """
        masks, weights = target
        losses = functional.cross_entropy(logits, masks, self.class_weight, reduction="none")
        loss = (losses * weights[:, None, None]).mean()
        return loss if self.kind == "cross_entropy" else loss + _dice_loss(logits, masks, weights)


def _dice_loss(logits: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    weights = weights[:, None, None, None]
    probabilities = logits.softmax(dim=1)
    labels = functional.one_hot(masks, logits.shape[1]).movedim(-1, 1) * weights
    axes = (0, 2, 3)
    shared = (probabilities * labels).sum(axes)
    # The +1 keeps a class that is absent from the batch from counting as a complete miss.
    total = (probabilities * weights).sum(axes) + labels.sum(axes)
    return 1 - ((2 * shared + 1) / (total + 1)).mean()
