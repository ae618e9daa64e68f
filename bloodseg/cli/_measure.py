"""``bloodseg measure``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._files import write_json, written_whole
from .._images import counted
from ..cells import EXCLUDED_SIDES, import_roifile, to_coco, to_geojson, to_imagej_rois
from ._batch import Batch, Outcome, segment_one
from ._model import load_segmenter
from ._output import (
    CommandError,
    check_output,
    make_folder,
    refuse_existing,
    say,
)
from ._prediction_table import next_free
from ._tables import write_csv

if TYPE_CHECKING:
    import pandas as pd


def run(arguments: argparse.Namespace) -> int:
    """Measure the cells of the images one by one; what fails is reported and left out."""
    import pandas as pd

    batch = Batch(arguments)
    images = batch.find(arguments.images)
    tables = _tables(arguments)
    outlines = _outline_files(arguments, batch.stems)
    of_images = (file for files in outlines.values() for file in files.values())
    refuse_existing([*tables.values(), *of_images], overwrite=arguments.overwrite)
    if arguments.rois:
        _check_package()
    segmenter = load_segmenter(arguments)
    make_folder(arguments.output)
    for path in tables.values():
        check_output(path, overwrite=arguments.overwrite)
    sizes: dict[Any, tuple[int, int]] = {}
    with_outlines = arguments.rois or set(arguments.formats) != {"csv"}
    sides = vars(arguments).get("excluded_sides", EXCLUDED_SIDES)

    def measure(image: Path) -> pd.DataFrame:
        found = segment_one(segmenter, image)
        batch.judge(found)
        table = found.measure(outlines=with_outlines, excluded_sides=sides)
        for kind, file in outlines[image].items():
            file.parent.mkdir(parents=True, exist_ok=True)
            _WRITE_OUTLINES[kind](file, table, found.classes)
        sizes[found.name] = found.class_map.shape
        return table

    def sum_up(measured: list[pd.DataFrame]) -> Outcome:
        cells = pd.concat(measured, ignore_index=True)
        write = {
            "csv": lambda file: _write_csv(file, cells),
            "coco": lambda file: _write_coco(file, cells, sizes, segmenter.class_names_),
        }
        return Outcome({file: write[kind] for kind, file in tables.items()})

    none = "no image could be measured."
    measured = batch.collect(images, measure, doing="measuring", none=none, sum_up=sum_up)
    say(
        f"{counted(sum(map(len, measured)), 'cell')} in {counted(len(measured), 'image')}, "
        f"{len(batch.failed)} failed. Results: {arguments.output}"
    )
    return batch.exit_code


def _check_package() -> None:
    """Find out before the first image what would fail after it."""
    try:
        import_roifile()
    except ImportError as error:
        raise CommandError(str(error)) from error


def _tables(arguments: argparse.Namespace) -> dict[str, Path]:
    """Return the files to write that speak of all images."""
    names = {"csv": "cells.csv", "coco": "cells.coco.json"}
    return {kind: arguments.output / names[kind] for kind in names if kind in arguments.formats}


def _outline_files(
    arguments: argparse.Namespace, stems: Mapping[Path, str]
) -> dict[Path, dict[str, Path]]:
    """Return the files to write for each image: STEM.geojson, STEM-2.geojson, ..."""
    names: dict[str, Path] = {}
    taken = set(stems.values())
    for image, stem in stems.items():
        names[next_free(stem, names.__contains__, taken)] = image
    kinds = ["geojson"] * ("geojson" in arguments.formats) + ["rois"] * arguments.rois
    return {
        image: {kind: arguments.output / f"{name}{_ENDINGS[kind]}" for kind in kinds}
        for name, image in names.items()
    }


def _write_geojson(file: Path, table: pd.DataFrame, classes: Sequence[str]) -> None:
    write_json(file, to_geojson(table, classes=classes), indent=None)


def _write_rois(file: Path, table: pd.DataFrame, classes: Sequence[str]) -> None:
    with written_whole(file) as unfinished:
        unfinished.write_bytes(to_imagej_rois(table, classes=classes))


_ENDINGS = {"geojson": ".geojson", "rois": ".rois.zip"}
_WRITE_OUTLINES = {"geojson": _write_geojson, "rois": _write_rois}


def _write_csv(file: Path, cells: pd.DataFrame) -> None:
    cells = cells.drop(columns="outline", errors="ignore")
    write_csv(file, cells.to_dict("records"), columns=cells.columns)


def _write_coco(
    file: Path,
    cells: pd.DataFrame,
    sizes: dict[Any, tuple[int, int]],
    classes: Sequence[str],
) -> None:
    write_json(file, to_coco(cells, sizes, classes=classes), indent=None)
