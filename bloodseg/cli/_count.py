"""``bloodseg count``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..datasets import read_image
from ..estimators import BloodCellCounter, BloodCellSegmenter
from ._batch import Batch, segment_one
from ._model import load_model
from ._output import CommandError, check_output, reported, say
from ._tables import write_csv

_Row = dict[str, Any]


def run(arguments: argparse.Namespace) -> int:
    """Count the cells of the images one by one; what fails is reported and left out."""
    batch = Batch(arguments)
    images = batch.find(arguments.images)
    if arguments.output is not None:
        check_output(arguments.output, overwrite=arguments.overwrite)
    model = load_model(arguments)
    sides = vars(arguments).get("excluded_sides")
    if isinstance(model, BloodCellSegmenter):
        count = _by_cells(model, batch, sides)
    elif sides is None:
        count = _by_regression(model)
    else:
        raise CommandError(
            f"--excluded-sides means nothing to {arguments.model}, which sees no single cells. "
            "Leave it out."
        )
    rows: list[_Row] = []
    names = model.class_names_[1:]
    try:
        for row in batch.run(images, count, doing="counting"):
            rows.append(row)
    finally:  # also on Ctrl-C: what was counted is not lost
        if rows:
            _write(rows, names, arguments.output)
    if not rows:
        raise CommandError("no image could be counted.")
    return batch.exit_code


def _by_cells(
    segmenter: BloodCellSegmenter, batch: Batch, sides: tuple[str, ...] | None
) -> Callable[[Path], _Row]:
    def count(image: Path) -> _Row:
        found = segment_one(segmenter, image)
        batch.judge(found)
        return found.count(excluded_sides=sides)

    return count


def _by_regression(counter: BloodCellCounter) -> Callable[[Path], _Row]:
    def count(image: Path) -> _Row:
        (counts,) = counter.predict([read_image(image)]).round(2).tolist()
        return {"image": str(image), **dict(zip(counter.class_names_[1:], counts, strict=True))}

    return count


def _write(rows: list[_Row], names: Sequence[str], output: Path | None) -> None:
    if output is not None:  # first: what is printed may go nowhere
        with reported(output):
            write_csv(output, rows)
    say(*_table(rows, names))
    if output is not None:
        say(f"Table: {output}")


def _table(rows: list[_Row], names: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a table with a last one for all images."""
    widths = {name: max(8, len(name) + 2) for name in names}
    yield (
        "".join(f"{name:>{width}}" for name, width in widths.items()) + f"{'confidence':>12}  image"
    )
    for row in rows:
        confidence = f"{row['confidence']:.3f}" if "confidence" in row else ""
        doubted = "  (doubtful, see the messages)" if row.get("doubts") else ""
        yield _line(row, widths, confidence, row["image"] + doubted)
    if len(rows) > 1:
        sums = {name: sum(row[name] for row in rows) for name in names}
        yield _line(sums, widths, "", f"{len(rows)} images")


def _line(counts: Mapping[str, Any], widths: Mapping[str, int], confidence: str, text: str) -> str:
    shown = (
        f"{counts[name]:>{width}.1f}"
        if isinstance(counts[name], float)
        else f"{counts[name]:>{width}}"
        for name, width in widths.items()
    )
    return f"{''.join(shown)}{confidence:>12}  {text}"
