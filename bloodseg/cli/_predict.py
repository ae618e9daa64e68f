"""``bloodseg predict``."""

from __future__ import annotations

import argparse
import csv
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._images import CLASS_NAMES, to_rgb
from ..datasets import Slide, list_images, list_passed_over, open_slide
from ..datasets._bounds import MAX_PIXELS
from ..estimators import BloodCellSegmenter
from ..plotting._pictures import LEGEND, overlay
from ._model import INPUT_ERRORS, list_evaluations, load_model, segment_one
from ._output import (
    CommandError,
    complain,
    first_line,
    make_folder,
    progress,
    reported,
    say,
    write_csv,
    write_png,
)

_TABLE = "predictions.csv"
_MASK = "_mask.png"
_MOST_NAMED = 20  # files left out
_LONGEST_NAME = 200  # bytes, of 255 that a name may have with what is added to it


def run(arguments: argparse.Namespace) -> int:
    """Label the images one by one; what fails is reported and left out."""
    images, n_failed = find_images(arguments.images)
    if not images:
        raise CommandError("none of the inputs is an image.")
    _check_not_among_inputs(arguments)
    segmenter = load_model(arguments)
    folder = make_folder(arguments.output)
    earlier = _read_table(folder / _TABLE, overwrite=arguments.overwrite)
    rows: list[dict[str, Any]] = []
    n_skipped = 0
    try:
        names = names_for(images, _earlier_names(folder, earlier))
        jobs = list(zip(images, names, strict=True))
        for image, name in progress(jobs, label="predicting", quiet=arguments.quiet):
            files = _output_files(folder, name, with_overlay=not arguments.no_overlay)
            there = [file for file in files if file.exists()]
            if there and not arguments.overwrite:
                complain(f"{image} skipped: {there[0]} exists. Pass --overwrite to replace it.")
                n_skipped += 1
                continue
            try:
                rows.append(_predict(segmenter, image, files))
            except INPUT_ERRORS as error:
                complain(f"{image} skipped: {first_line(error)}")
                n_failed += 1
    finally:  # also on Ctrl-C: the table speaks of every label map that was written
        if rows:
            with reported(folder / _TABLE):
                write_csv(folder / _TABLE, _merged(earlier, rows))
    if not rows and not n_skipped:
        raise CommandError("no image could be labelled.")
    say(f"{len(rows)} labelled, {n_skipped} skipped, {n_failed} failed. Results: {folder}")
    if rows and not arguments.no_overlay:
        say(f"Overlays: {LEGEND}.")
    return 1 if n_failed or n_skipped else 0


def find_images(inputs: Sequence[Path]) -> tuple[list[Path], int]:
    """Return the images of files and folders, each once, and the number of inputs without any."""
    found: dict[Path, Path] = {}
    n_failed = 0
    for path in inputs:
        try:
            for image in list_images(path):
                found.setdefault(Path(os.path.realpath(image)), image)
            left_out = list_passed_over(path)
        except OSError as error:
            complain(f"{path} skipped: {first_line(error)}")
            n_failed += 1
            continue
        if left_out:
            named = ", ".join(f"{entry.name} ({why})" for entry, why in left_out[:_MOST_NAMED])
            more = f" and {len(left_out) - _MOST_NAMED} more" if left_out[_MOST_NAMED:] else ""
            complain(f"left out of {path}: {named}{more}.")
    return list(found.values()), n_failed


def _check_not_among_inputs(arguments: argparse.Namespace) -> None:
    for path in arguments.images:
        if path.is_dir() and path.resolve() == arguments.output.resolve():
            raise CommandError(
                f"the output folder {arguments.output} is an input: the next run would take "
                "label maps for images. Choose another."
            )


def _earlier_names(folder: Path, rows: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return which image, links followed, has which name in the folder from an earlier run."""
    names = {}
    for row in rows:
        image, mask = row["image"] or "", row["mask"] or ""
        known = mask.endswith(_MASK) and Path(mask).name == mask and "\0" not in image + mask
        if known and (folder / mask).exists():
            names[os.path.realpath(image)] = mask.removesuffix(_MASK)
    return names


def names_for(images: Sequence[Path], earlier: Mapping[str, str]) -> list[str]:
    """Return one name an image: the one that it has already, or else its stem.

    Where another image has that name it is STEM-2, STEM-3, ...
    """
    used = set(earlier.values())
    stems = [_shortened(image.stem) for image in images]
    taken = used | set(stems)
    names = []
    for image, stem in zip(images, stems, strict=True):
        name = earlier.get(os.path.realpath(image))
        if name is None:
            name = stem
            if name in used:
                numbered = (f"{stem}-{number}" for number in itertools.count(2))
                name = next(each for each in numbered if each not in taken)
            used.add(name)
            taken.add(name)
        names.append(name)
    return names


def _shortened(stem: str) -> str:
    name = os.fsencode(stem)
    return stem if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME].decode(errors="ignore")


def _output_files(folder: Path, name: str, *, with_overlay: bool) -> list[Path]:
    kinds = ("mask", "overlay") if with_overlay else ("mask",)
    return [folder / f"{name}_{kind}.png" for kind in kinds]


def _predict(segmenter: BloodCellSegmenter, file: Path, outputs: Sequence[Path]) -> dict[str, Any]:
    """Label one image, write its outputs and return its row of the table."""
    found = segment_one(segmenter, _open(file))
    mask = found.class_map[:]
    # The label map comes last: where it is, the image is done.
    for output in outputs[1:]:
        write_png(output, overlay(to_rgb(found.image[:]), mask))
    write_png(outputs[0], mask)
    shares = np.bincount(mask.ravel(), minlength=len(CLASS_NAMES)) / mask.size
    named = {f"share_{name}": float(share) for name, share in zip(CLASS_NAMES, shares, strict=True)}
    # Absolute: a later run, from elsewhere, must know the image again.
    return {
        "image": os.path.abspath(file),
        "mask": outputs[0].name,
        **named,
        **list_evaluations(found),
    }


def _open(file: Path) -> Slide:
    slide = open_slide(file)
    height, width = slide.shape[:2]
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"{file} must have at most {MAX_PIXELS:,} pixels, for its label map is a PNG file; "
            f"got {height} x {width}. Use BloodCellSegmenter.predict_file, or count and measure."
        )
    return slide


def _read_table(path: Path, *, overwrite: bool) -> list[dict[str, str]]:
    """Return the rows of an earlier run into the same folder."""
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error) as error:
        raise CommandError(f"{path} cannot be read ({error}). Move it away.") from error
    if all({"image", "mask"} <= row.keys() and None not in row for row in rows):
        return rows
    if overwrite:
        return []
    raise CommandError(f"{path} is no table of this command. Move it away, or pass --overwrite.")


def _merged(earlier: Sequence[dict], rows: Sequence[dict]) -> list[dict]:
    """Return the rows of both, the new ones in place of old ones of the same label map."""
    return list({row["mask"]: row for row in (*earlier, *rows)}.values())
