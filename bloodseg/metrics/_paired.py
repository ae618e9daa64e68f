"""Two predictions of the same images compared: differences of scores, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy import sparse

from .._images import CLASS_NAMES, check_classes
from .._typing import Masks
from ._cells import (
    AVERAGED,
    by_class,
    check_same_number,
    counts_of,
    draw_images,
    interval,
    own_classes,
    scores_of_counts,
)
from ._overlaps import overlaps
from ._pixels import as_masks_know, confusion_matrices, scores_of_each

if TYPE_CHECKING:
    import pandas as pd

_THRESHOLDS = (0.5, *AVERAGED)
_OF_CELLS = ("precision", "recall", "f1", "panoptic_quality", "average_precision", "count_error")


class FoundCells(NamedTuple):
    """What is known of the cells that one model has found in each image.

    Attributes
    ----------
    tables : sequence of sparse array of shape (n_true, n_found)
        What `overlaps` returns.
    classes : sequence of (array-like, array-like), or None
        Classes of the true and of the found cells.
    """

    tables: Sequence[sparse.csr_array]
    classes: Sequence[tuple[Any, Any]] | None


def compare_predictions(
    y_true: Masks,
    first: Masks,
    second: Masks,
    *,
    true_cells: Sequence[Any] | None = None,
    first_cells: Sequence[Any] | None = None,
    second_cells: Sequence[Any] | None = None,
    classes: Sequence[str] = CLASS_NAMES,
    n_resamples: int = 1000,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Compare what two models make of the same images, by pixels and by cells.

    The models are compared image by image: that some images are harder than others makes the
    scores of both vary, and hardly the difference.

    Parameters
    ----------
    y_true : ndarray of shape (n, H, W), or sequence of (H, W) ndarrays
        Label maps; 255 where the class is not known.
    first, second : ndarray of shape (n, H, W), or sequence of (H, W) ndarrays
        Class maps of the two models.
    true_cells, first_cells, second_cells : sequence of `bloodseg.cells.Cells`, or of label images \
or boxes, optional
        The cells of each image, as for `match_cells`: all three, or none. Where all are ``Cells``,
        each class is compared, too, and platelets count as in `cell_report`.
    classes : sequence of str, default=("background", "white", "red")
        Names of the labels.
    n_resamples : int, default=1000
        How often images are drawn anew, with replacement, for the intervals; 0 for none.
    random_state : int, RandomState instance or None, default=0
        Seed of the draws.

    Returns
    -------
    DataFrame
        One row a score: ``of`` ("pixels" or "cells"), ``class`` (a name, or "all"), ``score``
        (of pixels "mean_iou", "pixel_accuracy" and "iou"; of cells "precision", "recall", "f1",
        "panoptic_quality", "average_precision" and "count_error", see `cell_report`), ``first``,
        ``second``, ``difference`` (first less second), ``low`` and ``high``: bounds within which
        95 % of the resamples' differences lie. NaN where a class is not there, and bounds of a
        single image. The bounds say how far other images of the same kind would give another
        difference, not what another training would.

    Raises
    ------
    ValueError
        If an argument is not as described, or the sequences differ in number.

    Examples
    --------
    >>> import numpy as np
    >>> from bloodseg.metrics import compare_predictions
    >>> true = np.zeros((4, 8, 8), int)
    >>> true[:, 2:6, 2:6] = 2
    >>> worse = true.copy()
    >>> worse[:, 2] = 0
    >>> table = compare_predictions(true, true, worse)
    >>> table[["score", "class", "first", "second", "difference"]].round(2).values.tolist()[0]
    ['mean_iou', 'all', 1.0, 0.84, 0.16]
    """
    names = check_classes(classes)
    matrices = [
        confusion_matrices(y_true, found, len(names), name=name)
        for name, found in (("first", first), ("second", second))
    ]
    given = [each is not None for each in (true_cells, first_cells, second_cells)]
    if any(given) and not all(given):
        raise ValueError(
            "true_cells, first_cells and second_cells go together; got some of them. Pass all "
            "three, or none."
        )
    cells = None
    if true_cells is not None and first_cells is not None and second_cells is not None:
        check_same_number(matrices[0], true_cells, "y_true", "true_cells")
        cells = [
            _found(true_cells, found, name)
            for name, found in (("first_cells", first_cells), ("second_cells", second_cells))
        ]
    return paired_table(
        (matrices[0], matrices[1]),
        cells,
        names,
        n_resamples=n_resamples,
        random_state=random_state,
    )


def _found(true: Sequence[Any], found: Sequence[Any], name: str) -> FoundCells:
    check_same_number(true, found, "true_cells", name)
    tables = [overlaps(*pair) for pair in zip(true, found, strict=True)]
    of_true, of_found = own_classes(true), own_classes(found)
    classes = None
    if of_true is not None and of_found is not None:
        classes = list(zip(of_true, of_found, strict=True))
    return FoundCells(tables, classes)


def paired_table(
    matrices: tuple[np.ndarray, np.ndarray],
    cells: Sequence[FoundCells] | None,
    classes: Sequence[str],
    *,
    n_resamples: int = 1000,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Return what `compare_predictions` does, of confusion matrices (n, K, K) and `FoundCells`."""
    import pandas as pd

    times = draw_images(len(matrices[0]), n_resamples, random_state)
    rows = list(_rows_of_pixels(matrices, classes, times))
    if cells is not None:
        rows += _rows_of_cells(cells, times)
    return pd.DataFrame(rows)


def _rows_of_pixels(
    matrices: tuple[np.ndarray, np.ndarray], classes: Sequence[str], times: np.ndarray
) -> list[dict[str, Any]]:
    n_images = len(matrices[0])
    scores = []
    for each in matrices:
        pooled = np.tensordot(times, each, axes=1)
        known = np.array([as_masks_know(one, classes, of_set=pooled[0]) for one in pooled])
        scores.append(scores_of_each(known, classes))
    wanted = [("all", "mean_iou", "mean_iou"), ("all", "pixel_accuracy", "pixel_accuracy")]
    wanted += [(name, "iou", f"iou_{name}") for name in classes]
    return [
        _row("pixels", name, score, scores[0][key], scores[1][key], n_images)
        for name, score, key in wanted
    ]


def _rows_of_cells(cells: Sequence[FoundCells], times: np.ndarray) -> list[dict[str, Any]]:
    # Of a model whose cells have no classes, scores by class would be those of no cells.
    known = all(each.classes is not None for each in cells)
    of_class = [by_class(each.tables, each.classes if known else None) for each in cells]
    names = [name for name in of_class[0] if name != "all"]
    names += [name for name in of_class[1] if name not in of_class[0]]
    rows = []
    for name in (*sorted(names), "all"):
        pair = [_counts(each, name, other) for each, other in (of_class, of_class[::-1])]
        n_images = len(pair[0])
        first, second = (scores_of_counts(counts, times) for counts in pair)
        for score in _OF_CELLS:
            rows.append(_row("cells", name, score, first[score], second[score], n_images))
    return rows


def _counts(
    found: Mapping[Any, Sequence[sparse.csr_array]],
    name: Any,
    other: Mapping[Any, Sequence[sparse.csr_array]],
) -> np.ndarray:
    """Return the counts of a class, of which the other model may be the only one to know cells."""
    if name in found:
        return counts_of(found[name], _THRESHOLDS)
    # No cell is of this class, neither a true one nor one that this model has found.
    return counts_of([sparse.csr_array((0, 0)) for _ in other[name]], _THRESHOLDS)


def _row(
    of: str, name: Any, score: str, first: np.ndarray, second: np.ndarray, n_images: int
) -> dict[str, Any]:
    """Return a row, of scores of all images and of each draw."""
    low, high = interval((first - second)[1:], n_images)
    return {
        "of": of,
        "class": name,
        "score": score,
        "first": float(first[0]),
        "second": float(second[0]),
        "difference": float(first[0] - second[0]),
        "low": low,
        "high": high,
    }
