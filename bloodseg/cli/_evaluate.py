"""``bloodseg evaluate``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

import numpy as np

from ..datasets import Annotated, list_annotated
from ..plotting import legend, overlay_of
from ..prediction import Segmented
from ._annotations import unreadable
from ._batch import Batch, Outcome
from ._evaluation import METRICS_FILES, Evaluation, ScoredImage, score_image
from ._model import load_segmenter
from ._output import (
    complain,
    first_line,
    make_folder,
    refuse_existing,
    say,
    write_png,
)


def run(arguments: argparse.Namespace) -> int:
    """Score a model on a folder; what fails is reported and left out."""
    batch = Batch(arguments)
    segmenter = load_segmenter(arguments)
    classes = segmenter.class_names_
    images = list_images_of(arguments.data, batch, classes)
    overlays = _prepare(arguments, [each.name for each in images])

    def score(annotated: Annotated) -> ScoredImage:
        image, mask, cells = annotated.read()
        scores, found = score_image(segmenter, annotated.name, image, mask, cells)
        batch.judge(found)
        if overlays:
            _write_overlay(overlays[annotated.name], image, found)
        return scores

    def sum_up(scored: list[ScoredImage]) -> Outcome:
        result = Evaluation(scored, classes)
        n_left = count_left(images, scored, batch)
        of_run = {"model": str(arguments.model), "data": str(arguments.data)}
        of_images = {"failed": batch.failed, "n_left": n_left}

        def show() -> None:
            say(*result.table())
            say_left_out(batch, n_left)
            if overlays:
                say(f"Results: {arguments.output} (overlays: {legend(classes)})")

        return Outcome(
            result.files(arguments.output, **of_run, **of_images) if overlays else {}, show
        )

    batch.collect(
        images,
        score,
        doing="evaluating",
        none=f"no image of {arguments.data} could be evaluated.",
        sum_up=sum_up,
        name=attrgetter("name"),
    )
    return batch.exit_code


def count_left(images: Sequence[Annotated], scored: Sequence[ScoredImage], batch: Batch) -> int:
    """Return how many images have not been worked on yet."""
    done = {each.about["image"] for each in scored}
    return sum(each.name not in done and each.name not in batch.failed for each in images)


def say_left_out(batch: Batch, n_left: int) -> None:
    """Say how many images the scores are without."""
    if batch.failed:
        say(f"{len(batch.failed)} left out, see the messages.")
    if n_left:
        say(f"Stopped before {n_left} more: the scores are without them.")


def list_images_of(folder: Path, batch: Batch, classes: Sequence[str]) -> list[Annotated]:
    """Return the annotated images of a folder, those that are damaged counted as failed."""
    try:
        return list_annotated(folder, classes=classes, on_error=batch.fail)
    except (OSError, ValueError) as error:
        raise unreadable(error) from error


def _prepare(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Path]:
    """Make the output folders and return the overlay file of each image; none without -o."""
    if arguments.output is None:
        return {}
    folder = arguments.output / "overlays"
    overlays = {name: folder / f"{name}_overlay.png" for name in names}
    tables = [arguments.output / name for name in METRICS_FILES]
    refuse_existing([*tables, *overlays.values()], overwrite=arguments.overwrite)
    make_folder(arguments.output)
    make_folder(folder)
    return overlays


def _write_overlay(path: Path, image: np.ndarray, found: Segmented) -> None:
    try:
        write_png(path, overlay_of(found, image))
    except (OSError, MemoryError) as error:  # the scores do not depend on it
        complain(f"{path} not written: {first_line(error)}")
