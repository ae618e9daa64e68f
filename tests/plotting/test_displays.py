"""The displays draw what they are given, on the axes they are given; pictures are open to look."""

import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from matplotlib.colors import to_rgb
from messages import raises
from sklearn.pipeline import Pipeline

from bloodseg._images import CLASS_NAMES, colours_of
from bloodseg.cells import find_cells
from bloodseg.datasets import make_smears
from bloodseg.metrics import mean_iou, pixel_accuracy
from bloodseg.plotting import (
    CellSizeDisplay,
    InstanceDisplay,
    SegmentationDisplay,
    ToleranceCurveDisplay,
    TrainingHistoryDisplay,
)
from bloodseg.plotting._pictures import MISSED, difference, legend, overlay, shades

COLOURS = colours_of(CLASS_NAMES)


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    pyplot.close("all")


@pytest.fixture
def smear():
    drawn = make_smears(1, image_size=48, random_state=0)
    return drawn.images[0], drawn.masks[0]


HISTORY = [
    {"train_loss": 1.0, "valid_loss": 0.9, "valid_mean_iou": 0.4, "evaluations_5": 4.0},
    {"train_loss": 0.5, "valid_loss": 0.6, "valid_mean_iou": 0.6, "evaluations_5": 7.0},
]
CELLS = pd.DataFrame(
    {
        "class": ["red", "red", "white", "red"],
        "diameter": [40.0, 42.0, 70.0, 10.0],
        "unit": "um",
        "touches_border": [False, False, False, True],
    }
)


# ---------------------------------------------------------------- segmentation


def test_an_overlay_is_drawn_with_a_legend(smear):
    image, mask = smear
    display = SegmentationDisplay.from_predictions(image, mask)
    cells = find_cells(mask).labels
    assert np.array_equal(display.image_.get_array(), overlay(image, mask, cells))
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["white cells", "red cells"]


def test_cells_that_touch_have_an_outline_each():
    image = np.full((12, 20, 3), 200, np.uint8)
    mask = np.zeros((12, 20), np.uint8)
    mask[2:10, 2:18] = 2
    cells = np.where(np.arange(20) < 10, 1, 2) * (mask > 0)
    dark, light = shades(COLOURS["red"])
    outlined, edged = ((overlay(image, mask, cells) == each).all(axis=-1) for each in (dark, light))
    assert outlined[5].nonzero()[0].tolist() == [2, 9, 10, 17]
    assert edged[5].nonzero()[0].tolist() == [3, 8, 11, 16]
    shared = (overlay(image, mask) == dark).all(axis=-1)
    assert shared[5].nonzero()[0].tolist() == [2, 17]
    assert (overlay(image, mask)[mask == 0] == 200).all()


def luminance(rgb):
    """WCAG 2.2's relative luminance of sRGB in 255ths."""
    c = np.asarray(rgb, float) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


@pytest.mark.parametrize(
    "colour", colours_of(("background", "white", "red", "platelet", *"abcde")).values()
)
def test_an_outline_stands_out_from_whatever_stain(colour):
    dark, light = map(luminance, shades(colour))
    for under in np.linspace(0, 1, 101):  # from black nuclei to burnt-out glass
        contrasts = [
            (max(each, under) + 0.05) / (min(each, under) + 0.05) for each in (dark, light)
        ]
        assert max(contrasts) > 3, under


def test_single_cells_are_drawn_with_their_numbers(smear):
    image, mask = smear
    cells = find_cells(mask)
    display = InstanceDisplay.from_predictions(image, cells, numbers=True)
    assert np.array_equal(
        display.image_.get_array(), overlay(image, mask * (cells.labels > 0), cells.labels)
    )
    assert [text.get_text() for text in display.text_] == [str(i + 1) for i in range(len(cells))]
    x, y = map(round, display.text_[0].get_position())
    assert cells.labels[y, x] == 1
    assert InstanceDisplay.from_predictions(image, cells).text_ == []
    with raises("its labels must have shape (40, 48); got (48, 48)."):
        InstanceDisplay.from_predictions(image[:40], cells)


def test_single_cells_of_an_estimator(fitted, smears):
    display = InstanceDisplay.from_estimator(fitted, smears.images[0])
    (cells,) = fitted.predict_instances(smears.images[:1])
    again = InstanceDisplay.from_predictions(smears.images[0], cells)
    assert np.array_equal(display.image_.get_array(), again.image_.get_array())


def test_an_image_border_is_no_outline():
    mask = np.full((6, 6), 2, np.uint8)
    picture = overlay(np.zeros((6, 6, 3), np.uint8), mask)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 1


def test_a_map_shows_each_class_in_its_colour(smear):
    image, mask = smear
    picture = SegmentationDisplay.from_predictions(image, mask, kind="map").image_.get_array()
    for label, name in ((1, "white"), (2, "red")):
        assert np.array_equal((picture == COLOURS[name]).all(axis=-1), mask == label)


def test_a_difference_marks_nothing_where_the_truth_is_not_known(smear):
    image, truth = smear
    unknown = np.full_like(truth, 255)
    expected = difference(image, truth, truth)
    assert np.array_equal(difference(image, unknown, truth), expected)
    display = SegmentationDisplay.from_predictions(image, truth, unknown, kind="difference")
    assert np.array_equal(display.image_.get_array(), expected)


def test_a_difference_marks_the_wrong_pixels_and_no_others(smear):
    image, truth = smear
    predicted = truth.copy()
    predicted[10:20, 10:20] = 1
    predicted[30:, 30:] = 0
    picture = difference(image, truth, predicted)
    grey = difference(image, truth, truth)
    wrong = truth != predicted
    assert wrong.any()
    assert np.array_equal(picture[~wrong], grey[~wrong])
    assert (grey[..., :1] == grey).all()
    assert difference(image // 4, truth, truth).min() >= 128  # pale, however dark the image
    assert {tuple(colour) for colour in picture[wrong]} == {
        COLOURS["white"],
        MISSED,
    }
    display = SegmentationDisplay.from_predictions(image, predicted, truth, kind="difference")
    assert np.array_equal(display.image_.get_array(), picture)
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["white cells", "red cells", "background"]
    assert display.ax_.get_legend().get_title().get_text() == "taken for"


def test_a_display_predicts(fitted, smears):
    display = SegmentationDisplay.from_estimator(fitted, smears.images[0])
    assert np.array_equal(display.y_pred, fitted.predict(smears.images[:1])[0])


def test_what_a_segmentation_display_refuses(smear):
    image, mask = smear
    with raises("kind must be one of overlay, map, difference; got 'outline'."):
        SegmentationDisplay.from_predictions(image, mask, kind="outline")
    with raises("kind='difference' needs y_true, the label map to compare with."):
        SegmentationDisplay.from_predictions(image, mask, kind="difference")
    with raises("y_pred[0] must have shape (48, 48), as its image has; got (47, 48)."):
        SegmentationDisplay.from_predictions(image, mask[1:])


# ---------------------------------------------------------------- sizes of cells


def test_a_histogram_counts_the_whole_cells_of_each_class():
    display = CellSizeDisplay.from_predictions(CELLS, bins=[0, 30, 60, 90])
    white, red = display.ax_.containers
    assert [bar.get_height() for bar in white] == [0, 0, 1]
    assert [bar.get_height() for bar in red] == [0, 2, 0]
    assert to_rgb(white[0].get_facecolor()) == pytest.approx(np.array(COLOURS["white"]) / 255)
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == [
        "white cells: 1, median 70 micrometres",
        "red cells: 2, median 41 micrometres",
    ]
    assert display.ax_.get_xlabel() == "diameter, micrometres"


def test_the_legend_of_sizes_covers_no_bar():
    display = CellSizeDisplay({"white": [12.0], "red": [7.0, 8.0]}, unit="micrometres").plot()
    display.figure_.canvas.draw()
    legend = display.ax_.get_legend().get_window_extent()
    assert legend.y0 >= display.ax_.get_window_extent().y1


def test_no_cells_are_no_bars():
    display = CellSizeDisplay.from_predictions(CELLS[:0])
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == ["white cells: 0", "red cells: 0"]


def test_a_table_without_diameters_is_refused():
    with raises(
        "cells must have the columns class, diameter, unit, touches_border, as measure gives them; "
        "diameter is missing."
    ):
        CellSizeDisplay.from_predictions(CELLS.drop(columns="diameter"))


def test_pixels_and_micrometres_do_not_mix():
    with raises("cells must all be measured in one unit; got pixels for some and micrometres"):
        CellSizeDisplay.from_predictions(CELLS.assign(unit=["um", "px", "um", "um"]))


def test_the_cells_of_a_model_are_measured():
    estimator = SimpleNamespace(measure=lambda images: CELLS[images])
    display = CellSizeDisplay.from_estimator(estimator, [True, True, False, False])
    assert display.unit == "micrometres"
    assert {name: of.tolist() for name, of in display.diameters.items()} == {
        "white": [],
        "red": [40.0, 42.0],
    }


# ---------------------------------------------------------------- training


def test_a_history_has_a_panel_for_losses_scores_and_evaluations():
    display = TrainingHistoryDisplay.from_predictions(HISTORY, best_epoch=2)
    loss, score, evaluations = display.axes_
    training, validation, kept = loss.lines
    assert training.get_ydata().tolist() == [1.0, 0.5]
    assert validation.get_ydata().tolist() == [0.9, 0.6]
    assert kept.get_xdata() == [2, 2]
    assert score.lines[0].get_ydata().tolist() == [0.4, 0.6]
    assert evaluations.lines[0].get_label() == "position 5"
    assert score.get_title() == "mean IoU"


def test_a_history_of_a_fitted_model(fitted):
    display = TrainingHistoryDisplay.from_estimator(fitted)
    assert display.best_epoch == fitted.best_epoch_
    losses = [row["train_loss"] for row in fitted.history_]
    assert display.axes_[0].lines[0].get_ydata().tolist() == losses


def test_without_validation_there_is_nothing_to_say_of_it():
    display = TrainingHistoryDisplay.from_predictions([{"train_loss": 1.0}])
    (axis,) = display.axes_
    assert [line.get_label() for line in axis.lines] == ["training"]


def test_an_empty_history_is_refused():
    with raises("history must hold at least one epoch; got none."):
        TrainingHistoryDisplay.from_predictions([])


# ---------------------------------------------------------------- tolerances


def test_a_tolerance_curve_of_predictions(smear):
    _, mask = smear
    worse = mask.copy()
    worse[:5] = 0
    display = ToleranceCurveDisplay.from_predictions([mask], {1e-1: [worse], 1e-4: [mask]})
    score, changed = display.axes_
    assert list(score.lines[0].get_xdata()) == [1e-4, 1e-1]
    assert score.lines[0].get_ydata()[0] == 100
    assert score.lines[0].get_ydata()[1] < 100
    assert changed.lines[0].get_ydata().tolist() == pytest.approx([0, 100 * (worse != mask).mean()])
    assert score.get_xscale() == "log"


def test_a_tolerance_curve_takes_platelets_for_background_where_no_map_has_one(smear):
    _, mask = smear
    found = mask.copy()
    found[:5] = 3
    as_background = np.where(found == 3, 0, found)
    classes = ("background", "white", "red", "platelet")
    display = ToleranceCurveDisplay.from_predictions([mask], {1e-2: [found]}, classes=classes)
    assert display.scores == [mean_iou([mask], [as_background])]
    assert ToleranceCurveDisplay.from_predictions([mask], {1e-2: [found]}).scores < display.scores


def test_a_tolerance_curve_of_a_model(fitted, smears):
    given = {"tolerances": (1e-2, 1e-4)}
    display = ToleranceCurveDisplay.from_estimator(
        fitted, smears.images[:2], smears.masks[:2], **given
    )
    assert display.tolerances.tolist() == [1e-4, 1e-2]
    assert len(display.axes_) == 3
    assert display.axes_[0].get_title() == "mean IoU, %"
    display = ToleranceCurveDisplay.from_estimator(
        fitted, smears.images[:1], smears.masks[:1], tolerances=[1e-2], metric=pixel_accuracy
    )
    assert display.axes_[0].get_title() == "pixel accuracy, %"


def test_no_predictions_are_refused():
    with raises("predictions must hold the class maps of at least one tolerance."):
        ToleranceCurveDisplay.from_predictions([], {})


# ---------------------------------------------------------------- axes


def test_axes_that_are_given_are_drawn_on(smear):
    figure, axes = pyplot.subplots(2, 3)
    display = SegmentationDisplay.from_predictions(*smear, ax=axes[0, 0])
    assert display.ax_ is axes[0, 0]
    assert CellSizeDisplay.from_predictions(CELLS, ax=axes[0, 1]).figure_ is figure
    display = TrainingHistoryDisplay.from_predictions(HISTORY, ax=axes[1])
    assert list(display.axes_) == list(axes[1])
    assert len(pyplot.get_fignums()) == 1


def test_too_few_axes_are_refused():
    _, axes = pyplot.subplots(1, 2)
    with raises(
        "ax must hold as many axes as there are panels, 3; got 2. Make them with "
        "matplotlib.pyplot.subplots(1, 3), or pass None."
    ):
        TrainingHistoryDisplay.from_predictions(HISTORY, ax=axes)


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with raises("plots need matplotlib: pip install 'bloodseg[plot]'.", ImportError):
        CellSizeDisplay.from_predictions(CELLS)


def test_the_history_of_a_pipeline():
    step = SimpleNamespace(history_=HISTORY, best_epoch_=2)
    display = TrainingHistoryDisplay.from_estimator(Pipeline([("segment", step)]))
    assert display.best_epoch == 2


FOUR = (*CLASS_NAMES, "platelet")


def test_further_classes_have_colours_and_a_line_in_the_legend(smear):
    image, mask = smear
    mask = np.where(mask == 1, 3, mask)
    mask[:4, :4] = 3
    for kind in ("overlay", "map", "difference"):
        truth = np.zeros_like(mask) if kind == "difference" else None
        display = SegmentationDisplay.from_predictions(image, mask, truth, kind=kind, classes=FOUR)
        texts = [text.get_text() for text in display.ax_.get_legend().get_texts()]
        assert texts[:3] == ["white cells", "red cells", "platelets"]
        colour = shades((0, 158, 115))[0] if kind == "overlay" else (0, 158, 115)
        assert (display.image_.get_array() == colour).all(axis=-1).any()
    with raises("y_pred[0] must hold the labels 0 to 2 (background, white, red); got"):
        SegmentationDisplay.from_predictions(image, mask)


def test_the_legend_of_overlays_names_all_colours():
    assert legend() == "blue: white cells, orange: red cells"
    names = ("background", "red", "platelet", "a", "b", "c", "d")
    assert legend(names) == (
        "orange: red cells, green: platelets, sky blue: a, vermilion: b, yellow: c, "
        "rgb(52, 108, 140): d"
    )


def test_sizes_of_all_classes_are_drawn():
    cells = pd.DataFrame(
        {
            "class": ["red", "platelet", "platelet"],
            "diameter": [40.0, 9.0, 11.0],
            "unit": "px",
            "touches_border": False,
        }
    )
    display = CellSizeDisplay.from_predictions(cells)
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == [
        "white cells: 0",
        "red cells: 1, median 40 pixels",
        "platelets: 2, median 10 pixels",
    ]


def test_sizes_have_the_colours_that_the_classes_have_in_pictures():
    classes = ("background", "blast", "other")  # of the first, no cell is there
    cells = pd.DataFrame(
        {"class": ["other"], "diameter": [40.0], "unit": "px", "touches_border": False}
    )
    estimator = SimpleNamespace(measure=lambda images: cells, class_names_=classes)
    for display in (
        CellSizeDisplay.from_predictions(cells, classes=classes, bins=1),
        CellSizeDisplay.from_estimator(estimator, [], bins=1),
    ):
        assert list(display.diameters) == ["blast", "other"]
        (bar,) = display.ax_.containers[1]
        expected = np.array(colours_of(classes)["other"]) / 255
        assert to_rgb(bar.get_facecolor()) == pytest.approx(expected)
