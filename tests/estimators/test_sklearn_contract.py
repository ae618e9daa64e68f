"""What scikit-learn expects of an estimator, checked on images.

``check_estimator`` runs a single check on estimators that do not take tables, so the others are
written out here, after ``sklearn.utils.estimator_checks``.
"""

import copy
import gc
import inspect
import pickle
import warnings
import weakref

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
from sklearn.utils.estimator_checks import check_estimator

from bloodseg import BloodCellSegmenter, Preprocessor
from bloodseg.metrics import mean_dice_scorer, mean_iou_scorer, pixel_accuracy_scorer

PARAMETERS = {
    "default": {},
    "instances": {
        "preprocessor": Preprocessor(clip_limit=3.0),
        "accelerator": True,
        "ode_positions": (5, 6),
        "ode_tol": {5: 1e-2, 6: 1e-1},
        "predict_ode_tol": (1e-3, 1e-1),
        "class_weight": {"white": 3},
        "network": torch.nn.Identity,
        "random_state": 3,
    },
    "wrong": {"width": "wide", "ode_positions": None, "random_state": "x"},
}


def fingerprint(estimator):
    """Return the bits of a fitted model, and its other attributes."""
    state = {name: tensor.clone() for name, tensor in estimator.network_.state_dict().items()}
    others = {
        name: repr(value)
        for name, value in vars(estimator).items()
        if name not in ("network_", "n_function_evaluations_")
    }
    return joblib.hash({name: tensor.numpy() for name, tensor in state.items()}), others


# ---------------------------------------------------------------- parameters


def test_check_estimator():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.SkipTestWarning)
        results = check_estimator(BloodCellSegmenter())
    assert {result["status"] for result in results} == {"passed"}


@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS)
def test_init_only_stores(parameters):
    estimator = BloodCellSegmenter(**parameters)
    signature = inspect.signature(BloodCellSegmenter.__init__).parameters
    names = [name for name in signature if name != "self"]
    assert sorted(vars(estimator)) == sorted(names)
    for name in names:
        expected = parameters.get(name, signature[name].default)
        assert getattr(estimator, name) is expected
    kinds = {signature[name].kind for name in names}
    assert kinds == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


@pytest.mark.parametrize("parameters", PARAMETERS.values(), ids=PARAMETERS)
def test_clone(parameters):
    estimator = BloodCellSegmenter(**parameters)
    twin = clone(estimator)
    assert twin is not estimator
    assert repr(twin) == repr(estimator)
    for name, value in estimator.get_params(deep=False).items():
        got = getattr(twin, name)
        if isinstance(value, BaseEstimator):
            assert got is not value
            assert got.get_params() == value.get_params()
        else:
            assert got == value


def test_clone_of_a_fitted_model_is_not_fitted(fitted):
    assert not [name for name in vars(clone(fitted)) if name.endswith("_")]
    assert hasattr(fitted, "network_")


def test_get_params_and_set_params():
    estimator = BloodCellSegmenter(preprocessor=Preprocessor())
    shallow, deep = estimator.get_params(deep=False), estimator.get_params(deep=True)
    assert all(deep[name] is value for name, value in shallow.items())
    assert set(deep) - set(shallow) == {
        "preprocessor__clip_limit",
        "preprocessor__tile_grid_size",
        "preprocessor__white_balance",
        "preprocessor__n_jobs",
    }
    given = {"width": -1, "ode_tol": "junk", "preprocessor__clip_limit": "high"}
    assert estimator.set_params(**given) is estimator  # checks are fit's
    assert {name: estimator.get_params()[name] for name in given} == given
    with pytest.raises(ValueError, match="Invalid parameter 'depth' for estimator BloodCellSegm"):
        estimator.set_params(depth=3)


def test_set_params_is_init():
    parameters = PARAMETERS["instances"]
    assert BloodCellSegmenter().set_params(**parameters).get_params(
        deep=False
    ) == BloodCellSegmenter(**parameters).get_params(deep=False)


def test_repr_shows_what_was_changed():
    assert repr(BloodCellSegmenter(width=4)) == "BloodCellSegmenter(width=4)"
    assert "BloodCellSegmenter" in BloodCellSegmenter()._repr_html_()


def test_tags():
    tags = get_tags(BloodCellSegmenter(random_state=0))
    assert tags.estimator_type is None
    assert not tags.input_tags.two_d_array
    assert tags.input_tags.three_d_array
    assert tags.target_tags.required
    assert not tags.non_deterministic
    assert tags.requires_fit
    assert get_tags(BloodCellSegmenter()).non_deterministic


# ---------------------------------------------------------------- fit and predict


@pytest.mark.parametrize("preprocessor", ["default", Preprocessor(clip_limit=3.0), None])
def test_fit_does_not_change_parameters(tiny, smears, preprocessor):
    estimator = tiny(preprocessor=preprocessor, max_epochs=1, ode_tol={4: 0.1, 5: 0.1, 6: 0.1})
    before = estimator.get_params()
    values = copy.deepcopy(before)
    assert estimator.fit(smears.images, smears.masks) is estimator
    after = estimator.get_params()
    assert all(after[name] is value for name, value in before.items())
    assert repr(values) == repr(after)
    if preprocessor is not None:
        assert estimator.preprocessor_ is not preprocessor
    learned = set(vars(estimator)) - set(before)
    assert all(name.endswith("_") and not name.startswith("_") for name in learned)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score"])
def test_predicting_changes_nothing(fitted, odd_smears, method):
    images, masks = odd_smears
    fitted.set_params(predict_ode_tol=1e-2)
    before = fingerprint(fitted)
    arguments = (images, masks) if method == "score" else (images,)
    first = getattr(fitted, method)(*arguments)
    assert fingerprint(fitted) == before
    assert list(fitted.n_function_evaluations_) == [4, 5, 6]
    assert {n.shape for n in fitted.n_function_evaluations_.values()} == {(6,)}
    for one, two in zip(
        np.atleast_1d(first) if method == "score" else first,
        np.atleast_1d(getattr(fitted, method)(*arguments))
        if method == "score"
        else getattr(fitted, method)(*arguments),
        strict=True,
    ):
        assert np.array_equal(one, two)


def test_fit_is_idempotent(fitted, tiny, smears, same_weights):
    again = tiny().fit(smears.images, smears.masks)
    assert same_weights(fitted, again)
    again.fit(smears.images, smears.masks)  # nothing is left of the first fit
    assert same_weights(fitted, again)
    assert same_weights(fitted, clone(fitted).fit(list(smears.images), list(smears.masks)))


def test_inputs_are_never_changed(tiny, odd_smears):
    images, masks = ([array.copy() for array in arrays] for arrays in odd_smears)
    groups, weight = np.arange(6) // 2, np.ones(6)
    before = joblib.hash((images, masks, groups, weight))
    model = tiny(max_epochs=1)
    model.fit(images, masks, groups=groups, sample_weight=weight, X_val=images, y_val=masks)
    model.predict(images)
    model.predict_proba(images)
    model.score(images, masks)
    assert joblib.hash((images, masks, groups, weight)) == before


def test_read_only_memmaps(tiny, smears, fitted, tmp_path, same_weights):
    joblib.dump((np.array(smears.images), np.array(smears.masks)), tmp_path / "data")
    images, masks = joblib.load(tmp_path / "data", mmap_mode="r")
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    model = tiny().fit(images, masks)
    assert same_weights(model, fitted)
    assert np.array_equal(model.predict(images), fitted.predict(smears.images))
    assert model.score(images, masks) == fitted.score(smears.images, smears.masks)


@pytest.mark.parametrize("how", ["pickle", "joblib", "deepcopy"])
def test_copies_predict_the_same(fitted, odd_smears, tmp_path, how):
    images, _ = odd_smears
    if how == "pickle":
        twin = pickle.loads(pickle.dumps(fitted))
    elif how == "joblib":
        joblib.dump(fitted, tmp_path / "model")
        twin = joblib.load(tmp_path / "model")
    else:
        twin = copy.deepcopy(fitted)
    for one, two in zip(fitted.predict_proba(images), twin.predict_proba(images), strict=True):
        assert np.array_equal(one, two)
    assert fingerprint(twin) == fingerprint(fitted)
    with torch.no_grad():
        twin.network_.head.bias += torch.tensor([0.0, 99.0, 0.0])
    assert not np.array_equal(twin.predict(images[:1])[0], fitted.predict(images[:1])[0])


def test_an_old_network_is_freed_by_the_next_fit(tiny, smears):
    gc.collect()
    before = count_optimizers()  # of other tests: tracebacks that pytest keeps hold some
    model = tiny(max_epochs=1).fit(smears.images, smears.masks)
    old = weakref.ref(model.network_)
    gc.collect()
    assert count_optimizers() <= before
    model.fit(smears.images, smears.masks)
    gc.collect()
    assert old() is None
    assert count_optimizers() <= before


def count_optimizers():
    return sum(type(each) is torch.optim.AdamW for each in gc.get_objects())


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
