"""Outlines in GeoJSON, as QuPath and this package write them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from .._files import expanded
from .._images import CLASS_NAMES, check_classes
from ._canvas import Canvas
from ._files import (
    check_class_map,
    check_labels_known,
    class_of,
    find_annotations,
    find_pictures,
    read_json,
)
from ._instances import bunch_of_cells
from ._polygon import FAR, fill_polygon
from ._slides import read_image

Rings = list[np.ndarray]


def load_geojson(
    path: str | os.PathLike,
    images: str | os.PathLike | None = None,
    class_names: Mapping[str, str | int] | None = None,
    *,
    classes: Sequence[str] = CLASS_NAMES,
) -> Bunch:
    """Load images and cells outlined in GeoJSON, as QuPath and `bloodseg.cells.to_geojson` do.

    Parameters
    ----------
    path : str or path-like
        A folder with ``NAME.geojson`` for each image, in pixels of that image; or one such file.
    images : str or path-like, optional
        Folder of the images; by default ``images`` in ``path``, or ``path``. An image goes with
        the GeoJSON file of its own name.
    class_names : mapping from str to str or int, optional
        Classes of the names in QuPath's classifications, beside those that are known; see
        `load_labelme`.
    classes : sequence of str, default=("background", "white", "red")
        Names of the labels 0, 1, ..., as `bloodseg.BloodCellSegmenter` takes them.

    Returns
    -------
    Bunch
        ``images``, ``masks``, ``instances``, ``counts``, ``names``, ``groups`` and
        ``target_names``, as from `load_labelme`.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder, or an image is missing.
    ValueError
        If a file is damaged, not GeoJSON, or holds classes that are not known, or none.

    Warns
    -----
    UserWarning
        If shapes have no pixel in their image; these are left out.

    Notes
    -----
    Polygons and multipolygons are drawn in the order of the file, later ones over earlier ones;
    their holes are left out. A pixel belongs to a polygon if its centre does: the corners of the
    first pixel are 0 and 1.

    References
    ----------
    .. [1] H. Butler et al., The GeoJSON Format, RFC 7946, 2016.

    Examples
    --------
    >>> import json, tempfile
    >>> import numpy as np
    >>> from skimage.io import imsave
    >>> from bloodseg.datasets import load_geojson
    >>> ring = [[2, 1], [5, 1], [5, 3], [2, 3], [2, 1]]
    >>> feature = {
    ...     "type": "Feature",
    ...     "geometry": {"type": "Polygon", "coordinates": [ring]},
    ...     "properties": {"classification": {"name": "red"}},
    ... }
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     imsave(f"{folder}/a.png", np.full((6, 8, 3), 200, np.uint8), check_contrast=False)
    ...     with open(f"{folder}/a.geojson", "w") as file:
    ...         json.dump({"type": "FeatureCollection", "features": [feature]}, file)
    ...     data = load_geojson(folder)
    >>> data.counts, int((data.masks[0] == 2).sum())
    (array([[0, 1]]), 6)
    """
    target_names = check_classes(classes)
    known = check_class_map(class_names, target_names, name="class_names")
    files = find_annotations(expanded(path), ".geojson", holds="GeoJSON files", kind="GeoJSON file")
    pictures = find_pictures(next(iter(files.values())).parent, images)
    cells = {name: _read_outlines(file) for name, file in files.items()}
    found = [label for items in cells.values() for label, _ in items]
    check_labels_known(found, known, target_names, name="class_names")
    pixels, drawn = [], []
    for name, items in cells.items():
        if name not in pictures:
            raise FileNotFoundError(f"{files[name]} has no image: there is none {name}. Add it.")
        image = read_image(pictures[name])
        canvas = Canvas(image.shape[:2], str(files[name]))
        for index, (label, polygons) in enumerate(items):
            for rings in polygons:
                place, inside = _fill(rings, image.shape[:2], canvas)
                canvas.draw(place, inside, class_of(label, known) or 0, index)
        pixels.append(image)
        drawn.append(canvas.cells())
    return bunch_of_cells(pixels, drawn, list(files), target_names)


def _read_outlines(file: Path) -> list[tuple[str, list[Rings]]]:
    return [read_outline(feature, where) for feature, where in read_features(file)]


def read_features(file: Path) -> list[tuple[Any, str]]:
    """Return the features of a file, and what messages call each."""
    document = read_json(file, "GeoJSON")
    features = document  # QuPath writes a bare list, too
    if isinstance(document, dict):
        features = [document] if document.get("type") == "Feature" else document.get("features")
    if not isinstance(features, list):
        raise ValueError(
            f"{file} must hold a GeoJSON FeatureCollection; got none. Move other files out of the "
            "folder."
        )
    return [(feature, f"{file}, features[{i}]") for i, feature in enumerate(features)]


def read_outline(feature: Any, where: str) -> tuple[str, list[Rings]]:
    """Return the class and the polygons, each a list of rings, corners (x, y), of a feature."""
    geometry, properties = (_member(feature, name) for name in ("geometry", "properties"))
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(
            f"{where} must be a Polygon or a MultiPolygon; got {str(kind)[:60]!r}. Outline the "
            "cell, or delete the object."
        )
    classification = _member(properties, "classification")
    name = classification.get("name")
    names = classification.get("names")  # QuPath's, of a class and what it was told further by
    if name is None and isinstance(names, list) and names:
        name = ": ".join(map(str, names))
    if not isinstance(name, str):
        raise ValueError(
            f"{where} must have a classification with a name, such as red or white; got none. Set "
            "the class of the object in QuPath."
        )
    polygons: Any = coordinates if kind == "MultiPolygon" else [coordinates]
    try:
        rings = [[_ring(ring) for ring in polygon] for polygon in polygons]
        if not all(rings):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"{where} must have rings of at least three points [x, y] of finite numbers."
        ) from None
    return name, rings


def _member(value: Any, name: str) -> dict[str, Any]:
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def _ring(points: Any) -> np.ndarray:
    corners = np.array([[float(x), float(y)] for x, y, *_ in points])
    if len(corners) < 3 or not np.isfinite(corners).all():
        raise ValueError
    return corners.clip(-FAR, FAR)


def _fill(
    rings: Rings, size: tuple[int, int], canvas: Canvas
) -> tuple[tuple[slice, slice], np.ndarray]:
    place, inside = fill_corners(rings[0], size)
    corner = np.array([place[1].start, place[0].start])
    for hole in rings[1:]:
        at, hollow = fill_corners(hole - corner, inside.shape)
        canvas.reserve(hollow.size)
        inside[at] &= ~hollow
    return place, inside


def fill_corners(corners: np.ndarray, size: tuple[int, int]) -> Any:
    """Find the pixels whose centres lie in a polygon, where the first pixel's corners are 0 and 1.

    Returns what `fill_polygon` does, for which the first pixel's centre is 0.
    """
    x, y = (corners - 0.5).T
    return fill_polygon(x, y, size)
