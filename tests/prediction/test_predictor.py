"""Prediction owns what it changes: fitted networks stay, and warnings name the caller's line."""

import copy
import io
import pickle
import threading
import warnings

import joblib
import numpy as np
import pytest
import torch

from bloodseg import BloodCellCounter, BloodCellSegmenter
from bloodseg.datasets import make_smears
from bloodseg.ode import SolverWarning
from bloodseg.prediction import Predictor, Segmented


def pickled(network):
    file = io.BytesIO()
    joblib.dump(network, file)
    return file.getvalue()


def settings_of(network):
    """Return all that a prediction could change in a network's ODE-blocks and precision."""
    blocks = [
        {key: value for key, value in vars(block).items() if not key.startswith("_")}
        for block in network.ode_blocks.values()
    ]
    return repr((blocks, network.precision, network.training, list(network.state_dict())))


@pytest.mark.parametrize(
    "parameters",
    [{"predict_ode_tol": 0.5}, {"precision": "bfloat16"}, {"compile": False}, {"tile_size": 64}],
    ids=str,
)
def test_prediction_changes_nothing_that_was_fitted(fitted, smears, parameters):
    before, bytes_before = settings_of(fitted.network_), pickled(fitted.network_)
    attributes = {name for name in vars(fitted) if name.endswith("_")}
    precision = fitted.precision_
    fitted.set_params(**parameters)
    fitted.predict(smears.images)
    fitted.count(smears.images)
    assert settings_of(fitted.network_) == before
    assert pickled(fitted.network_) == bytes_before
    assert fitted.precision_ == precision
    assert {name for name in vars(fitted) if name.endswith("_")} <= attributes | {
        "n_function_evaluations_"
    }


@pytest.mark.parametrize("shape", [(1, 160), (160, 1), (1, 1), (2, 9), (3, 200)])
@pytest.mark.parametrize("kind", ["bytes", "fractions", "black"])
def test_images_of_hardly_a_row_have_an_answer(shape, kind):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    image = {"bytes": noise, "fractions": noise / 255, "black": np.zeros_like(noise)}[kind]
    (found,) = BloodCellSegmenter.from_pretrained().segment([image[:, ::-1]])
    assert found.class_map.shape == shape
    assert found.doubts()
    assert found.count()["white"] + found.count()["red"] <= 4


def test_a_counter_changes_nothing_either(smears):
    counter = BloodCellCounter(scale=1, width=4, max_epochs=1, random_state=0)
    counter.fit(smears.images, smears.counts)
    before = pickled(counter.network_)
    counter.set_params(predict_ode_tol=0.5, precision="bfloat16").predict(smears.images)
    assert pickled(counter.network_) == before


def test_parameters_set_meanwhile_do_not_reach_a_running_prediction(fitted, smears):
    expected = [each.evaluations for each in fitted.segment(smears.images)]
    running = fitted.segment(smears.images)
    first = next(running)
    fitted.set_params(predict_ode_tol=1e-6, tile_size=None)
    tight = [each.evaluations for each in fitted.segment(smears.images)]
    assert [first.evaluations, *(each.evaluations for each in running)] == expected
    assert tight != expected


def test_threads_with_different_tolerances_do_not_mix(fitted, smears):
    """Both predict with one estimator, one of them at a tolerance of its own."""
    loose = pickle.loads(pickle.dumps(fitted)).predict_proba(smears.images)
    found = []

    def predict():
        found.append(fitted.predict_proba(smears.images))

    threads = []
    for tolerance in (None, 1e-6, None, 1e-6):
        fitted.set_params(predict_ode_tol=tolerance)
        predictor = fitted._make_predictor()
        if tolerance is None:
            threads.append(
                threading.Thread(
                    target=lambda p=predictor: found.append(list(p.probabilities(smears.images)))
                )
            )
            threads[-1].start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    for maps in found:
        assert np.array_equal(np.stack(maps), loose)


def test_segment_checks_its_input_when_called(fitted, smears):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.png does not exist"):
        fitted.segment(["nowhere.png"])
    with pytest.raises(ValueError, match="must hold finite values"):
        fitted.segment([np.full((20, 20, 3), np.nan)])
    with pytest.raises(ValueError, match="tile_size must be"):
        fitted.set_params(tile_size=7).segment(smears.images)


def test_an_unfitted_estimator_says_so_when_called(tiny, smears):
    with pytest.raises(Exception, match="not fitted"):
        tiny().segment(smears.images)


def test_precision_appears_with_a_successful_fit_only(tiny, smears, monkeypatch):
    from bloodseg.estimators import _base

    def fail(*_):
        raise FloatingPointError

    monkeypatch.setattr(_base, "train_network", fail)
    model = tiny()
    with pytest.raises(FloatingPointError):
        model.fit(smears.images, smears.masks)
    assert not [name for name in vars(model) if name.endswith("_")]


METHODS = ["predict", "predict_proba", "count", "measure", "predict_instances", "segment"]


@pytest.fixture
def failing(fitted):
    """A model whose ODE-blocks may take one step, and fail for every image."""
    for block in fitted.network_.ode_blocks.values():
        block.max_steps = 1
    return fitted.set_params(predict_ode_tol=1e-12)


@pytest.mark.filterwarnings("always")
@pytest.mark.parametrize("method", METHODS)
def test_one_solver_warning_a_call_at_the_callers_line(failing, smears, method):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in [getattr(failing, method)(smears.images)]:
            list(_) if method == "segment" else None
    said = [warning for warning in said if issubclass(warning.category, SolverWarning)]
    texts = [str(warning.message) for warning in said]
    for position in (4, 5, 6):
        of_block = [text for text in texts if f"position {position}:" in text]
        assert len(of_block) == 2  # the first, and how many there were
        assert "only the first warning is shown" in of_block[1]
    assert {warning.filename for warning in said} == {__file__}


def test_one_solver_warning_for_a_file(failing, tmp_path, smears):
    import tifffile

    tifffile.imwrite(tmp_path / "a.tif", smears.images[0])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        failing.predict_file(tmp_path / "a.tif", tmp_path / "map.tif")
    said = [warning for warning in said if issubclass(warning.category, SolverWarning)]
    assert {warning.filename for warning in said} == {__file__}
    assert len({str(warning.message) for warning in said}) == len(said) == 6  # two a block


def test_each_doubted_image_of_a_loop_is_told_of(fitted):
    """Arrays have no names, so that all of these messages begin alike."""
    empty = np.full((40, 40, 3), 240, np.uint8)
    fitted.set_params(red_cell_diameter=20)
    fitted.red_cell_diameter_ = 20.0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")  # as Python starts: equal ones of a line once
        for _ in range(3):
            fitted.count([empty])
    assert sum("looks unlike" in str(warning.message) for warning in said) == 3


def test_a_memory_error_names_the_file(fitted, smears, tmp_path, monkeypatch):
    import tifffile

    def fail(*_):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    tifffile.imwrite(tmp_path / "big.tif", smears.images[0])
    monkeypatch.setattr(torch.nn.Conv2d, "forward", fail)
    with pytest.raises(MemoryError, match=r"big\.tif of 32 x 32 pixels does not fit into memory"):
        fitted.predict([tmp_path / "big.tif"])
    with pytest.raises(MemoryError, match=r"images\[0\] of 32 x 32 pixels"):
        fitted.predict(smears.images[:1])


def test_a_predictor_is_what_the_estimator_asks(fitted, smears):
    predictor = fitted.set_params(predict_ode_tol=0.25)._make_predictor()
    assert isinstance(predictor, Predictor)
    assert predictor.network.network is not fitted.network_
    assert predictor.network.tolerances == {4: 0.25, 5: 0.25, 6: 0.25}
    results = list(predictor.segmented(smears.images[:2]))
    assert all(isinstance(result, Segmented) for result in results)
    assert [result.name for result in results] == [0, 1]
    evaluations = [result.evaluations for result in results]
    assert evaluations == predictor.evaluations


def test_one_result_splits_its_cells_once(fitted, monkeypatch):
    image = make_smears(1, image_size=64, random_state=0).images[0]
    (found,) = fitted.segment([image])
    row = found.count()

    def never(*_):
        raise AssertionError

    monkeypatch.setattr("bloodseg.cells._blocks.split_cells", never)
    cells = found.cells()
    assert {name: row[name] for name in ("white", "red")} == cells.counts
    assert len(found.measure()) == len(cells)


@pytest.mark.parametrize("tile_size", [None, 64])
def test_an_optimistic_network_finds_the_same(fitted, tile_size):
    """As it does on CUDA by itself: maps and counts to the bit, of images one by one."""
    images = list(make_smears(2, image_size=96, random_state=0).images)
    fitted.set_params(tile_size=tile_size)
    expected, counts = fitted.predict(images), fitted.n_function_evaluations_
    predictor = fitted._make_predictor()
    predictor.network.forward.optimistic = True
    for found, theirs in zip(predictor.segmented(images), expected, strict=True):
        assert np.array_equal(found.class_map, theirs)
    assert predictor.network.forward._n_seen
    for position, theirs in counts.items():
        assert predictor.n_function_evaluations[position].tolist() == theirs.tolist()


def test_results_are_compared_as_objects(fitted, smears):
    (found,) = fitted.segment(smears.images[:1])
    again = pickle.loads(pickle.dumps(found))
    assert again.count() == copy.deepcopy(found).count() == found.count()
    assert len({found, again, found}) == 2
    assert found != again
