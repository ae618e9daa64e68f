"""Two predictions compared: values, intervals, and what is refused."""

import numpy as np
import pytest
from messages import raises

from bloodseg.cells import find_cells
from bloodseg.datasets import make_smears
from bloodseg.metrics import (
    cell_report,
    compare_predictions,
    paired_table,
    segmentation_report,
)

SMEARS = make_smears(6, image_size=96, red_cell_diameter=24, white_cells=(1, 2), random_state=0)
TRUE = list(SMEARS.masks)


def eroded(masks, share, seed):
    """Return label maps with a share of their pixels made background."""
    rng = np.random.default_rng(seed)
    return [np.where(rng.random(mask.shape) < share, 0, mask) for mask in masks]


@pytest.fixture(scope="module")
def predictions():
    return eroded(TRUE, 0.02, 1), eroded(TRUE, 0.2, 2)


@pytest.fixture(scope="module")
def cells():
    """True cells, and those of maps of which one lacks a quarter of each image."""
    less = [np.where(np.arange(96)[:, np.newaxis] < 24, 0, mask) for mask in TRUE]
    return [[find_cells(mask) for mask in masks] for masks in (TRUE, TRUE, less)]


@pytest.fixture(scope="module")
def table(predictions, cells):
    return compare_predictions(
        TRUE,
        *predictions,
        true_cells=cells[0],
        first_cells=cells[1],
        second_cells=cells[2],
        n_resamples=200,
    )


def test_scores_are_those_of_each_model_alone(table, predictions, cells):
    of_pixels = table[table["of"] == "pixels"]
    names = ["mean_iou", "pixel_accuracy", "iou_background", "iou_white", "iou_red"]
    for column, predicted in zip(("first", "second"), predictions, strict=True):
        report = segmentation_report(TRUE, predicted)
        alone = [report["mean_iou"], report["pixel_accuracy"]]
        iou = [report[f"iou_{name}"] for name in ("background", "white", "red")]
        assert of_pixels[column].tolist() == pytest.approx(alone + iou)
    assert [*of_pixels["score"][:2], *("iou_" + of_pixels["class"][2:])] == names
    for column, found in (("first", cells[1]), ("second", cells[2])):
        report = cell_report(cells[0], found, n_resamples=0).set_index("class")
        of_cells = table[table["of"] == "cells"]
        assert set(of_cells["class"]) == {"white", "red", "all"}
        for row in of_cells.to_dict("records"):
            assert row[column] == pytest.approx(report.loc[row["class"], row["score"]], nan_ok=True)
    assert np.allclose(table["difference"], table["first"] - table["second"], equal_nan=True)


def test_intervals_are_of_the_same_images_drawn_for_both(table, predictions):
    draws = np.random.RandomState(0).randint(6, size=(200, 6))
    differences = []
    for draw in draws:
        scores = [
            segmentation_report([TRUE[i] for i in draw], [masks[i] for i in draw])["mean_iou"]
            for masks in predictions
        ]
        differences.append(scores[0] - scores[1])
    row = table.iloc[0]
    assert [row["low"], row["high"]] == pytest.approx(np.percentile(differences, [2.5, 97.5]))
    assert row["low"] > 0  # the second is clearly worse
    cells = table[(table["of"] == "cells") & (table["class"] == "all")].set_index("score")
    assert cells.loc["recall", "low"] > 0
    assert cells.loc["count_error", "high"] < 0


def test_the_other_way_round_and_nothing_between(predictions, table):
    first, second = predictions
    turned = compare_predictions(TRUE, second, first, n_resamples=200)
    of_pixels = table[table["of"] == "pixels"]
    assert turned["difference"].tolist() == pytest.approx((-of_pixels["difference"]).tolist())
    assert turned["low"].tolist() == pytest.approx((-of_pixels["high"]).tolist())
    same = compare_predictions(TRUE, first, first, n_resamples=50)
    assert (same[["difference", "low", "high"]] == 0).all(axis=None)


@pytest.mark.parametrize(("one", "other"), [("first", "second"), ("second", "first")])
def test_cells_of_a_class_that_one_model_alone_has_found(cells, one, other):
    none = [find_cells(np.where(mask == 1, 2, mask)) for mask in TRUE]
    red = [find_cells(np.where(mask == 1, 0, mask)) for mask in TRUE]
    found = {f"{one}_cells": cells[0], f"{other}_cells": none}
    table = compare_predictions(TRUE, TRUE, TRUE, true_cells=red, **found, n_resamples=20)
    white = table[table["class"].eq("white") & table["of"].eq("cells")].set_index("score")
    assert white.loc["precision", one] == 0
    assert np.isnan(white.loc["precision", other])
    assert white.loc["count_error", one] > white.loc["count_error", other] == 0


def test_label_images_without_classes_and_one_image(predictions):
    instances = list(SMEARS.instances)
    cells = {"true_cells": instances, "first_cells": instances, "second_cells": instances}
    table = compare_predictions(TRUE, *predictions, **cells, n_resamples=5)
    assert set(table[table["of"] == "cells"]["class"]) == {"all"}
    # What one model alone tells the classes of cannot be compared by class.
    cells |= {f"{of}_cells": [find_cells(mask) for mask in TRUE] for of in ("true", "second")}
    table = compare_predictions(TRUE, *predictions, **cells, n_resamples=5)
    assert set(table[table["of"] == "cells"]["class"]) == {"all"}
    one = compare_predictions(TRUE[:1], *(masks[:1] for masks in predictions))
    assert one[["low", "high"]].isna().all(axis=None)
    without = compare_predictions(TRUE, *predictions, n_resamples=0)
    assert without[["low", "high"]].isna().all(axis=None)
    assert without["difference"].iloc[0] > 0


@pytest.mark.filterwarnings("error")
def test_draws_without_a_labelled_pixel_are_left_out():
    true = np.full((3, 4, 4), 255)
    true[0] = 0
    found = np.zeros((3, 4, 4), int)
    row = compare_predictions(true, found, found).iloc[0]
    assert (row["first"], row["difference"], row["low"], row["high"]) == (1, 0, 0, 0)


def test_platelets_that_no_label_map_holds_count_as_background():
    four = ("background", "white", "red", "platelet")
    found = [mask.copy() for mask in TRUE]
    for mask in found:
        mask[:4, :4][mask[:4, :4] == 0] = 3
    table = compare_predictions(TRUE, found, TRUE, classes=four, n_resamples=10)
    assert table["difference"].iloc[0] == 0


def test_draws_know_the_platelets_that_the_whole_set_knows():
    # In each of two images a fifth of the pixels is no platelet, as the first model has it.
    right = np.stack([np.diag([3, 1, 0, 1]), np.diag([4, 1, 0, 0])])
    wrong = right.copy()
    wrong[:, 0, 0] -= 1
    wrong[:, 0, 3] += 1
    four = ("background", "white", "red", "platelet")
    table = paired_table((wrong, right), None, four, n_resamples=50).set_index("score")
    found = table.loc["pixel_accuracy", ["difference", "low", "high"]].tolist()
    assert found == pytest.approx([-0.2] * 3)


def test_what_is_refused(predictions):
    first, second = predictions
    with raises("second must hold one class map for each in y_true; got 5 for 6."):
        compare_predictions(TRUE, first, second[:5])
    with raises("first[1] must have the shape of y_true[1], (96, 96); got (95, 96)."):
        compare_predictions(TRUE, [first[0], first[1][1:], *first[2:]], second)
    with raises("true_cells, first_cells and second_cells go together; got some of them."):
        compare_predictions(TRUE, first, second, true_cells=SMEARS.instances)
    cells = {"true_cells": SMEARS.instances, "first_cells": SMEARS.instances}
    with raises("true_cells and second_cells must hold the same number of images, at least one"):
        compare_predictions(TRUE, first, second, **cells, second_cells=SMEARS.instances[:2])
    with raises("n_resamples must be an integer of at least 0; got -1."):
        compare_predictions(TRUE, first, second, n_resamples=-1)
    with raises("y_true must label at least one pixel; all are 255, not known"):
        compare_predictions([np.full((4, 4), 255)], [np.zeros((4, 4))], [np.zeros((4, 4))])
