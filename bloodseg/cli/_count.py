"""``bloodseg count``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..cells import check_pixel_size
from ..estimators import BloodCellSegmenter
from ._model import INPUT_ERRORS, load_model, segment_one
from ._output import (
    CommandError,
    check_writable,
    complain,
    first_line,
    progress,
    refuse_existing,
    reported,
    say,
    write_csv,
)
from ._predict import find_images


def run(arguments: argparse.Namespace) -> int:
    """Count the cells of the images one by one; what fails is reported and left out."""
    images, n_failed = find_images(arguments.images)
    if arguments.output is not None:
        refuse_existing([arguments.output], overwrite=arguments.overwrite)
        check_writable(arguments.output.parent)
    segmenter = load_for_cells(arguments)
    rows: list[dict[str, Any]] = []
    try:
        for image in progress(images, label="counting", quiet=arguments.quiet):
            try:
                rows.append(segment_one(segmenter, image).count())
            except INPUT_ERRORS as error:
                complain(f"{image} skipped: {first_line(error)}")
                n_failed += 1
    finally:  # also on Ctrl-C: what was counted is not lost
        if rows:
            _write(rows, arguments.output)
    if not rows:
        raise CommandError("no image could be counted.")
    return 1 if n_failed else 0


def _write(rows: list[dict[str, Any]], output: Path | None) -> None:
    if output is not None:
        with reported(output):
            write_csv(output, rows)
    say("\n".join(_table(rows)))
    if output is not None:
        say(f"Table: {output}")


def load_for_cells(arguments: argparse.Namespace) -> BloodCellSegmenter:
    """Load the model, and set the size of a pixel."""
    try:
        check_pixel_size(arguments.pixel_size)
    except ValueError as error:
        raise CommandError(f"--pixel-size: {error}") from error
    segmenter = load_model(arguments)
    return segmenter.set_params(pixel_size=arguments.pixel_size, verbose=int(not arguments.quiet))


def _table(rows: list[dict]) -> Iterator[str]:
    """Yield the lines of a table with a last one for all images."""
    yield f"{'white':>8}{'red':>8}{'confidence':>12}  image"
    for row in rows:
        yield f"{row['white']:>8}{row['red']:>8}{row['confidence']:>12.3f}  {row['image']}"
    if len(rows) > 1:
        totals = (sum(row[name] for row in rows) for name in ("white", "red"))
        yield "".join(f"{total:>8}" for total in totals) + f"{'':12}  {len(rows)} images"
