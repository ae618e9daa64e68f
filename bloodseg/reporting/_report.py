"""Render a report: a single HTML page with everything in it, to be opened offline and sent on."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader
from PIL import Image

from .._files import printable
from .._images import CLASS_NAMES, RED, colours_of, in_words
from .._version import __version__
from ..cells import EXCLUDED_SIDES, summarize
from ..plotting._pictures import overlay

_MAX_SIDE = 1000  # of a picture in the page, pixels
_JPEG_QUALITY = 88
_OUTLINED_PIXELS = 2**22  # of larger images, only a small copy is kept, without single outlines

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


@dataclass(frozen=True)
class ImageResult:
    """What was found in one image.

    Attributes
    ----------
    name : str
        What the page calls the image.
    image : ndarray of shape (H, W, 3), or None
        The image, or a smaller copy of it: uint8 or floating point in [0, 1]; None once its picture
        is drawn.
    class_map : ndarray of shape (H, W), or None
        Labels of its pixels, places in ``classes``.
    labels : ndarray of shape (H, W), optional
        A number for each cell, so that each gets an outline of its own.
    cells : DataFrame
        One row a cell, as `bloodseg.BloodCellSegmenter.measure` gives them: columns class,
        diameter, unit, confidence and touches_border.
    shape : tuple of int
        Height and width of the whole image in pixels.
    seconds : float
        What the prediction took.
    pixel_size : float, optional
        Micrometres a pixel, where it is known.
    doubts : sequence of str
        Why what was found is perhaps wrong, in words.
    picture : bytes, optional
        JPEG file of the image with its cells outlined, as `draw` makes it.
    classes : tuple of str
        Names of the labels.
    counts : mapping, optional
        The image's row of `bloodseg.BloodCellSegmenter.count`, counting frame included; without it
        all cells count, over the whole image.
    """

    name: str
    image: np.ndarray | None
    class_map: np.ndarray | None
    labels: np.ndarray | None
    cells: pd.DataFrame
    shape: tuple[int, int]
    seconds: float
    pixel_size: float | None = None
    doubts: Sequence[str] = ()
    picture: bytes | None = None
    classes: tuple[str, ...] = CLASS_NAMES
    counts: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, segmented: Any, name: str, seconds: float) -> ImageResult:
        """Return what was found in an image of any size, its picture drawn.

        Parameters
        ----------
        segmented : Segmented
            One of what `bloodseg.BloodCellSegmenter.segment` yields.
        name : str
            What the page calls the image.
        seconds : float
            What the prediction took.
        """
        height, width = segmented.class_map.shape
        whole = height * width <= _OUTLINED_PIXELS
        step = 1 if whole else -(-max(height, width) // _MAX_SIDE)
        found = cls(
            name=name,
            image=_every(segmented.image, height, step),
            class_map=_every(segmented.class_map, height, step),
            labels=segmented.cells().labels if whole else None,
            cells=segmented.measure(),
            shape=(height, width),
            seconds=seconds,
            pixel_size=segmented.pixel_size,
            doubts=segmented.doubts(),
            classes=segmented.classes,
            counts=segmented.count(excluded_sides=EXCLUDED_SIDES),
        )
        return found.draw()

    def draw(self) -> ImageResult:
        """Return the same with the picture in place of the arrays, which take far more memory."""
        if self.picture is not None:
            return self
        if self.image is None or self.class_map is None:
            raise ValueError(f"image and class_map of {self.name} must be there to draw a picture.")
        picture = _draw(self.image, self.class_map, self.labels, self.classes)
        return replace(self, picture=picture, image=None, class_map=None, labels=None)

    def in_pixels(self) -> ImageResult:
        """Return the same with sizes in pixels, to stand beside images of unknown pixel size."""
        if self.pixel_size is None:
            return self
        diameters = self.cells["diameter"] / self.pixel_size
        # Other sizes are not on the page, and must not stay in another unit.
        cells = self.cells[["class", "confidence", "touches_border"]]
        cells = cells.assign(diameter=diameters, unit="px")
        counts = self.counts and {k: v for k, v in self.counts.items() if not k.endswith("mm2")}
        return replace(self, cells=cells, pixel_size=None, counts=counts)

    @property
    def area(self) -> float:
        """Square millimetres; NaN where the size of a pixel is not known."""
        side = np.nan if self.pixel_size is None else self.pixel_size / 1000
        return float(np.prod(self.shape)) * side**2


def render_report(
    results: Sequence[ImageResult],
    *,
    run: Mapping[str, Any],
    title: str = "Blood smear report",
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

    Returns
    -------
    str
        The page. Nothing in it is loaded from elsewhere, and names are escaped. Where the size of
        a pixel is known, diameters are in micrometres and counts come per square millimetre, too.
        Where the histogram cannot be drawn, a note stands in its place.

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
    if not results:
        raise ValueError("results must hold at least one image; got none.")
    known = {result.pixel_size is not None for result in results}
    if len(known) > 1:
        raise ValueError(
            "results must know the size of a pixel for all images or for none; got some of each. "
            "Set pixel_size, report them apart, or call in_pixels of each."
        )
    (has_area,) = known
    if len({result.classes for result in results}) > 1:
        raise ValueError(
            "results must all have the same classes; got several. Report the images of each model "
            "apart."
        )
    classes = results[0].classes
    names = sorted(classes[1:], key=RED.__ne__)  # red cells first, as reports of blood have them
    cells = pd.concat(
        [result.cells.assign(image=place) for place, result in enumerate(results)],
        ignore_index=True,
    )
    counts = pd.DataFrame([_counts_of(result, place) for place, result in enumerate(results)])
    totals, undoubted = summarize(counts, cells).to_dict("records")
    environment = Environment(
        loader=PackageLoader("bloodseg.reporting", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.jinja").render(
        title=title,
        version=__version__,
        unit="µm" if has_area else "px",
        has_area=has_area,
        names=names,
        nouns={name: in_words(name) for name in names},
        colours={name: "rgb({}, {}, {})".format(*rgb) for name, rgb in colours_of(classes).items()},
        summary=_summary(totals, cells, names),
        totals=[
            (_in_words(name), totals[name], undoubted[name]) for name in totals if name != _DOUBTED
        ],
        n_images=len(results),
        **_histogram(cells),
        rows=[
            {
                "name": printable(result.name),
                "height": result.shape[0],
                "width": result.shape[1],
                "picture": _embed(result.draw().picture),
                "seconds": result.seconds,
                "doubts": "; ".join(result.doubts),
                **_summary(counts.iloc[place], result.cells, names),
            }
            for place, result in enumerate(results)
        ],
        run=run,
    )


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


def _every(rows: Any, height: int, step: int) -> np.ndarray:
    """Return every step-th row and column of what is read by rows, some rows at a time."""
    strip = step * max(1, 256 // step)
    return np.concatenate(
        [rows[top : min(top + strip, height)][::step, ::step] for top in range(0, height, strip)]
    )


def _draw(
    image: np.ndarray, class_map: np.ndarray, labels: np.ndarray | None, classes: Sequence[str]
) -> bytes:
    """Return an image with its cells outlined, as a JPEG file of a size fit for the page."""
    step = -(-max(image.shape[:2]) // _MAX_SIDE)
    picture = Image.fromarray(overlay(image, class_map, labels, classes=classes))
    if step > 1:
        picture = picture.reduce(step)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _embed(picture: bytes | None) -> str:
    """Return a picture as the address that it has in the page."""
    return "data:image/jpeg;base64," + base64.b64encode(picture or b"").decode()


def _histogram(cells: pd.DataFrame) -> dict[str, str]:
    """Return the histogram of the diameters as SVG, to stand in the page, or why there is none."""
    try:
        return {"histogram": _draw_histogram(cells)}
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("matplotlib"):  # an extra
            return {"no_histogram": "The histogram needs matplotlib: pip install 'bloodseg[plot]'."}
        return _excuse(error)
    except Exception as error:  # the numbers and the pictures do not depend on it
        return _excuse(error)


def _excuse(error: Exception) -> dict[str, str]:
    return {"no_histogram": f"matplotlib could not draw the histogram: {error}"}


def _draw_histogram(cells: pd.DataFrame) -> str:
    from matplotlib.figure import Figure

    from ..plotting import CellSizeDisplay

    figure = Figure(figsize=(9.5, 3.2), layout="constrained")
    CellSizeDisplay.from_predictions(cells, ax=figure.subplots())
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
