"""Annotated folders of whatever kind, image by image: label maps, and single cells where known."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._files import expanded
from ._annotated import load_annotated
from ._files import (
    MASK_SUFFIXES,
    check_class_map,
    check_labels_known,
    class_of,
    group_by_stem,
    named_in,
    read_rows,
)
from ._folder import Pair, list_pairs, read_pair
from ._instances import read_instances_of

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


class TrueCells(NamedTuple):
    """The annotated cells of an image.

    Attributes
    ----------
    cells : ndarray of shape (H, W), int, or (n, 4), float64
        A label image, 0 where there is no cell; or boxes: top, left, bottom, right.
    classes : ndarray of shape (n,), str
        Name of the class of each box, or of each label in ascending order.
    """

    cells: np.ndarray
    classes: np.ndarray


class Annotated(NamedTuple):
    """An image and what is known of it, to be read when its turn comes.

    ``read`` returns the image (H, W, 3), its label map (H, W), and its `TrueCells` or None.
    """

    name: str
    read: Callable[[], tuple[np.ndarray, np.ndarray, TrueCells | None]]


def list_annotated(
    path: str | os.PathLike,
    *,
    classes: Sequence[str],
    on_error: Callable[[str, Exception], object],
) -> list[Annotated]:
    """List the images of an annotated folder, sorted by name.

    Parameters
    ----------
    path : str or path-like
        What `load_annotated` loads. Images with label maps are read one by one; their single cells
        are known where the folder also holds ``instances/NAME.png`` (label images, 0 where there is
        no cell; the label map tells their classes) or ``boxes.csv`` (columns image, class, xmin,
        ymin, xmax, ymax; an image without rows has no cells).
    classes : sequence of str
        Names of the labels.
    on_error : callable
        As for `list_pairs`.
    """
    folder = expanded(path)
    if not (folder / "masks").is_dir():
        return _of_loaded(load_annotated(folder, classes=classes))
    pairs = list_pairs(folder, on_error=on_error)
    if (folder / "instances").is_dir():
        files = group_by_stem(folder / "instances", MASK_SUFFIXES)
        cells: Any = partial(_read_instances, files, classes)
    elif (folder / "boxes.csv").exists():
        boxes = _read_boxes(folder / "boxes.csv", [pair.name for pair in pairs], classes)
        cells = partial(_boxes_of, boxes)
    else:
        cells = _unknown
    return [Annotated(pair.name, partial(_read, pair, classes, cells)) for pair in pairs]


def _read(
    pair: Pair, classes: Sequence[str], cells: Callable[[Pair, np.ndarray], TrueCells | None]
) -> tuple[np.ndarray, np.ndarray, TrueCells | None]:
    image, mask = read_pair(pair, classes=classes)
    return image, mask, cells(pair, mask)


def _unknown(pair: Pair, mask: np.ndarray) -> None:
    return None


def _boxes_of(boxes: Mapping[str, TrueCells], pair: Pair, mask: np.ndarray) -> TrueCells:
    return boxes[pair.name]


def _read_instances(
    files: Mapping[str, list[Path]],
    classes: Sequence[str],
    pair: Pair,
    mask: np.ndarray,
) -> TrueCells:
    labels, of_cells = read_instances_of(pair.name, files, mask, pair.mask, len(classes))
    return TrueCells(labels, np.array(classes)[of_cells])


def _read_boxes(file: Path, names: Sequence[str], classes: Sequence[str]) -> dict[str, TrueCells]:
    """Return the boxes of each image; of classes that are background, none."""
    rows = read_rows(file)
    wanted = ("image", "class", *_CORNERS)
    if rows and not set(wanted) <= rows[0].keys():
        header = ", ".join(map(str, rows[0]))
        raise ValueError(f"{file} must have the columns {', '.join(wanted)}; got {header}.")
    known = check_class_map(None, classes, name="class")
    check_labels_known((row["class"] or "" for row in rows), known, classes, name=f"{file}, class")
    boxes: dict[str, list[list[float]]] = {name: [] for name in names}
    labels: dict[str, list[int]] = {name: [] for name in names}
    for line, row in enumerate(rows, start=2):
        name = named_in(boxes, row["image"] or "")
        label = class_of(row["class"] or "", known)
        if name not in boxes or not label:
            continue
        left, top, right, bottom = (_number(row[corner]) for corner in _CORNERS)
        if not (left < right and top < bottom):  # NaN, too
            raise ValueError(
                f"{file}, row {line} must have numbers with xmin < xmax and ymin < ymax; got "
                f"{', '.join(str(row[corner]) for corner in _CORNERS)}."
            )
        boxes[name].append([top, left, bottom, right])
        labels[name].append(label)
    if rows and names and not any(named_in(boxes, row["image"] or "") in boxes for row in rows):
        raise ValueError(
            f"{file} must have rows about images of the folder, such as {names[0]!r}; the first "
            f"of its {len(rows)} rows is about {rows[0]['image']!r}, and none is about one of them."
        )
    return {name: _of_boxes(boxes[name], labels[name], classes) for name in names}


def _number(text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _of_boxes(boxes: Any, labels: Any, classes: Sequence[str]) -> TrueCells:
    names = np.array(classes)[np.array(labels, np.intp)]
    return TrueCells(np.array(boxes, np.float64).reshape(-1, 4), names)


def true_cells_of(labels: np.ndarray, mask: np.ndarray, classes: Sequence[str]) -> TrueCells:
    """Return the cells of a label image (H, W), each of one class in the label map (H, W)."""
    numbers, first = np.unique(labels, return_index=True)
    return TrueCells(labels, np.array(classes)[mask.ravel()[first[numbers > 0]]])


def _of_loaded(data: Any) -> list[Annotated]:
    annotated = []
    for index, name in enumerate(data.names):
        mask, cells = data.masks[index], None
        if "boxes" in data:
            labels = data.labels[index]
            boxes = np.asarray(data.boxes[index])[:, [1, 0, 3, 2]]
            cells = _of_boxes(boxes[labels > 0], labels[labels > 0], data.target_names)
        elif data.instances is not None:
            cells = true_cells_of(data.instances[index], mask, data.target_names)
        annotated.append(Annotated(name, partial(tuple, (data.images[index], mask, cells))))
    return annotated
