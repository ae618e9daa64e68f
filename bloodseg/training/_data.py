"""Crops for training and blocks for validation, cut from images of any sizes; whole images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from .._images import LazyImage, made_ahead
from ..networks import image_tensor

# Side of the blocks that validation images are cut into: bounds the memory of a validation step.
VALIDATION_BLOCK = 512

Item = tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]


def _make_item(image: np.ndarray, mask: np.ndarray, weight: float) -> Item:
    labels = torch.from_numpy(mask.astype(np.int64))
    return image_tensor(image), (labels, torch.tensor(weight, dtype=torch.float32))


class TrainingCrops(Dataset):
    """Random square crops: as many an epoch as cover the images' area once.

    A crop depends on the seed, the epoch and its own number only, so neither the order of the
    crops nor an interruption changes it.

    Parameters
    ----------
    images, masks : sequences
        Checked images, arrays or lazy ones, and label maps.
    weights : ndarray of shape (n,)
        Weight of each image in the loss.
    crop_size : int
        Side of the crops in pixels; smaller images are mirrored to it.
    seed : int
        Seed of the crops' places and order.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray | LazyImage],
        masks: Sequence[np.ndarray],
        weights: np.ndarray,
        *,
        crop_size: int,
        seed: int,
    ):
        self.images, self.masks, self.weights = images, masks, weights
        self.crop_size, self.seed = crop_size, seed
        self.epoch = 0
        crops = [int(np.ceil(mask.size / crop_size**2)) for mask in masks]
        self._image_of_crop = np.repeat(np.arange(len(images)), crops)

    def __len__(self) -> int:
        return len(self._image_of_crop)

    def __getitem__(self, number: int) -> Item:
        index = self._image_of_crop[number]
        mask = self.masks[index]
        rng = np.random.default_rng((self.seed, self.epoch, int(number)))
        spans = [self._choose_span(side, rng) for side in mask.shape]
        image, mask = self._cut(self.images[index], spans), self._cut(mask, spans)
        return _make_item(image, mask, self.weights[index])

    def _choose_span(self, side: int, rng: np.random.Generator) -> slice:
        """Return a random crop along an axis: all of it where it is short."""
        start = int(rng.integers(max(side - self.crop_size, 0) + 1))
        return slice(start, min(start + self.crop_size, side))

    def _cut(self, array: np.ndarray | LazyImage, spans: Sequence[slice]) -> np.ndarray:
        """Return the pixels of a crop, mirrored where the array is smaller than that."""
        # By slices: to gather pixels by their indices takes a hundred times as long.
        crop = array[tuple(spans)]
        missing = [self.crop_size - (span.stop - span.start) for span in spans]
        if not any(missing):
            return crop
        padding = [(each // 2, each - each // 2) for each in missing]
        return np.pad(crop, [*padding, *[(0, 0)] * (crop.ndim - 2)], "symmetric")


class WholeImages(Dataset):
    """Whole images with the numbers of cells in them.

    Parameters
    ----------
    images : sequence
        Checked images, arrays or lazy ones.
    counts : sequence of ndarray of shape (n_counts,)
        Cells in each image.
    weights : ndarray of shape (n,)
        Weight of each image in the loss.
    seed : int
        Seed of the images' order.
    """

    def __init__(
        self,
        images: Sequence[np.ndarray | LazyImage],
        counts: Sequence[np.ndarray],
        weights: np.ndarray,
        *,
        seed: int,
    ):
        self.images, self.counts, self.weights, self.seed = images, counts, weights, seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> Item:
        target = self.counts[number], self.weights[number]
        counts, weight = (torch.as_tensor(each, dtype=torch.float32) for each in target)
        return image_tensor(self.images[number][...]), (counts, weight)


class EpochSampler(Sampler[int]):
    """A new order of crops or images every epoch, fixed by seed and epoch."""

    def __init__(self, data_source: TrainingCrops | WholeImages):
        self.data = data_source

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.data.seed, self.data.epoch))
        return iter(rng.permutation(len(self.data)).tolist())


class SameSizeBatches(BatchSampler):
    """Batches of images of one size each, filled in a sampler's order.

    Parameters
    ----------
    sampler : EpochSampler
        Gives the order of the images.
    sizes : sequence of hashable
        Size of each image.
    batch_size : int
        Images to a batch; the last of each size may hold fewer.
    """

    def __init__(self, sampler: EpochSampler, sizes: Sequence[Hashable], batch_size: int):
        super().__init__(sampler, batch_size, drop_last=False)
        self.sizes = sizes

    def __len__(self) -> int:
        return sum(-(-count // self.batch_size) for count in Counter(self.sizes).values())

    def __iter__(self) -> Iterator[list[int]]:
        waiting: dict[Hashable, list[int]] = defaultdict(list)
        for number in self.sampler:
            batch = waiting[self.sizes[number]]
            batch.append(number)
            if len(batch) == self.batch_size:
                yield waiting.pop(self.sizes[number])
        yield from waiting.values()


class LoadedAhead(DataLoader):
    """A loader that prepares the next batch, in a thread, while one is being learned from."""

    def __iter__(self) -> Any:
        return made_ahead(super().__iter__())


def _cut_side(side: int) -> list[slice]:
    """Cut a side into as few about equal parts as the size of a block allows: no slivers."""
    ends = np.linspace(0, side, -(-side // VALIDATION_BLOCK) + 1).astype(int)
    return [slice(start, stop) for start, stop in pairwise(ends)]


class ValidationBlocks(Dataset):
    """The images as they are, large ones cut into blocks; every pixel once."""

    def __init__(
        self,
        images: Sequence[np.ndarray | LazyImage],
        masks: Sequence[np.ndarray],
        weights: np.ndarray,
    ):
        self.images, self.masks, self.weights = images, masks, weights
        self._blocks = [
            (index, (rows, columns))
            for index, mask in enumerate(masks)
            for rows in _cut_side(mask.shape[0])
            for columns in _cut_side(mask.shape[1])
        ]

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, number: int) -> Item:
        index, block = self._blocks[number]
        return _make_item(self.images[index][block], self.masks[index][block], self.weights[index])
