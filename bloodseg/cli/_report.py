"""``bloodseg report``."""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from .._files import written_whole
from .._version import __version__
from ..estimators import BloodCellSegmenter
from ..reporting import MAX_PIXELS, ImageResult, render_report
from ._batch import Batch, Outcome, segment_one
from ._model import load_segmenter
from ._output import (
    PAGE,
    CommandError,
    check_output,
    complain,
    first_line,
    open_in_browser,
    say,
)

# Of all photos of a page: ten of 12 megapixels are kept as they are, which is some 45 MB. Of more
# images each is smaller, down to what a screen shows.
_ALL_PIXELS, _LEAST_PIXELS = 2**27, 2**20


def run(arguments: argparse.Namespace) -> int:
    """Find, count and measure the cells of images, and show them on one page."""
    check_output(arguments.output, overwrite=arguments.overwrite, endings=PAGE)
    batch = Batch(arguments)
    images = batch.find(arguments.images)
    segmenter = load_segmenter(arguments)
    names = [image.name for image in images]
    if len(set(names)) < len(names):  # of several folders
        names = list(map(str, images))
    shown = dict(zip(images, names, strict=True))
    max_pixels = min(MAX_PIXELS, max(_ALL_PIXELS // len(images), _LEAST_PIXELS))

    def read(image: Path) -> ImageResult:
        started = time.perf_counter()
        found = segment_one(segmenter, image)
        seconds = time.perf_counter() - started
        batch.judge(found)
        return ImageResult.of(found, shown[image], seconds, max_pixels=max_pixels)

    def sum_up(results: list[ImageResult]) -> Outcome:
        def write(path: Path) -> None:
            named = {"title": arguments.title, "failed": batch.failed}
            _write(path, results, segmenter, arguments.model, **named)

        def show() -> None:
            if not _have_units(results):
                complain(
                    "the size of a pixel is known for some images only, so that sizes are in "
                    "pixels for all. Give it with --pixel-size, or report the images apart."
                )

        return Outcome({arguments.output: write}, show)

    none = "no image could be read."
    results = batch.collect(images, read, doing="reading", none=none, sum_up=sum_up)
    page = batch.places[arguments.output]
    say(f"{len(results)} on the page, {len(batch.failed)} failed. Report: {page}")
    if arguments.open:
        open_in_browser(page.resolve().as_uri(), page)
    return batch.exit_code


def _have_units(results: list[ImageResult]) -> bool:
    """Return whether sizes of all are in micrometres, or of none."""
    return len({result.pixel_size is None for result in results}) == 1


def _write(
    path: Path,
    results: list[ImageResult],
    segmenter: BloodCellSegmenter,
    model: str,
    **named: Any,
) -> None:
    try:
        page = render_page(results, segmenter, model, **named)
    except ValueError as error:
        raise CommandError(first_line(error)) from error
    with written_whole(path) as unfinished:
        # Title and model may have been typed in bytes that are no text.
        unfinished.write_text(page, encoding="utf-8", errors="backslashreplace")


def render_page(
    results: list[ImageResult], segmenter: BloodCellSegmenter, model: str, **named: Any
) -> str:
    """Return the report of what a model, called so, has found; what is ``named`` goes with it."""
    if not _have_units(results):
        results = [result.in_pixels() for result in results]
    return render_report(results, run=_describe_run(segmenter, model), **named)


def _describe_run(segmenter: BloodCellSegmenter, model: str) -> dict[str, Any]:
    """Return what was run with what, for the page."""
    run = {
        "when": datetime.now().astimezone().isoformat(" ", "minutes"),
        "bloodseg": __version__,
        "model": model,
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
