"""``bloodseg report``."""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from typing import Any

from .._files import written_whole
from .._version import __version__
from ..estimators import BloodCellSegmenter
from ..reporting import ImageResult, render_report
from ._count import load_for_cells
from ._model import INPUT_ERRORS, segment_one
from ._output import (
    CommandError,
    check_writable,
    complain,
    first_line,
    progress,
    refuse_existing,
    reported,
    say,
)
from ._predict import find_images


def run(arguments: argparse.Namespace) -> int:
    """Find, count and measure the cells of images, and show them on one page."""
    refuse_existing([arguments.output], overwrite=arguments.overwrite)
    check_writable(arguments.output.parent)
    images, n_failed = find_images(arguments.images)
    segmenter = load_for_cells(arguments)
    names = [image.name for image in images]
    if len(set(names)) < len(names):  # of several folders
        names = list(map(str, images))
    results: list[ImageResult] = []
    try:
        for image, name in progress(
            list(zip(images, names, strict=True)), label="reading", quiet=arguments.quiet
        ):
            try:
                started = time.perf_counter()
                found = segment_one(segmenter, image)
                results.append(ImageResult.of(found, name, time.perf_counter() - started))
            except INPUT_ERRORS as error:
                complain(f"{image} skipped: {first_line(error)}")
                n_failed += 1
    finally:  # also on Ctrl-C: what was found is not lost
        if results:
            _write(results, segmenter, arguments)
    if not results:
        raise CommandError("no image could be read.")
    say(f"{len(results)} on the page, {n_failed} failed. Report: {arguments.output}")
    return 1 if n_failed else 0


def _write(
    results: list[ImageResult], segmenter: BloodCellSegmenter, arguments: argparse.Namespace
) -> None:
    if len({result.pixel_size is None for result in results}) > 1:
        complain(
            "the size of a pixel is known for some images only, so that sizes are in pixels for "
            "all. Give it with --pixel-size, or report the images apart."
        )
        results = [result.in_pixels() for result in results]
    try:
        page = render_report(results, run=_run_of(segmenter, arguments), title=arguments.title)
    except ValueError as error:
        raise CommandError(first_line(error)) from error
    with reported(arguments.output), written_whole(arguments.output) as unfinished:
        unfinished.write_text(page, encoding="utf-8", errors="backslashreplace")


def _run_of(segmenter: BloodCellSegmenter, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what was run with what, for the page."""
    run = {
        "when": datetime.now().astimezone().isoformat(" ", "minutes"),
        "bloodseg": __version__,
        "model": arguments.model,
        "network": "{network}, width {width}".format(**segmenter.architecture_),
    }
    network = segmenter._copy_network()
    if segmenter.ode_tol_:
        evaluations = segmenter.n_function_evaluations_
        run |= {
            "ODE-blocks at": ", ".join(map(str, segmenter.ode_tol_)),
            "tolerance in training": _listed(segmenter.ode_tol_),
            "tolerance in prediction": _listed(network.tolerances),
            "evaluations of f, last image": _listed(
                {position: counts[0] for position, counts in evaluations.items()}
            ),
        }
    return run | {"precision": network.precision, "device": segmenter.device}


def _listed(values: Any) -> str:
    return ", ".join(f"{position}: {value:g}" for position, value in values.items())
