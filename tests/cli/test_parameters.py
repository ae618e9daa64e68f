"""Every parameter of the estimators: part of the result or not, in the shell or not, and why."""

import csv
import re

import numpy as np
import pytest

from bloodseg import BloodCellCounter, BloodCellSegmenter
from bloodseg.cli import main
from bloodseg.cli._arguments import make_parser
from bloodseg.cli._train import _make_estimator
from bloodseg.estimators._parameters import NOT_OF_THE_RESULT, of_the_result

ESTIMATORS = [BloodCellSegmenter, BloodCellCounter]

# What tells the results of two fits apart; the rest says where and how a fit runs, or is for
# prediction.
OF_THE_RESULT = {
    *("augment", "batch_size", "class_weight", "classes", "crop_size", "dropout"),
    "early_stopping",
    *("keep_statistics", "learning_rate", "loss", "max_epochs", "network", "ode_gradient"),
    *("ode_method", "ode_n_steps", "ode_positions", "ode_regularization", "ode_tol", "patience"),
    *("preprocessor", "pretrained", "random_state", "red_cell_diameter", "scale"),
    *("validation_fraction", "warm_start", "width"),
}

NOT_IN_THE_SHELL = {
    "callbacks": "objects; the history grows in MODEL.history.csv, which other programs can follow",
    "warm_start": "there is no last fit in a new process; --pretrained starts from a model",
}
OTHER_OPTIONS = {"preprocessor": {"clip_limit", "no_preprocessor"}, "verbose": {"quiet"}}


def options_of(command):
    """Return the names of a command's options, and the words that each is given."""
    (subparsers,) = (each for each in make_parser(command)._actions if each.choices)
    return {action.dest: action.option_strings for action in subparsers.choices[command]._actions}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_parameter_is_part_of_the_result_or_not(estimator):
    parameters = estimator().get_params().keys()
    assert not OF_THE_RESULT & set(NOT_OF_THE_RESULT)
    assert parameters <= OF_THE_RESULT | set(NOT_OF_THE_RESULT)
    assert of_the_result(estimator().get_params()).keys() == parameters & OF_THE_RESULT


def test_no_list_names_what_no_estimator_has():
    parameters = set().union(*(estimator().get_params() for estimator in ESTIMATORS))
    assert OF_THE_RESULT | set(NOT_OF_THE_RESULT) == parameters
    assert NOT_IN_THE_SHELL.keys() | OTHER_OPTIONS.keys() <= parameters
    for estimator in ESTIMATORS:
        assert set(estimator._OF_PREDICTION) <= estimator().get_params().keys()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_parameter_is_in_the_shell_or_has_a_reason_not_to_be(estimator):
    options = options_of("train").keys() | options_of("count").keys()
    for name in estimator().get_params():
        in_the_shell = name in options or OTHER_OPTIONS.get(name, {"?"}) <= options
        assert in_the_shell != (name in NOT_IN_THE_SHELL), name


@pytest.mark.parametrize("command", ["predict", "evaluate", "count", "measure", "report"])
def test_what_prediction_goes_by_is_an_option_of_every_command_that_predicts(command):
    only_in_training = {"n_jobs", "precision"}  # of many images at once; the model's own
    of_areas = {"pixel_size"} - ({"pixel_size"} if command in ("count", "measure") else set())
    wanted = set(BloodCellSegmenter._OF_PREDICTION) - only_in_training - of_areas
    assert wanted <= options_of(command).keys()


def parsed(*arguments):
    return make_parser("train").parse_args(["train", "x", "-o", "y", *map(str, arguments)])


def test_what_is_typed_in_words():
    for text, value in (("yes", True), ("no", False), ("strong", "strong")):
        assert _make_estimator(parsed("--augment", text)).augment == value
    for text, value in (("auto", "auto"), ("8", 8)):
        assert _make_estimator(parsed("--batch-size", text)).batch_size == value
    for text, value in (("yes", True), ("no", False), ("auto", "auto")):
        assert _make_estimator(parsed("--compile", text)).compile == value


def test_a_default_that_is_typed_is_meant(fitted, tmp_path):
    """With --pretrained, too, whose own value else holds."""
    fitted.set_params(learning_rate=1e-5).save(tmp_path / "m")
    defaults = BloodCellSegmenter().get_params()
    given = ["--pretrained", tmp_path / "m"]
    assert _make_estimator(parsed(*given)).learning_rate == 1e-5
    typed = ["--learning-rate", defaults["learning_rate"]]
    assert _make_estimator(parsed(*given, *typed)).learning_rate == defaults["learning_rate"]


@pytest.fixture
def counted(tmp_path, smears, save_smear):
    """A folder of images, and a table of their counts."""
    for number in range(len(smears.images)):
        save_smear(tmp_path / f"d/images/{number}.png", number)
    with (tmp_path / "counts.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "white", "red"])
        rows.writerows([f"{n}.png", *counts] for n, counts in enumerate(smears.counts))
    return tmp_path


TINY = ["--width", "2", "--max-epochs", "1", "--ode-positions", "none", "-q"]


def test_a_counter_is_trained_and_counts(counted, smears, capsys):
    command = ["train", counted / "d", "--counts", counted / "counts.csv", "--scale", "1", *TINY]
    model = counted / "counter.safetensors"
    assert main([*map(str, command), "-o", str(model)]) == 0
    assert "red cells an image. " in capsys.readouterr().out
    counter = BloodCellCounter.load(model)
    assert (counter.scale, counter.width) == (1, 2)
    table = counted / "c.csv"
    assert main(["count", str(counted / "d/images"), "-q", "-m", str(model), "-o", str(table)]) == 0
    with table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    found = [[float(row["white"]), float(row["red"])] for row in rows]
    np.testing.assert_allclose(found, counter.predict(smears.images), atol=0.006)
    assert "confidence" not in rows[0]
    capsys.readouterr()
    assert main(["count", str(counted / "d/images"), "-q", "-m", str(model), "--summary"]) == 0
    assert re.search(r"^images doubted +-$", capsys.readouterr().out, re.MULTILINE)
    for command, text in (
        (["count", "--tile-size", "64"], "--tile-size means nothing to"),
        (["count", "--strict"], "which says of no result that it is in doubt. Leave it out."),
        (["predict", "-o", str(counted / "p")], "only counts cells; it is for `bloodseg count`."),
    ):
        assert main([*command, str(counted / "d/images"), "-q", "-m", str(model)]) == 2
        assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "table", "text"),
    [
        (["--crop-size", "64"], None, "--crop-size means nothing with --counts. Leave it out."),
        ([], "image,white,red\n0,1,many\n", "must hold numbers of cells: could not convert"),
        ([], "image,white\n0,1\n", "must have the columns image, white, red; got image, white."),
        ([], "image,white,red\n0,1,2\n", "must have a row for every image; got none for 1, 2"),
    ],
)
def test_what_cannot_be_counted_is_said(options, table, text, counted, smears, capsys):
    if table is not None:
        extra = "".join(f"{n},1,2\n" for n in range(1, len(smears.images)))
        complete = table + (extra if "many" in table else "")
        (counted / "counts.csv").write_text(complete)
    command = ["train", counted / "d", "--counts", counted / "counts.csv", "-o", counted / "m"]
    assert main([*map(str, command), *TINY, *options]) == 2
    assert text in capsys.readouterr().err


def test_scale_means_nothing_to_a_segmenter(tmp_path, capsys):
    assert main(["train", "d", "-o", str(tmp_path / "m"), "--scale", "1"]) == 2
    assert "--scale means nothing without --counts. Leave it out." in capsys.readouterr().err
