"""Class map in, single cells out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from .._images import CLASS_NAMES, check_masks
from ._blocks import Block, KeptBlocks
from ._scale import LEAST, MOST, is_diameter, typical_radii


@dataclass(frozen=True)
class Cells:
    """The single cells of an image.

    Attributes
    ----------
    labels : ndarray of shape (H, W), int32
        0 where there is no cell, 1 to n the cells: white ones first, each class from the top down.
    classes : ndarray of shape (n,), uint8
        Class of cell 1, 2, ...: 1 white, 2 red.
    scores : ndarray of shape (n,), float32
        Mean probability that the network gives a cell's pixels for their class, in [0, 1]; NaN
        where no probabilities were given.
    touches_border : ndarray of shape (n,), bool
        Whether a cell reaches the border of the image, so that a part of it may be missing.
    """

    labels: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    touches_border: np.ndarray

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def counts(self) -> dict[str, int]:
        """Number of cells of each class, by name."""
        return count_classes(self.classes)


def count_classes(classes: np.ndarray) -> dict[str, int]:
    """Return the number of white and of red cells."""
    return {
        name: int(np.count_nonzero(classes == label))
        for label, name in enumerate(CLASS_NAMES)
        if label
    }


def find_cells(
    class_map: Any, confidence: Any = None, *, red_cell_diameter: float | None = None
) -> Cells:
    """Find the single cells of a class map.

    A free convex region is one cell, whatever its size and shape. In a clump, the distance to the
    background and votes of the outline for the centre it bends around make a map of scores, whose
    peaks are the seeds of a watershed; two of its pieces that together are of the usual size are
    two cells only if the cut between them ends in notches of the outline or is a neck. Lobes of a
    white cell that lie close together are one cell, holes (the pallor of red cells) are filled, and
    specks smaller than an eighth of a typical red cell are left out.

    Parameters
    ----------
    class_map : array-like of shape (H, W)
        0 background, 1 white cells, 2 red cells.
    confidence : array-like of shape (H, W), optional
        Probability of each pixel's class: floating point in [0, 1], or uint8 in 255ths.
    red_cell_diameter : float, optional
        Diameter of a typical red cell in pixels. By default it is found from the class map, up to
        256 pixels.

    Returns
    -------
    Cells

    Raises
    ------
    ValueError
        If an argument is not as described.

    Examples
    --------
    Two discs that overlap are two cells:

    >>> import numpy as np
    >>> from bloodseg.cells import find_cells
    >>> y, x = np.mgrid[:60, :100]
    >>> disc = lambda column: (y - 30) ** 2 + (x - column) ** 2 < 20**2
    >>> cells = find_cells(2 * (disc(35) | disc(62)))
    >>> cells.counts
    {'white': 0, 'red': 2}
    """
    (labels,) = check_masks([np.asarray(class_map)], name="class_map")
    radii = typical_radii(labels, red=check_diameter(red_cell_diameter))
    return assemble(KeptBlocks(labels, radii), _checked_confidence(confidence, labels.shape))


def check_diameter(diameter: Any) -> float | None:
    """Return half of a diameter."""
    if diameter is None:
        return None
    if not is_diameter(diameter):
        raise ValueError(
            f"red_cell_diameter must be a number of pixels from {LEAST} to {MOST}; got "
            f"{diameter!r}. "
            "Rescale images with larger or smaller cells."
        )
    return float(diameter) / 2


def _checked_confidence(confidence: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    if confidence is None:
        return None
    values = np.asarray(confidence)
    if values.shape != shape:
        raise ValueError(
            f"confidence must have the class map's shape {shape}; got {values.shape}. "
            "Of probabilities (H, W, 3), pass .max(axis=-1)."
        )
    return values


def assemble(blocks: KeptBlocks, confidence: Any, *, outside: Any = None) -> Cells:
    """Return the cells of a class map, put together from its blocks."""
    labels = np.zeros(blocks.shape, np.int32)
    number, classes, scores, touches_border = label_into(
        labels, blocks, confidence, outside=outside
    )
    return Cells(number[labels], classes, scores, touches_border)


def label_into(
    labels: Any, blocks: KeptBlocks, confidence: Any, *, outside: Any = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Write provisional labels block by block, and return what gives them their final numbers.

    Parameters
    ----------
    labels : array-like of shape (H, W), int32
        Written to in rectangles of rows and columns.
    blocks : KeptBlocks
        Of the class map.
    confidence : array-like of shape (H, W) or None
        As for `mean_confidence`.
    outside : array-like of shape (H, W), bool, optional
        What is no picture.

    Returns
    -------
    number, classes, scores, touches_border : ndarray
        The final label of each provisional one, and what `Cells` has of the final cells.
    """
    keys, owners = [np.empty((0, 3), np.int64)], [np.empty(0, bool)]
    scores, borders = [np.empty(0, np.float32)], [np.empty(0, bool)]
    offset = 0
    for block in blocks:
        piece = block.split.labels[block.core]
        labels[block.place] = np.where(piece > 0, piece + offset, 0)
        keys.append(np.column_stack([block.split.classes, block.split.seeds]))
        owners.append(block.owned)
        scores.append(mean_confidence(block, confidence))
        borders.append(at_border(block, blocks.shape, outside))
        offset += len(block.owned)
    number, order, classes = _numbering(np.concatenate(keys), np.concatenate(owners))
    return number, classes, np.concatenate(scores)[order], np.concatenate(borders)[order]


def _numbering(keys: np.ndarray, owned: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give the cells, as class and seed, their final numbers.

    A cell near a seam is seen by several blocks. All know its seed, and one owns it.

    Returns
    -------
    number : ndarray of shape (1 + len(keys),), int32
        Final label of each label given so far.
    order : ndarray of shape (n,), int
        Place of each final cell among those that are owned.
    classes : ndarray of shape (n,), uint8
        Class of each final cell.
    """
    mine = keys[owned]
    order = np.lexsort(mine.T[::-1])
    final = {tuple(key): place + 1 for place, key in enumerate(mine[order].tolist())}
    number = [0, *(final.get(tuple(key), 0) for key in keys.tolist())]
    return np.array(number, np.int32), order, mine[order, 0].astype(np.uint8)


def count_cells(blocks: KeptBlocks) -> dict[str, int]:
    """Return the number of white and of red cells in a class map of any size."""
    classes = [block.split.classes[block.owned] for block in blocks]
    return count_classes(np.concatenate([*classes, np.empty(0, np.uint8)]))


def mean_confidence(block: Block, confidence: Any) -> np.ndarray:
    """Return the mean confidence of each cell that a block owns, over its pixels of its class."""
    n_cells = np.count_nonzero(block.owned)
    if confidence is None:
        return np.full(n_cells, np.nan, np.float32)
    rows, columns = block.window
    values = np.asarray(confidence[rows])[:, columns]
    scale = 255 if values.dtype == np.uint8 else 1
    own = np.concatenate([[0], block.split.classes])[block.split.labels] == block.class_map
    labels = np.where(own, block.owned_labels, 0).ravel()
    sums = np.bincount(labels, weights=values.ravel(), minlength=n_cells + 1)[1:]
    pixels = np.bincount(labels, minlength=n_cells + 1)[1:]
    return (sums / scale / np.maximum(pixels, 1)).astype(np.float32)


def at_border(block: Block, shape: tuple[int, int], outside: Any = None) -> np.ndarray:
    """Return which of the cells that a block owns reach the border of the image or its picture."""
    labels = block.owned_labels
    edges = [
        labels.take(place, axis)
        for axis, window in enumerate(block.window)
        for place, at in ((0, window.start == 0), (-1, window.stop == shape[axis]))
        if at
    ]
    if outside is not None:
        rows, columns = block.window
        beyond = np.asarray(outside[rows])[:, columns].astype(np.uint8)
        edges.append(labels[cv2.dilate(beyond, np.ones((3, 3), np.uint8)) > 0])
    touching = np.zeros(np.count_nonzero(block.owned) + 1, bool)
    touching[np.concatenate([*edges, [0]])] = True
    return touching[1:]
