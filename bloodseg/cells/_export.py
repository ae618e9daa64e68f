"""Tables of cells in the formats of other programs: GeoJSON, COCO, and ROIs of ImageJ."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from scipy import ndimage

from .._extras import import_extra
from .._images import CLASS_NAMES, cell_labels, check_classes, colours_of
from ._frame import SIDES

if TYPE_CHECKING:
    import pandas as pd

_TOLERANCE = 0.75  # pixels by which an outline in a picture may be off
_MARKS = ("touches_border", *(f"touches_{side}" for side in SIDES), "in_frame")


def outlines_of(
    labels: np.ndarray, n_cells: int, origin: tuple[int, int] = (0, 0)
) -> list[np.ndarray]:
    """Return the outline of each cell, corners (x, y) of the pixels' outer edges, in the image.

    Of a cell in several parts the largest part's; holes are left out.
    """
    outlines = []
    for index, place in enumerate(ndimage.find_objects(labels, max_label=n_cells)):
        # Pixels as squares of 2 x 2, so that a contour through their centres has room inside.
        inside = (labels[place] == index + 1).astype(np.uint8)
        doubled = np.pad(np.kron(inside, np.ones((2, 2), np.uint8)), 1)
        contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        corners = max(contours, key=cv2.contourArea)[:, 0].astype(float)
        # Of the two halves of a pixel, the first lies left of its middle, the second right of it.
        edges = np.floor((corners - 1) / 2) + (corners - 1) % 2
        # At a diagonal step both halves of a pixel have the same corner.
        edges = edges[(edges != np.roll(edges, 1, axis=0)).any(axis=1)]
        corner = np.array([place[1].start + origin[1], place[0].start + origin[0]])
        outlines.append(edges + corner)
    return outlines


def svg_path(outline: np.ndarray) -> str:
    """Return an outline (k, 2), corners (x, y), as a path of SVG, straight parts of it as one."""
    corners = cv2.approxPolyDP(outline.astype(np.int32), _TOLERANCE, closed=True)[:, 0]
    steps = np.diff(corners, axis=0).tolist()
    x, y = corners[0].tolist()
    return f"M{x} {y}l{' '.join(f'{right} {down}' for right, down in steps)}z"


def to_geojson(table: pd.DataFrame, *, classes: Sequence[str] = CLASS_NAMES) -> dict[str, Any]:
    """Return the cells of one image as a GeoJSON FeatureCollection, for QuPath and the like.

    Parameters
    ----------
    table : DataFrame
        Of `measure_cells`, or of ``BloodCellSegmenter.measure`` for one image, with ``outlines``.
    classes : sequence of str, default=("background", "white", "red")
        Names of all classes: ``class_names_`` of a segmenter, ``class_names`` of `Cells`. They tell
        the colours.

    Returns
    -------
    dict
        One polygon a cell, in pixels, with the measurements as QuPath reads them; ``id`` and the
        measurement ``label`` are the cell's label, by which its row is found. What is true or not,
        such as ``touches_border`` and ``in_frame``, is 1 or 0. ``json.dump`` writes it. ``unit`` of
        the collection is that of the measurements, "px" or "um"; the outlines are in pixels always.
        Where the image is doubted, the collection has ``doubts``, a str.

    Raises
    ------
    ValueError
        If the table has no outlines, or holds several images or cells of other classes.

    Examples
    --------
    >>> import numpy as np
    >>> from bloodseg.cells import find_cells, measure_cells, to_geojson
    >>> square = np.zeros((40, 40), int)
    >>> square[10:30, 10:30] = 2
    >>> collection = to_geojson(measure_cells(find_cells(square), outlines=True))
    >>> collection["features"][0]["geometry"]["coordinates"]
    [[[10.0, 10.0], [10.0, 30.0], [30.0, 30.0], [30.0, 10.0], [10.0, 10.0]]]
    """
    colours = colours_of(_check_table(table, classes))
    _check_one_image(table, "GeoJSON has")
    features = [
        make_feature(
            row["label"],
            row["outline"],
            row["class"],
            colours[row["class"]],
            objectType="detection",
            measurements=_numbers(row),
        )
        for row in table.to_dict("records")
    ]
    collection: dict[str, Any] = {"type": "FeatureCollection", "features": features}
    if "unit" in table and len(table):
        collection["unit"] = table["unit"].iloc[0]
    if "doubts" in table and any(table["doubts"]):
        collection["doubts"] = table["doubts"].iloc[0]
    return collection


def make_feature(
    number: Any, outline: np.ndarray, name: str, colour: Sequence[int], **properties: Any
) -> dict[str, Any]:
    """Return a cell as a feature of GeoJSON, with its class and its other properties for QuPath."""
    ring = outline.tolist()
    classification = {"name": name, "color": list(colour)}
    return {
        "type": "Feature",
        "id": number,
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {"classification": classification, **properties},
    }


def to_imagej_rois(table: pd.DataFrame, *, classes: Sequence[str] = CLASS_NAMES) -> bytes:
    """Return the cells of one image as regions of interest of ImageJ and Fiji, in a ZIP file.

    Needs the package roifile, of the extra ``imagej``.

    Parameters
    ----------
    table : DataFrame
        Of `measure_cells`, or of ``BloodCellSegmenter.measure`` for one image, with ``outlines``.
    classes : sequence of str, default=("background", "white", "red")
        Names of all classes: ``class_names_`` of a segmenter, ``class_names`` of `Cells`.

    Returns
    -------
    bytes
        A file ``*.zip`` that ImageJ opens in its ROI manager: a traced outline a cell, called
        ``LABEL-CLASS``, by whose label its row is found; as group the label of its class, which has
        the colour that pictures have.

    Raises
    ------
    ImportError
        If roifile is missing.
    ValueError
        If the table has no outlines, or holds several images or cells of other classes.

    Examples
    --------
    >>> import numpy as np
    >>> from bloodseg.cells import find_cells, measure_cells, to_imagej_rois
    >>> square = np.zeros((40, 40), int)
    >>> square[10:30, 10:30] = 2
    >>> table = measure_cells(find_cells(square), outlines=True)
    >>> to_imagej_rois(table)[:2]  # to be written as RoiSet.zip, say
    b'PK'
    """
    roifile = import_roifile()
    names = _check_table(table, classes)
    _check_one_image(table, "ROIs have")
    labels, colours = cell_labels(names), colours_of(names)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for number, name, outline in zip(
            table["label"], table["class"], table["outline"], strict=True
        ):
            # Whole numbers are corners of pixels to ImageJ; fractions would be other places.
            roi = roifile.ImagejRoi.frompoints(outline.astype(int), name=f"{number}-{name}")
            roi.roitype = roifile.ROI_TYPE.TRACED
            roi.group = labels[name]
            roi.stroke_color = bytes((255, *colours[name]))
            file.writestr(f"{number}-{name}.roi".replace("/", "_"), roi.tobytes())
    return buffer.getvalue()


def import_roifile() -> Any:
    """Return the package roifile; the error where it is missing says how to install it."""
    need = "ROIs of ImageJ need the package roifile"
    return import_extra("roifile", extra="imagej", need=need)


def to_coco(
    table: pd.DataFrame,
    sizes: Mapping[Any, tuple[int, int]],
    *,
    classes: Sequence[str] = CLASS_NAMES,
) -> dict[str, Any]:
    """Return the cells of images as a COCO data set of object detection.

    Parameters
    ----------
    table : DataFrame
        Of ``BloodCellSegmenter.measure`` with ``outlines``.
    sizes : dict
        Height and width of each image, by its entry in the column ``image``; images without
        cells, too.
    classes : sequence of str, default=("background", "white", "red")
        Names of all classes: ``class_names_`` of a segmenter, ``class_names`` of `Cells`.

    Returns
    -------
    dict
        ``images``, ``categories`` (their ids are the labels: 1 white, 2 red) and ``annotations``,
        each with ``bbox`` (x, y, width, height) and ``area`` in pixels, ``segmentation`` as a
        polygon, ``score``, and as ``attributes`` which sides of the picture the cell touches and
        whether it counts in the frame (see `CountingFrame`).

    Raises
    ------
    ValueError
        If the table does not say of which image a cell is, has no outlines or cells of other
        classes, or an image has no size.

    Examples
    --------
    >>> import numpy as np
    >>> from bloodseg.cells import find_cells, measure_cells, to_coco
    >>> square = np.zeros((40, 40), int)
    >>> square[10:30, 10:30] = 2
    >>> table = measure_cells(find_cells(square), outlines=True).assign(image="a.png")
    >>> to_coco(table, {"a.png": (40, 40)})["annotations"][0]["bbox"]
    [10, 10, 20, 20]
    """
    labels = cell_labels(_check_table(table, classes))
    if "image" not in table:
        raise ValueError(
            "table must have the column 'image'. To one of measure_cells, add it: "
            "table.assign(image='NAME')."
        )
    absent = sorted({str(name) for name in table["image"] if name not in sizes})
    if absent:
        raise ValueError(f"sizes must have the size of every image; got none of {absent[0]}.")
    numbers = {name: number for number, name in enumerate(sizes, start=1)}
    annotations = [
        {
            "image_id": numbers[row["image"]],
            "category_id": labels[row["class"]],
            "bbox": [
                *(row["left"], row["top"]),
                *(row["right"] - row["left"], row["bottom"] - row["top"]),
            ],
            **coco_polygon(row["outline"]),
            "score": _numbers(row).get("confidence"),
            "attributes": {name: bool(row[name]) for name in _MARKS if name in row},
        }
        for row in table.to_dict("records")
    ]
    return make_coco(sizes.items(), annotations, classes)


def coco_polygon(outline: np.ndarray) -> dict[str, Any]:
    """Return what an annotation of COCO says of an outline."""
    x, y = outline.T
    area = float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)
    return {"area": area, "segmentation": [outline.ravel().tolist()], "iscrowd": 0}


def make_coco(
    sizes: Iterable[tuple[Any, tuple[int, int]]],
    annotations: Sequence[dict[str, Any]],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Return a data set of COCO, of the name and (height, width) of each image.

    Images and annotations are numbered from 1 in their order.
    """
    images = [
        {"id": number, "file_name": str(name), "height": int(height), "width": int(width)}
        for number, (name, (height, width)) in enumerate(sizes, start=1)
    ]
    categories = [{"id": label, "name": name} for name, label in cell_labels(classes).items()]
    numbered = [{"id": number, **each} for number, each in enumerate(annotations, start=1)]
    return {"images": images, "categories": categories, "annotations": numbered}


def _check_one_image(table: pd.DataFrame, what: str) -> None:
    if "image" in table and table["image"].nunique() > 1:
        raise ValueError(
            f"{what} the coordinates of one image; this table holds {table['image'].nunique()}. "
            "Pass each image's rows on their own."
        )


def _check_table(table: pd.DataFrame, classes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of classes, those of all cells in the table among them."""
    names = check_classes(classes)
    if "outline" not in table:
        raise ValueError(
            "table must have the column 'outline'; measure the cells with outlines=True."
        )
    others = [name for name in table["class"].unique() if name not in names[1:]]
    if others:
        raise ValueError(
            f"classes must name the class of every cell; got {names}, and the table holds cells of "
            f"class {others[0]!r}. Pass class_names_ of the segmenter that measured them."
        )
    return names


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the measurements of a row that are numbers."""
    return {
        name: float(value)  # type: ignore[arg-type]  # what is scalar and no text
        for name, value in row.items()
        if np.isscalar(value) and not isinstance(value, str)
        if np.isfinite(value)
    }
