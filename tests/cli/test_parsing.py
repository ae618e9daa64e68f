"""What is typed: options, their short forms and defaults, wrong usage."""

from __future__ import annotations

import re

import pytest

import bloodseg
from bloodseg import BloodCellSegmenter
from bloodseg.cli import main
from bloodseg.cli._arguments import make_parser
from bloodseg.cli._values import (
    class_names,
    class_weights,
    diameter,
    micrometres,
    positions,
    tolerances,
)
from bloodseg.datasets import open_slide
from bloodseg.datasets._decoding import IMAGE_FORMATS


def test_version_and_help_end_well(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bloodseg {bloodseg.__version__}\n"
    for command in ([], ["train"], ["predict"], ["evaluate"], ["demo"]):
        assert main([*command, "--help"]) == 0
        out = capsys.readouterr().out
        assert "exit codes:\n  0    all done\n  1    done in part" in out


def test_what_is_not_given_is_left_to_the_estimator(capsys):
    parsed = vars(make_parser("train").parse_args(["train", "x", "-o", "y"]))
    assert not parsed.keys() & BloodCellSegmenter().get_params().keys()
    main(["train", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert f"of the first stage (default: {BloodCellSegmenter().width})" in out
    assert "makes a U-Net (default: 4,5,6)" in out
    assert "share of their height and width first (default: 0.5)" in out


def test_a_study_shows_its_own_defaults(capsys):
    main(["study", "networks", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "crops a training step (default: 4)" in out
    assert "(default: 128; with --protocol paper 256)" in out
    assert "(default: the first four, which are the paper's)" in out
    main(["study", "tolerance", "--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert "some of the networks: nodes-unet (default: all)" in out
    assert "tolerances to predict at (default: 1e-05 " in out


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (positions, "4,5,6", (4, 5, 6)),
        (positions, "5", (5,)),
        (positions, "", ()),
        (positions, "none", ()),
        (tolerances, "1e-2", 1e-2),
        (tolerances, "paper", "paper"),
        (tolerances, "4=1e-2, 5=1e-3", {4: 1e-2, 5: 1e-3}),
        (tolerances, "1e-2,1e-3", (1e-2, 1e-3)),
        (class_weights, "balanced", "balanced"),
        (class_weights, "1,3,1", (1, 3, 1)),
        (class_weights, "white=3", {"white": 3}),
        (class_names, "blast cell=white, x=red", {"blast cell": "white", "x": "red"}),
        (micrometres, "0.1", 0.1),
        (diameter, "auto", "auto"),
        (diameter, "72.5", 72.5),
    ],
)
def test_short_forms_of_values(parse, text, value):
    assert parse(text) == value


def test_every_default_can_be_typed_as_it_is_shown():
    defaults = BloodCellSegmenter().get_params()
    parser = make_parser("train")
    (options,) = (each.choices["train"] for each in parser._actions if each.choices)
    shown = {
        action.dest: re.search(r"\(default: (.+)\)$", action.help)[1]
        for action in options._actions
        if action.dest in defaults and action.nargs != 0
    }
    typed = [f"--{name.replace('_', '-')}={text}" for name, text in shown.items()]
    parsed = vars(parser.parse_args(["train", "x", "-o", "y", *typed]))
    assert len(shown) > 20
    assert {name: parsed[name] for name in shown} == {name: defaults[name] for name in shown}


def test_the_home_folder_is_found_in_every_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for command in (
        ["train", "~/d", "-o=~/d", "--pretrained=~/d", "--checkpoint-dir=~/d"],
        ["predict", "~/d", "--output=~/d", "-m", "~/d"],
        ["evaluate", "~/d", "-o=~/d", "--model=~/d"],
        ["demo", "-o=~/d"],
    ):
        parsed = vars(make_parser(command[0]).parse_args(command))
        assert "~" not in str(parsed)
        values = [*parsed.values(), *parsed.get("images", ())]
        assert values.count(tmp_path / "d") == str(command).count("~")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND. See `bloodseg --help`."),
        (["count", ""], "argument IMAGE: a path must not be empty; perhaps a variable"),
        (["trane"], "argument COMMAND: invalid choice: 'trane'"),
        (["train", "x"], "arguments are required: -o/--output. See `bloodseg train --help`."),
        (["train", "x", "-o", "y", "--ode-positions", "a"], 'positions are written as "4,5,6"'),
        (["train", "x", "-o", "y", "--ode-tol", "a"], 'tolerances are written as "1e-3", "4=1e-2'),
        (["train", "x", "-o", "y", "--class-weight", "a"], 'weights are written as "1,3,1"'),
        (
            ["count", "x", "-m", "y", "--red-cell-diameter", "wide"],
            'a diameter is written as "auto", a number of pixels or "none"; got',
        ),
        (
            ["train", "x", "-o", "y", "--validation-fraction", "a"],
            "not a number, nor \"none\": 'a'",
        ),
        (
            ["train", "x", "-o", "y", "--n-jobs", "1.5"],
            "argument --n-jobs: not a whole number, nor \"none\": '1.5'",
        ),
        (["train", "x", "-o", "y", "--ode-tol", "none"], 'tolerances are written as "1e-3", "4='),
        (["train", "x", "-o", "y", "--clip-limit", "1", "--no-preprocessor"], "not allowed with"),
        (["count", "x", "--pixel-size", "0,1"], 'written as a number with a point, as "0.1"; got'),
        (
            ["convert", "x", "y", "--to", "coco", "--class-names", "white"],
            "classes of texts are written as \"Neutrophil=white,blast cell=white\"; got 'white'",
        ),
        (
            ["compare", "x", "y", "z", "--random-state", "-1"],
            "a seed is a whole number from 0 to 4294967295; got '-1'",
        ),
        (
            ["study", "networks", "x", "y", "-o", "z", "--seeds", "0,1"],
            "a seed is a whole number from 0 to 4294967295; got '0,1'",
        ),
        (["serve", "--port", "65536"], "a port is a whole number up to 65535; got '65536'"),
        (["demo", "--random-state", "4294967296"], "a seed is a whole number from 0 to 4294967295"),
        (
            ["count", "x", "--excluded-sides", "right"],
            "choose from 'bottom,right', 'bottom,left', 'top,right', 'top,left', 'none'; got 'r",
        ),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(arguments, message, capsys):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("bloodseg: error: ")
    assert err.count("\n") == 1
    assert message in err


def test_help_names_every_format_that_is_read(capsys):
    assert main(["count", "--help"]) == 0
    help_ = " ".join(capsys.readouterr().out.split())
    assert all(name in help_ and name in open_slide.__doc__ for name in IMAGE_FORMATS)
