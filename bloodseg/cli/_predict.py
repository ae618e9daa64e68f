"""``bloodseg predict``."""

from __future__ import annotations

import argparse
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .._images import to_rgb
from ..datasets import MAX_PIXELS, Slide, open_slide
from ..plotting import legend, overlay_of
from ..prediction import Segmented
from ._batch import Batch, list_evaluations, segment_one
from ._model import load_segmenter
from ._output import CommandError, complain, make_folder, say
from ._prediction_table import PredictionTable


def run(arguments: argparse.Namespace) -> int:
    """Label the images one by one; what fails is reported and left out."""
    batch = Batch(arguments)
    images = batch.find(arguments.images)
    _check_not_among_inputs(arguments)
    segmenter = load_segmenter(arguments)
    folder = make_folder(arguments.output)
    table = PredictionTable(folder, stems=batch.stems.values(), overwrite=arguments.overwrite)

    def label(image: Path) -> bool:
        mask = table.find(image)
        if mask is not None and not arguments.overwrite:
            complain(f"{image} skipped: {mask} exists. Pass --overwrite to replace it.")
            return False
        found = segment_one(segmenter, _open(image))
        batch.judge(found)
        pictures = _draw(found, with_overlay=not arguments.no_overlay)
        return table.add(image, pictures, _describe(found), stem=batch.stems[image]) is not None

    n_done = 0
    for done in batch.run(images, label, doing="predicting"):
        n_done += done
        batch.n_skipped += not done
    if not n_done and not batch.n_skipped:
        raise CommandError("no image could be labelled.")
    say(
        f"{n_done} labelled, {batch.n_skipped} skipped, {len(batch.failed)} failed. Results: "
        f"{folder}"
    )
    if n_done and not arguments.no_overlay:
        say(f"Overlays: {legend(segmenter.class_names_)}.")
    return batch.exit_code


def _check_not_among_inputs(arguments: argparse.Namespace) -> None:
    output = Path(os.path.realpath(arguments.output))
    for path in arguments.images:
        folder = Path(os.path.realpath(path))
        if not os.path.isdir(folder):  # `Path.is_dir` raises for some names
            continue
        searched = output.is_relative_to(folder) if arguments.recursive else output == folder
        if searched:
            is_input = "is an input" if output == folder else f"lies in the input {path}"
            raise CommandError(
                f"the output folder {arguments.output} {is_input}: the next run would take label "
                "maps for images. Choose another."
            )


def _draw(found: Segmented, *, with_overlay: bool) -> dict[str, bytes]:
    """Return the label map, and the image with its cells outlined, as PNG files."""
    mask = found.class_map[:]
    pictures = {"mask": mask}
    if with_overlay:
        pictures["overlay"] = overlay_of(found, to_rgb(found.image[:]))
    sides = found.pixel_sides
    return {kind: _encode_png(pixels, sides) for kind, pixels in pictures.items()}


def _encode_png(pixels: np.ndarray, sides: tuple[float, float] | None) -> bytes:
    """Return a PNG file, which says how high and wide its pixels are in micrometres, if known."""
    options = {}
    if sides is not None:
        options = {"dpi": tuple(25400 / side for side in reversed(sides))}
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", **options)
    return buffer.getvalue()


def _describe(found: Segmented) -> dict[str, Any]:
    """Return what the table says of an image."""
    mask = found.class_map[:]
    shares = np.bincount(mask.ravel(), minlength=len(found.classes)) / mask.size
    by_name = zip(found.classes, shares, strict=True)
    named = {f"share_{name}": float(share) for name, share in by_name}
    return named | list_evaluations(found) | {"doubts": "; ".join(found.doubts())}


def _open(file: Path) -> Slide:
    slide = open_slide(file)
    height, width = slide.shape[:2]
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"{file} must have at most {MAX_PIXELS:,} pixels, for its label map is a PNG file; "
            f"got {height} x {width}. Use BloodCellSegmenter.predict_file, or count and measure."
        )
    return slide
