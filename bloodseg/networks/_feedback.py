"""A U-Net that looks twice: its answer is fed back to its input."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ._blocks import ConvNormReLU
from ._unet import UNet, make_plain_body, mirror_to_stride

Memory = tuple[Tensor, Tensor]  # what a cell gave, and what it keeps


class ConvLSTM(nn.Module):
    """Convolutional LSTM [1]_ with 3x3 convolutions, without peepholes.

    References
    ----------
    .. [1] Shi et al., "Convolutional LSTM Network: A Machine Learning Approach for Precipitation
       Nowcasting", NeurIPS 2015.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 4 * channels, 3, padding=1)

    def forward(self, x: Tensor, memory: Memory | None = None) -> Memory:
        """Return the maps that a round gives, of x's shape, and what is kept for the next."""
        given, kept = (torch.zeros_like(x),) * 2 if memory is None else memory
        take, keep, give, new = self.gates(torch.cat([x, given.to(x.dtype)], dim=1)).chunk(4, dim=1)
        # Keeps what it has to begin with, as LSTMs learn better so (Jozefowicz et al., 2015).
        kept = torch.sigmoid(keep + 1) * kept + torch.sigmoid(take) * torch.tanh(new)
        return torch.sigmoid(give) * torch.tanh(kept), kept


class FeedbackUNet(UNet):
    """Feedback U-Net [1]_: two rounds of one U-Net, with a convolutional LSTM between them.

    The first round sees the image alone, the second also the probabilities that the first gave,
    as channels beside the image. A convolutional LSTM is the body at the bottom of the U, so that
    the second round's features start from the first's; which stages hold one is a choice of this
    library. Both rounds have the same weights; the loss is the second's. Parameters as for `UNet`,
    without ``body``.

    References
    ----------
    .. [1] Shibuya and Hotta, "Feedback U-Net for Cell Image Segmentation", CVPR Workshops 2020.

    Examples
    --------
    >>> import torch
    >>> from bloodseg.networks import FeedbackUNet
    >>> FeedbackUNet(width=4).eval()(torch.zeros(1, 3, 50, 70)).shape
    torch.Size([1, 3, 50, 70])
    """

    def __init__(self, n_classes: int = 3, *, in_channels: int = 3, **frame: Any):
        super().__init__(n_classes, in_channels=in_channels, body=_make_body, **frame)
        # The first convolution sees the answer, too.
        first = ConvNormReLU(in_channels + n_classes, self.channels[1])
        self.stages[0] = nn.Sequential(first, *list(self.stages[0].children())[1:])

    def stage_maps(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the maps of the nine stages in the second round, as `UNet.stage_maps` does."""
        x = mirror_to_stride(x)
        memories: list[Memory] = []
        bottom = partial(self._remember, memories)
        no_answer = torch.zeros_like(x[:, :1]).expand(-1, self.head.out_channels, -1, -1)
        (last,) = deque(self._walk(torch.cat([x, no_answer], dim=1), bottom), maxlen=1)
        answer = self.head(last).softmax(dim=1).to(x.dtype)
        yield from self._walk(torch.cat([x, answer], dim=1), bottom)

    def _remember(self, memories: list[Memory], x: Tensor) -> Tensor:
        """Return the maps at the bottom of the U, from the last of the memories on."""
        convolve, lstm = self.stages[4].children()
        memories.append(lstm(convolve(x), memories[-1] if memories else None))
        return memories[-1][0]


def _make_body(position: int, channels: int) -> nn.Module:
    return ConvLSTM(channels) if position == 5 else make_plain_body(position, channels)
