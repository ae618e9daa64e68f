"""Options of ``bloodseg study``."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from ..estimators import BloodCellSegmenter
from ..study import (
    BATCH_SIZE,
    PAPER_CROP,
    PREDICT_TOLERANCES,
    TRAIN_TOLERANCES,
    find_network,
    network_names,
    typed_name,
)
from ._options import add_quiet
from ._parameter_options import add_machine, add_parameter, default_of, shown
from ._values import batch_size, path, seed, tolerances

_STUDIES = {
    "positions": "a network with one ODE-block at each of nine positions, and a U-Net (Table 1)",
    "networks": "U-Net, ResNet and NODEs-UNet (Table 2)",
    "tolerance": "a NODEs-UNet at each of several tolerances; each predicts at several, too",
}


def add_study(parser: argparse.ArgumentParser) -> None:
    """Add the studies, each a command with options of its own."""
    parsers = parser.add_subparsers(dest="study", metavar="STUDY", title="studies", required=True)
    for name, text in _STUDIES.items():
        _add_study_options(
            parsers.add_parser(name, help=text, description=f"Train {text}.", allow_abbrev=False),
            name,
        )
    text = "write the tables, verdicts and figures of the studies in a folder"
    report = parsers.add_parser(
        "report", help=text, description=f"{text.capitalize()}.", allow_abbrev=False
    )
    report.add_argument("output", metavar="DIR", type=path, help="output folder of studies")


def _add_study_options(parser: argparse.ArgumentParser, study: str) -> None:
    folder = "folder with images/NAME.png, masks/NAME.png and perhaps groups.csv"
    parser.add_argument("train", metavar="TRAIN", type=path, help=f"{folder}, to train on")
    parser.add_argument(
        "test",
        metavar="TEST",
        type=path,
        nargs="?",
        help=f"{folder}, to test on; left out with --protocol paper",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=path,
        required=True,
        help="folder for results.csv, report.md, figures, models and checkpoints; the same command "
        "goes on where it was broken off, and several may share a folder",
    )
    group = parser.add_argument_group("study")
    networks = ", ".join(map(typed_name, network_names(study)))
    default = "the first four, which are the paper's" if study == "networks" else "all"
    group.add_argument(
        "--dataset", metavar="NAME", help="name of the data in tables (default: TRAIN's own)"
    )
    group.add_argument(
        "--networks",
        metavar="NAME",
        nargs="+",
        type=partial(_network, study),
        help=f"some of the networks: {networks} (default: {default})",
    )
    group.add_argument(
        "--seeds",
        metavar="N",
        type=seed,
        nargs="+",
        default=[0, 1, 2, 3, 4],
        help="seeds, apart by spaces, a training of each network for each; fewer than five come to "
        "no verdict (default: 0 1 2 3 4)",
    )
    if study == "tolerance":
        _add_tolerances(group)
    group.add_argument(
        "--protocol",
        choices=["folder", "paper"],
        default="folder",
        help="paper: crops of 256 pixels of TRAIN, split by image or group, augmented tenfold; "
        "a fifth of the images is for testing (default: folder)",
    )
    group.add_argument(
        "--results",
        metavar="CSV",
        type=path,
        help="table to put the rows into, too, in place of its rows of the same trainings",
    )
    add_quiet(parser)
    _add_study_training(parser, study)


def _network(study: str, text: str) -> str:
    """Parse the name of a network."""
    try:
        return find_network(study, text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None


def _add_tolerances(group: Any) -> None:
    for flag, values in (("train", TRAIN_TOLERANCES), ("predict", PREDICT_TOLERANCES)):
        group.add_argument(
            f"--{flag}-tolerances",
            metavar="TOL",
            type=float,
            nargs="+",
            default=values,
            help=f"tolerances to {flag} at (default: {' '.join(f'{value:g}' for value in values)})",
        )


def _add_study_training(parser: argparse.ArgumentParser, study: str) -> None:
    """Add the parameters that all networks of a study share."""
    group = parser.add_argument_group("network and training")
    add_parameter(group, "width", "channels of the first stage", type=int)
    if study == "networks":
        add_parameter(group, "ode_tol", "tolerance of NODEs-UNet in training", type=tolerances)
    text = "side of the training crops in pixels"
    usual = shown(default_of(BloodCellSegmenter, "crop_size"))
    default = f"{usual}; with --protocol paper {PAPER_CROP}"
    add_parameter(group, "crop_size", text, type=int, default_shown=default)
    text = "crops a training step"
    add_parameter(group, "batch_size", text, type=batch_size, default_shown=str(BATCH_SIZE))
    add_parameter(group, "max_epochs", "epochs", type=int)
    add_parameter(group, "learning_rate", "highest learning rate", type=float)
    group = parser.add_argument_group("machine")
    add_machine(group)
    group.add_argument(
        "--n-jobs",
        metavar="N",
        type=int,
        help="trainings at a time; -1 is one a core, and times are then those of a busy machine "
        "(default: 1)",
    )
