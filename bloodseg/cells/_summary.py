"""What a blood smear is read for, from the tables of counts and of cells."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from .._images import PLATELET, RED, WHITE
from ._frame import EXCLUDED_SIDES
from ._instances import Cells
from ._measure import check_pixel_size, measure_cells

if TYPE_CHECKING:
    import pandas as pd

_GROUPS = ("image", "folder")
_IN_FRAME, _PER_MM2 = "_in_frame", "_per_mm2"
_NOT_CLASSES = ("image", "area_mm2", "frame_mm2", "confidence", "doubts")
OF_CELLS = ("image", "class", "diameter", "unit", "touches_border")  # that a summary needs


def summarize(
    counts: Any,
    cells: pd.DataFrame | None = None,
    *,
    by: str | None = None,
    pixel_size: float | None = None,
) -> pd.DataFrame:
    """Sum up what was found in the images of a slide, a folder or a study.

    Densities are the cells in all counting frames over the area of the frames, and ratios those of
    cells in the frames (see `bloodseg.cells.CountingFrame`), so that neither depends on the size of
    the photos.

    Parameters
    ----------
    counts : DataFrame, iterable of Segmented, or Cells or sequence of Cells
        The table of `BloodCellSegmenter.count`; or what `BloodCellSegmenter.segment` yields, for
        all of the summary from one prediction of each image; or what `bloodseg.cells.find_cells`
        found. A table of `BloodCellSegmenter.measure` will do, but does not tell of images without
        cells, nor areas. Further columns, as of patients, are passed over in a table that has those
        of cells in frames.
    cells : DataFrame, optional
        The table of `BloodCellSegmenter.measure` of the same images, beside one of counts. It tells
        sizes, and which cells touch a border. Either table may have been read from a CSV file.
    by : {"image", "folder"}, optional
        A summary for each image (as of slides) or each folder of images; by default one for all.
    pixel_size : float, optional
        Side of a pixel in micrometres, of `bloodseg.cells.Cells`; tables know their own.

    Returns
    -------
    DataFrame
        Two rows a summary, with the images in doubt and without them. Columns, those of the classes
        for each class of the model:

        image, folder
            Where the summary is for each.
        doubted_images
            "counted" or "left out".
        images, images_doubted
            Number of images, and how many of them are in doubt; NaN where no table tells doubts,
            as of a `bloodseg.BloodCellCounter`.
        white, red, ...
            Number of cells that show, those cut by a border too.
        white_in_frame, red_in_frame, ..., frame_mm2
            Cells in counting frames, and the area of these in square millimetres.
        white_per_mm2, red_per_mm2, ...
            Cells per square millimetre; NaN unless the size of a pixel is known for all images.
        white_to_red_ratio, white_per_1000_red
            White cells per red cell, and per 1,000 red cells.
        platelets_per_white
            Where the model knows platelets.
        red_diameter_median_um or red_diameter_median_px
            Median diameter of the red cells that no border cuts, in micrometres or pixels.
        red_diameter_cv_percent
            Their coefficient of variation: standard deviation over mean.
        touching_border_percent
            Share of the cells that touch a border.

        What no table tells has no column; a ratio to no cells is NaN.

    Raises
    ------
    ValueError
        If an argument is not as described, or sizes are in pixels for some cells and in micrometres
        for others.

    Examples
    --------
    >>> from bloodseg import summarize
    >>> from bloodseg.cells import find_cells
    >>> from bloodseg.datasets import make_smears
    >>> smears = make_smears(2, image_size=256, random_state=0)
    >>> found = [find_cells(mask) for mask in smears.masks]
    >>> every_image, _ = summarize(found, pixel_size=0.19).to_dict("records")
    >>> every_image["images"], every_image["white"], every_image["red"]
    (2, 1, 59)
    >>> round(every_image["red_per_mm2"]), round(every_image["red_diameter_median_um"], 1)
    (10153, 7.4)
    """
    import pandas as pd

    if by not in (None, *_GROUPS):
        raise ValueError(f"by must be 'image', 'folder' or None; got {by!r}.")
    check_pixel_size(pixel_size)
    counts, cells = _tables(counts, cells, pixel_size)
    groups: list[tuple[dict[str, Any], Any]] = [({}, counts["image"])]
    if by is not None:
        of_image = counts["image"] if by == "image" else counts["image"].map(_folder_of)
        groups = [
            ({by: name}, rows) for name, rows in counts["image"].groupby(of_image, sort=False)
        ]
    doubted = counts["image"][_is_doubted(counts)]
    summaries = []
    for name, images in groups:
        for doubts, kept in (("counted", images), ("left out", images[~images.isin(doubted)])):
            summary = {**name, "doubted_images": doubts, "images": len(kept)}
            known = "doubts" in counts
            summary["images_doubted"] = int(kept.isin(doubted).sum()) if known else float("nan")
            summary |= _of_counts(counts[counts["image"].isin(kept)])
            if cells is not None:
                summary |= _of_cells(cells[cells["image"].isin(kept)], _unit(cells))
            summaries.append(summary)
    return pd.DataFrame(summaries)


def _tables(
    counts: Any, cells: Any, pixel_size: float | None
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Return the table of counts, and that of cells if there is one, checked."""
    import pandas as pd

    if isinstance(counts, Cells):
        counts = [counts]
    if not isinstance(counts, pd.DataFrame) and np.iterable(counts) and cells is None:
        rows, tables = [], []
        for place, found in enumerate(counts):
            row, table = _of_one(found, place, pixel_size)
            rows.append(row)
            tables.append(table[list(OF_CELLS)])
        counts = pd.DataFrame(rows, columns=None if rows else ["image"])
        cells = pd.concat(tables, ignore_index=True) if tables else None
    _check_table(counts, "counts", ["image"])
    if "class" in counts and cells is None:
        cells, counts = counts, _counts_of_cells(counts)
    if len(counts) == 0:
        raise ValueError("counts must hold at least one image; got none.")
    if counts["image"].duplicated().any():
        twice = counts["image"][counts["image"].duplicated()].iloc[0]
        raise ValueError(f"counts must hold each image once; got {twice} more than once.")
    if cells is not None:
        _check_table(cells, "cells", [*OF_CELLS])
        others = cells["image"][~cells["image"].isin(counts["image"])]
        if len(others):
            raise ValueError(
                f"cells must be those of the images in counts; got some of {others.iloc[0]}, which "
                "is not among them. Measure the images that were counted."
            )
    return counts, cells


def _check_table(table: Any, name: str, columns: list[str]) -> None:
    missing = [column for column in columns if column not in getattr(table, "columns", ())]
    if missing:
        method = {"counts": "count", "cells": "measure"}[name]
        raise ValueError(
            f"{name} must be a table with the columns {', '.join(columns)}, as "
            f"BloodCellSegmenter.{method} gives it; got {type(table).__name__} without "
            f"{', '.join(missing)}."
        )


def _of_one(found: Any, place: int, pixel_size: float | None) -> tuple[dict[str, Any], Any]:
    """Return the row of counts and the table of cells of one image."""
    if not isinstance(found, Cells):  # a Segmented
        return found.count(excluded_sides=EXCLUDED_SIDES), found.measure()
    row: dict[str, Any] = {"image": place, **found.counts}
    row |= {name + _IN_FRAME: count for name, count in found.counts_in_frame.items()}
    if pixel_size is not None:
        row["frame_mm2"] = found.frame.area * pixel_size**2 / 1e6
    return row, measure_cells(found, pixel_size=pixel_size).assign(image=place)


def _counts_of_cells(cells: pd.DataFrame) -> pd.DataFrame:
    """Return what a table of cells tells of the table of counts."""
    import pandas as pd

    names = dict.fromkeys([WHITE, RED, *cells["class"]])
    rows = []
    for image, table in cells.groupby("image", sort=False):
        row: dict[str, Any] = {"image": image}
        row |= {name: int(table["class"].eq(name).sum()) for name in names}
        if "in_frame" in table and table["in_frame"].notna().all():
            counted = table["class"][_is_true(table["in_frame"])]
            row |= {name + _IN_FRAME: int(counted.eq(name).sum()) for name in names}
        if "doubts" in table:
            row["doubts"] = table["doubts"].iloc[0]
        rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else ["image"])


def _folder_of(image: Any) -> str:
    return os.path.dirname(str(image)) or "."


def _is_doubted(counts: pd.DataFrame) -> Any:
    """Return which images are in doubt; of a CSV file, no doubts may be NaN."""
    if "doubts" not in counts:
        return np.zeros(len(counts), bool)
    return counts["doubts"].fillna("").ne("")


def _is_true(column: Any) -> Any:
    """Return a column of truth values, which may have been read as text, as bool."""
    known = column.map({True: True, False: False, "True": True, "False": False})
    if known.isna().any():
        raise ValueError(
            f"cells must have True or False in the column {column.name}; got "
            f"{column[known.isna()].iloc[0]}."
        )
    return known.astype(bool)


def _of_counts(counts: pd.DataFrame) -> dict[str, Any]:
    """Return what a table of counts tells."""
    names = _classes_of(counts)
    summary: dict[str, Any] = {name: counts[name].sum() for name in names}
    framed = {name: name + _IN_FRAME for name in names}
    if not all(column in counts and counts[column].notna().all() for column in framed.values()):
        framed = {}
    summary |= {column: counts[column].sum() for column in framed.values()}
    if framed and "frame_mm2" in counts:
        area = counts["frame_mm2"].sum(skipna=False)
        summary["frame_mm2"] = area
        summary |= {name + _PER_MM2: _ratio(summary[framed[name]], area) for name in framed}
    number = {name: summary[framed.get(name, name)] for name in names}
    if {WHITE, RED} <= number.keys():
        ratio = _ratio(number[WHITE], number[RED])
        summary |= {"white_to_red_ratio": ratio, "white_per_1000_red": 1000 * ratio}
    if {WHITE, PLATELET} <= number.keys():
        summary["platelets_per_white"] = _ratio(number[PLATELET], number[WHITE])
    return summary


def _classes_of(counts: pd.DataFrame) -> list[str]:
    """Return the columns that count cells: those with a column of cells in frames beside them.

    In a table without frames any column of numbers may be one.
    """
    framed = [name for name in counts if f"{name}{_IN_FRAME}" in counts]
    if framed:
        return framed
    others = {f"{name}{_PER_MM2}" for name in counts} | {*_NOT_CLASSES}
    return [name for name in counts.select_dtypes("number") if name not in others]


def _unit(cells: pd.DataFrame) -> str:
    units = cells["unit"].unique().tolist()
    if len(units) > 1:
        raise ValueError(
            f"cells must all be in one unit; got {' and '.join(map(str, units))}, since the size "
            "of a pixel is known for some images only. Set pixel_size, or summarize them apart."
        )
    return units[0] if units else "px"


def _of_cells(cells: pd.DataFrame, unit: str) -> dict[str, Any]:
    """Return what a table of cells tells beside the counts."""
    cut = _is_true(cells["touches_border"])
    widths = cells["diameter"][cells["class"].eq(RED) & ~cut]
    return {
        f"red_diameter_median_{unit}": widths.median(),
        "red_diameter_cv_percent": 100 * _ratio(widths.std(), widths.mean()),
        "touching_border_percent": 100 * _ratio(cut.sum(), len(cut)),
    }


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
