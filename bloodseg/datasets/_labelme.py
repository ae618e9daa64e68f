"""Annotations drawn with LabelMe."""

from __future__ import annotations

import base64
import binascii
import math
import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from .._files import expanded
from .._images import CLASS_NAMES, check_classes
from ._canvas import Canvas
from ._decoding import decode_labels, decode_rgb
from ._files import (
    check_class_map,
    check_labels_known,
    class_of,
    find_annotations,
    read_json,
)
from ._instances import bunch_of_cells
from ._polygon import FAR, fill_polygon
from ._slides import read_as_drawn_on

# Long or deeply nested values would make the plain repr slow, or overflow the stack.
_SHORT = reprlib.Repr()
_SHORT.maxstring = 80
_N_POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}


def load_labelme(
    path: str | os.PathLike,
    class_names: Mapping[str, str | int] | None = None,
    *,
    classes: Sequence[str] = CLASS_NAMES,
) -> Bunch:
    """Load images and cells annotated with LabelMe.

    Polygons, rectangles, circles and masks are drawn in the order of the file, later ones over
    earlier ones. Shapes that share a class and a ``group_id`` are one cell. A shape with a label of
    class background erases what lies below it.

    Parameters
    ----------
    path : str or path-like
        A folder of LabelMe's JSON files, or one such file.
    class_names : mapping from str to str or int, optional
        Classes of label texts, or their numbers, beside those that are known: the names of the
        classes; red, RBC, red cell, erythrocyte; white, WBC, white cell, leukocyte; platelet (where
        it is no class, background), and the like. Case, ``_`` and ``-`` do not matter.
    classes : sequence of str, default=("background", "white", "red")
        Names of the labels 0, 1, ..., as `bloodseg.BloodCellSegmenter` takes them.

    Returns
    -------
    Bunch
        images : list of ndarray of shape (H, W, 3)
            RGB, uint8; or float32 in [0, 1] for files of 16 bits a channel.
        masks : list of ndarray of shape (H, W), uint8
            Labels, places in ``classes``: by default 0 background, 1 white cells, 2 red cells.
        instances : list of ndarray of shape (H, W), int32
            0 background, 1 to k the cells of which something is seen, in drawing order.
        counts : ndarray of shape (n, n_classes - 1), int
            Cells of each class in ``instances``, by default white and red ones.
        names : list of str
            Names of the JSON files without suffix; all lists are sorted by them.
        groups : None
            LabelMe knows no groups of images.
        target_names : tuple of str
            ``classes``.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder, or an image is missing.
    ValueError
        If a file is not LabelMe's, damaged, or holds labels that have no class.

    Warns
    -----
    UserWarning
        If shapes have no pixel in their image; these are left out.

    Notes
    -----
    An image is read from ``imageData`` if the file embeds it, else from ``imagePath``, which must
    lie in the folder of the JSON file, and turned as its EXIF data say, as LabelMe shows it. A
    pixel belongs to a polygon if its centre does, or lies on its outline.

    References
    ----------
    .. [1] K. Wada, LabelMe: Image Polygonal Annotation with Python,
       https://github.com/wkentaro/labelme.

    Examples
    --------
    >>> import json, tempfile
    >>> import numpy as np
    >>> from skimage.io import imsave
    >>> from bloodseg.datasets import load_labelme
    >>> shape = {"label": "rbc", "shape_type": "rectangle", "points": [[2, 1], [5, 3]]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     imsave(f"{folder}/a.png", np.full((6, 8, 3), 200, np.uint8), check_contrast=False)
    ...     with open(f"{folder}/a.json", "w") as file:
    ...         json.dump({"imagePath": "a.png", "shapes": [shape]}, file)
    ...     data = load_labelme(folder)
    >>> data.counts
    array([[0, 1]])
    >>> int((data.masks[0] == 2).sum())
    12
    """
    names = check_classes(classes)
    known = check_class_map(class_names, names, name="class_names")
    files = find_annotations(
        expanded(path), ".json", holds="LabelMe's JSON files", kind="JSON file of LabelMe"
    )
    documents = {name: (file, _read_document(file)) for name, file in files.items()}
    labels = [shape["label"] for _, document in documents.values() for shape in document["shapes"]]
    check_labels_known(labels, known, names, name="class_names")
    images, drawn = [], []
    for file, document in documents.values():
        images.append(_read_annotated_image(file, document))
        drawn.append(_draw(file, document, images[-1].shape[:2], known))
    return bunch_of_cells(images, drawn, documents, names)


def _read_document(file: Path) -> dict[str, Any]:
    """Parse a file and check the fields of its shapes, points apart."""
    document = read_json(file, "LabelMe")
    shapes = document.get("shapes") if isinstance(document, dict) else None
    if not isinstance(shapes, list):
        raise ValueError(
            f"{file} must be a JSON object with a list of shapes, as LabelMe saves it; "
            "move other JSON files out of the folder."
        )
    for index, shape in enumerate(shapes):
        where = _where(file, index)
        if not isinstance(shape, dict):
            raise ValueError(f"{where} must be a JSON object; got {type(shape).__name__}.")
        if not isinstance(shape.get("label"), str):
            raise ValueError(
                f"{where} must have a text as label; got {_SHORT.repr(shape.get('label'))}."
            )
        group = shape.get("group_id")
        if not (group is None or isinstance(group, (int, str))):
            raise ValueError(
                f"{where} must have a number or null as group_id; got {_SHORT.repr(group)}."
            )
        # Files of early versions of LabelMe have polygons only and do not say so.
        if shape.get("shape_type") is None:
            shape["shape_type"] = "polygon"
        kind = shape["shape_type"]
        if not isinstance(kind, str) or kind not in _N_POINTS:
            raise ValueError(
                f"{where} must have one of the shape types {', '.join(_N_POINTS)}; got "
                f"{_SHORT.repr(kind)}. Outline the cell with a polygon, or delete the shape."
            )
    return document


def _where(file: Path, index: int) -> str:
    return f"{file}, shapes[{index}]"


def _read_annotated_image(file: Path, document: dict[str, Any]) -> np.ndarray:
    embedded = document.get("imageData")
    if embedded not in (None, ""):
        data = _decode_base64(embedded, where=f"{file}, imageData")
        image = decode_rgb(data, name=f"{file}, imageData")
    else:
        size = document.get("imageHeight"), document.get("imageWidth")
        image = read_as_drawn_on(_image_file(file, document.get("imagePath")), size)
    for axis, field in enumerate(("imageHeight", "imageWidth")):
        declared = document.get(field)
        if declared is not None and (isinstance(declared, bool) or declared != image.shape[axis]):
            raise ValueError(
                f"{file}, {field} must be that of the image, {image.shape[axis]}; "
                f"got {_SHORT.repr(declared)}. Annotate the image at the size it has."
            )
    return image


def _image_file(file: Path, image_path: Any) -> Path:
    """Return the image's path if it is in the folder of its annotations, links followed."""
    where = f"{file}, imagePath"
    if not isinstance(image_path, str) or not image_path:
        raise ValueError(f"{where} must be a text; got {_SHORT.repr(image_path)}.")
    # Read as Windows would, which knows both separators and drive letters: files travel.
    relative = PureWindowsPath(image_path)
    inside = not relative.anchor and ".." not in relative.parts
    try:
        folder = file.parent.resolve()
        target = folder.joinpath(*relative.parts).resolve() if inside else folder
        found = target.is_file()
    except (OSError, ValueError, RuntimeError) as error:  # name too long, null byte, loop of links
        raise ValueError(f"{where} cannot be a path: {error}") from error
    if not inside or not target.is_relative_to(folder):
        raise ValueError(
            f"{where} must lie in the folder of the JSON file; got {_SHORT.repr(image_path)}. "
            "Move the image there and correct the path."
        )
    if not found:
        raise FileNotFoundError(f"{where} must name an image; {target} is not a file.")
    return target


def _decode_base64(text: Any, *, where: str) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"{where} must be a base64 text; got {type(text).__name__}.")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{where} must be a base64 text: {error}.") from error


def _draw(
    file: Path, document: dict[str, Any], size: tuple[int, int], known: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells' numbers (H, W) and the class of each number, 0 included."""
    canvas = Canvas(size, str(file))
    for index, shape in enumerate(document["shapes"]):
        place, inside = _shape_pixels(shape, size, where=_where(file, index))
        group = shape.get("group_id")
        cell = None if group is None else str(group)
        canvas.draw(place, inside, class_of(shape["label"], known) or 0, cell)
    return canvas.cells()


def _shape_pixels(
    shape: dict[str, Any], size: tuple[int, int], *, where: str
) -> tuple[tuple[slice, slice], Any]:
    """Return a part of the image, and which pixels of it a shape covers."""
    kind = shape["shape_type"]
    x, y = _check_points(shape.get("points"), kind, where=where).T
    if kind == "polygon":
        return fill_polygon(x, y, size)
    if kind == "circle":
        return _disc(x, y, size)
    top, bottom = sorted(round(float(value)) for value in y)
    left, right = sorted(round(float(value)) for value in x)
    # Both corners belong to it, as in LabelMe's own export.
    place = _cut(top, bottom + 1, size[0]), _cut(left, right + 1, size[1])
    if kind == "rectangle":
        return place, ...
    data = _decode_base64(shape.get("mask"), where=f"{where}.mask")
    box = (bottom - top + 1, right - left + 1)
    mask = decode_labels(data, name=f"{where}.mask", shape=box, what="a PNG mask")
    rows, columns = (
        slice(each.start - low, each.stop - low)
        for each, low in zip(place, (top, left), strict=True)
    )
    return place, mask[rows, columns] != 0


def _disc(
    x: np.ndarray, y: np.ndarray, size: tuple[int, int]
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return the pixels within a circle, of which the centre and a point are given."""
    radius = float(np.hypot(y[1] - y[0], x[1] - x[0]))
    rows, columns = (
        _cut(math.ceil(middle[0] - radius), math.floor(middle[0] + radius) + 1, length)
        for middle, length in zip((y, x), size, strict=True)
    )
    down = np.arange(rows.start, rows.stop)[:, np.newaxis] - y[0]
    across = np.arange(columns.start, columns.stop) - x[0]
    return (rows, columns), down**2 + across**2 < radius**2


def _cut(start: int, stop: int, length: int) -> slice:
    """Return what of a range lies in an image."""
    start = min(max(start, 0), length)
    return slice(start, max(min(stop, length), start))


def _check_points(points: Any, kind: str, *, where: str) -> np.ndarray:
    """Return points (n, 2) as x and y."""
    needed = _N_POINTS[kind]
    enough = isinstance(points, list) and len(points) >= needed
    if not enough or (kind != "polygon" and len(points) != needed):
        count = len(points) if isinstance(points, list) else _SHORT.repr(points)
        wanted = f"at least {needed}" if kind == "polygon" else needed
        raise ValueError(f"{where} ({kind}) must have {wanted} points; got {count}.")
    for point in points:
        if not (isinstance(point, list) and len(point) == 2 and all(map(_is_finite, point))):
            raise ValueError(
                f"{where} must have points [x, y] of finite numbers; got {_SHORT.repr(point)}."
            )
    return np.clip(np.array([[float(value) for value in point] for point in points]), -FAR, FAR)


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False
