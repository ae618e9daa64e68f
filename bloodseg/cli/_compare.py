"""``bloodseg compare``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from operator import attrgetter
from typing import Any

import numpy as np

from .._images import counted
from ..datasets import Annotated
from ..estimators import BloodCellSegmenter
from ..metrics import FoundCells, paired_table
from ._batch import Batch, Outcome
from ._evaluate import count_left, list_images_of, say_left_out
from ._evaluation import Evaluation, ScoredImage, score_image, show_score
from ._model import load_segmenter
from ._output import TABLE, CommandError, check_output, say
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


_Pair = tuple[ScoredImage, ScoredImage]


@dataclass(frozen=True, eq=False)
class _Comparison:
    """What two models make of the same images."""

    first: Evaluation
    second: Evaluation
    random_state: int

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Rows of `bloodseg.metrics.compare_predictions`."""
        sides = (self.first, self.second)
        first, second = (np.stack([image.matrix for image in side.images]) for side in sides)
        cells = [
            FoundCells([each.table for each in kept], [(each.true, each.found) for each in kept])
            for kept in (side.cells for side in sides)
        ]
        table = paired_table(
            (first, second),
            cells if cells[0].tables else None,
            self.first.classes,
            random_state=self.random_state,
        )
        return table.to_dict("records")

    def table(self) -> Iterator[str]:
        """Yield the lines of the table in print."""
        titles = [_title(row) for row in self.rows]
        width = max(36, *map(len, titles))
        yield f"{'':<{width}}{'A':>10}{'B':>10}{'A - B':>10}   95 % of images drawn anew"
        of = "pixels"
        for title, row in zip(titles, self.rows, strict=True):
            if row["of"] != of:
                of = row["of"]
                yield ""
            values = [row[key] for key in ("first", "second", "difference", "low", "high")]
            one, other, difference, low, high = map(show_score, values)
            yield f"{title:<{width}}{one:>10}{other:>10}{difference:>10}   [{low}, {high}]"

    def notes(self) -> Iterator[str]:
        """Yield what there is to say of the table."""
        n_images = len(self.first.images)
        seconds = [side.seconds / n_images for side in (self.first, self.second)]
        yield ""
        yield (
            f"{counted(n_images, 'image')}; {seconds[0]:.2f} and {seconds[1]:.2f} seconds an image."
        )
        yield (
            "Where A - B is above 0, A is better; of count errors, B. Where the interval holds 0, "
            "these images do not tell which. It says nothing of other trainings."
        )
        yield from dict.fromkeys((*self.first.notes(), *self.second.notes()))


def run(arguments: argparse.Namespace) -> int:
    """Score two models on the same images; what fails for one is left out for both."""
    if arguments.output is not None:
        check_output(arguments.output, overwrite=arguments.overwrite, endings=TABLE)
    batch = Batch(arguments)
    first, second = (_load(arguments, model) for model in (arguments.first, arguments.second))
    if first.class_names_ != second.class_names_:
        raise CommandError(
            f"the two models must have the same classes; got {', '.join(first.class_names_)} and "
            f"{', '.join(second.class_names_)}. Score each by `bloodseg evaluate`."
        )
    classes = first.class_names_
    images = list_images_of(arguments.data, batch, classes)

    def score(annotated: Annotated) -> _Pair:
        read = annotated.read()
        one, other = (score_image(model, annotated.name, *read) for model in (first, second))
        batch.judge(one[1])
        batch.judge(other[1])
        return one[0], other[0]

    def sum_up(pairs: list[_Pair]) -> Outcome:
        one, other = (Evaluation(scored, classes) for scored in zip(*pairs, strict=True))
        result = _Comparison(one, other, random_state=arguments.random_state)
        output = arguments.output

        def show() -> None:
            models = f"A: {arguments.first}", f"B: {arguments.second}"
            say(*models, "", *result.table(), *result.notes())
            say_left_out(batch, count_left(images, one.images, batch))
            if output in batch.places:
                say(f"Table: {batch.places[output]}")

        files = {} if output is None else {output: partial(write_csv, rows=result.rows)}
        return Outcome(files, show)

    batch.collect(
        images,
        score,
        doing="comparing",
        none=f"no image of {arguments.data} could be compared.",
        sum_up=sum_up,
        name=attrgetter("name"),
    )
    return batch.exit_code


def _load(arguments: argparse.Namespace, model: Any) -> BloodCellSegmenter:
    return load_segmenter(argparse.Namespace(**{**vars(arguments), "model": model}))


def _title(row: dict[str, Any]) -> str:
    name = "all cells" if row["of"] == "cells" and row["class"] == "all" else row["class"]
    return _SHOWN[row["score"]] + ("" if name == "all" else f", {name}")
