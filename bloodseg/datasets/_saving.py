"""Annotated images written in the formats of other programs."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from .._files import expanded, write_json, written_whole
from .._images import NOT_LABELLED, colours_of
from ..cells import coco_polygon, find_cells, make_coco, make_feature, outlines_of
from ._geojson import fill_corners
from ._instances import classes_of_cells

FORMATS = ("masks", "coco", "geojson", "labelme")
"""What `save_annotated` writes."""


def save_annotated(data: Mapping[str, Any], path: str | os.PathLike, format: str) -> None:
    """Save annotated images in a folder, for another program or for `load_annotated`.

    Parameters
    ----------
    data : Bunch
        What `load_annotated` or `make_smears` returns: ``images`` and ``masks``, and perhaps
        ``instances``, ``boxes`` and ``labels``, ``names`` and ``groups``. Where single cells are
        not known, `bloodseg.cells.find_cells` finds them.
    path : str or path-like
        The folder, made where it is not there. Files of the same names are replaced.
    format : {"masks", "coco", "geojson", "labelme"}
        "masks" are the folders of `load_folder`, and beside them, where ``instances`` are known,
        one of these, with the numbers of single cells. The others hold outlines: of a cell in
        several parts that of the largest, holes and what is labelled 255 left out. Where there are
        boxes alone, "coco" holds boxes, and "geojson" and "labelme" hold rectangles, which are read
        back as outlines: they are for a person to correct.

    Raises
    ------
    OSError
        If a file cannot be written.
    ValueError
        If there is no such format.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from bloodseg.datasets import make_smears, save_annotated
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_annotated(make_smears(1, image_size=64), folder, "geojson")
    ...     sorted(file.name for file in Path(folder).rglob("*.*"))
    ['0.geojson', '0.png']
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; got {format!r}.")
    folder = expanded(path)
    images, masks = data["images"], data["masks"]
    names = data.get("names") or [f"{i:0{len(str(len(images) - 1))}d}" for i in range(len(images))]
    pictures = folder if format == "labelme" else folder / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, images, strict=True):
        _write_image(pictures / f"{name}.png", image)
    if data.get("groups") is not None:
        with (
            written_whole(folder / "groups.csv") as unfinished,
            unfinished.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([("image", "group"), *zip(names, data["groups"], strict=True)])
    if format == "masks":
        (folder / "masks").mkdir(exist_ok=True)
        for name, mask in zip(names, masks, strict=True):
            _write_image(folder / "masks" / f"{name}.png", np.asarray(mask, np.uint8))
        if data.get("instances") is not None:
            (folder / "instances").mkdir(exist_ok=True)
            for index, name in enumerate(names):
                _write_numbers(folder / "instances", name, _cells_of_a_class(data, index))
        return
    cells = [_outlines(data, index) for index in range(len(images))]
    classes = data["target_names"]
    if format == "coco":
        sizes = [image.shape[:2] for image in images]
        document = _coco(names, sizes, cells, classes, boxes_alone=_has_boxes_alone(data))
        write_json(folder / "annotations.json", document, indent=None)
        return
    for name, image, outlines in zip(names, images, cells, strict=True):
        if format == "geojson":
            write_json(folder / f"{name}.geojson", _geojson(outlines, classes), indent=None)
        else:
            write_json(
                folder / f"{name}.json", _labelme(name, image, outlines, classes), indent=None
            )


def _cells_of_a_class(data: Mapping[str, Any], index: int) -> np.ndarray:
    """Return the numbers of an image's cells, without those whose class is not known."""
    labels = np.asarray(data["instances"][index])
    mask, n_classes = np.asarray(data["masks"][index]), len(data["target_names"])
    numbers, classes, _ = classes_of_cells(labels, mask, n_classes, name=f"instances[{index}]")
    return np.where(np.isin(labels, numbers[classes > 0]), labels, 0)


Outlines = list[tuple[int, np.ndarray]]


def _has_boxes_alone(data: Mapping[str, Any]) -> bool:
    return data.get("boxes") is not None and data.get("instances") is None


def _outlines(data: Mapping[str, Any], index: int) -> Outlines:
    """Return the class of each cell of an image, and the corners (k, 2) of its outline."""
    if _has_boxes_alone(data):
        return [
            (int(label), np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float))
            for (x0, y0, x1, y1), label in zip(
                data["boxes"][index], data["labels"][index], strict=True
            )
            if label
        ]
    mask = np.asarray(data["masks"][index])
    if data.get("instances") is None:
        cells = find_cells(np.where(mask == NOT_LABELLED, 0, mask), classes=data["target_names"])
        labels, classes = cells.labels, cells.classes
    else:
        n_classes = len(data["target_names"])
        instances = np.asarray(data["instances"][index])
        _, classes, labels = classes_of_cells(
            instances, mask, n_classes, name=f"instances[{index}]"
        )
    outlines = outlines_of(labels, len(classes))
    drawn = _without_hiding(labels, list(zip(map(int, classes), outlines, strict=True)))
    return [each for each in drawn if each[0]]  # the class of the others is not known


def _without_hiding(labels: np.ndarray, outlines: Outlines) -> Outlines:
    """Return outlines in an order in which none hides another, for later ones lie over earlier.

    An outline has no holes, and a cell that lies in the hole of another would be lost below it. The
    order of the numbers is kept where it does no harm.
    """
    for number, (_, corners) in enumerate(outlines, start=1):
        place, inside = fill_corners(corners, labels.shape)
        below = labels[place][inside]
        if ((below > 0) & (below < number)).any():
            return sorted(outlines, key=lambda each: -float(np.prod(np.ptp(each[1], axis=0))))
    return outlines


def _coco(
    names: Sequence[str],
    sizes: Sequence[Any],
    cells: Sequence[Outlines],
    classes: Sequence[str],
    *,
    boxes_alone: bool,
) -> dict[str, Any]:
    annotations = []
    for image, outlines in enumerate(cells, start=1):
        for label, corners in outlines:
            low, high = corners.min(axis=0), corners.max(axis=0)
            box = [*low.tolist(), *(high - low).tolist()]
            places = {"image_id": image, "category_id": label, "bbox": box}
            shape = coco_polygon(corners)
            if boxes_alone:  # a box is no outline: its corners are background
                shape["segmentation"] = []
            annotations.append(places | shape)
    files = (f"{name}.png" for name in names)
    return make_coco(zip(files, sizes, strict=True), annotations, classes)


def _geojson(outlines: Outlines, classes: Sequence[str]) -> dict[str, Any]:
    colours = colours_of(classes)
    features = [
        make_feature(
            number, corners, classes[label], colours[classes[label]], objectType="annotation"
        )
        for number, (label, corners) in enumerate(outlines, start=1)
    ]
    return {"type": "FeatureCollection", "features": features}


def _labelme(
    name: str, image: np.ndarray, outlines: Outlines, classes: Sequence[str]
) -> dict[str, Any]:
    shapes = [
        {
            "label": classes[label],
            # The centre of a pixel is a whole number there.
            "points": (corners - 0.5).tolist(),
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for label, corners in outlines
    ]
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{name}.png",
        "imageData": None,
        "imageHeight": image.shape[0],
        "imageWidth": image.shape[1],
    }


def _write_image(path: Path, pixels: np.ndarray) -> None:
    """Write pixels as PNG, of 8 bits; fractions as 16 bits."""
    if pixels.dtype == np.uint8:
        with written_whole(path) as unfinished:
            Image.fromarray(pixels).save(unfinished, format="PNG")
        return
    deep = np.rint(np.clip(pixels, 0, 1) * 65535).astype(np.uint16)
    with written_whole(path) as unfinished:
        unfinished.write_bytes(cv2.imencode(".png", deep[..., ::-1])[1].tobytes())


def _write_numbers(folder: Path, name: str, labels: np.ndarray) -> None:
    """Write numbers of cells as PNG of 16 bits, or, too large for it, as TIFF of 32."""
    many = labels.max(initial=0) > np.iinfo(np.uint16).max
    with written_whole(folder / f"{name}{'.tif' if many else '.png'}") as unfinished:
        Image.fromarray(labels.astype(np.int32 if many else np.uint16)).save(
            unfinished, format="TIFF" if many else "PNG"
        )
