"""``bloodseg study``."""

from __future__ import annotations

import argparse
import inspect
from pathlib import Path

from sklearn.utils import Bunch

from ..datasets import load_folder
from ..estimators import BloodCellSegmenter
from ..study import report_study, run_study
from ._output import CommandError, first_line, make_folder, say

_OPTIONS = ("networks", "seeds", "protocol", "results", "n_jobs")
_TOLERANCES = ("train_tolerances", "predict_tolerances")


def run(arguments: argparse.Namespace) -> int:
    """Run a study and report it, or report what a folder holds."""
    failures = {} if arguments.study == "report" else _run_study(arguments)
    try:
        text = report_study(arguments.output)
    except (OSError, ValueError) as error:
        raise CommandError(first_line(error)) from error
    say(*text.splitlines())
    say(f"Results: {arguments.output}")
    return 1 if failures else 0


def _run_study(arguments: argparse.Namespace) -> dict[str, str]:
    """Run a study and return which of its trainings came to no result, and why."""
    if arguments.test is None and getattr(arguments, "protocol", "folder") == "folder":
        raise CommandError(
            "the folder to test on is missing. Name it after TRAIN, or pass --protocol paper, "
            "which keeps a fifth of TRAIN for testing."
        )
    make_folder(arguments.output)
    train, test = _load(arguments.train), _load(arguments.test)
    given = vars(arguments)
    names = inspect.signature(BloodCellSegmenter).parameters.keys() & given.keys()
    parameters = {name: given[name] for name in names - set(_OPTIONS)}
    options = {name: given[name] for name in (*_OPTIONS, *_TOLERANCES) if name in given}
    try:
        table = run_study(
            arguments.study,
            train,
            test,
            output=arguments.output,
            dataset=arguments.dataset or _dataset_name(arguments.train),
            verbose=int(not arguments.quiet),
            **options,
            **parameters,
        )
    except (ImportError, OSError, ValueError) as error:
        raise CommandError(first_line(error)) from error
    return table.attrs["failures"]


def _load(folder: Path | None) -> Bunch | None:
    try:
        return None if folder is None else load_folder(folder)
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error


def _dataset_name(folder: Path) -> str:
    """Return the name of smears/train, or of smears: smears."""
    path = folder.resolve()
    return path.parent.name if path.name == "train" else path.name
