"""From images to class maps and cells: whole or in tiles, in memory or by strips on disk."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch import nn
from tqdm import tqdm

from .._files import ArrayFile
from .._images import STRIDE, ScaledRows, blended, check_images, unscaled
from ..cells import Cells, check_pixel_size
from ..cells._instances import assemble, count_cells, label_into
from ..cells._measure import measure_blocks
from ..cells._scale import typical_radius
from ..datasets import Slide, open_slide
from ..networks import image_tensor
from ..preprocessing import EnhancedRows, Preprocessor
from ._doubts import doubts
from ._magnification import weigh_answer

logger = logging.getLogger("bloodseg")

# "auto": images of more pixels than this go through the network in tiles of these sides.
_WHOLE_PIXELS = 2**20
_SIDES = {"cpu": 512, "cuda": 1024}
_OVERLAPS = (96, 128)  # pixels: a quarter of a tile's side within these, if it has room
_MIN_SIDE = 64


@dataclass(eq=False)  # joblib wants it hashable
class TileNetwork:
    """A network as a function of pixels, which can be sent to other processes.

    Attributes
    ----------
    network : Module
        In evaluation mode; from images (n, 3, H, W) in [0, 1] to logits (n, 3, H, W).
    device : device
        Where it runs.
    """

    network: nn.Module
    device: torch.device

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, dict[int, int]]:
        """Return logits (3, h, w) and the evaluations of f at each position."""
        with torch.inference_mode():
            logits = self.network(image_tensor(pixels)[None].to(self.device))
        blocks: dict[int, Any] = getattr(self.network, "ode_blocks", {})
        counts = {position: int(block.n_evaluations[0]) for position, block in blocks.items()}
        return logits[0].float().cpu().numpy(), counts


@dataclass
class Segmentation:
    """What one call of ``predict`` needs for each of its images.

    Attributes
    ----------
    network : TileNetwork
        The network.
    side : int, "auto" or None
        Side of the tiles.
    verbose : int
        1 shows a progress bar for images in tiles.
    counts : list of dict
        Evaluations of f for each image so far; of an image in tiles, the most of any tile.
    """

    network: TileNetwork
    side: Any
    verbose: int = 0
    counts: list[dict[int, int]] = field(default_factory=list)

    def logits(self, image: Any, factor: float = 1.0) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Yield the logits (3, h, w) of an image block by block, with the block's place.

        The network sees the image scaled by the factor.
        """
        if factor == 1:
            return self._logits(image)
        scaled = ScaledRows(image, factor)
        return unscaled(self._logits(scaled), scaled.shape, image.shape)

    def _logits(self, image: Any) -> Iterator[tuple[slice, slice, np.ndarray]]:
        height, width = image.shape[:2]
        side = tile_side(self.side, image.shape, self.network.device)
        most: dict[int, int] = {}
        with said_of(len(self.counts), image):
            if side is None:
                logits, most = self.network(np.asarray(image[:height]))
                yield slice(0, height), slice(0, width), logits
            else:
                overlap = min(max(side // 4, _OVERLAPS[0]), _OVERLAPS[1], side // 2)
                overlap = overlap // STRIDE * STRIDE
                blocks = blended(image, self.network, side=side, overlap=overlap)
                for rows, columns, logits, counts in self._watched(blocks, height):
                    most = {key: max(n, most.get(key, 0)) for key, n in counts.items()}
                    yield rows, columns, logits
        self.counts.append(most)

    def _watched(self, blocks: Iterable[Any], height: int) -> Iterator[Any]:
        done = 0
        with tqdm(total=height, unit="row", desc="tiles", disable=not self.verbose) as bar:
            for block in blocks:
                yield block
                bar.update(block[0].stop - done)
                done = block[0].stop

    def maps(self, image: Any, factor: float = 1.0, *, on_disk: bool = False) -> tuple[Any, Any]:
        """Return the class map of an image, and the probability of each pixel's class in 255ths.

        The network sees the image scaled by the factor.
        """
        shape = image.shape[:2]
        make = ArrayFile if on_disk else np.zeros
        class_map, confidence = make(shape, np.uint8), make(shape, np.uint8)
        for rows, strips in _in_strips(self.logits(image, factor), shape[1]):
            for array, strip in zip((class_map, confidence), strips, strict=True):
                array[rows, slice(0, shape[1])] = strip
        return class_map, confidence

    def sureness(self, pixels: np.ndarray, diameter: float) -> float:
        """Return how far what the network sees in a small image speaks for its size."""
        return weigh_answer(softmax(self.network(pixels)[0], axis=0), diameter)

    def evaluations(self) -> dict[int, np.ndarray]:
        """Return the evaluations at each position, one number an image."""
        positions = self.counts[0] if self.counts else {}
        return {key: np.array([of_image[key] for of_image in self.counts]) for key in positions}


@contextmanager
def said_of(
    index: int, image: Any, cure: str = "use a smaller tile_size, or a narrower network"
) -> Iterator[None]:
    """Turn torch's way to run out of memory into a MemoryError that names image and cure."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if not any(sign in text for sign in ("allocate memory", "enough memory", "out of memory")):
            raise
        height, width = image.shape[:2]
        raise MemoryError(
            f"images[{index}] of {height} x {width} pixels does not fit into memory; {cure}."
        ) from error


def _in_strips(blocks: Iterable[Any], width: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Turn logits block by block into classes and confidences by whole strips (2, h, W)."""
    strip = None
    for rows, columns, logits in blocks:
        if strip is None:
            strip = np.empty((2, rows.stop - rows.start, width), np.uint8)
        best = logits.max(axis=0)
        strip[0, :, columns] = logits.argmax(axis=0)
        strip[1, :, columns] = np.rint(255 / np.exp(logits - best).sum(axis=0))
        if columns.stop == width:
            yield rows, strip
            strip = None


def tile_side(side: Any, shape: tuple[int, ...], device: torch.device) -> int | None:
    """Return the side of the tiles for an image, None where it goes through the network whole."""
    check_tile_size(side)
    height, width = shape[:2]
    if side is None:
        return None
    if side == "auto":
        return _SIDES.get(device.type, 512) if height * width > _WHOLE_PIXELS else None
    return int(side) if max(height, width) > side else None


def check_tile_size(side: Any) -> None:
    """Raise a ValueError where tiles of this side cannot be."""
    if side is None or side == "auto":
        return
    whole = isinstance(side, Integral) and not isinstance(side, bool)
    if not whole or side < _MIN_SIDE or side % STRIDE:
        raise ValueError(
            f"tile_size must be 'auto', None, or a multiple of {STRIDE} of at least {_MIN_SIDE}; "
            f"got {side!r}."
        )


@dataclass(frozen=True)
class Segmented:
    """An image and what the network says of it; arrays, or files read by rows."""

    name: Any
    image: Any
    class_map: Any
    confidence: Any
    pixel_size: float | None
    expected_diameter: float | None = None
    guessed_diameter: bool = False

    @cached_property
    def radius(self) -> float | None:
        """Radius of a typical red cell, in pixels."""
        return typical_radius(self.class_map, self.expected_diameter)

    @property
    def mean_confidence(self) -> float:
        """Mean probability of the pixels' classes, in [0, 1]."""
        height = self.class_map.shape[0]
        strips = (np.asarray(self.confidence[top : top + 512]) for top in range(0, height, 512))
        return sum(int(strip.sum(dtype=np.int64)) for strip in strips) / (
            255 * height * self.class_map.shape[1]
        )

    def doubts(self) -> list[str]:
        """Return why the image is perhaps no stained smear in focus, in words; none if it is."""
        return doubts(
            self.image,
            self.class_map,
            self.confidence,
            self.expected_diameter,
            guessed=self.guessed_diameter,
        )

    def cells(self) -> Cells:
        """Return the single cells."""
        return assemble(self.class_map, self.confidence, self.radius)

    def count(self) -> dict[str, Any]:
        """Return a row of the table of counts."""
        row: dict[str, Any] = {"image": self.name, **count_cells(self.class_map, self.radius)}
        if self.pixel_size is not None:
            height, width = self.class_map.shape
            area = height * width * self.pixel_size**2 / 1e6
            row |= {"area_mm2": area}
            row |= {f"{name}_per_mm2": row[name] / area for name in ("white", "red")}
        return row | {"confidence": self.mean_confidence}

    def measure(self, *, outlines: bool = False) -> Any:
        """Return the table of this image's cells."""
        table = measure_blocks(
            self.class_map,
            self.confidence,
            self.image,
            self.radius,
            pixel_size=self.pixel_size,
            outlines=outlines,
        )
        table.insert(0, "image", self.name)
        return table


def check_sources(images: Any) -> list[tuple[Any, Any]]:
    """Return images, each with what tables call it: its path, or its place in the batch.

    Files are there, but not read yet: see `opened`.
    """
    if _is_file(images):
        images = [images]
    of_numbers = isinstance(images, np.ndarray) and images.dtype.kind in "buif"
    if isinstance(images, Iterator) or (hasattr(images, "__len__") and not of_numbers):
        images = list(images)  # also arrays and series of paths, or what Path.glob gives
    if of_numbers or not isinstance(images, list) or not any(map(_is_file, images)):
        return list(enumerate(check_images(images)))
    sources: list[tuple[Any, Any]] = []
    for index, item in enumerate(images):
        if not _is_file(item):
            sources.append((index, check_images([item], name=f"images[{index}]")[0]))
        elif isinstance(item, Slide):
            sources.append((item.name, _checked(item)))
        elif Path(item).expanduser().exists():
            sources.append((str(item), Path(item)))
        else:
            raise FileNotFoundError(f"{item} does not exist.")
    return sources


def opened(source: Any) -> Any:
    """Return the slide in a file; what is an array or open already as it is."""
    return _checked(open_slide(source)) if isinstance(source, Path) else source


def _checked(slide: Slide) -> Slide:
    check_images([slide[:1]], name=slide.name)  # what it holds; the rest as it is read
    return slide


def _is_file(item: Any) -> bool:
    return isinstance(item, (str, os.PathLike, Slide))


def pixel_size_of(source: Any, given: float | None) -> float | None:
    """Return the side of an image's pixels in micrometres: as given, or as its file says."""
    check_pixel_size(given)
    return getattr(source, "pixel_size", None) if given is None else given


def prepared_rows(preprocessor: Any, slide: Slide) -> Any:
    """Return a slide as the preprocessor gives it, read by strips of rows."""
    if preprocessor is None:
        return slide
    if type(preprocessor) is Preprocessor:
        return EnhancedRows(preprocessor, slide)
    warnings.warn(
        f"{type(preprocessor).__name__} sees {slide.name} strip by strip, for it is read so; where "
        "it depends on the whole image, results differ from those for the image as an array.",
        stacklevel=2,
    )
    return _TransformedRows(preprocessor, slide)


class _TransformedRows:
    """A slide through any transformer of images, strip by strip."""

    def __init__(self, transformer: Any, slide: Slide):
        self.shape = slide.shape
        self._transformer = transformer
        self._slide = slide

    def __getitem__(self, rows: slice) -> np.ndarray:
        return check_images(self._transformer.transform([self._slide[rows]]))[0]


@dataclass(frozen=True)
class LabelRows:
    """The label image of a class map of any size: made on disk, read by strips of rows."""

    labels: ArrayFile
    number: np.ndarray

    @classmethod
    def of(cls, segmented: Segmented) -> LabelRows:
        """Find the cells and write their labels."""
        labels = ArrayFile(segmented.class_map.shape, np.int32)
        number, *_ = label_into(labels, segmented.class_map, None, segmented.radius)
        return cls(labels, number)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.labels.shape

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.number[self.labels[rows]]
