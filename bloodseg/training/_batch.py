"""How many crops a training step has where "auto" decides: from fixed facts, never a stopwatch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

# What the learning rate was found with, on CPUs, where larger batches are no faster.
_LEAST = 4

# On an H100 the network's step of so many pixels takes 29 ms, launches of small kernels for the
# most part, which one of fewer pixels has as well.
_MOST_PIXELS = 2**19

# Steps an epoch at least, so that small data sets are trained as they are on a CPU.
_STEPS = 64

# A step's memory for each pixel and channel of the first stage, in float32 and with room to spare
# (1.8 kB a pixel were measured at width 32 in bfloat16), and the share of a card that it may take.
_BYTES, _SHARE = 128, 0.5


def choose_batch_size(
    shapes: Sequence[tuple[int, ...]],
    crop_size: int,
    width: int,
    *,
    memory: int | None,
    n_processes: int = 1,
) -> int:
    """Return the crops a step of each process that ``batch_size="auto"`` stands for.

    4 on a CPU. On a card 4, 8, 16 or 32 crops of 128 x 128 and accordingly of other sizes: as many
    as leave an epoch 64 steps and take at most half of its memory.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Of the images: height and width first.
    crop_size, width : int
        As `bloodseg.BloodCellSegmenter` takes them.
    memory : int or None
        Bytes of the card; None for a CPU.
    n_processes : int
        Processes that share the crops of an epoch.

    Returns
    -------
    int

    Examples
    --------
    >>> from bloodseg.training import choose_batch_size
    >>> choose_batch_size([(1024, 1024)] * 20, 128, 32, memory=None)
    4
    >>> choose_batch_size([(1024, 1024)] * 20, 128, 32, memory=80 * 2**30)
    16
    """
    batch = _LEAST
    if memory is None:
        return batch
    n_crops = sum(math.ceil(height * breadth / crop_size**2) for height, breadth, *_ in shapes)
    pixels = min(_MOST_PIXELS, _SHARE * memory / (_BYTES * width))
    most = min(pixels / crop_size**2, n_crops / (_STEPS * n_processes))
    while 2 * batch <= most:
        batch *= 2
    return batch


def scale_learning_rate(learning_rate: float, batch_size: int) -> float:
    """Return the learning rate of a batch where one for 4 crops is given.

    It grows with the root of the batch, as is right for Adam (Malladi et al. [1]_).

    References
    ----------
    .. [1] Malladi et al., "On the SDEs and Scaling Rules for Adaptive Gradient Algorithms", NeurIPS
       2022.
    """
    return learning_rate * math.sqrt(batch_size / _LEAST)


def memory_of(device: torch.device) -> int | None:
    """Return the bytes of a card's memory; None for a CPU."""
    if device.type != "cuda":
        return None
    properties: Any = torch.cuda.get_device_properties(device)
    return int(properties.total_memory)
