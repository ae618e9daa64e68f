"""``bloodseg train``."""

from __future__ import annotations

import argparse
import os
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone
from skorch.callbacks import Callback

from .._images import check_classes, in_words
from ..datasets import IMAGE_SUFFIXES, files_by_stem, load_annotated, read_image, read_table
from ..estimators import BloodCellCounter, BloodCellSegmenter, NetworkEstimator
from ..models import list_models
from ..preprocessing import Preprocessor
from ..training import numbers_of
from ._annotations import unreadable
from ._batch import INPUT_ERRORS
from ._output import (
    CommandError,
    check_output,
    complain,
    first_line,
    make_folder,
    say,
    write_results,
)
from ._signals import held_off
from ._tables import write_csv


def run(arguments: argparse.Namespace) -> int:
    """Train, save the model and the history, and print what came out."""
    model_file = arguments.output
    history_file = model_file.with_name(f"{model_file.stem}.history.csv")
    _check_outputs(arguments, model_file, history_file)
    estimator = _make_estimator(arguments)
    try:
        images, targets, groups = _load(arguments, check_classes(estimator.classes))
    except (OSError, ValueError) as error:
        raise unreadable(error) from error
    if _is_main():
        estimator.set_params(callbacks=[HistoryFile(history_file)])
    seconds = fit(estimator, images, targets, groups=groups)
    if not _is_main():  # the same model, which one process writes
        return 1 if ended_early(estimator) else 0
    with held_off():
        model = write_results(model_file, partial(save, estimator))
        say(summary(estimator, seconds), f"Model: {model}")
        history = write_results(history_file, partial(write_csv, rows=history_rows(estimator)))
        say(f"History: {history}")
    elsewhere = (model, history) != (model_file, history_file)
    return 1 if ended_early(estimator) or elsewhere else 0


def _n_processes() -> int:
    """Return how many processes ``torchrun`` or ``accelerate launch`` has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _is_main() -> bool:
    return os.environ.get("RANK", "0") == "0"


class HistoryFile(Callback):
    """Writes the history after each epoch, for who follows a training from outside."""

    def __init__(self, path: Path):
        self.path = path

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Write the file; it is written once more in the end, and what fails is said then."""
        with suppress(OSError):
            write_csv(self.path, [numbers_of(row) for row in net.history.to_list()])


def _check_outputs(arguments: argparse.Namespace, *files: Path) -> None:
    """Find out before hours of training what would fail after them."""
    if arguments.output.suffix == ".csv":
        raise CommandError(f"MODEL must not be a .csv file; got {arguments.output}.")
    for file in files:
        check_output(file, overwrite=arguments.overwrite)
    if vars(arguments).get("checkpoint_dir") is not None:
        make_folder(arguments.checkpoint_dir)


def _make_estimator(arguments: argparse.Namespace) -> NetworkEstimator:
    """Return the estimator that the options describe."""
    given = vars(arguments)
    kind = BloodCellSegmenter if arguments.counts is None else BloodCellCounter
    parameters = {name: given[name] for name in kind().get_params() if name in given}
    _refuse_unused(arguments, kind)
    if arguments.no_preprocessor:
        parameters["preprocessor"] = None
    elif arguments.clip_limit is not None:
        n_jobs = parameters.get("n_jobs")
        parameters["preprocessor"] = Preprocessor(clip_limit=arguments.clip_limit, n_jobs=n_jobs)
    estimator: NetworkEstimator = kind()
    if "pretrained" in given and kind is BloodCellSegmenter:
        estimator = _starting_point(given["pretrained"])
    if _n_processes() > 1:
        if kind is BloodCellCounter:
            raise CommandError("--counts trains in one process. Start it without torchrun.")
        parameters["accelerator"] = True
    return estimator.set_params(**parameters, verbose=int(not arguments.quiet))


def _refuse_unused(arguments: argparse.Namespace, kind: type[NetworkEstimator]) -> None:
    """Raise where an option means nothing to an estimator of this kind."""
    known = kind().get_params()
    for other in (BloodCellSegmenter, BloodCellCounter):
        for name in other().get_params():
            if name in vars(arguments) and name not in known:
                when = "with" if kind is BloodCellCounter else "without"
                raise CommandError(
                    f"--{name.replace('_', '-')} means nothing {when} --counts. Leave it out."
                )


def _starting_point(pretrained: Path | None) -> BloodCellSegmenter:
    """Return a segmenter, not fitted, with the parameters of a model to start from."""
    if pretrained is None:
        return BloodCellSegmenter()
    if str(pretrained) in list_models():
        return clone(BloodCellSegmenter.from_pretrained(str(pretrained)))
    try:
        return clone(BloodCellSegmenter.load(pretrained))
    except (OSError, ValueError) as error:
        raise CommandError(f"--pretrained: {first_line(error)}") from error


def _load(arguments: argparse.Namespace, classes: tuple[str, ...]) -> tuple[Any, Any, Any]:
    """Return images, label maps or counts, and groups."""
    if arguments.counts is None:
        data = load_annotated(arguments.data, classes=classes)
        return data.images, data.masks, data.groups
    folder = arguments.data / "images"
    files = files_by_stem(folder if folder.is_dir() else arguments.data, IMAGE_SUFFIXES)
    if not files:
        raise ValueError(f"{arguments.data} holds no image.")
    table = read_table(arguments.counts, classes[1:], list(files))
    try:
        counts = np.stack([table[name] for name in classes[1:]], axis=1).astype(float)
    except ValueError as error:
        raise ValueError(f"{arguments.counts} must hold numbers of cells: {error}.") from error
    groups, file = None, arguments.data / "groups.csv"
    if file.is_file():
        groups = read_table(file, ("group",), list(files))["group"]
    return [read_image(each) for each in files.values()], counts, groups


def fit(estimator: NetworkEstimator, images: Any, targets: Any, *, groups: Any = None) -> float:
    """Fit an estimator and return the seconds it took."""
    started = time.perf_counter()
    try:
        estimator.fit(images, targets, groups=groups)
        if not estimator.history_:  # weights that no epoch has shaped are not worth a file
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        complain("training was stopped: no model was written.")
        raise
    except INPUT_ERRORS as error:
        raise CommandError(first_line(error)) from error
    return time.perf_counter() - started


def save(estimator: NetworkEstimator, path: Path) -> None:
    """Save the model."""
    try:
        estimator.save(path)
    except ValueError as error:
        raise CommandError(f"{path} cannot be written: {first_line(error)}") from error


def history_rows(estimator: NetworkEstimator) -> list[dict[str, Any]]:
    """Return the history with a column for the epoch."""
    return [{"epoch": number, **row} for number, row in enumerate(estimator.history_, start=1)]


def ended_early(estimator: NetworkEstimator) -> bool:
    """Return whether training ended before it was meant to."""
    return estimator.end_reason_ in ("interrupted", "broke down")


def summary(estimator: NetworkEstimator, seconds: float) -> str:
    """Return in words what a training came to."""
    best = estimator.history_[estimator.best_epoch_ - 1]
    text = f"Epoch {estimator.best_epoch_} of {len(estimator.history_)} kept"
    if "valid_loss" in best:
        text += f": validation loss {best['valid_loss']:.4f}"
    if "valid_mean_iou" in best:
        text += f", mean IoU {best['valid_mean_iou']:.4f}"
    errors = [
        f"{best[key]:.1f} {in_words(name)}"
        for name in estimator.class_names_[1:]
        if (key := f"valid_mae_{name}") in best
    ]
    if errors:
        text += f", off by {' and '.join(errors)} an image"
    return f"{text}. {seconds:.1f} s."
