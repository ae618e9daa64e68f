"""``bloodseg count``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..cells import EXCLUDED_SIDES, OF_CELLS, summarize
from ..datasets import read_image
from ..estimators import BloodCellCounter, BloodCellSegmenter
from ._batch import Batch, Outcome, segment_one
from ._model import load_model
from ._output import TABLE, CommandError, check_output, complain, first_line, say
from ._tables import write_csv

_Row = dict[str, Any]
_Count = Callable[[Path], tuple[_Row, Any]]  # with the table of cells, where one is wanted


def run(arguments: argparse.Namespace) -> int:
    """Count the cells of the images one by one; what fails is reported and left out."""
    batch = Batch(arguments)
    images = batch.find(arguments.images)
    files = _files(arguments)
    for file in files.values():
        check_output(file, overwrite=arguments.overwrite, endings=TABLE)
    model = load_model(arguments)
    count = _by_cells if isinstance(model, BloodCellSegmenter) else _by_regression
    names = model.class_names_[1:]

    def sum_up(counted: list[tuple[_Row, Any]]) -> Outcome:
        rows = [row for row, _ in counted]

        def show() -> None:
            say(*_table(rows, names))
            if arguments.summary:
                summed = _summed_up(rows, [table for _, table in counted])
                if summed and files:
                    batch.write({files["Summary"]: partial(write_csv, rows=summed)})
                say(*_in_columns(summed))
            for kind, file in files.items():
                if file in batch.places:
                    say(f"{kind}: {batch.places[file]}")

        table = {files["Table"]: partial(write_csv, rows=rows)} if files else {}
        return Outcome(table, show)

    work, none = count(model, batch, arguments), "no image could be counted."
    batch.collect(images, work, doing="counting", none=none, sum_up=sum_up)
    return batch.exit_code


def _files(arguments: argparse.Namespace) -> dict[str, Path]:
    """Return the files to write: the table, and its summary beside it."""
    if arguments.output is None:
        return {}
    files = {"Table": arguments.output}
    if arguments.summary:
        files["Summary"] = arguments.output.with_suffix(".summary.csv")
    return files


def _by_cells(segmenter: BloodCellSegmenter, batch: Batch, arguments: argparse.Namespace) -> _Count:
    sides = vars(arguments).get("excluded_sides")
    if arguments.summary and sides is None:
        sides = EXCLUDED_SIDES  # what ratios are counted in, be the size of a pixel known or not

    def count(image: Path) -> tuple[_Row, Any]:
        found = segment_one(segmenter, image)
        batch.judge(found)
        table = found.measure()[list(OF_CELLS)] if arguments.summary else None
        return found.count(excluded_sides=sides), table

    return count


def _by_regression(
    counter: BloodCellCounter, batch: Batch, arguments: argparse.Namespace
) -> _Count:
    if "excluded_sides" in arguments:
        raise CommandError(
            f"--excluded-sides means nothing to {arguments.model}, which sees no single cells. "
            "Leave it out."
        )
    if arguments.strict:
        raise CommandError(
            f"--strict means nothing to {arguments.model}, which says of no result that it is in "
            "doubt. Leave it out."
        )

    def count(image: Path) -> tuple[_Row, Any]:
        (counts,) = counter.predict([read_image(image)]).round(2).tolist()
        named = dict(zip(counter.class_names_[1:], counts, strict=True))
        return {"image": str(image), **named}, None

    return count


def _summed_up(rows: list[_Row], tables: list[Any]) -> list[_Row]:
    """Return the rows of the summary; none where there is no summing up."""
    import pandas as pd

    cells = pd.concat(tables, ignore_index=True) if tables[0] is not None else None
    try:
        return summarize(pd.DataFrame(rows), cells).to_dict("records")
    except ValueError as error:
        complain(f"no summary: {first_line(error)}")
        return []


def _in_columns(summed: list[_Row]) -> Iterator[str]:
    """Yield the lines of a summary: all images, and those not in doubt where some are."""
    if not summed:
        return
    shown = summed if summed[0]["images_doubted"] > 0 else summed[:1]  # NaN: not known
    yield ""
    for name in summed[0]:
        values = (_shown(row[name]) for row in shown)
        yield f"{name.replace('_', ' '):<28}" + "".join(f"{value:>12}" for value in values)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return str(value)


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
