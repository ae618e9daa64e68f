"""Scores of cells: found ones matched to true ones, as label images or boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.sparse.csgraph import connected_components
from sklearn.utils import check_random_state

from .._images import PLATELET
from ._overlaps import list_pairs, overlaps
from ._pixels import divide

if TYPE_CHECKING:
    import pandas as pd

AVERAGED = tuple(np.arange(50, 100, 5) / 100)
_PERCENTILES = 2.5, 97.5


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class CellMatch:
    """Found cells matched to true ones, one to one.

    Attributes
    ----------
    pairs : ndarray of shape (tp, 2), int
        Of each match, the place of the true and of the found cell: of boxes the row, of label
        images the place of the label among those that occur, from 0.
    ious : ndarray of shape (tp,), float64
        Intersection over union of each match, in [0, 1].
    n_true, n_found : int
        Numbers of cells.
    """

    pairs: np.ndarray
    ious: np.ndarray
    n_true: int
    n_found: int

    def __repr__(self) -> str:
        """Return the numbers, without the pairs."""
        return f"CellMatch(tp={self.tp}, fp={self.fp}, fn={self.fn}, f1={self.f1:.3f})"

    @property
    def tp(self) -> int:
        """True positives: found cells that match a true one."""
        return len(self.pairs)

    @property
    def fp(self) -> int:
        """False positives: found cells that match none."""
        return self.n_found - self.tp

    @property
    def fn(self) -> int:
        """False negatives: true cells that were not found."""
        return self.n_true - self.tp

    @property
    def precision(self) -> float:
        """Share of found cells that match, in [0, 1]; NaN where none was found."""
        return _ratio(self.tp, self.n_found)

    @property
    def recall(self) -> float:
        """Share of true cells that were found, in [0, 1]; NaN where there is none."""
        return _ratio(self.tp, self.n_true)

    @property
    def f1(self) -> float:
        """2 tp / (2 tp + fp + fn), in [0, 1]; NaN where there are no cells at all."""
        return _ratio(2 * self.tp, self.n_true + self.n_found)

    @property
    def mean_matched_iou(self) -> float:
        """Mean intersection over union of the matches; NaN where there is none."""
        return _ratio(float(self.ious.sum()), self.tp)

    @property
    def panoptic_quality(self) -> float:
        """Sum of the matches' ious over (tp + fp / 2 + fn / 2); NaN where there are no cells."""
        return _ratio(2 * float(self.ious.sum()), self.n_true + self.n_found)


def match_cells(true: Any, found: Any, *, iou: float = 0.5) -> CellMatch:
    """Match the found cells of an image to the true ones, each used once.

    Of all ways to match, one with the most pairs is taken, and of those one with the largest sum of
    intersections over unions.

    Parameters
    ----------
    true, found : array-like of shape (H, W), int, or (n, 4), or Cells
        A label image, 0 where there is no cell; or boxes: top, left, bottom, right (any order that
        has the lower corner first), in pixels, bottom and right excluded; or what
        `bloodseg.cells.find_cells` or ``BloodCellSegmenter.predict_instances`` found. An array of
        four columns is boxes. Of a label image beside boxes, the boxes around its cells are
        matched.
    iou : float, default=0.5
        Intersection over union that a match has at least, above 0 and at most 1.

    Returns
    -------
    CellMatch
        The pairs and their scores.

    Raises
    ------
    ValueError
        If an argument is not as described, or two label images differ in size.

    References
    ----------
    Panoptic quality: Kirillov et al., Panoptic Segmentation, CVPR 2019.

    Examples
    --------
    >>> from bloodseg.metrics import match_cells
    >>> true = [[0, 0, 10, 10], [0, 20, 10, 30]]
    >>> found = [[0, 0, 10, 8], [0, 50, 10, 60], [0, 70, 10, 80]]
    >>> match = match_cells(true, found)
    >>> match.tp, match.fp, match.fn
    (1, 2, 1)
    >>> match.f1, match.mean_matched_iou, match.panoptic_quality
    (0.4, 0.8, 0.32)
    """
    return _matched(overlaps(true, found), _check_iou(iou))


def average_precision(
    true: Sequence[Any], found: Sequence[Any], *, iou: Any = AVERAGED
) -> np.ndarray:
    """Return tp / (tp + fp + fn) over images at each threshold, as StarDist and cellpose do.

    Parameters
    ----------
    true, found : sequence of array-like
        Cells of each image, as for `match_cells`.
    iou : array-like of shape (k,)
        Thresholds, each above 0 and at most 1; by default 0.5, 0.55, ..., 0.95.

    Returns
    -------
    ndarray of shape (k,), float64
        In [0, 1]; NaN where there are no cells. Its mean is the average over thresholds.

    Raises
    ------
    ValueError
        If an argument is not as described, or the two differ in number.

    Examples
    --------
    >>> from bloodseg.metrics import average_precision
    >>> average_precision([[[0, 0, 10, 10]]], [[[0, 0, 10, 8]]], iou=[0.5, 0.9])
    array([1., 0.])
    """
    check_same_number(true, found)
    thresholds = [_check_iou(value) for value in np.atleast_1d(iou).tolist()]
    if not thresholds:
        raise ValueError("iou must hold at least one threshold; got none.")
    tables = [overlaps(*pair) for pair in zip(true, found, strict=True)]
    return _average_precisions(counts_of(tables, thresholds).sum(axis=0))


def cell_report(
    true: Sequence[Any],
    found: Sequence[Any],
    *,
    true_classes: Sequence[Any] | None = None,
    found_classes: Sequence[Any] | None = None,
    iou: float = 0.5,
    n_resamples: int = 1000,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Score the cells of a set of images, class by class, with intervals.

    Parameters
    ----------
    true, found : sequence of array-like
        Cells of each image, as for `match_cells`.
    true_classes, found_classes : sequence of array-like of shape (n,), optional
        Class of each box, or of each label that occurs in ascending order, for each image: numbers
        on both sides, or names. `bloodseg.cells.Cells` know theirs, by name. Where one of the two
        has no classes, all cells are of one class. Where no true cell of any image is a
        "platelet", platelets are not annotated, and those found are left out.
    iou : float, default=0.5
        Intersection over union that a match has at least, above 0 and at most 1.
    n_resamples : int, default=1000
        How often images are drawn anew, with replacement, for the intervals; 0 for none.
    random_state : int, RandomState instance or None, default=0
        Seed of the draws.

    Returns
    -------
    DataFrame
        One row a class, and a last row ``all``, in which classes make no difference. Columns
        ``images``, ``true``, ``found``, ``tp``, ``fp``, ``fn``; ``precision``, ``recall``, ``f1``,
        ``mean_matched_iou``, ``panoptic_quality`` (see `CellMatch`); ``average_precision``, the
        mean over the thresholds 0.5, 0.55, ..., 0.95; ``count_error`` and ``count_bias``, mean of
        the absolute and of the signed difference, found less true, of an image's count. Then the
        bounds within which 95 % of the resamples lie, as ``f1_low``, ``f1_high`` and so on; NaN of
        a single image, which does not tell how much images differ.

    Raises
    ------
    ValueError
        If an argument is not as described, or the sequences differ in number.

    Examples
    --------
    >>> from bloodseg.metrics import cell_report
    >>> true = [[[0, 0, 10, 10], [0, 20, 10, 30]]]
    >>> found = [[[0, 0, 10, 9]]]
    >>> report = cell_report(true, found, true_classes=[["red", "white"]], found_classes=[["red"]])
    >>> report[["class", "tp", "fn", "f1", "count_bias"]].round(2).values.tolist()
    [['red', 1, 0, 1.0, 0.0], ['white', 0, 1, 0.0, -1.0], ['all', 1, 1, 0.67, -1.0]]
    """
    check_same_number(true, found)
    given = true_classes is not None, found_classes is not None
    if true_classes is None:
        true_classes = own_classes(true)
    if found_classes is None:
        found_classes = own_classes(found)
    if (true_classes is None) != (found_classes is None) and any(given):
        raise ValueError(
            "true_classes and found_classes go together; got only one of the two. Pass both, or "
            "neither."
        )
    tables = [overlaps(*pair) for pair in zip(true, found, strict=True)]
    classes = None
    if true_classes is not None and found_classes is not None:
        check_same_number(true_classes, found_classes, "true_classes", "found_classes")
        check_same_number(true, true_classes, "true", "true_classes")
        classes = list(zip(true_classes, found_classes, strict=True))
    return report_of_overlaps(
        tables, classes, iou=iou, n_resamples=n_resamples, random_state=random_state
    )


def report_of_overlaps(
    tables: Sequence[sparse.csr_array],
    classes: Sequence[tuple[Any, Any]] | None = None,
    *,
    iou: float = 0.5,
    n_resamples: int = 1000,
    random_state: Any = 0,
) -> pd.DataFrame:
    """Return what `cell_report` does, of what `overlaps` returns for each image.

    ``classes`` are those of the true and of the found cells of each image.
    """
    import pandas as pd

    times = draw_images(len(tables), n_resamples, random_state)
    thresholds = [_check_iou(iou), *AVERAGED]
    of_class = by_class(tables, classes)
    rows = []
    for name, chosen in of_class.items():
        scores = scores_of_counts(counts_of(chosen, thresholds), times)
        row: dict[str, Any] = {"class": name, "images": len(chosen)}
        row |= {score: int(scores[score][0]) for score in _NUMBERS}
        row |= {score: float(scores[score][0]) for score in _RATES}
        if n_resamples:
            for score in _RATES:
                low, high = interval(scores[score][1:], len(chosen))
                row |= {f"{score}_low": low, f"{score}_high": high}
        rows.append(row)
    return pd.DataFrame(rows)


def interval(values: ArrayLike, n_images: int) -> tuple[float, float]:
    """Return the bounds within which 95 % of the resamples lie, those without a score left out.

    A single image is drawn again and again, and would seem to leave no doubt: it has no bounds.
    """
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    if known.size == 0 or n_images == 1:
        return np.nan, np.nan
    low, high = np.percentile(known, _PERCENTILES)
    return float(low), float(high)


def by_class(
    tables: Sequence[sparse.csr_array], classes: Sequence[tuple[Any, Any]] | None
) -> dict[Any, Sequence[sparse.csr_array]]:
    """Return what `overlaps` returned of each image, for the cells of each class, and of "all".

    Without platelets that were found where no true cell is one: most annotations of blood smears
    leave platelets out.
    """
    of_class: dict[Any, Sequence[sparse.csr_array]] = {}
    if classes is not None:
        sides = [
            tuple(_check_classes(*each) for each in zip(pair, table.shape, strict=True))
            for pair, table in zip(classes, tables, strict=True)
        ]
        if not any(PLATELET in true.tolist() for true, _ in sides):
            kept = [found != PLATELET for _, found in sides]
            tables = [table[:, each] for table, each in zip(tables, kept, strict=True)]
            sides = [(true, found[each]) for (true, found), each in zip(sides, kept, strict=True)]
        names = {name for pair in sides for each in pair for name in each.tolist()}
        if len({isinstance(name, str) for name in names}) > 1:
            raise ValueError(
                "true_classes and found_classes must be names, or numbers, in both; got "
                f"{sorted(names, key=str)}. Put names in place of the numbers."
            )
        for name in sorted(names):
            of_class[name] = [
                table[true == name][:, found == name]
                for table, (true, found) in zip(tables, sides, strict=True)
            ]
    return {**of_class, "all": list(tables)}


def own_classes(images: Sequence[Any]) -> list[Any] | None:
    """Return the names of the classes of `Cells`; None where any image has none."""
    if not all(hasattr(cells, "names") for cells in images):
        return None
    return [cells.names for cells in images]


_NUMBERS = ("true", "found", "tp", "fp", "fn")
_RATES = (
    "precision",
    "recall",
    "f1",
    "mean_matched_iou",
    "panoptic_quality",
    "average_precision",
    "count_error",
    "count_bias",
)


def _matched(table: sparse.csr_array, iou: float) -> CellMatch:
    rows, columns, ious = _list_pairs(table, iou)
    # Most pairs are of cells that fit no other ones; the rest falls into groups apart.
    alone = _are_alone(rows, columns)
    chosen = [np.flatnonzero(alone)]
    chosen += [
        group[_best(rows[group], columns[group], ious[group])]
        for group in _groups(rows, columns, np.flatnonzero(~alone), table.shape)
    ]
    kept = np.sort(np.concatenate(chosen))
    return CellMatch(np.stack([rows[kept], columns[kept]], axis=1), ious[kept], *table.shape)


def _list_pairs(table: sparse.csr_array, iou: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows, columns and values of the pairs that may be matches; no other has a say."""
    rows, columns, ious = list_pairs(table)
    right = ious >= iou
    return rows[right], columns[right], ious[right]


def _are_alone(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return of each pair whether neither of its cells is in another."""
    alone: np.ndarray = (_times(rows) == 1) & (_times(columns) == 1)
    return alone


def _times(numbers: np.ndarray) -> np.ndarray:
    """Return of each number how often it occurs."""
    return np.asarray(np.bincount(numbers, minlength=1)[numbers])


def _groups(
    rows: np.ndarray, columns: np.ndarray, pairs: np.ndarray, shape: tuple[int, int]
) -> list[np.ndarray]:
    """Return the pairs in groups, of which no two have a cell in common."""
    ends = rows[pairs], shape[0] + columns[pairs]
    n_cells = sum(shape)
    linked = sparse.coo_array((np.ones(len(pairs)), ends), shape=(n_cells, n_cells))
    _, group_of_cell = connected_components(linked, directed=False)
    group = group_of_cell[ends[0]]
    in_order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[in_order])) + 1
    return np.split(pairs[in_order], starts)


def _best(rows: np.ndarray, columns: np.ndarray, ious: np.ndarray) -> np.ndarray:
    """Return which of some pairs make the most, and of those the largest sum of ious."""
    (own_rows, i), (own_columns, j) = (
        np.unique(each, return_inverse=True) for each in (rows, columns)
    )
    gain = np.zeros((len(own_rows), len(own_columns)))
    # The number of pairs counts before the sum of what they share.
    gain[i, j] = 1 + ious / (2 * min(gain.shape))
    chosen = np.zeros(gain.shape, bool)
    chosen[linear_sum_assignment(gain, maximize=True)] = True
    return chosen[i, j]


def counts_of(tables: Sequence[sparse.csr_array], thresholds: Sequence[float]) -> np.ndarray:
    """Return an image a row: true, found, sum of the ious at the first threshold, tp at each."""
    rows = [_counts_of_image(table, thresholds) for table in tables]
    return np.array(rows, float).reshape(-1, 3 + len(thresholds))


def _counts_of_image(table: sparse.csr_array, thresholds: Sequence[float]) -> list[float]:
    rows, columns, ious = _list_pairs(table, min(thresholds))
    if _are_alone(rows, columns).all():  # then they are matches at each threshold that they reach
        shared = [ious[ious >= threshold] for threshold in thresholds]
    else:
        shared = [_matched(table, threshold).ious for threshold in thresholds]
    return [*table.shape, shared[0].sum(), *map(len, shared)]


def _average_precisions(counts: np.ndarray) -> np.ndarray:
    """Return the one at each threshold, from sums of the columns of `counts_of`."""
    true, found, _, *right = counts
    return np.array([divide(tp, true + found - tp) for tp in right])


def draw_images(n_images: int, n_resamples: int, random_state: Any) -> np.ndarray:
    """Return how often each image is drawn anew, a resample a row; first all of them once."""
    if not isinstance(n_resamples, Integral) or n_resamples < 0:
        raise ValueError(f"n_resamples must be an integer of at least 0; got {n_resamples!r}.")
    draws = check_random_state(random_state).randint(n_images, size=(n_resamples, n_images))
    times = [np.bincount(draw, minlength=n_images) for draw in draws]
    return np.vstack([np.ones(n_images), *times])


def scores_of_counts(counts: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
    """Return scores of `counts_of`, whose first threshold is the caller's, one for each draw."""
    totals = (times @ counts).T
    true, found, shared, tp = totals[:4]
    errors = counts[:, 1] - counts[:, 0]
    n_images = times.sum(axis=1)
    return {
        "true": true,
        "found": found,
        "tp": tp,
        "fp": found - tp,
        "fn": true - tp,
        "precision": divide(tp, found),
        "recall": divide(tp, true),
        "f1": divide(2 * tp, true + found),
        "mean_matched_iou": divide(shared, tp),
        "panoptic_quality": divide(2 * shared, true + found),
        "average_precision": _average_precisions(totals)[1:].mean(axis=0),
        "count_error": times @ np.abs(errors) / n_images,
        "count_bias": times @ errors / n_images,
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _check_iou(iou: Any) -> float:
    number = isinstance(iou, Real) and not isinstance(iou, bool)
    if not number or not 0 < iou <= 1:
        raise ValueError(f"iou must be a number above 0 and at most 1; got {iou!r}.")
    return float(iou)


def check_same_number(true: Any, found: Any, first: str = "true", second: str = "found") -> None:
    """Raise where two sequences are not about the same images, as far as their number tells."""
    if len(true) != len(found) or len(true) == 0:
        raise ValueError(
            f"{first} and {second} must hold the same number of images, at least one; got "
            f"{len(true)} and {len(found)}. For a single image, pass lists of one."
        )


def _check_classes(classes: Any, n_cells: int) -> np.ndarray:
    array = np.asarray(classes)
    if array.shape != (n_cells,):
        raise ValueError(
            f"true_classes and found_classes must hold one class a cell; got shape {array.shape} "
            f"for {n_cells} cells."
        )
    if "all" in array.tolist():
        raise ValueError(
            "true_classes and found_classes must not hold 'all', which is the row of all cells."
        )
    return array.astype(object)  # in NumPy 1.24 an array of no numbers cannot be compared with text
