"""What scikit-learn expects of an estimator, over every estimator of the package.

``check_estimator`` runs a single check on estimators that do not take tables, so the others are
written out here, after ``sklearn.utils.estimator_checks``. What one of them alone promises stands
in its own tests.
"""

import copy
import gc
import inspect
import pickle
import warnings
import weakref
from dataclasses import dataclass, field

import joblib
import numpy as np
import pytest
import sklearn
import torch
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from bloodseg import BloodCellCounter, BloodCellSegmenter, Preprocessor
from bloodseg.datasets import make_smears

SMALL = {"width": 4, "max_epochs": 2, "random_state": 0}


@dataclass(frozen=True)
class Case:
    """An estimator, how to make a small one, and what it is given."""

    estimator: type
    target: str | None  # of `make_smears`
    methods: tuple[str, ...]
    small: dict = field(default_factory=dict)
    other: dict = field(default_factory=dict)  # instances, numbers of every kind
    wrong: dict = field(default_factory=dict)  # what fit refuses

    def make(self, **parameters):
        return self.estimator(**{**self.small, **parameters})

    def arguments(self, images, targets):
        return (images,) if self.target is None else (images, targets)


OF_NETWORKS = {
    "preprocessor": Preprocessor(clip_limit=3.0),
    "ode_positions": (5, 6),
    "ode_tol": {5: 1e-2, 6: 1e-1},
    "predict_ode_tol": (1e-3, 1e-1),
    "random_state": 3,
}
WRONG = {"width": "wide", "ode_positions": None, "random_state": "x"}
CASES = {
    "segmenter": Case(
        BloodCellSegmenter,
        "masks",
        ("predict", "predict_proba"),
        SMALL | {"crop_size": 32},
        OF_NETWORKS
        | {"accelerator": True, "class_weight": {"white": 3}, "network": torch.nn.Identity},
        WRONG,
    ),
    "counter": Case(
        BloodCellCounter,
        "counts",
        ("predict",),
        SMALL | {"scale": 1},
        OF_NETWORKS | {"loss": "poisson", "scale": 0.7},
        WRONG,
    ),
    "preprocessor": Case(
        Preprocessor,
        None,
        ("transform",),
        {},
        {"clip_limit": 3, "tile_grid_size": [np.int64(4), 4], "n_jobs": 2, "white_balance": True},
        {"clip_limit": "high", "tile_grid_size": 8},
    ),
}
TRAINED = [name for name, case in CASES.items() if case.target]


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


@pytest.fixture(params=TRAINED)
def trained_case(request):
    return CASES[request.param]


@pytest.fixture(scope="session")
def drawn():
    """Six drawn smears of four sizes: images, masks and counts as lists."""
    sizes = [(32, 32), (40, 32), (33, 47), (32, 64), (48, 48), (32, 32)]
    smears = [make_smears(1, image_size=size, random_state=i) for i, size in enumerate(sizes)]
    return {key: [bunch[key][0] for bunch in smears] for key in ("images", "masks", "counts")}


@pytest.fixture(scope="session")
def models(drawn):
    """One fitted model of each kind; `fitted_model` gives every test its own."""
    return {
        name: case.make().fit(*case.arguments(drawn["images"], drawn.get(case.target)))
        for name, case in CASES.items()
    }


@pytest.fixture
def fit_model(models, drawn):
    """Return functions that give a case's fitted model, and its data."""

    def fitted(case):
        (name,) = (name for name, each in CASES.items() if each is case)
        return copy.deepcopy(models[name])

    return fitted


def data_of(case, drawn):
    return case.arguments(drawn["images"], drawn.get(case.target))


def state_of(model):
    """Return the bits of a model's weights, and its other attributes, to compare."""
    attributes = dict(vars(model))
    attributes.pop("n_function_evaluations_", None)
    network = attributes.pop("network_", None)
    weights = {} if network is None else network.state_dict()
    bits = joblib.hash({name: weight.numpy() for name, weight in weights.items()})
    blocks = repr(network)  # tolerances and methods of the ODE-blocks are in it
    return bits, blocks, {name: repr(value) for name, value in attributes.items()}


def same(one, two):
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


# ---------------------------------------------------------------- parameters


def test_check_estimator(case):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sklearn.exceptions.SkipTestWarning)
        results = check_estimator(case.estimator())
    assert {result["status"] for result in results} == {"passed"}


@pytest.mark.parametrize("which", ["small", "other", "wrong"])
def test_init_only_stores(case, which):
    parameters = getattr(case, which)
    estimator = case.estimator(**parameters)
    signature = inspect.signature(case.estimator.__init__).parameters
    names = [name for name in signature if name != "self"]
    assert sorted(vars(estimator)) == sorted(names)
    for name in names:
        expected = parameters.get(name, signature[name].default)
        assert getattr(estimator, name) is expected


def test_parameters_after_the_first_are_keywords(trained_case):
    signature = inspect.signature(trained_case.estimator.__init__).parameters
    kinds = [parameter.kind for name, parameter in signature.items() if name != "self"]
    assert kinds[0] is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert set(kinds[1:]) == {inspect.Parameter.KEYWORD_ONLY}


def test_every_parameter_has_a_rule(trained_case):
    names = trained_case.estimator().get_params()
    assert set(trained_case.estimator._parameter_constraints) == set(names)


@pytest.mark.parametrize("which", ["small", "other", "wrong"])
def test_clone(case, which):
    estimator = case.estimator(**getattr(case, which))
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


def test_a_clone_of_a_fitted_model_is_not_fitted(case, fit_model):
    model = fit_model(case)
    assert not [name for name in vars(clone(model)) if name.endswith("_")]
    assert not case.target or hasattr(model, "network_")


def test_get_params_and_set_params(case):
    estimator = case.estimator()
    given = case.wrong
    assert estimator.set_params(**given) is estimator  # checks are fit's
    assert {name: estimator.get_params()[name] for name in given} == given
    with pytest.raises(
        ValueError, match=f"Invalid parameter 'depth' for estimator {case.estimator.__name__[:8]}"
    ):
        estimator.set_params(depth=3)


def test_parameters_of_the_preprocessor(trained_case):
    estimator = trained_case.estimator(preprocessor=Preprocessor())
    shallow, deep = estimator.get_params(deep=False), estimator.get_params(deep=True)
    assert all(deep[name] is value for name, value in shallow.items())
    nested = {f"preprocessor__{name}" for name in Preprocessor().get_params()}
    assert set(deep) - set(shallow) == nested
    estimator.set_params(preprocessor__clip_limit=5.0)
    assert estimator.preprocessor.clip_limit == 5.0
    text = (
        "preprocessor__clip_limit needs a transformer to set it on, and preprocessor is 'default'; "
        f"pass preprocessor=Preprocessor\\(\\) to {trained_case.estimator.__name__} first"
    )
    with pytest.raises(ValueError, match=text):
        trained_case.estimator().set_params(preprocessor__clip_limit=3.0)


def test_set_params_is_init(case):
    by_init = case.estimator(**case.other).get_params(deep=False)
    assert case.estimator().set_params(**case.other).get_params(deep=False) == by_init


def test_repr_shows_what_was_changed(case):
    name, value = next(iter(case.wrong.items()))
    assert repr(case.estimator(**{name: value})) == f"{case.estimator.__name__}({name}={value!r})"
    assert case.estimator.__name__ in case.estimator()._repr_html_()


# ---------------------------------------------------------------- fit and predict


def test_fit_refuses_what_init_stored(case, drawn):
    for name, value in case.wrong.items():
        with pytest.raises(ValueError, match=name):
            case.make(**{name: value}).fit(*data_of(case, drawn))


def test_fit_returns_the_estimator_and_changes_no_parameter(case, drawn):
    estimator = case.make(**({"max_epochs": 1} if case.target else {}))
    before = estimator.get_params()
    values = copy.deepcopy(before)
    assert estimator.fit(*data_of(case, drawn)) is estimator
    after = estimator.get_params()
    assert all(after[name] is value for name, value in before.items())
    assert repr(values) == repr(after)
    learned = set(vars(estimator)) - set(before)
    assert all(name.endswith("_") and not name.startswith("_") for name in learned)


def test_fit_is_idempotent(case, drawn, fit_model):
    data = data_of(case, drawn)
    model = fit_model(case)
    again = case.make().fit(*data)
    for _ in range(2):
        assert state_of(again)[0] == state_of(model)[0]
        again.fit(*data)  # nothing is left of the fit before


def test_an_unfitted_estimator_says_so(trained_case, drawn):
    for method in trained_case.methods:
        with pytest.raises(NotFittedError, match="is not fitted yet"):
            getattr(trained_case.make(), method)(drawn["images"])


def test_predicting_changes_nothing(case, drawn, fit_model):
    model = fit_model(case)
    if case.target:
        model.set_params(predict_ode_tol=1e-2)
    before = state_of(model)
    for method in case.methods:
        first = getattr(model, method)(drawn["images"])
        assert state_of(model) == before
        assert same(first, getattr(model, method)(drawn["images"]))


def test_an_image_does_not_depend_on_those_beside_it(case, drawn, fit_model):
    model = fit_model(case)
    for method in case.methods:
        together = getattr(model, method)(drawn["images"])
        one_by_one = [getattr(model, method)([image])[0] for image in drawn["images"]]
        assert same(together, one_by_one)
        backwards = getattr(model, method)(drawn["images"][::-1])
        assert same(together, backwards[::-1])


def test_containers_are_kept(case, drawn, fit_model):
    model = fit_model(case)
    images = drawn["images"][::5]  # of one size
    for method in case.methods:
        stacked = getattr(model, method)(np.stack(images))
        listed = getattr(model, method)(list(images))
        assert isinstance(stacked, np.ndarray)
        assert same(stacked, listed)


def test_inputs_are_never_changed(case, drawn):
    images, targets = copy.deepcopy((drawn["images"], drawn.get(case.target)))
    more = {}
    if case.target:
        groups, weight = np.arange(6) // 2, np.ones(6)
        more = {"groups": groups, "sample_weight": weight, "X_val": images, "y_val": targets}
    before = joblib.hash((images, targets, more))
    model = case.make(**({"max_epochs": 1} if case.target else {}))
    model.fit(*case.arguments(images, targets), **more)
    for method in case.methods:
        getattr(model, method)(images)
    assert joblib.hash((images, targets, more)) == before


def test_read_only_memmaps(case, drawn, tmp_path):
    images, targets = (np.stack(drawn[key][::5]) for key in ("images", case.target or "counts"))
    joblib.dump((images, targets), tmp_path / "data")
    mapped = joblib.load(tmp_path / "data", mmap_mode="r")
    assert isinstance(mapped[0], np.memmap)
    assert not mapped[0].flags.writeable
    parameters = {"max_epochs": 1, "validation_fraction": 0.5} if case.target else {}
    from_disk = case.make(**parameters).fit(*case.arguments(*mapped))
    in_memory = case.make(**parameters).fit(*case.arguments(images, targets))
    assert state_of(from_disk)[0] == state_of(in_memory)[0]
    for method in case.methods:
        found = getattr(from_disk, method)(mapped[0])
        assert type(found) is np.ndarray
        assert np.array_equal(found, getattr(in_memory, method)(images))


@pytest.mark.parametrize("how", ["pickle", "joblib", "deepcopy"])
def test_copies_do_the_same_and_share_nothing(case, drawn, fit_model, tmp_path, how):
    model = fit_model(case)
    if how == "pickle":
        twin = pickle.loads(pickle.dumps(model))
    elif how == "joblib":
        joblib.dump(model, tmp_path / "model")
        twin = joblib.load(tmp_path / "model")
    else:
        twin = copy.deepcopy(model)
    assert state_of(twin) == state_of(model)
    for method in case.methods:
        assert same(getattr(twin, method)(drawn["images"]), getattr(model, method)(drawn["images"]))
    if case.target:
        before = state_of(model)[0]
        with torch.no_grad():
            for weight in twin.network_.parameters():
                weight += 1
        assert state_of(model)[0] == before


def test_an_old_network_is_freed_by_the_next_fit(trained_case, drawn):
    data = data_of(trained_case, drawn)
    gc.collect()
    before = count_optimizers()  # of other tests: tracebacks that pytest keeps hold some
    model = trained_case.make(max_epochs=1).fit(*data)
    old = weakref.ref(model.network_)
    gc.collect()
    assert count_optimizers() <= before
    model.fit(*data)
    gc.collect()
    assert old() is None
    assert count_optimizers() <= before


def count_optimizers():
    return sum(type(each) is torch.optim.AdamW for each in gc.get_objects())
