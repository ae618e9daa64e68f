"""How cells overlap, of label images and boxes: only the pairs that do are held."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage, sparse

_BLOCK_BOXES = 256  # compared at a time with all that reach into their strip of the image
_NOTHING = np.empty((3, 0))


def overlaps(true: Any, found: Any) -> sparse.csr_array:
    """Return the intersection over union of each true (row) with each found cell (column).

    Few of all pairs share anything, and only those are held.
    """
    cells = [_checked(true, "true"), _checked(found, "found")]
    if not any(map(_is_boxes, cells)):
        return _label_overlaps(*cells)
    return _box_overlaps(*(each if _is_boxes(each) else _boxes(each) for each in cells))


def _label_overlaps(true: np.ndarray, found: np.ndarray) -> sparse.csr_array:
    if true.shape != found.shape:
        raise ValueError(
            f"found must have the shape of true, {true.shape}; got {found.shape}. Pass the label "
            "images of one image."
        )
    sizes = [np.bincount(each.ravel(), minlength=1)[1:] for each in (true, found)]
    in_both = (true > 0) & (found > 0)
    pixels = [each[in_both].astype(np.int32) - 1 for each in (true, found)]
    rows, columns, both = list_pairs(_table(np.ones(len(pixels[0]), np.int32), pixels, sizes))
    return _table(both / (sizes[0][rows] + sizes[1][columns] - both), (rows, columns), sizes)


def _box_overlaps(true: np.ndarray, found: np.ndarray) -> sparse.csr_array:
    from_the_top = np.argsort(true[:, 0])
    blocks = [_NOTHING]
    for start in range(0, len(true), _BLOCK_BOXES):
        rows = from_the_top[start : start + _BLOCK_BOXES]
        top, bottom = true[rows, 0].min(), true[rows, 2].max()
        columns = np.flatnonzero((found[:, 0] < bottom) & (found[:, 2] > top))
        a, b = true[rows, np.newaxis], found[columns]
        shared = np.minimum(a[..., 2:], b[:, 2:]) - np.maximum(a[..., :2], b[:, :2])
        both = shared.clip(0).prod(axis=-1)
        sizes = [(each[..., 2:] - each[..., :2]).prod(axis=-1) for each in (a, b)]
        i, j = both.nonzero()
        ious = (both / (sizes[0] + sizes[1] - both))[i, j]
        blocks.append(np.stack([rows[i], columns[j], ious]))
    rows, columns, ious = np.hstack(blocks)
    return _table(ious, (rows.astype(int), columns.astype(int)), (true, found))


def _table(values: np.ndarray, places: Any, cells: Any) -> sparse.csr_array:
    """Return a table of so many rows and columns as there are cells, with sums at each place."""
    table = sparse.coo_array((values, tuple(places)), shape=tuple(map(len, cells))).tocsr()
    table.sum_duplicates()
    return table


def list_pairs(table: sparse.csr_array) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns and values of all pairs in a table of `overlaps`."""
    listed = table.tocoo()
    return listed.row, listed.col, listed.data


def _boxes(labels: np.ndarray) -> np.ndarray:
    places = ndimage.find_objects(labels)
    boxes = [[side.start for side in place] + [side.stop for side in place] for place in places]
    return np.array(boxes, float).reshape(-1, 4)


def _is_boxes(checked: np.ndarray) -> bool:
    return checked.dtype.kind == "f"


def _checked(cells: Any, name: str) -> np.ndarray:
    """Return boxes as floating point, or a label image whose labels have become 1 to n."""
    array = np.asarray(getattr(cells, "labels", cells))
    if array.size == 0 and array.ndim == 1:
        array = array.reshape(0, 4)  # no boxes
    if array.ndim != 2 or array.dtype.kind not in "buif":
        raise ValueError(
            f"{name} must be a label image of shape (H, W) or boxes of shape (n, 4); got shape "
            f"{array.shape} and dtype {array.dtype}. Pass the `labels` of what find_cells returns."
        )
    if array.shape[1] == 4 and not hasattr(cells, "labels"):
        boxes = array.astype(float)
        if not np.isfinite(boxes).all() or (boxes[:, 2:] <= boxes[:, :2]).any():
            raise ValueError(
                f"{name} must hold boxes as top, left, bottom, right, the last two larger than the "
                "first; at least one is not so. Width and height in their place must be added."
            )
        return boxes
    if array.dtype.kind == "f" or (array < 0).any():
        raise ValueError(
            f"{name} must hold labels: integers, 0 where there is no cell; got dtype "
            f"{array.dtype}{'' if array.dtype.kind == 'f' else ' with numbers below 0'}."
        )
    labels = np.unique(array)  # its own inverse takes several times the memory
    return np.searchsorted(labels, array) + np.any(labels[:1] > 0)
