"""Opening files in napari: slides with the size of their pixels, label maps, outlines."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._images import CLASS_NAMES, check_classes, numbered
from ..cells import coco_polygon
from ..datasets import (
    MAX_PIXELS,
    Slide,
    in_micrometres,
    open_slide,
    pixel_sides,
    read_features,
    read_image,
    read_outline,
    read_rows,
)
from ..prediction import classes_of_map
from ._layers import LayerData, cell_layer, class_layer, place_at, rgba_of

if TYPE_CHECKING:
    import pandas as pd

_AT_ONCE = 2**24  # pixels of a map up to which it is read whole, and can be edited
_STRIP = 512  # rows read at a time beyond that
_SAME = 0.01  # by which areas in pixels differ from those of their outlines, at most
_SHARE = "share_"  # columns of predictions.csv, one for each class


def get_reader(path: Any) -> Callable[[Any], list[LayerData]] | None:
    """Return what reads a file; napari asks for each that has a name of the manifest."""
    return None if isinstance(path, list) and len(path) != 1 else read


def read(path: Any) -> list[LayerData]:
    """Read a file as layers.

    Parameters
    ----------
    path : str or list of one str
        A slide or picture that `open_slide` opens; a label map of ``bloodseg predict`` or
        ``BloodCellSegmenter.predict_file``; or outlines in GeoJSON.

    Returns
    -------
    list of LayerData
        An image layer, a labels layer, or a shapes layer.

    Raises
    ------
    ValueError
        If the file is none of these, or too large to be shown.
    """
    (path,) = path if isinstance(path, list) else [path]
    file = Path(path)
    if file.suffix.lower() == ".geojson":
        return [_read_outlines(file)]
    slide = open_slide(file)
    place = place_at(slide.pixel_sides)
    if file.suffix.lower() == ".png":
        labels = _pixels_of(file, slide)
        return [class_layer(file.stem, labels, _classes_beside(file, int(labels.max())), place)]
    classes = classes_of_map(file)
    if classes:
        return [class_layer(file.stem, _pixels_of(file, slide), classes, place)]
    # No camera gives 32 bits: a plain TIFF of these is one of numbers of cells.
    wide = slide.shape[2] == 1 and slide.dtype.kind in "iu" and slide.dtype.itemsize >= 4
    if wide or classes is not None:
        return [cell_layer(file.stem, _pixels_of(file, slide), place)]
    height, width = slide.shape[:2]
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"{file} must have at most {MAX_PIXELS:,} pixels to be shown whole; got {height} x "
            f"{width}. Cut out what you want to see, or run `bloodseg measure` on the file itself."
        )
    return [(read_image(file), {"name": file.stem, "rgb": True, **place}, "image")]


def _pixels_of(file: Path, slide: Slide) -> Any:
    """Return a label map: in memory, or as a pyramid whose parts are read when they are shown."""
    height, width = slide.shape[:2]
    levels = [each for each in map(str, range(64)) if file.is_dir() and (file / each).is_dir()]
    if height * width <= _AT_ONCE or len(levels) < 2:
        return slide[:][..., 0]
    return [_Rows(open_slide(file / level)).as_dask() for level in levels]


class _Rows:
    """A label map, read by rectangles."""

    ndim = 2

    def __init__(self, slide: Slide):
        self.shape = slide.shape[:2]
        self.dtype = slide.dtype
        self._slide = slide

    def __getitem__(self, places: tuple[slice, slice]) -> np.ndarray:
        rows, columns = places
        return self._slide[rows, columns][..., 0]

    def as_dask(self) -> Any:
        import dask.array  # napari brings it

        nothing = np.empty((0, 0), self.dtype)
        return dask.array.from_array(self, (_STRIP, self.shape[1]), name=False, meta=nothing)


def _classes_beside(mask: Path, highest: int) -> tuple[str, ...]:
    """Return the names of the labels of a map of ``bloodseg predict``, by the table beside it."""
    # With --recursive the table lies above the folders of the maps.
    folders = (each for each in mask.parents if (each / "predictions.csv").is_file())
    folder = next(folders, mask.parent)
    table = folder / "predictions.csv"
    for row in read_rows(table) if table.is_file() else []:
        if folder / (row.get("mask") or "") == mask:
            return check_classes([name[len(_SHARE) :] for name in row if name.startswith(_SHARE)])
    return CLASS_NAMES if highest < len(CLASS_NAMES) else numbered(highest + 1)


def _read_outlines(file: Path) -> LayerData:
    """Read the outlines in a GeoJSON file, their classes and measurements."""
    import pandas as pd

    outlines: list[np.ndarray] = []
    rows: list[dict[str, Any]] = []
    for feature, where in read_features(file):
        name, polygons = read_outline(feature, where)
        measured = feature["properties"].get("measurements")
        row = {"class": name, **(measured if isinstance(measured, dict) else {})}
        for rings in polygons:
            closed = rings[0]
            corners = closed[:-1] if (closed[0] == closed[-1]).all() else closed
            outlines.append(corners[:, ::-1] - 0.5)  # to napari 0 is the first pixel's middle
            rows.append(row)
    table = pd.DataFrame(rows)
    colours = rgba_of(("background", *table.get("class", pd.Series(dtype=object)).unique()))
    properties = {
        "name": file.stem,
        "shape_type": "polygon",
        "features": table,
        "edge_color": [colours[row["class"]] for row in rows],
        "face_color": "transparent",
        **place_at(_sides_by(outlines, table)),
    }
    return outlines, properties, "shapes"


def _sides_by(outlines: list[np.ndarray], table: pd.DataFrame) -> tuple[float, float] | None:
    """Return the size of pixels by areas in square micrometres; None where they are in pixels.

    The outlines themselves are in pixels always.
    """
    areas = table.get("area")
    if areas is None:
        return None
    in_pixels = [coco_polygon(outline)["area"] for outline in outlines]
    ratio = float((areas / in_pixels).median())
    if not ratio > 0 or abs(ratio - 1) < _SAME:
        return None
    side = in_micrometres(math.sqrt(ratio), "µm")
    return pixel_sides(side, side)
