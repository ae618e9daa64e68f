"""Scores against scikit-learn, hand-worked cases, error texts and scikit-learn's searches."""

import json
import math
import pickle

import numpy as np
import pytest
import sklearn
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from messages import raises
from sklearn import metrics as sk
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import Pipeline

from bloodseg.metrics import (
    class_pixel_accuracy,
    confusion_matrix,
    dice_per_class,
    iou_per_class,
    mean_dice,
    mean_dice_scorer,
    mean_iou,
    mean_iou_scorer,
    pixel_accuracy,
    pixel_accuracy_scorer,
    scores_from_confusion,
    scores_of_each,
    segmentation_report,
)

# Two images of 2 x 3 pixels, worked by hand.
TRUE = np.array([[[0, 0, 0], [1, 1, 2]], [[2, 2, 2], [2, 0, 0]]])
PRED = np.array([[[0, 0, 1], [1, 2, 2]], [[2, 2, 2], [0, 0, 0]]])
MATRIX = [[4, 1, 0], [0, 1, 1], [1, 0, 4]]


def test_hand_worked_confusion_matrix():
    matrix = confusion_matrix(TRUE, PRED)
    assert matrix.dtype == np.int64
    assert matrix.tolist() == MATRIX


def test_hand_worked_scores():
    assert pixel_accuracy(TRUE, PRED) == 9 / 12
    np.testing.assert_allclose(class_pixel_accuracy(TRUE, PRED), [4 / 5, 1 / 2, 4 / 5])
    # union = row sum + column sum - hits: 5 + 5 - 4, 2 + 2 - 1, 5 + 5 - 4
    np.testing.assert_allclose(iou_per_class(TRUE, PRED), [4 / 6, 1 / 3, 4 / 6])
    assert mean_iou(TRUE, PRED) == pytest.approx(5 / 9)
    np.testing.assert_allclose(dice_per_class(TRUE, PRED), [8 / 10, 2 / 4, 8 / 10])
    assert mean_dice(TRUE, PRED) == pytest.approx(2.1 / 3)


def test_scores_of_each_of_many_matrices(rng):
    matrices = rng.integers(0, 3, (2, 40, 3, 3))
    matrices[..., 0, 0] += 1  # no pixels at all have no scores
    found = scores_of_each(matrices)
    assert np.isnan(found["cpa_white"]).any()
    for index in np.ndindex(2, 40):
        expected = scores_from_confusion(matrices[index])
        assert found.keys() == expected.keys()
        for name, score in expected.items():
            assert found[name][index] == pytest.approx(score, nan_ok=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.float16, np.float32])
def test_counts_of_a_narrow_type_do_not_overflow(dtype):
    largest = np.finfo(dtype).max if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max
    matrix = np.array([[largest, 1], [0, largest]], dtype)
    wide = matrix.astype(float if np.dtype(dtype).kind == "f" else np.int64)
    assert scores_from_confusion(matrix) == scores_from_confusion(wide)
    assert 0.99 < scores_from_confusion(matrix)["mean_dice"] <= 1


def test_a_class_absent_from_both_is_left_out_of_the_means():
    truth, predicted = [[[0, 0], [0, 2]]], [[[0, 0], [2, 2]]]
    np.testing.assert_allclose(iou_per_class(truth, predicted), [2 / 3, np.nan, 1 / 2])
    assert mean_iou(truth, predicted) == pytest.approx((2 / 3 + 1 / 2) / 2)
    np.testing.assert_allclose(dice_per_class(truth, predicted), [4 / 5, np.nan, 2 / 3])
    assert mean_dice(truth, predicted) == pytest.approx((4 / 5 + 2 / 3) / 2)


def test_a_class_predicted_but_absent_from_the_truth_counts_as_zero():
    truth, predicted = [[[0, 0], [0, 0]]], [[[0, 0], [0, 1]]]
    np.testing.assert_allclose(iou_per_class(truth, predicted), [3 / 4, 0, np.nan])
    assert mean_iou(truth, predicted) == 3 / 8
    np.testing.assert_allclose(class_pixel_accuracy(truth, predicted), [3 / 4, np.nan, np.nan])


@pytest.mark.parametrize("label", [0, 1, 2])
def test_perfect_and_useless_predictions_of_one_class(label):
    truth = np.full((1, 3, 4), label)
    assert mean_iou(truth, truth) == mean_dice(truth, truth) == pixel_accuracy(truth, truth) == 1
    wrong = (truth + 1) % 3
    assert mean_iou(truth, wrong) == mean_dice(truth, wrong) == pixel_accuracy(truth, wrong) == 0


label_maps = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6).flatmap(
    lambda shape: st.tuples(
        *[hnp.arrays(np.uint8, shape, elements=st.integers(0, 2)) for _ in range(2)]
    )
)


@given(st.lists(label_maps, min_size=1, max_size=3))
def test_scores_agree_with_scikit_learn(pairs):
    truths, predictions = map(list, zip(*pairs, strict=True))
    true = np.concatenate([truth.ravel() for truth in truths])
    pred = np.concatenate([predicted.ravel() for predicted in predictions])
    present = sorted(set(true) | set(pred))
    matrix = confusion_matrix(truths, predictions)

    np.testing.assert_array_equal(matrix, sk.confusion_matrix(true, pred, labels=[0, 1, 2]))
    assert pixel_accuracy(truths, predictions) == pytest.approx(sk.accuracy_score(true, pred))
    recall = class_pixel_accuracy(truths, predictions)
    np.testing.assert_allclose(
        recall[np.unique(true)], sk.recall_score(true, pred, labels=np.unique(true), average=None)
    )
    balanced = np.mean([(pred[true == k] == k).mean() for k in np.unique(true)])
    assert np.nanmean(recall) == pytest.approx(balanced)
    if len(np.unique(true)) > 1 and set(pred) <= set(true):  # else scikit-learn warns
        assert np.nanmean(recall) == pytest.approx(sk.balanced_accuracy_score(true, pred))
    for ours, mean, theirs in [
        (iou_per_class, mean_iou, sk.jaccard_score),
        (dice_per_class, mean_dice, sk.f1_score),
    ]:
        expected = theirs(true, pred, labels=present, average=None, zero_division=0)
        np.testing.assert_allclose(ours(truths, predictions)[present], expected)
        assert mean(truths, predictions) == pytest.approx(expected.mean())
        assert np.isnan(np.delete(ours(truths, predictions), present)).all()


@given(st.lists(label_maps, min_size=2, max_size=3))
def test_confusion_matrices_add_up_over_images(pairs):
    truths, predictions = map(list, zip(*pairs, strict=True))
    parts = [confusion_matrix([t], [p]) for t, p in pairs]
    np.testing.assert_array_equal(confusion_matrix(truths, predictions), sum(parts))


def test_large_maps_are_counted_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, (2, 2, 17, 13))
    whole = confusion_matrix(truth, predicted)
    monkeypatch.setattr("bloodseg.metrics._pixels._BLOCK_PIXELS", 30)
    np.testing.assert_array_equal(confusion_matrix(truth, predicted), whole)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
@pytest.mark.parametrize("container", [np.asarray, list, tuple])
def test_dtypes_and_containers_give_the_same(dtype, container):
    truth = container(TRUE.astype(dtype))
    assert confusion_matrix(truth, PRED).tolist() == MATRIX


def test_pixels_without_a_label_are_not_counted():
    truth = TRUE.copy()
    truth[0, 0] = 255
    known = truth != 255
    expected = confusion_matrix([TRUE[known][None]], [PRED[known][None]])
    assert confusion_matrix(truth, PRED).tolist() == expected.tolist()
    assert expected.sum() == known.sum() < TRUE.size
    for score in (mean_iou, mean_dice, pixel_accuracy, segmentation_report):
        with raises("y_true must label at least one pixel; all are 255, not known, so that there"):
            score(np.full((1, 2, 2), 255), np.ones((1, 2, 2), int))
    with raises("y_pred[0] must hold the labels 0 to 2 (background, white, red); got"):
        confusion_matrix(truth, truth)


def test_many_classes_do_not_overflow():
    truth = np.arange(255, dtype=np.uint8).reshape(1, 15, 17)
    matrix = confusion_matrix(truth, truth, n_classes=255)
    np.testing.assert_array_equal(matrix, np.eye(255))


def test_report_holds_plain_floats_and_every_score():
    report = segmentation_report(TRUE, PRED)
    assert list(report) == [
        "pixel_accuracy", "mean_iou", "mean_dice",
        "cpa_background", "cpa_white", "cpa_red",
        "iou_background", "iou_white", "iou_red",
        "dice_background", "dice_white", "dice_red",
    ]  # fmt: skip
    assert all(type(value) is float for value in report.values())
    assert json.loads(json.dumps(report)) == report
    assert report == scores_from_confusion(np.array(MATRIX))
    assert report["pixel_accuracy"] == pixel_accuracy(TRUE, PRED)
    assert report["mean_iou"] == mean_iou(TRUE, PRED)
    assert report["mean_dice"] == mean_dice(TRUE, PRED)
    assert report["cpa_white"] == class_pixel_accuracy(TRUE, PRED)[1]
    assert report["iou_red"] == iou_per_class(TRUE, PRED)[2]
    assert report["dice_background"] == dice_per_class(TRUE, PRED)[0]


def test_report_of_other_class_numbers_and_absent_classes():
    report = segmentation_report([[[0, 0]]], [[[0, 0]]], n_classes=2)
    assert report["iou_0"] == 1
    assert math.isnan(report["iou_1"])
    assert math.isnan(report["cpa_1"])


@pytest.mark.parametrize(
    "score",
    [confusion_matrix, pixel_accuracy, class_pixel_accuracy, iou_per_class, mean_iou,
     dice_per_class, mean_dice, segmentation_report],
)  # fmt: skip
@pytest.mark.parametrize(
    ("truth", "predicted", "text"),
    [
        (TRUE[0], PRED, "y_true must be a batch (n, H, W) or a list of label maps (H, W); got one "
         "array of shape (2, 3). Pass [y_true] if it is a single label map."),
        (TRUE, PRED + 1, "y_pred[0] must hold the labels 0 to 2 (background, white, red); got "
         "1, 2, 3. Map your labels to these first."),
        (TRUE - 1, PRED, "y_true[0] must hold the labels 0 to 2"),
        (TRUE, PRED[:1], "y_pred must hold one class map for each in y_true; got 1 for 2. Pass "
         "the predictions of the same images, in the same order."),
        (TRUE, [PRED[0], PRED[1].T], "y_pred[1] must have the shape of y_true[1], (2, 3); got "
         "(3, 2). Pass the predictions of the same images, in the same order."),
        (TRUE, PRED[:, :, :2], "y_pred[0] must have the shape of y_true[0], (2, 3); got (2, 2)."),
        ([], [], "y_true must hold at least one label map"),
    ],
)  # fmt: skip
def test_bad_maps_are_refused_in_words(score, truth, predicted, text):
    with raises(text):
        score(truth, predicted)


@pytest.mark.parametrize("n_classes", [0, -3, 257, 2.5, None])
def test_bad_class_numbers_are_refused_in_words(n_classes):
    with raises(f"n_classes must be an integer from 1 to 255; got {n_classes!r}. The default"):
        mean_iou(TRUE, PRED, n_classes=n_classes)


@pytest.mark.parametrize(
    ("matrix", "text"),
    [
        ([1, 2], "matrix must have shape (n_classes, n_classes); got (2,). Pass what"),
        ([[1, 2]], "matrix must have shape (n_classes, n_classes); got (1, 2)."),
        ([[1, -1], [0, 1]], "matrix must hold counts of pixels: finite numbers, none below 0, not "
         "all 0 (as they are where every pixel is labelled 255); got [[1, -1], [0, 1]]. Pass what "
         "confusion_matrix returns."),
        ([[1, np.nan], [0, 1]], "matrix must hold counts of pixels"),
        ([[0, 0], [0, 0]], "matrix must hold counts of pixels"),
        ([["a", "b"], ["c", "d"]], "matrix must hold counts of pixels"),
    ],
)  # fmt: skip
def test_bad_matrices_are_refused_in_words(matrix, text):
    with raises(text):
        scores_from_confusion(matrix)


class Threshold(BaseEstimator):
    """Predict red where an image is brighter than ``level``."""

    def __init__(self, level=0.5):
        self.level = level

    def fit(self, X, y):
        return self

    def predict(self, X):
        return [np.where(image > self.level, 2, 0) for image in X]


@pytest.fixture
def images_of_several_sizes():
    rng = np.random.default_rng(0)
    images = [rng.random((4 + k, 9 - k)) for k in range(6)]
    return images, [np.where(image > 0.3, 2, 0) for image in images]


@pytest.mark.parametrize(
    ("scorer", "score"),
    [
        (mean_iou_scorer, mean_iou),
        (pixel_accuracy_scorer, pixel_accuracy),
        (mean_dice_scorer, mean_dice),
    ],
)
def test_scorers_work_on_lists_of_any_sizes(scorer, score, images_of_several_sizes):
    images, masks = images_of_several_sizes
    folds = cross_val_score(Threshold(0.5), images, masks, scoring=scorer, cv=3)
    expected = [
        score(masks[k : k + 2], Threshold(0.5).predict(images[k : k + 2])) for k in (0, 2, 4)
    ]
    np.testing.assert_allclose(folds, expected)
    assert (folds < 1).all()


class KnowsPlatelets(Threshold):
    """Finds a platelet wherever `Threshold` finds a red cell that is bright."""

    def fit(self, X, y):
        self.class_names_ = ("background", "white", "red", "platelet")
        return self

    def predict(self, X):
        return [np.where(image > 0.9, 3, np.where(image > self.level, 2, 0)) for image in X]


@pytest.mark.parametrize(
    ("scorer", "score"),
    [
        (mean_iou_scorer, mean_iou),
        (pixel_accuracy_scorer, pixel_accuracy),
        (mean_dice_scorer, mean_dice),
    ],
)
def test_scorers_take_platelets_for_background_where_no_mask_has_one(
    scorer, score, images_of_several_sizes
):
    images, masks = images_of_several_sizes
    model = KnowsPlatelets().fit(images, masks)
    as_background = [np.where(found == 3, 0, found) for found in model.predict(images)]
    expected = score(masks, as_background)
    pipeline = Pipeline([("same", "passthrough"), ("model", model)])
    search = GridSearchCV(pipeline, {"model__level": [0.5]}, cv=2, scoring=scorer, refit=True)
    search.fit(images, masks)
    for estimator in (model, pipeline, search):
        assert scorer(estimator, images, masks) == pytest.approx(expected)
    both = cross_validate(model, images, masks, cv=[([0], range(6))], scoring={"a": scorer})
    assert both["test_a"] == pytest.approx([expected])
    # Where one mask has a platelet, they know them.
    known = [*masks[:-1], np.where(images[-1] > 0.9, 3, masks[-1])]
    assert scorer(model, images, known) == pytest.approx(
        score(known, model.predict(images), n_classes=4)
    )
    assert str(pickle.loads(pickle.dumps(scorer))) == str(scorer)


def test_grid_search_finds_the_threshold(images_of_several_sizes):
    search = GridSearchCV(Threshold(), {"level": [0.1, 0.3, 0.5]}, scoring=mean_iou_scorer, cv=2)
    search.fit(*images_of_several_sizes)
    assert search.best_params_ == {"level": 0.3}
    assert search.best_score_ == 1


def test_a_weight_is_how_often_an_image_counts(images_of_several_sizes):
    images, masks = images_of_several_sizes
    found = Threshold(0.5).predict(images)
    often = [0, 0, 1, 3, 3, 3]
    repeated = [masks[i] for i in often], [found[i] for i in often]
    weights = [2, 1, 0, 3, 0, 0]
    for score in (mean_iou, mean_dice, pixel_accuracy, segmentation_report, iou_per_class):
        weighted = score(masks, found, sample_weight=weights)
        np.testing.assert_equal(weighted, score(*repeated))
    with raises("sample_weight must hold one finite weight, not negative, for each of 6 images"):
        mean_iou(masks, found, sample_weight=[1, 2])
    with raises("y_true must label at least one pixel; all are 255, not known, or of images with"):
        mean_iou(masks, found, sample_weight=np.zeros(6))


def test_scorers_take_sample_weight(images_of_several_sizes):
    images, masks = images_of_several_sizes
    weights = np.array([1.0, 0, 2, 1, 1, 0])
    with sklearn.config_context(enable_metadata_routing=True):
        folds = cross_validate(
            Threshold(0.5),
            images,
            masks,
            cv=2,
            scoring=mean_iou_scorer.set_score_request(sample_weight=True),
            params={"sample_weight": weights},
            error_score="raise",
        )["test_score"]
    expected = [
        mean_iou(masks[k], Threshold(0.5).predict(images[k]), sample_weight=weights[k])
        for k in (slice(0, 3), slice(3, 6))
    ]
    np.testing.assert_allclose(folds, expected)
