"""A fully convolutional network on the encoder of the family."""

from __future__ import annotations

from collections import deque
from typing import Any

from torch import Tensor, nn

from ._unet import Frame, mirror_to_stride


class FCN(Frame):
    """FCN-8s [1]_ on the U-Net's encoder: scores of its three coarsest scales, added up.

    FCN-8s scores each class at strides 32, 16 and 8 by 1x1 convolutions, doubles the coarser and
    adds it to the finer, and enlarges the sum to the image. The U-Net's encoder ends at stride 16,
    so here these are 16, 8 and 4. Enlarging is bilinear, as the transposed convolutions of FCN-8s
    are to begin with. There is no decoder to learn: what the paper's U-Net adds to an FCN.

    Parameters
    ----------
    n_classes : int
        Number of classes.
    **frame
        ``width``, ``dropout``, ``in_channels``, ``precision``: as for `UNet`.

    References
    ----------
    .. [1] Long, Shelhamer and Darrell, "Fully Convolutional Networks for Semantic Segmentation",
       CVPR 2015.

    Examples
    --------
    >>> import torch
    >>> from bloodseg.networks import FCN
    >>> FCN(width=4).eval()(torch.zeros(1, 3, 50, 70)).shape
    torch.Size([1, 3, 50, 70])
    """

    def __init__(self, n_classes: int = 3, **frame: Any):
        super().__init__(n_classes, **frame)
        self.finer = nn.ModuleList(
            nn.Conv2d(self.channels[position], n_classes, 1) for position in (4, 3)
        )
        self.twice = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.enlarge = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)
        self.head = nn.Conv2d(self.channels[5], n_classes, 1)

    @property
    def scorers(self) -> dict[str, nn.Conv2d]:
        """The 1x1 convolutions that have a row for each class, by name: one at each scale."""
        finer: dict[str, Any] = {f"finer.{place}": layer for place, layer in enumerate(self.finer)}
        return super().scorers | finer

    def _score(self, x: Tensor) -> Tensor:
        """Return the logits of images, padded to a multiple of 16; under `autocast`."""
        third, fourth, fifth = deque(self._descend(mirror_to_stride(x)), maxlen=3)
        logits = self.head(fifth)
        for layer, maps in zip(self.finer, (fourth, third), strict=True):
            logits = self.twice(logits) + layer(maps)
        enlarged: Tensor = self.enlarge(logits)
        return enlarged
