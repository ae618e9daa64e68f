"""Scores of cells against hand-worked values; error texts."""

import copy
import itertools
import math
import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from messages import raises
from scipy.optimize import linear_sum_assignment

from bloodseg.cells import find_cells
from bloodseg.datasets import make_smears
from bloodseg.metrics import average_precision, cell_report, match_cells, overlaps


def squares(*corners, side=10, shape=(40, 60)):
    """Return a label image of squares, numbered from 1."""
    labels = np.zeros(shape, int)
    for number, (row, column) in enumerate(corners, start=1):
        labels[row : row + side, column : column + side] = number
    return labels


def test_label_images():
    true = squares((0, 0), (0, 20), (20, 0))
    found = squares((0, 1), (0, 40), (20, 0))
    match = match_cells(true, found)
    assert (match.tp, match.fp, match.fn) == (2, 1, 1)
    assert match.pairs.tolist() == [[0, 0], [2, 2]]
    assert match.ious == pytest.approx([90 / 110, 1])
    assert match.precision == match.recall == match.f1 == pytest.approx(2 / 3)
    assert match.mean_matched_iou == pytest.approx((9 / 11 + 1) / 2)
    assert match.panoptic_quality == pytest.approx((9 / 11 + 1) / 3)
    assert match_cells(true, found, iou=0.9).tp == 1
    assert repr(match) == "CellMatch(tp=2, fp=1, fn=1, f1=0.667)"


def test_labels_need_not_be_consecutive():
    true, found = squares((0, 0), (0, 20)), squares((0, 0), (0, 20)) * 7
    assert match_cells(true, found).pairs.tolist() == [[0, 0], [1, 1]]


def test_labels_may_be_of_any_whole_kind_and_size():
    labels = squares((0, 0), (5, 30))
    large = np.where(labels == 2, 2**40, labels)
    for other in (large, large.astype(np.uint64), labels.astype(">u2"), labels[::-1][::-1]):
        assert match_cells(labels, other).ious.tolist() == [1, 1]
    assert match_cells(labels > 0, labels[:] > 0).n_true == 1
    # Around the cells of a label image are boxes, however large its labels.
    assert match_cells([[0, 0, 10, 10], [5, 30, 15, 40]], large).ious.tolist() == [1, 1]
    # No background anywhere.
    assert match_cells(labels + 1, labels + 7).ious.tolist() == [1, 1, 1]


def test_cells_of_an_image_of_four_columns_are_no_boxes():
    class_map = np.zeros((60, 4), int)
    class_map[10:40] = 2
    cells = find_cells(class_map)
    assert (len(cells), match_cells(cells, cells).tp) == (1, 1)
    assert cell_report([cells], [cells]).iloc[-1]["tp"] == 1


def test_boxes():
    true = [[0, 0, 10, 10], [0, 20, 10, 30]]
    found = [[0, 20, 10, 25], [0, 0, 10, 4]]
    assert overlaps(true, found).toarray() == pytest.approx(np.array([[0, 0.4], [0.5, 0]]))
    match = match_cells(true, found)
    assert match.pairs.tolist() == [[1, 0]]  # an IoU of just the threshold is a match
    assert match_cells(true, found, iou=0.51).tp == 0


def test_boxes_beside_a_label_image():
    labels = squares((0, 0), (5, 30))
    match = match_cells([[0, 0, 10, 10], [5, 30, 15, 41]], labels)
    assert match.ious == pytest.approx([1, 10 / 11])


def test_most_pairs_count_before_their_overlap():
    # The second fits the first best, but then nothing is left for the other.
    true = [[0, 0, 10, 100], [0, 20, 10, 120]]
    found = [[0, 10, 10, 110], [0, -20, 10, 80]]
    match = match_cells(true, found)
    assert match.pairs.tolist() == [[0, 1], [1, 0]]


def test_what_is_no_match_has_no_say_in_the_matching():
    true = [[0, 0, 10, 10], [0, 5, 10, 9]]
    found = [[0, 0, 10, 6], [0, 0, 10, 5.5]]
    # The first true cell makes a pair with either; what is left over would add 1/18 or 1/9.
    assert overlaps(true, found).toarray() == pytest.approx(
        np.array([[0.6, 0.55], [1 / 9, 1 / 18]])
    )
    assert match_cells(true, found, iou=0.5).ious == pytest.approx([0.6])


def test_the_matching_is_the_best_of_all(rng):
    for _ in range(20):
        low = rng.uniform(0, 6, (5, 2))
        true = np.hstack([low, low + rng.uniform(3, 8, (5, 2))])
        found = np.abs(true[:4] + rng.normal(0, 1, (4, 4)))
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        table = overlaps(true, found).toarray()
        best = max(
            (sum(table[r, c] >= 0.3 for c, r in enumerate(rows)),
             sum(table[r, c] for c, r in enumerate(rows) if table[r, c] >= 0.3))
            for rows in itertools.permutations(range(5), 4)
        )  # fmt: skip
        match = match_cells(true, found, iou=0.3)
        assert (match.tp, match.ious.sum()) == pytest.approx(best)


def test_many_cells_of_all_kinds_of_overlap_match_as_in_a_table_of_all_pairs(rng):
    low = rng.uniform(0, 400, (700, 2))
    true = np.hstack([low, low + rng.uniform(5, 60, (700, 2))])
    found = true[rng.permutation(700)[:600]] + rng.normal(0, 4, (600, 4))
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    a = true[:, np.newaxis]
    shared = np.minimum(a[..., 2:], found[:, 2:]) - np.maximum(a[..., :2], found[:, :2])
    both = shared.clip(0).prod(axis=-1)
    sizes = [(each[..., 2:] - each[..., :2]).prod(axis=-1) for each in (a, found)]
    table = both / (sizes[0] + sizes[1] - both)
    assert np.array_equal(overlaps(true, found).toarray(), table)
    for iou in (0.05, 0.3, 0.5, 0.8):
        gain = np.where(table >= iou, 1 + table / 2000, 0)
        rows, columns = linear_sum_assignment(gain, maximize=True)
        kept = table[rows, columns] >= iou
        match = match_cells(true, found, iou=iou)
        assert match.tp == kept.sum()
        assert match.ious.sum() == pytest.approx(table[rows, columns][kept].sum())


def test_memory_goes_by_the_cells_that_overlap():
    # All pairs would be 900 million, 7 GB as numbers; 30,000 overlap.
    corners = np.mgrid[:150, :200].reshape(2, -1).T * 10.0
    boxes = np.hstack([corners, corners + 8])
    labels = np.arange(1, 30_001).reshape(150, 200)
    for cells in (boxes, labels):
        tracemalloc.start()
        match = match_cells(cells, cells)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert match.tp == 30_000
        assert peak < 100e6


@pytest.mark.parametrize("nothing", [[], np.empty((0, 4)), np.zeros((40, 60), int)])
def test_nothing_found_or_nothing_there(nothing):
    cells = [[0, 0, 10, 10]] if np.shape(nothing) != (40, 60) else squares((0, 0))
    match = match_cells(cells, nothing)
    assert (match.tp, match.fp, match.fn, match.recall, match.f1) == (0, 0, 1, 0, 0)
    assert math.isnan(match.precision)
    match = match_cells(nothing, cells)
    assert (match.tp, match.fp, match.fn, match.precision, match.f1) == (0, 1, 0, 0, 0)
    match = match_cells(nothing, nothing)
    assert math.isnan(match.f1)
    assert math.isnan(match.panoptic_quality)


def test_average_precision():
    true = [[[0, 0, 10, 10], [0, 20, 10, 30]], [[0, 0, 10, 10]]]
    found = [[[0, 0, 10, 8], [0, 20, 10, 30]], [[0, 0, 10, 6], [0, 50, 10, 60]]]
    # IoU 0.8, 1 and 0.6; one found cell has no match.
    expected = [3 / 4, 2 / 5, 1 / 6]
    assert average_precision(true, found, iou=[0.6, 0.7, 0.9]) == pytest.approx(expected)
    assert len(average_precision(true, found)) == 10


@pytest.mark.parametrize("shift", [1, 4])  # of cells that fit one other each, or several
def test_scores_over_images_are_those_of_the_matches_of_each(rng, shift):
    thresholds = np.arange(0.5, 1, 0.05)
    corners = [rng.permutation(400)[:60] for _ in range(3)]
    size, wider = np.array([0, 0, 10, 10]), np.array([0, 0, shift, 0])
    true = [np.stack([12 * (c // 20), 12 * (c % 20)] * 2, axis=1) + size for c in corners]
    found = [
        np.vstack([each + rng.integers(0, 2, (60, 1)), each + wider])[: 30 * shift] for each in true
    ]
    expected = []
    for threshold in thresholds:
        matches = [match_cells(*pair, iou=threshold) for pair in zip(true, found, strict=True)]
        tp = sum(match.tp for match in matches)
        expected.append(tp / (180 + 90 * shift - tp))
    assert average_precision(true, found, iou=thresholds) == pytest.approx(expected)
    assert 0 < expected[-1] < expected[0] < 1
    matches = [match_cells(*pair) for pair in zip(true, found, strict=True)]
    report = cell_report(true, found, n_resamples=0).iloc[0]
    total = sum(match.ious.sum() for match in matches)
    assert report.mean_matched_iou == pytest.approx(total / report.tp)


def test_a_report_by_class():
    true = [[[0, 0, 10, 10], [0, 20, 10, 30]], [[0, 0, 10, 10]]]
    found = [[[0, 0, 10, 10], [0, 20, 10, 30]], [[0, 0, 10, 8], [0, 50, 10, 60]]]
    report = cell_report(
        true,
        found,
        true_classes=[["red", "red"], ["white"]],
        found_classes=[["red", "white"], ["white", "red"]],
    ).set_index("class")
    assert report.index.tolist() == ["red", "white", "all"]
    red, white, every = (report.loc[name] for name in report.index)
    assert (red["true"], red["found"], red.tp, red.fp, red.fn) == (2, 2, 1, 1, 1)
    assert (white["true"], white["found"], white.tp) == (1, 2, 1)
    assert (every["true"], every["found"], every.tp, every.images) == (3, 4, 3, 2)
    assert white.mean_matched_iou == pytest.approx(0.8)
    assert (red.count_error, red.count_bias) == (1, 0)
    assert (every.count_error, every.count_bias) == (0.5, 0.5)
    assert every.average_precision == pytest.approx(np.mean([3 / 4] * 7 + [2 / 5] * 3))


def test_platelets_are_left_out_where_none_is_annotated():
    box = [[0, 0, 10, 10]]
    found = [[[0, 0, 10, 10], [20, 20, 24, 24]]] * 2
    of_found = [["red", "platelet"]] * 2
    report = cell_report([box] * 2, found, true_classes=[["red"]] * 2, found_classes=of_found)
    assert report[["class", "found", "fp"]].values.tolist() == [["red", 2, 0], ["all", 2, 0]]
    # One that is annotated, in any of the images, says that they are known.
    true = [box, [[20, 20, 24, 24]]]
    report = cell_report(
        true, found, true_classes=[["red"], ["platelet"]], found_classes=of_found
    ).set_index("class")
    assert report["fp"].to_dict() == {"platelet": 1, "red": 1, "all": 2}


def test_intervals_come_of_drawing_images_anew():
    good, bad = [[0, 0, 10, 10]], [[0, 50, 10, 60]]
    same = cell_report([good] * 5, [good] * 5).iloc[0]
    assert (same.f1_low, same.f1, same.f1_high) == (1, 1, 1)
    mixed = cell_report([good] * 40, [good] * 20 + [bad] * 20).iloc[0]
    # The share of 40 draws, each of two sides: 0.5 with a standard deviation of 0.08.
    assert mixed.f1_low == pytest.approx(0.345, abs=0.03)
    assert mixed.f1_high == pytest.approx(0.655, abs=0.03)
    again = cell_report([good] * 40, [good] * 20 + [bad] * 20).iloc[0]
    assert mixed.equals(again)
    assert "f1_low" not in cell_report([good], [good], n_resamples=0)
    single = cell_report([good], [good]).iloc[0]  # does not tell how much images differ
    assert single.f1 == 1
    assert np.isnan([single.f1_low, single.f1_high, single.count_bias_low]).all()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((np.zeros((4, 5), int), np.zeros((4, 6), int)), "must have the shape of true, (4, 5)"),
        ((np.zeros((4, 5)), np.zeros((4, 5))), "true must hold labels: integers"),
        ((-np.ones((4, 5), int), np.zeros((4, 5), int)), "with numbers below 0"),
        (([[0, 0, 5, 5]], [[3, 3, 3, 5]]), "found must hold boxes as top, left, bottom, right"),
        (([[0, 0, 5, np.nan]], []), "true must hold boxes"),
        ((np.zeros((2, 4, 5)), []), "true must be a label image of shape (H, W) or boxes"),
    ],
)
def test_cells_that_are_none(arguments, text):
    with raises(text):
        match_cells(*arguments)


def test_other_bad_arguments():
    for iou in (0, 1.1, "a", True):
        with raises(f"iou must be a number above 0 and at most 1; got {iou!r}."):
            match_cells([], [], iou=iou)
    with raises("must hold the same number of images, at least one; got 1 and 2."):
        average_precision([[]], [[], []])
    with raises("iou must hold at least one threshold; got none."):
        average_precision([[]], [[]], iou=[])
    box = [[0, 0, 1, 1]]
    with raises("must be names, or numbers, in both; got [2, 'red']. Put names in place of the"):
        cell_report([box], [box], true_classes=[[2]], found_classes=[["red"]])
    with raises("must not hold 'all', which is the row of all cells."):
        cell_report([box], [box], true_classes=[["all"]], found_classes=[["red"]])
    with raises("true_classes and found_classes go together"):
        cell_report([[]], [[]], true_classes=[[]])
    with raises("must hold one class a cell; got shape (2,) for 1 cells."):
        cell_report([[[0, 0, 1, 1]]], [[]], true_classes=[[1, 2]], found_classes=[[]])
    with raises("n_resamples must be an integer of at least 0; got -1."):
        cell_report([[]], [[]], n_resamples=-1)


def test_results_are_compared_as_objects():
    cells = find_cells(make_smears(1, 96, 1, red_cell_diameter=20, white_cells=(1, 1)).masks[0])
    match = match_cells(cells, cells)
    for each in (cells, match):
        again = pickle.loads(pickle.dumps(each))
        assert repr(again) == repr(copy.deepcopy(each)) == repr(each)
        assert len({each, again, each}) == 2
        assert each != again


def test_cells_know_their_labels_and_classes():
    masks = make_smears(2, 96, 1, red_cell_diameter=20, white_cells=(1, 1)).masks
    true, found = ([find_cells(mask) for mask in each] for each in (masks, masks[:, ::-1]))
    for a, b in zip(true, found, strict=True):
        expected = match_cells(a.labels, b.labels)
        assert np.array_equal(match_cells(a, b).pairs, expected.pairs)
        assert match_cells(a, a).f1 == 1
    classes = [[cells.names.tolist() for cells in each] for each in (true, found)]
    labels = [[cells.labels for cells in each] for each in (true, found)]
    report = cell_report(*labels, true_classes=classes[0], found_classes=classes[1])
    assert report["class"].tolist() == ["red", "white", "all"]
    pd.testing.assert_frame_equal(cell_report(true, found), report)
    mixed = cell_report(labels[0], found, true_classes=classes[0])
    pd.testing.assert_frame_equal(mixed, report)
    # Where one side has no classes, all cells are of one.
    assert cell_report(labels[0], found)["class"].tolist() == ["all"]
    assert np.array_equal(average_precision(true, found), average_precision(*labels))


def test_the_number_of_pairs_counts_before_what_they_share():
    # In a row each cell overlaps the next: two pairs share much, or three share little.
    true, found = (
        [[0, start, 10, start + 10] for start in starts] for starts in ((10, 19, 28), (2, 11, 20))
    )
    match = match_cells(true, found, iou=0.1)
    assert match.pairs.tolist() == [[0, 0], [1, 1], [2, 2]]
