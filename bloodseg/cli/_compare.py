"""``bloodseg compare``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import numpy as np

from ..datasets import Annotated
from ..estimators import BloodCellSegmenter
from ..metrics import FoundCells, paired_table
from ._batch import Batch
from ._evaluate import count_left, list_images_of, say_left_out
from ._evaluation import Evaluation, ScoredImage, score_image, show_score
from ._model import load_segmenter
from ._output import CommandError, check_output, reported, say
from ._tables import write_csv

_SHOWN = {
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy (PA)",
    "iou": "IoU",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "panoptic_quality": "panoptic quality (PQ)",
    "average_precision": "average precision",
    "count_error": "count error an image",
}


def run(arguments: argparse.Namespace) -> int:
    """Score two models on the same images; what fails for one is left out for both."""
    if arguments.output is not None:
        check_output(arguments.output, overwrite=arguments.overwrite)
    batch = Batch(arguments)
    first, second = (_load(arguments, model) for model in (arguments.first, arguments.second))
    if first.class_names_ != second.class_names_:
        raise CommandError(
            f"the two models must have the same classes; got {', '.join(first.class_names_)} and "
            f"{', '.join(second.class_names_)}. Score each by `bloodseg evaluate`."
        )
    classes = first.class_names_
    images = list_images_of(arguments.data, batch, classes)
    pairs: list[tuple[ScoredImage, ScoredImage]] = []

    def score(annotated: Annotated) -> tuple[ScoredImage, ScoredImage]:
        read = annotated.read()
        one, other = (score_image(model, annotated.name, *read) for model in (first, second))
        batch.judge(one[1])
        batch.judge(other[1])
        return one[0], other[0]

    def evaluations() -> tuple[Evaluation, Evaluation]:
        return (
            Evaluation([pair[0] for pair in pairs], classes),
            Evaluation([pair[1] for pair in pairs], classes),
        )

    def write(rows: list[dict[str, Any]]) -> None:
        with reported(arguments.output):
            write_csv(arguments.output, rows)

    def keep() -> None:
        if arguments.output is not None:
            write(_compare(evaluations(), arguments))

    try:
        for pair in batch.run(images, score, doing="comparing", name=attrgetter("name"), keep=keep):
            pairs.append(pair)
    finally:  # also on Ctrl-C: what was scored is not lost
        if pairs:
            results = evaluations()
            rows = _compare(results, arguments)
            if arguments.output is not None:
                write(rows)
            say(
                f"A: {arguments.first}",
                f"B: {arguments.second}",
                "",
                *_table(rows),
                *_notes(results),
            )
            say_left_out(batch, count_left(images, results[0].images, batch))
            if arguments.output is not None:
                say(f"Table: {arguments.output}")
    if not pairs:
        raise CommandError(f"no image of {arguments.data} could be compared.")
    return batch.exit_code


def _load(arguments: argparse.Namespace, model: Any) -> BloodCellSegmenter:
    return load_segmenter(argparse.Namespace(**{**vars(arguments), "model": model}))


def _compare(
    results: tuple[Evaluation, Evaluation], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    first, second = (np.stack([image.matrix for image in result.images]) for result in results)
    cells = [
        FoundCells([each.table for each in kept], [(each.true, each.found) for each in kept])
        for kept in (result.cells for result in results)
    ]
    table = paired_table(
        (first, second),
        cells if cells[0].tables else None,
        results[0].classes,
        random_state=arguments.random_state,
    )
    return table.to_dict("records")


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    titles = [_title(row) for row in rows]
    width = max(36, *map(len, titles))
    yield f"{'':<{width}}{'A':>10}{'B':>10}{'A - B':>10}   95 % of images drawn anew"
    of = "pixels"
    for title, row in zip(titles, rows, strict=True):
        if row["of"] != of:
            of = row["of"]
            yield ""
        values = [row[key] for key in ("first", "second", "difference", "low", "high")]
        one, other, difference, low, high = map(show_score, values)
        yield f"{title:<{width}}{one:>10}{other:>10}{difference:>10}   [{low}, {high}]"


def _title(row: dict[str, Any]) -> str:
    name = "all cells" if row["of"] == "cells" and row["class"] == "all" else row["class"]
    return _SHOWN[row["score"]] + ("" if name == "all" else f", {name}")


def _notes(results: tuple[Evaluation, Evaluation]) -> Iterator[str]:
    n_images = len(results[0].images)
    seconds = [result.seconds / n_images for result in results]
    yield ""
    yield (
        f"{n_images} image{'s' * (n_images != 1)}; {seconds[0]:.2f} and {seconds[1]:.2f} seconds "
        "an image."
    )
    yield (
        "Where the interval holds 0, these images do not tell which is better. It says nothing of "
        "other trainings."
    )
    yield from dict.fromkeys(note for result in results for note in result.notes())
