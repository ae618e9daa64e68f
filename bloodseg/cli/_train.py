"""``bloodseg train``."""

from __future__ import annotations

import argparse
import inspect
import time
from pathlib import Path
from typing import Any

from sklearn.base import clone

from ..datasets import load_folder
from ..estimators import BloodCellSegmenter
from ..models import list_models
from ..ode import SolverError
from ..preprocessing import Preprocessor
from ._output import (
    CommandError,
    check_writable,
    complain,
    first_line,
    make_folder,
    refuse_existing,
    reported,
    say,
    write_csv,
)


def run(arguments: argparse.Namespace) -> int:
    """Train, save the model and the history, and print what came out."""
    model_file = arguments.output
    history_file = model_file.with_name(f"{model_file.stem}.history.csv")
    _check_outputs(arguments, model_file, history_file)
    segmenter = _make_segmenter(arguments)
    try:
        data = load_folder(arguments.data)
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    seconds = fit(segmenter, data.images, data.masks, groups=data.groups)
    save(segmenter, model_file)
    with reported(history_file, note=f". The model is in {model_file}."):
        write_csv(history_file, history_rows(segmenter))
    say(summary(segmenter, seconds))
    say(f"Model: {model_file}\nHistory: {history_file}")
    return 1 if ended_early(segmenter) else 0


def _check_outputs(arguments: argparse.Namespace, *files: Path) -> None:
    """Find out before hours of training what would fail after them."""
    if arguments.output.suffix == ".csv":
        raise CommandError(f"MODEL must not be a .csv file; got {arguments.output}.")
    check_writable(arguments.output.parent)
    refuse_existing(files, overwrite=arguments.overwrite)
    if arguments.checkpoint_dir is not None:
        make_folder(arguments.checkpoint_dir)


def _make_segmenter(arguments: argparse.Namespace) -> BloodCellSegmenter:
    signature = inspect.signature(BloodCellSegmenter).parameters
    names = signature.keys() & vars(arguments).keys()
    parameters: dict[str, Any] = {name: getattr(arguments, name) for name in names}
    if arguments.no_preprocessor:
        parameters["preprocessor"] = None
    elif arguments.clip_limit is not None:
        parameters["preprocessor"] = Preprocessor(
            clip_limit=arguments.clip_limit, n_jobs=arguments.n_jobs
        )
    segmenter = BloodCellSegmenter()
    if arguments.pretrained is not None:
        segmenter = _starting_point(arguments.pretrained)
        parameters = {
            name: value for name, value in parameters.items() if value != signature[name].default
        }
    return segmenter.set_params(**parameters, verbose=int(not arguments.quiet))


def _starting_point(pretrained: Path) -> BloodCellSegmenter:
    """Return a segmenter, not fitted, with the parameters of a model to start from."""
    if str(pretrained) in list_models():
        return clone(BloodCellSegmenter.from_pretrained(str(pretrained)))
    try:
        return clone(BloodCellSegmenter.load(pretrained))
    except (OSError, ValueError) as error:
        raise CommandError(f"--pretrained: {error}") from error


def fit(segmenter: BloodCellSegmenter, images: Any, masks: Any, *, groups: Any = None) -> float:
    """Fit a segmenter and return the seconds it took."""
    started = time.perf_counter()
    try:
        segmenter.fit(images, masks, groups=groups)
        if not segmenter.history_:  # weights that no epoch has shaped are not worth a file
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        complain("training was stopped: no model was written.")
        raise
    except (
        ImportError,
        OSError,
        ValueError,
        MemoryError,
        SolverError,
        FloatingPointError,
    ) as error:
        raise CommandError(first_line(error)) from error
    return time.perf_counter() - started


def save(segmenter: BloodCellSegmenter, path: Path) -> None:
    """Save the model."""
    try:
        segmenter.save(path)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be written: {first_line(error)}") from error


def history_rows(segmenter: BloodCellSegmenter) -> list[dict[str, Any]]:
    """Return the history with a column for the epoch."""
    return [{"epoch": number, **row} for number, row in enumerate(segmenter.history_, start=1)]


def ended_early(segmenter: BloodCellSegmenter) -> bool:
    """Return whether training ended before it was meant to."""
    return segmenter.end_reason_ in ("interrupted", "broke down")


def summary(segmenter: BloodCellSegmenter, seconds: float) -> str:
    """Return in words what a training came to."""
    best = segmenter.history_[segmenter.best_epoch_ - 1]
    text = f"Epoch {segmenter.best_epoch_} of {len(segmenter.history_)} kept"
    if "valid_loss" in best:
        text += f": validation loss {best['valid_loss']:.4f}, mean IoU {best['valid_mean_iou']:.4f}"
    return f"{text}. {seconds:.1f} s."
