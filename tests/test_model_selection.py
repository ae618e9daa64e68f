"""Tolerance curves and the choice of a tolerance, on a model that is not fitted again."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from bloodseg import BloodCellSegmenter, Preprocessor, model_selection
from bloodseg.metrics import mean_iou, pixel_accuracy
from bloodseg.model_selection import choose_tolerance, tolerance_curve


@pytest.fixture
def no_fit(monkeypatch):
    monkeypatch.setattr(BloodCellSegmenter, "fit", lambda *a, **k: pytest.fail("fitted"))


@pytest.fixture
def curve_is(monkeypatch):
    """Make predictions come at given seconds and errors, by tolerance."""

    def set_curve(seconds, errors):
        def predict_at(estimator, X, tolerance, n_repeats=1):
            maps = np.zeros((len(X), 10, 10), np.uint8)
            maps[:, 0, : errors[tolerance]] = 1
            evaluations = np.full(len(X), 12)
            return model_selection.TimedPrediction(maps, seconds[tolerance] * len(X), evaluations)

        monkeypatch.setattr(model_selection, "predict_at", predict_at)

    return set_curve


TRUTH = np.zeros((2, 10, 10), np.uint8)
IMAGES = np.zeros((2, 10, 10, 3), np.uint8)


@pytest.mark.usefixtures("no_fit")
def test_curve(fitted, smears):
    fitted.set_params(predict_ode_tol={4: 1e-2, 5: 1e-2, 6: 1e-1})
    curve = tolerance_curve(fitted, smears.images, smears.masks, [1e-1, 1e-5, 1e-3, 1e-1])
    assert fitted.predict_ode_tol == {4: 1e-2, 5: 1e-2, 6: 1e-1}
    assert curve.tolerances.tolist() == [1e-5, 1e-3, 1e-1]
    assert (np.diff(curve.evaluations) <= 0).all()
    assert curve.evaluations[0] > curve.evaluations[-1]
    assert (curve.seconds > 0).all()
    assert curve.changed[0] == 0
    tightest = fitted.set_params(predict_ode_tol=1e-5).predict(smears.images)
    loosest = fitted.set_params(predict_ode_tol=1e-1).predict(smears.images)
    assert curve.scores[0] == mean_iou(smears.masks, tightest)
    assert curve.scores[-1] == mean_iou(smears.masks, loosest)
    assert curve.changed[-1] == (tightest != loosest).mean()
    blocks = fitted.n_function_evaluations_.values()
    assert curve.evaluations[-1] == sum(counts.mean() for counts in blocks)


def test_curve_leaves_the_tolerance_when_prediction_fails(fitted, smears, monkeypatch):
    def fail(*args):
        raise MemoryError

    monkeypatch.setattr(BloodCellSegmenter, "predict", fail)
    with pytest.raises(MemoryError):
        tolerance_curve(fitted, smears.images, smears.masks)
    assert fitted.predict_ode_tol is None


def test_curve_of_lists_and_another_metric(fitted, odd_smears):
    curve = tolerance_curve(fitted, *odd_smears, [1e-3], metric=pixel_accuracy, n_repeats=2)
    assert curve.scores[0] == pixel_accuracy(odd_smears[1], fitted.predict(odd_smears[0]))


@pytest.mark.usefixtures("no_fit")
def test_pipeline(fitted, smears):
    fitted.set_params(preprocessor=None)
    fitted.preprocessor_ = None
    pipeline = make_pipeline(Preprocessor(), fitted)
    curve = tolerance_curve(pipeline, smears.images, smears.masks, [1e-4, 1e-1])
    enhanced = Preprocessor().transform(smears.images)
    alone = tolerance_curve(fitted, enhanced, smears.masks, [1e-4, 1e-1])
    assert curve.scores.tolist() == alone.scores.tolist()
    chosen = choose_tolerance(pipeline, smears.images, smears.masks, max_drop=1)
    assert pipeline[-1].predict_ode_tol == chosen == 1.0


@pytest.mark.usefixtures("no_fit")
def test_choice_sets_the_tolerance(fitted, smears):
    chosen = choose_tolerance(
        fitted, smears.images, smears.masks, max_drop=1, tolerances=[1e-4, 1e-2], n_repeats=1
    )
    assert chosen == fitted.predict_ode_tol == 1e-2


SECONDS = {1e-4: 3.0, 1e-3: 2.0, 1e-2: 1.0}
ERRORS = {1e-4: 1, 1e-3: 2, 1e-2: 5}


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({"max_drop": 0}, 1e-4),
        ({"max_drop": 0.01}, 1e-3),
        ({"max_drop": 0.5}, 1e-2),
        ({"max_seconds": 3.0}, 1e-4),
        ({"max_seconds": 2.5}, 1e-3),
        ({"max_seconds": 1.0}, 1e-2),
        ({"max_drop": 0.01, "max_seconds": 2.5}, 1e-3),
        ({"max_drop": 0.5, "max_seconds": 2.5}, 1e-2),
    ],
)
def test_choice(fitted, curve_is, budget, expected):
    curve_is(SECONDS, ERRORS)
    options = {"tolerances": [1e-2, 1e-4, 1e-3], "metric": pixel_accuracy, **budget}
    assert choose_tolerance(fitted, IMAGES, TRUTH, **options) == expected
    assert fitted.predict_ode_tol == expected


def test_a_loss_is_one_against_the_tightest(fitted, curve_is):
    curve_is(SECONDS, {1e-4: 2, 1e-3: 1, 1e-2: 2})  # which is not the best
    options = {"tolerances": list(SECONDS), "metric": pixel_accuracy}
    assert choose_tolerance(fitted, IMAGES, TRUTH, max_drop=0, **options) == 1e-2


def test_seconds_are_the_median(fitted, smears, monkeypatch):
    ticks = iter([0, 5, 5, 6, 6, 8])
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(model_selection, "time", clock)
    assert model_selection.predict_at(fitted, smears.images[:1], 1e-2, 3).seconds == 2


def test_no_choice(fitted, curve_is):
    curve_is(SECONDS, ERRORS)
    options = {"tolerances": [1e-2, 1e-4, 1e-3], "metric": pixel_accuracy}
    with pytest.raises(ValueError, match=r"the fastest, 0\.01, takes 1 s an image and loses 0\.04"):
        choose_tolerance(fitted, IMAGES, TRUTH, max_seconds=0.5, **options)
    with pytest.raises(ValueError, match=r"keeps to max_drop=0\.01 and max_seconds=1\.5"):
        choose_tolerance(fitted, IMAGES, TRUTH, max_drop=0.01, max_seconds=1.5, **options)
    assert fitted.predict_ode_tol is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({}, "max_drop or max_seconds must be given; both are None"),
        ({"max_drop": -0.1}, "max_drop must be a finite number of at least 0; got -0.1"),
        ({"max_drop": float("nan")}, "max_drop must be a finite number"),
        ({"max_seconds": "1"}, "max_seconds must be a finite number of at least 0; got '1'"),
        ({"max_drop": 0, "tolerances": []}, r"tolerances must hold at least one number.*got \[\]"),
        ({"max_drop": 0, "tolerances": [0]}, "all positive and finite"),
        ({"max_drop": 0, "tolerances": "paper"}, "got 'paper'"),
        ({"max_drop": 0, "n_repeats": 0}, "n_repeats must be a whole number of at least 1; got 0"),
    ],
)
def test_bad_budgets(fitted, options, text):
    with pytest.raises(ValueError, match=text):
        choose_tolerance(fitted, IMAGES, TRUTH, **options)


def test_estimators_without_a_tolerance(fitted, tiny, smears):
    with pytest.raises(ValueError, match=r"got GridSearchCV\. Of a search, pass its best_estim"):
        tolerance_curve(GridSearchCV(fitted, {}), IMAGES, TRUTH)
    plain = tiny(network="unet", max_epochs=1).fit(smears.images, smears.masks)
    with pytest.raises(ValueError, match="at least one ODE-block; its network has none"):
        tolerance_curve(plain, IMAGES, TRUTH)
    with pytest.raises(ValueError, match="not fitted yet"):
        tolerance_curve(tiny(), IMAGES, TRUTH)
