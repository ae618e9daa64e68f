"""``bloodseg measure``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import write_json
from ..cells import to_coco, to_geojson
from ._count import load_for_cells
from ._model import INPUT_ERRORS, segment_one
from ._output import (
    CommandError,
    complain,
    first_line,
    make_folder,
    progress,
    refuse_existing,
    reported,
    say,
    write_csv,
)
from ._predict import find_images, names_for

if TYPE_CHECKING:
    import pandas as pd


def run(arguments: argparse.Namespace) -> int:
    """Measure the cells of the images one by one; what fails is reported and left out."""
    import pandas as pd

    images, n_failed = find_images(arguments.images)
    outputs = _outputs(arguments, images)
    refuse_existing(outputs.values(), overwrite=arguments.overwrite)
    segmenter = load_for_cells(arguments)
    make_folder(arguments.output)
    tables, sizes = [], {}
    outlines = bool({"geojson", "coco"} & set(arguments.formats))
    try:
        for image in progress(images, label="measuring", quiet=arguments.quiet):
            try:
                found = segment_one(segmenter, image)
                table = found.measure(outlines=outlines)
            except INPUT_ERRORS as error:
                complain(f"{image} skipped: {first_line(error)}")
                n_failed += 1
                continue
            if image in outputs:
                _write(outputs[image], to_geojson(table))
            tables.append(table)
            sizes[found.name] = found.class_map.shape
    finally:  # also on Ctrl-C: what was measured is not lost
        if tables:
            _write_tables(outputs, pd.concat(tables, ignore_index=True), sizes)
    if not tables:
        raise CommandError("no image could be measured.")
    n_cells = sum(map(len, tables))
    say(f"{n_cells} cells in {len(tables)} images, {n_failed} failed. Results: {arguments.output}")
    return 1 if n_failed else 0


def _outputs(arguments: argparse.Namespace, images: Sequence[Path]) -> dict[Any, Path]:
    """Return the files to write: by the names of tables, and by image."""
    folder, formats = arguments.output, arguments.formats
    outputs: dict[Any, Path] = {}
    if "csv" in formats:
        outputs["cells.csv"] = folder / "cells.csv"
    if "coco" in formats:
        outputs["cells.coco.json"] = folder / "cells.coco.json"
    if "geojson" in formats:
        names = names_for(images, {})
        outputs |= {
            image: folder / f"{name}.geojson" for image, name in zip(images, names, strict=True)
        }
    return outputs


def _write_tables(
    outputs: dict[Any, Path], table: pd.DataFrame, sizes: dict[Any, tuple[int, int]]
) -> None:
    if "cells.coco.json" in outputs:
        _write(outputs["cells.coco.json"], to_coco(table, sizes))
    if "cells.csv" in outputs:
        table = table.drop(columns="outline", errors="ignore")
        with reported(outputs["cells.csv"]):
            write_csv(outputs["cells.csv"], table.to_dict("records"), columns=table.columns)


def _write(path: Path, value: Any) -> None:
    with reported(path):
        write_json(path, value, indent=None)
