"""Render a report: a single HTML page with everything in it, to be opened offline and sent on."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, Template

from .._files import printable
from .._images import RED, colours_of, counted, counted_cells, in_css, in_words, shades
from .._version import __version__
from ..cells import embed, summarize
from ._histogram import draw_histogram
from ._result import ImageResult

_DOUBTED = "doubted_images"
_WORDS = {
    "images": "images",
    "images_doubted": "images in doubt",
    "frame_mm2": "area of the counting frames, mm²",
    "white_to_red_ratio": "white cells per red cell",
    "white_per_1000_red": "white cells per 1,000 red cells",
    "platelets_per_white": "platelets per white cell",
    "red_diameter_median_um": "median diameter of red cells, µm",
    "red_diameter_median_px": "median diameter of red cells, px",
    "red_diameter_cv_percent": "coefficient of variation of these diameters, %",
    "touching_border_percent": "cells that touch a border, %",
}
_ENDS = {"_in_frame": " in the counting frames", "_per_mm2": " per mm²"}


def render_report(
    results: Sequence[ImageResult],
    *,
    run: Mapping[str, Any],
    title: str = "Blood smear report",
    failed: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
) -> str:
    """Return a self-contained HTML page: counts, sizes, a row an image, and every overlay.

    Parameters
    ----------
    results : sequence of ImageResult
        At least one.
    run : mapping of str to object
        What was run with what: model, tolerance, and the like; shown as it is.
    title : str
        Heading of the page.
    failed : mapping of str to str, optional
        Images that could not be read, and why.
    files : mapping of str to str, optional
        Tables in CSV by the names of their files, which the page offers for download.

    Returns
    -------
    str
        The page. Nothing in it is loaded from elsewhere, and names are escaped. Where the size of
        a pixel is known, diameters are in micrometres and counts come per square millimetre, too.
        Images in doubt come first. Pictures open in a viewer, which zooms to the pixels of the
        photo and outlines each cell; its number is the cell's label in the table
        of `bloodseg.BloodCellSegmenter.measure`.

    Raises
    ------
    ValueError
        If there is no result, or the size of a pixel is known for some images only.

    Examples
    --------
    >>> from bloodseg.cells import find_cells, measure_cells
    >>> from bloodseg.datasets import make_smears
    >>> from bloodseg.reporting import ImageResult, render_report
    >>> smears = make_smears(1, image_size=64, random_state=0)
    >>> image, mask = smears.images[0], smears.masks[0]
    >>> cells = find_cells(mask)
    >>> table = measure_cells(cells, image)
    >>> result = ImageResult("a.png", image, mask, cells.labels, table, (64, 64), seconds=0.1)
    >>> page = render_report([result], run={"model": "cells.safetensors"})
    >>> page.startswith("<!DOCTYPE html>")
    True
    """
    _check_alike(results)
    classes, has_area = results[0].classes, results[0].pixel_size is not None
    names = sorted(classes[1:], key=RED.__ne__)  # red cells first, as reports of blood have them
    # Those in doubt first, each else in its place.
    results = [each.draw() for each in sorted(results, key=lambda result: not result.doubts)]
    cells = pd.concat(
        [result.cells.assign(image=place) for place, result in enumerate(results)],
        ignore_index=True,
    )
    counts = pd.DataFrame([_counts_of(result, place) for place, result in enumerate(results)])
    totals, undoubted = summarize(counts, cells).to_dict("records")
    css = {name: in_css(colour) for name, colour in colours_of(classes).items()}
    return _template().render(
        title=title,
        version=__version__,
        unit="µm" if has_area else "px",
        has_area=has_area,
        names=names,
        in_words=in_words,
        counted=counted,
        counted_cells=counted_cells,
        colours=css,
        summary=_summary(totals, cells, names),
        totals=[
            (_in_words(name), totals[name], undoubted[name]) for name in totals if name != _DOUBTED
        ],
        n_images=len(results),
        failed=failed or {},
        files={
            name: base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()
            for name, text in (files or {}).items()
        },
        histogram=draw_histogram(cells, names, css),
        rows=[
            {"number": place + 1, **_row(result, counts.iloc[place], names)}
            for place, result in enumerate(results)
        ],
        run=run,
    )


def _check_alike(results: Sequence[ImageResult]) -> None:
    """Raise where results cannot stand on one page."""
    if not results:
        raise ValueError("results must hold at least one image; got none.")
    if len({result.pixel_size is not None for result in results}) > 1:
        raise ValueError(
            "results must know the size of a pixel for all images or for none; got some of each. "
            "Set pixel_size, report them apart, or call in_pixels of each."
        )
    if len({result.classes for result in results}) > 1:
        raise ValueError(
            "results must all have the same classes; got several. Report the images of each model "
            "apart."
        )


def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("bloodseg.reporting", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["printable"] = printable
    return environment.get_template("report.html.jinja")


def _row(result: ImageResult, counts: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return what the page says of an image."""
    return {
        "name": printable(result.name),
        "height": result.shape[0],
        "width": result.shape[1],
        "picture": embed(result.picture),
        "view": _view(result, names) if result.photo else None,
        "seconds": result.seconds,
        "doubts": "; ".join(result.doubts),
        **_summary(counts, result.cells, names),
    }


def _view(result: ImageResult, names: Sequence[str]) -> dict[str, Any]:
    """Return what the viewer shows of an image."""
    sizes: dict[int, str] = {}
    if "label" in result.cells:
        unit = "px" if result.pixel_size is None else "µm"
        sizes = {
            label: f"{diameter:.3g} {unit}"
            for label, diameter in zip(result.cells["label"], result.cells["diameter"], strict=True)
        }
    classes = []
    for name in names:
        dark, light = shades(colours_of(result.classes)[name])
        cells = [
            (int(label), path, sizes.get(label, ""))
            for label, (of_class, path) in zip(
                () if result.labels is None else result.labels, result.outlines, strict=True
            )
            if of_class == name
        ]
        classes.append(
            {"noun": in_words(name), "dark": in_css(dark), "light": in_css(light), "cells": cells}
        )
    height, width = result.shape
    return {
        "name": printable(result.name),
        "described": f"{printable(result.name)}, with its cells outlined",
        "width": int(width),
        "height": int(height),
        "photo": embed(result.photo),
        "classes": classes,
    }


def _counts_of(result: ImageResult, place: int) -> dict[str, Any]:
    """Return a row of the table of counts."""
    row = dict(result.counts or {})
    if result.counts is None:
        names = result.classes[1:]
        row = {name: int(result.cells["class"].eq(name).sum()) for name in names}
        if result.pixel_size is not None:
            row |= {f"{name}_in_frame": row[name] for name in names}
            row |= {f"{name}_per_mm2": row[name] / result.area for name in names}
            row["frame_mm2"] = result.area
    return {**row, "image": place, "doubts": "; ".join(result.doubts)}


def _summary(counts: Any, cells: pd.DataFrame, names: Sequence[str]) -> dict[str, Any]:
    """Return counts, counts per square millimetre and what is typical of the cells."""
    of_classes: dict[str, Any] = {}
    for name in names:
        of_class = cells[cells["class"] == name]
        whole = of_class[~of_class["touches_border"].astype(bool)]
        of_classes[name] = {
            "count": len(of_class),
            "density": counts.get(f"{name}_per_mm2", np.nan),
            "diameter": whole["diameter"].median(),
        }
    return {
        "of": of_classes,
        "confidence": cells["confidence"].mean(),
        "at_border": int(cells["touches_border"].sum()),
    }


def _in_words(name: str) -> str:
    """Return a column of the summary as a person would write it."""
    if name in _WORDS:
        return _WORDS[name]
    for end, words in _ENDS.items():
        if name.endswith(end):
            return _in_words(name.removesuffix(end)) + words
    return in_words(name)
