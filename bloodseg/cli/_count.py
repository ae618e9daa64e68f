"""``bloodseg count``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
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
    try:
        for row in batch.run(images, count, doing="counting"):
            rows.append(row)
    finally:  # also on Ctrl-C: what was counted is not lost
        if rows:
            _write(rows, arguments.output)
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
        ((white, red),) = counter.predict([read_image(image)])
        return {"image": str(image), "white": round(white, 2), "red": round(red, 2)}

    return count


def _write(rows: list[_Row], output: Path | None) -> None:
    if output is not None:  # first: what is printed may go nowhere
        with reported(output):
            write_csv(output, rows)
    say(*_table(rows))
    if output is not None:
        say(f"Table: {output}")


def _table(rows: list[_Row]) -> Iterator[str]:
    """Yield the lines of a table with a last one for all images."""
    yield f"{'white':>8}{'red':>8}{'confidence':>12}  image"
    for row in rows:
        confidence = f"{row['confidence']:.3f}" if "confidence" in row else ""
        doubted = "  (doubtful, see the messages)" if row.get("doubts") else ""
        yield _line(row["white"], row["red"], confidence, row["image"] + doubted)
    if len(rows) > 1:
        white, red = (sum(row[name] for row in rows) for name in ("white", "red"))
        yield _line(white, red, "", f"{len(rows)} images")


def _line(white: float, red: float, confidence: str, text: str) -> str:
    counts = (
        f"{count:>8.1f}" if isinstance(count, float) else f"{count:>8}" for count in (white, red)
    )
    return f"{''.join(counts)}{confidence:>12}  {text}"
