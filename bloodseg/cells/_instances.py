"""Class map in, single cells out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._images import CLASS_NAMES, cell_labels, check_classes, check_masks, counted
from ._blocks import Block, KeptBlocks
from ._frame import EXCLUDED_SIDES, CountingFrame, check_excluded_sides
from ._scale import LEAST_DIAMETER, MOST_DIAMETER, is_diameter, typical_radii


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class Cells:
    """The single cells of an image.

    Attributes
    ----------
    labels : ndarray of shape (H, W), int32
        0 where there is no cell, 1 to n the cells: class by class, each from the top down.
    classes : ndarray of shape (n,), uint8
        Label of the class of cell 1, 2, ...: 1 white, 2 red.
    scores : ndarray of shape (n,), float32
        Mean probability that the network gives a cell's pixels for their class, in [0, 1]; NaN
        where no probabilities were given.
    sides : ndarray of shape (n, 4), bool
        Which sides of the picture a cell touches, so that a part of it may be missing: top, left,
        bottom, right.
    in_frame : ndarray of shape (n,), bool
        Whether a cell counts in the frame.
    frame : CountingFrame
        What densities are counted in.
    class_names : tuple of str
        Names of the labels of classes, from 0 on.
    """

    labels: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    sides: np.ndarray
    in_frame: np.ndarray
    frame: CountingFrame
    class_names: tuple[str, ...] = CLASS_NAMES

    def __repr__(self) -> str:
        """Return the numbers of cells, without the arrays."""
        height, width = self.labels.shape
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items())
        return f"Cells({counts}, in {height} x {width} pixels)"

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def names(self) -> np.ndarray:
        """Name of the class of each cell: ndarray of shape (n,), str."""
        return np.asarray(np.array(self.class_names)[self.classes])

    @property
    def touches_border(self) -> np.ndarray:
        """Whether each cell touches any side of the picture: ndarray of shape (n,), bool."""
        return np.asarray(self.sides.any(axis=1))

    @property
    def counts(self) -> dict[str, int]:
        """Number of cells of each class, by name."""
        return count_classes(self.classes, self.class_names)

    @property
    def counts_in_frame(self) -> dict[str, int]:
        """Number of cells of each class that count in the frame, by name.

        Over ``frame.area``, these are densities, which do not depend on the size of the image.
        """
        return count_classes(self.classes[self.in_frame], self.class_names)

    def _repr_html_(self) -> str:
        """Return what a notebook shows: outlines and counts."""
        from ._export import outlines_of
        from ._html import MOST_OUTLINED, to_html

        few = len(self) <= MOST_OUTLINED
        n_cut = int(self.touches_border.sum())
        return to_html(
            counted(len(self), "cell"),
            outlines_of(self.labels, len(self)) if few else [],
            self.names.tolist(),
            shape=(self.labels.shape[0], self.labels.shape[1]),
            counts=self.counts,
            classes=self.class_names,
            notes=[f"{n_cut} cut by a border"],
        )


def count_classes(classes: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    """Return the number of cells of each class."""
    return {
        name: int(np.count_nonzero(classes == label)) for name, label in cell_labels(names).items()
    }


def find_cells(
    class_map: Any,
    confidence: Any = None,
    *,
    red_cell_diameter: float | None = None,
    excluded_sides: Sequence[str] = EXCLUDED_SIDES,
    classes: Sequence[str] = CLASS_NAMES,
) -> Cells:
    """Find the single cells of a class map.

    A free convex region is one cell, whatever its size and shape. In a clump, the distance to the
    background and votes of the outline for the centre it bends around make a map of scores, whose
    peaks are the seeds of a watershed; two of its pieces that together are of the usual size are
    two cells only if the cut between them ends in notches of the outline or is a neck, and pieces
    of any size are one where cuts end on straight outlines and all together are convex. Lobes of a
    white cell that lie close together are one cell, holes (the pallor of red cells) are filled.
    Specks are left out: what is smaller than an eighth of a typical cell of its class, and what is
    white, lies whole in the picture and is smaller than 0.6 of a red cell.

    These are the rules of the classes named "white" and "red". What hangs together in any other
    class is one cell, unless notches of the outline or a neck part it; cells of less than five
    pixels across are not found. Specks of the class named "platelet" are smaller than a fortieth of
    a typical red cell, where there are red or white ones.

    Parameters
    ----------
    class_map : array-like of shape (H, W)
        Labels, places in ``classes``: by default 0 background, 1 white cells, 2 red cells.
    confidence : array-like of shape (H, W), optional
        Probability of each pixel's class: floating point in [0, 1], or uint8 in 255ths.
    red_cell_diameter : float, optional
        Diameter of a typical red cell in pixels. By default it is found from the class map, up to
        256 pixels.
    excluded_sides : sequence of str, default=("bottom", "right")
        Sides whose cells do not count in the frame (see `CountingFrame`): one of "top" and
        "bottom" and one of "left" and "right"; or none, where all cells are to count.
    classes : sequence of str, default=("background", "white", "red")
        Names of the labels.

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
    names = check_classes(classes)
    (labels,) = check_masks([np.asarray(class_map)], classes=names, name="class_map")
    excluded = check_excluded_sides(excluded_sides)
    radii = typical_radii(labels, red=check_diameter(red_cell_diameter), classes=names)
    checked = _checked_confidence(confidence, labels.shape)
    return assemble(KeptBlocks(labels, radii, names), checked, excluded_sides=excluded)


def check_diameter(diameter: Any) -> float | None:
    """Return half of a diameter."""
    if diameter is None:
        return None
    if not is_diameter(diameter):
        raise ValueError(
            f"red_cell_diameter must be a number of pixels from {LEAST_DIAMETER} to "
            f"{MOST_DIAMETER}; got {diameter!r}. Rescale images with larger or smaller cells."
        )
    return float(diameter) / 2


_NONE = np.empty(0, bool)


def _checked_confidence(confidence: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    if confidence is None:
        return None
    values = np.asarray(confidence)
    if values.shape != shape:
        raise ValueError(
            f"confidence must have the class map's shape {shape}; got {values.shape}. "
            "Of probabilities (H, W, 3), pass .max(axis=-1)."
        )
    if values.dtype == np.uint8:
        return values
    # NaN is within no bounds.
    if values.dtype.kind != "f" or not (values.min() >= 0 and values.max() <= 1):
        found = "" if values.dtype.kind not in "iuf" else f", {values.min():g} to {values.max():g}"
        raise ValueError(
            "confidence must be floating point in [0, 1], or uint8 in 255ths; got dtype "
            f"{values.dtype}{found}. Divide by the number that stands for certainty."
        )
    return values


def assemble(
    blocks: KeptBlocks,
    confidence: Any,
    *,
    excluded_sides: Sequence[str] = EXCLUDED_SIDES,
) -> Cells:
    """Return the cells of a class map, put together from its blocks.

    Parameters
    ----------
    blocks : KeptBlocks
        Of the class map.
    confidence : array-like of shape (H, W) or None
        As for `mean_confidence`.
    excluded_sides : sequence of str
        As for `counting_frame`.
    """
    frame = blocks.frame(excluded_sides)
    labels = np.zeros(blocks.shape, np.int32)
    scores, sides, in_frame = [np.empty(0, np.float32)], [np.empty((0, 4), bool)], [_NONE]

    def look_at(block: Block) -> None:
        scores.append(mean_confidence(block, confidence))
        sides.append(sides_touched(block, blocks))
        in_frame.append(counted_in(frame, block))

    number, order, classes = label_into(labels, blocks, look_at)
    return Cells(
        number[labels],
        classes,
        scores=np.concatenate(scores)[order],
        sides=np.concatenate(sides)[order],
        in_frame=np.concatenate(in_frame)[order],
        frame=frame,
        class_names=blocks.classes,
    )


def label_into(
    labels: Any, blocks: KeptBlocks, look_at: Callable[[Block], object] | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Write provisional labels block by block, and return what gives them their final numbers.

    Parameters
    ----------
    labels : array-like of shape (H, W), int32
        Written to in rectangles of rows and columns.
    blocks : KeptBlocks
        Of the class map.
    look_at : callable, optional
        Is called with each block.

    Returns
    -------
    number : ndarray of shape (1 + m,), int32
        The final label of each provisional one.
    order : ndarray of shape (n,), int
        Place of each final cell among those that blocks own, block after block.
    classes : ndarray of shape (n,), uint8
        Class of each final cell.
    """
    keys, owners = [np.empty((0, 3), np.int64)], [_NONE]
    offset = 0
    for block in blocks:
        piece = block.split.labels[block.core]
        labels[block.place] = np.where(piece > 0, piece + offset, 0)
        keys.append(np.column_stack([block.split.classes, block.split.seeds]))
        owners.append(block.owned)
        if look_at is not None:
            look_at(block)
        offset += len(block.owned)
    return _numbering(np.concatenate(keys), np.concatenate(owners))


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
    """Return the number of cells of each class in a class map of any size."""
    classes = [block.split.classes[block.owned] for block in blocks]
    return count_classes(np.concatenate([*classes, np.empty(0, np.uint8)]), blocks.classes)


def count_in_frame(blocks: KeptBlocks, frame: CountingFrame) -> dict[str, int]:
    """Return how many cells of each class count in the frame."""
    classes = [block.split.classes[block.owned][counted_in(frame, block)] for block in blocks]
    return count_classes(np.concatenate([*classes, np.empty(0, np.uint8)]), blocks.classes)


def counted_in(frame: CountingFrame, block: Block) -> np.ndarray:
    """Return which of the cells that a block owns count in the frame."""
    rows, columns = block.window
    n_cells = int(np.count_nonzero(block.owned))
    return frame.holds(block.owned_labels, n_cells, (rows.start, columns.start))


def mean_confidence(block: Block, confidence: Any) -> np.ndarray:
    """Return the mean confidence of each cell that a block owns, over its pixels of its class."""
    n_cells = np.count_nonzero(block.owned)
    if confidence is None:
        return np.full(n_cells, np.nan, np.float32)
    values = np.asarray(confidence[block.window])
    scale = 255 if values.dtype == np.uint8 else 1
    seen = np.concatenate([[0], block.split.classes]).astype(np.uint8)[block.split.labels]
    own = (seen == block.class_map) & (block.owned_labels > 0)
    labels = block.owned_labels[own]  # of these alone, for bincount copies all to wider types
    sums = np.bincount(labels, weights=values[own], minlength=n_cells + 1)[1:]
    pixels = np.bincount(labels, minlength=n_cells + 1)[1:]
    return (sums / scale / np.maximum(pixels, 1)).astype(np.float32)


def sides_touched(block: Block, blocks: KeptBlocks) -> np.ndarray:
    """Return which sides of the picture each cell that a block owns touches, as `Cells.sides`."""
    labels, (rows, columns) = block.owned_labels, block.window
    shape, outside = blocks.shape, blocks.outside
    no_labels = labels[:0]
    edges = [
        [labels[:1] if rows.start == 0 else no_labels],
        [labels[:, :1] if columns.start == 0 else no_labels],
        [labels[-1:] if rows.stop == shape[0] else no_labels],
        [labels[:, -1:] if columns.stop == shape[1] else no_labels],
    ]
    if outside is not None:
        beyond = np.asarray(outside[rows, columns])
        edges[0].append(labels[1:][beyond[:-1]])
        edges[1].append(labels[:, 1:][beyond[:, :-1]])
        edges[2].append(labels[:-1][beyond[1:]])
        edges[3].append(labels[:, :-1][beyond[:, 1:]])
    touched = np.zeros((np.count_nonzero(block.owned) + 1, len(edges)), bool)
    for side, seen in enumerate(edges):
        for edge in seen:
            touched[edge, side] = True
    return touched[1:]
