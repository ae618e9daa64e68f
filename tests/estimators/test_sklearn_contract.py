"""The segmenter in scikit-learn's Pipelines, searches and cross-validation."""

import pickle

import joblib
import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.utils import get_tags

from bloodseg import BloodCellSegmenter, Preprocessor
from bloodseg.metrics import mean_dice_scorer, mean_iou_scorer, pixel_accuracy_scorer


def test_tags():
    tags = get_tags(BloodCellSegmenter(random_state=0))
    assert tags.estimator_type is None
    assert not tags.input_tags.two_d_array
    assert tags.input_tags.three_d_array
    assert tags.target_tags.required
    assert not tags.non_deterministic
    assert tags.requires_fit
    assert get_tags(BloodCellSegmenter()).non_deterministic


# ---------------------------------------------------------------- pipelines


def test_pipeline_of_preprocessor_and_segmenter(tiny, odd_smears, same_weights):
    images, masks = odd_smears
    pipeline = make_pipeline(Preprocessor(clip_limit=3.0), tiny(preprocessor=None))
    pipeline.fit(images, masks)
    alone = tiny(preprocessor=Preprocessor(clip_limit=3.0)).fit(images, masks)
    assert same_weights(pipeline[-1], alone)
    for one, two in zip(pipeline.predict(images), alone.predict(images), strict=True):
        assert np.array_equal(one, two)
    assert pipeline.score(images, masks) == alone.score(images, masks)
    twin = pickle.loads(pickle.dumps(clone(pipeline).fit(images, masks)))
    assert twin.score(images, masks) == pipeline.score(images, masks)


class Negative(TransformerMixin, BaseEstimator):
    """Turns images over, so that untransformed ones are found out."""

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def transform(self, X):
        return [255 - image for image in X]


def test_validation_images_pass_through_a_pipeline(tiny, smears, same_weights):
    images, masks = list(smears.images), list(smears.masks)
    validation = {"X_val": images[4:], "y_val": masks[4:]}
    with sklearn.config_context(enable_metadata_routing=True):
        segmenter = tiny(preprocessor=None).set_fit_request(X_val=True, y_val=True)
        pipeline = Pipeline(
            [("turn", Negative()), ("segment", segmenter)], transform_input=["X_val"]
        )
        pipeline.fit(images[:4], masks[:4], **validation)
    turned = [255 - image for image in images]
    alone = tiny(preprocessor=None).fit(turned[:4], masks[:4], X_val=turned[4:], y_val=masks[4:])
    assert same_weights(pipeline[-1], alone)
    strip = [[row["valid_loss"] for row in model.history_] for model in (pipeline[-1], alone)]
    assert strip[0] == strip[1]


# ---------------------------------------------------------------- searches


@pytest.mark.parametrize(
    "scoring", [None, mean_iou_scorer, pixel_accuracy_scorer, mean_dice_scorer]
)
def test_cross_val_score(tiny, odd_smears, scoring):
    images, masks = odd_smears
    model = tiny(max_epochs=1, ode_positions=(5,))
    scores = cross_val_score(
        model, images, masks, cv=KFold(2), scoring=scoring, error_score="raise"
    )
    assert scores.shape == (2,)
    expected = clone(model).fit(images[3:], masks[3:])
    score = expected.score if scoring is None else lambda x, y: scoring(expected, x, y)
    assert scores[0] == score(images[:3], masks[:3])


GRIDS = {
    "tolerances": {"ode_tol": [1e-1, {4: 1e-3, 5: 1e-2, 6: 1e-3}], "predict_ode_tol": [None, 1e-1]},
    "positions": {"ode_positions": [(5,), (), (4, 5, 6)]},
    "clip limit": {"preprocessor__clip_limit": [1.0, 4.0]},
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_grid_search(tiny, odd_smears, grid):
    images, masks = odd_smears
    model = tiny(max_epochs=1, preprocessor=Preprocessor())
    search = GridSearchCV(model, grid, cv=2, scoring=mean_iou_scorer, error_score="raise")
    search.fit(images, masks)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    for name, value in search.best_params_.items():
        assert search.best_estimator_.get_params()[name] == value
    assert len(search.predict(images)) == 6


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_halving_grid_search(tiny, odd_smears, grid):
    images, masks = odd_smears
    model = tiny(max_epochs=1, preprocessor=Preprocessor())
    search = HalvingGridSearchCV(
        model,
        grid,
        cv=KFold(2),
        factor=2,
        min_resources=4,
        random_state=0,
        error_score="raise",
    )
    search.fit(images, masks)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.score(images, masks) == search.best_estimator_.score(images, masks)


@pytest.mark.parametrize("search", [False, True])
def test_searching_over_the_default_preprocessor_says_what_to_pass(tiny, odd_smears, search):
    if search:
        grid = GridSearchCV(tiny(max_epochs=1), {"preprocessor__clip_limit": [1.0]}, cv=2)
        with pytest.raises(ValueError, match=r"preprocessor=Preprocessor\(\)"):
            grid.fit(*odd_smears)
        return
    with pytest.raises(ValueError, match=r"preprocessor=Preprocessor\(\)"):
        tiny().set_params(preprocessor__clip_limit=1.0)


class Recorder(BloodCellSegmenter):
    """Notes the groups that fit is given, on the class."""

    seen = []  # noqa: RUF012

    def fit(self, images, masks, *, groups=None, sample_weight=None, X_val=None, y_val=None):
        type(self).seen.append(None if groups is None else list(groups))
        return super().fit(
            images,
            masks,
            groups=groups,
            sample_weight=sample_weight,
            X_val=X_val,
            y_val=y_val,
        )


@pytest.fixture
def recorder():
    Recorder.seen.clear()
    return Recorder(
        width=1, max_epochs=1, crop_size=32, batch_size=2, random_state=0, network="unet"
    )


GROUPS = ["a", "b", "c", "a", "b", "c"]


def test_groups_go_to_the_splitter_only(recorder, odd_smears):
    images, masks = odd_smears
    search = GridSearchCV(
        recorder, {"dropout": [0.0]}, cv=GroupKFold(3), refit=False, error_score="raise"
    )
    search.fit(images, masks, groups=GROUPS)
    assert recorder.seen == [None] * 3
    assert len(cross_val_score(recorder, images, masks, groups=GROUPS, cv=GroupKFold(3))) == 3


def test_groups_are_routed_to_fit(recorder, odd_smears):
    images, masks = odd_smears
    with sklearn.config_context(enable_metadata_routing=True):
        recorder.set_fit_request(groups=True)
        search = GridSearchCV(recorder, {"dropout": [0.0]}, cv=GroupKFold(3), error_score="raise")
        search.fit(images, masks, groups=GROUPS)
    assert len(recorder.seen) == 4
    folds, refit = recorder.seen[:3], recorder.seen[3]
    assert sorted(sorted(set(groups)) for groups in folds) == [["a", "b"], ["a", "c"], ["b", "c"]]
    assert refit == GROUPS


def test_images_and_masks_are_no_metadata():
    with sklearn.config_context(enable_metadata_routing=True):
        requests = BloodCellSegmenter().get_metadata_routing()
        assert set(requests.fit.requests) == {"groups", "sample_weight", "X_val", "y_val"}
        assert not requests.predict.requests
        assert set(requests.score.requests) == {"sample_weight"}


def test_a_pipeline_is_searched_under_routing(tiny, odd_smears):
    images, masks = odd_smears
    with sklearn.config_context(enable_metadata_routing=True):
        segmenter = tiny(preprocessor=None, max_epochs=1).set_fit_request(groups=True)
        pipeline = Pipeline([("enhance", Preprocessor()), ("segment", segmenter)])
        grid = {"segment__ode_tol": [1e-1]}
        search = GridSearchCV(pipeline, grid, cv=GroupKFold(3), error_score="raise")
        search.fit(images, masks, groups=GROUPS)
        assert search.best_estimator_.score(images, masks) > 0


def test_scores_count_images_as_told(fitted, smears):
    images, masks = smears.images[:2], smears.masks[:2]
    alone = [fitted.score(images[i : i + 1], masks[i : i + 1]) for i in range(2)]
    both = fitted.score(images, masks)
    assert fitted.score(images, masks, sample_weight=[1, 0]) == pytest.approx(alone[0])
    assert fitted.score(images, masks, sample_weight=[2, 2]) == pytest.approx(both)
    assert alone[0] != alone[1]
    with pytest.raises(ValueError, match="sample_weight"):
        fitted.score(images, masks, sample_weight=[1])


def threads_and_score(estimator, images, masks):
    """Score, and give away how many threads torch uses in this process."""
    return {"threads": torch.get_num_threads(), "mean_iou": estimator.score(images, masks)}


def test_worker_processes_do_not_fight_for_cores(odd_smears, tmp_path):
    # In a process of its own: the session's threads are set by conftest.
    images, masks = odd_smears
    model = BloodCellSegmenter(
        width=1, max_epochs=1, crop_size=32, batch_size=2, random_state=0, network="unet"
    )
    settings = {"cv": KFold(2), "refit": False, "scoring": threads_and_score}
    settings["error_score"] = "raise"
    serial = GridSearchCV(model, {"dropout": [0.0]}, **settings).fit(images, masks)
    parallel = GridSearchCV(model, {"dropout": [0.0]}, n_jobs=2, **settings).fit(images, masks)
    for fold in range(2):
        threads = parallel.cv_results_[f"split{fold}_test_threads"][0]
        assert threads * 2 <= max(2, joblib.cpu_count())
        column = f"split{fold}_test_mean_iou"
        assert parallel.cv_results_[column][0] == pytest.approx(
            serial.cv_results_[column][0], abs=1e-3
        )
