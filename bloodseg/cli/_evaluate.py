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
from ._batch import Batch
from ._evaluation import METRICS_FILES, Evaluation, time_prediction
from ._model import load_segmenter
from ._output import (
    CommandError,
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
    result = Evaluation(classes)
    images = list_images_of(arguments.data, batch, classes)
    overlays = _prepare(arguments, [each.name for each in images])

    def score(annotated: Annotated) -> None:
        name = annotated.name
        image, mask, cells = annotated.read()
        found, cost = time_prediction(segmenter, image, name)
        batch.judge(found)
        doubts = "; ".join(found.doubts())
        result.add(name, mask, found.class_map[:], **cost, doubts=doubts)
        if cells is not None:
            result.add_cells(cells, found.cells())
        if overlays:
            _write_overlay(overlays[name], image, found)

    for _ in batch.run(images, score, doing="evaluating", name=attrgetter("name")):
        pass
    if not result.about:
        raise CommandError(f"no image of {arguments.data} could be evaluated.")
    if overlays:
        result.write(
            arguments.output,
            model=str(arguments.model),
            data=str(arguments.data),
            failed=batch.failed,
        )
    say(*result.table())
    if batch.failed:
        say(f"{len(batch.failed)} left out, see the messages.")
    if overlays:
        say(f"Results: {arguments.output} (overlays: {legend(classes)})")
    return batch.exit_code


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
