"""Maps of any size as files: TIFF and Zarr, written by strips of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from .._extras import import_extra
from .._files import check_place, expanded, written_whole
from .._images import cell_labels, check_classes, colours_of
from ..datasets import parse_xml, read_metadata

_STRIP = 512  # rows written at a time
_CELLS = "cells"  # what maps of cells are called
_SHORTEST = 512  # of the longer sides of levels, from which on no coarser one follows


def write_map(
    path: Path,
    rows: Any,
    *,
    dtype: Any,
    pixel_sides: tuple[float, float] | None = None,
    classes: Sequence[str] | None = None,
) -> None:
    """Write a map (H, W), read by strips of rows, as TIFF, OME-TIFF or OME-Zarr.

    Parameters
    ----------
    path : Path
        What `check_output` has returned.
    rows : array-like of shape (H, W)
        Read as ``rows[top:bottom]``.
    dtype : dtype
        Of the map as it is written.
    pixel_sides : (float, float), optional
        Height and width of a pixel in micrometres.
    classes : sequence of str, optional
        What the labels of a class map stand for; without them they are numbers of cells.
    """
    height, width = rows.shape
    strips = (
        np.ascontiguousarray(rows[top : min(top + _STRIP, height)], dtype)
        for top in range(0, height, _STRIP)
    )
    if path.suffix.lower() == ".zarr":
        with written_whole(path, folder=True) as unfinished:
            _write_zarr(unfinished, strips, rows.shape, dtype, pixel_sides, classes)
        return
    options: dict[str, Any] = {}
    if pixel_sides is not None:
        per_cm = tuple(1e4 / side for side in reversed(pixel_sides))
        options = {"resolution": per_cm, "resolutionunit": "CENTIMETER"}
    if path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        options |= {"ome": True, "metadata": _metadata_of_ome(pixel_sides, classes)}
    with written_whole(path) as unfinished:
        tifffile.imwrite(
            unfinished,
            _tiles(strips, width),
            shape=(height, width),
            dtype=dtype,
            bigtiff=height * width > 2**28,
            compression="zlib",
            tile=(_STRIP, _STRIP),
            photometric="minisblack",
            **options,
        )


def _metadata_of_ome(
    pixel_sides: tuple[float, float] | None, classes: Sequence[str] | None
) -> dict[str, Any]:
    """Return what OME-XML says of a map: its axes, its channel, the size of its pixels."""
    sizes: dict[str, Any] = {}
    for axis, side in zip("YX", pixel_sides or (), strict=False):
        sizes |= {f"PhysicalSize{axis}": side, f"PhysicalSize{axis}Unit": "µm"}
    labels = ", ".join(f"{label} {name}" for label, name in enumerate(classes or ()))
    return {"axes": "YX", "Channel": {"Name": labels or _CELLS}, **sizes}


def _tiles(strips: Iterable[np.ndarray], width: int) -> Iterator[np.ndarray]:
    """Cut strips into squares, those at the border filled up with zeros."""
    for strip in strips:
        for left in range(0, width, _STRIP):
            piece = strip[:, left : left + _STRIP]
            tile = np.zeros((_STRIP, _STRIP), strip.dtype)
            tile[: piece.shape[0], : piece.shape[1]] = piece
            yield tile


def _write_zarr(
    path: Path,
    strips: Iterable[np.ndarray],
    shape: tuple[int, int],
    dtype: Any,
    pixel_sides: tuple[float, float] | None,
    classes: Sequence[str] | None,
) -> None:
    """Write a group of OME-NGFF, of version 0.5 in Zarr 3 and 0.4 in Zarr 2, as a pyramid."""
    import zarr

    is_3 = int(zarr.__version__.split(".")[0]) >= 3
    version = "0.5" if is_3 else "0.4"
    kind: dict[str, Any] = {"zarr_format": 3} if is_3 else {}
    layout = {"dimension_names": ("y", "x")} if is_3 else {"dimension_separator": "/"}
    group = zarr.open_group(str(path), mode="w-", **kind)
    shapes = _shapes_of_levels(shape)
    metadata = _metadata_of_ngff(version, len(shapes), pixel_sides, classes)
    group.attrs.update({"ome": {"version": version, **metadata}} if is_3 else metadata)
    for level, sides in enumerate(shapes):
        chunks = (min(_STRIP, sides[0]), min(4 * _STRIP, sides[1]))
        place = str(path / str(level))
        array = zarr.open_array(
            place, mode="w-", shape=sides, chunks=chunks, dtype=dtype, **kind, **layout
        )
        top = 0
        for strip in strips:
            array[top : top + len(strip)] = strip
            top += len(strip)
        strips = _halved(array)


def _shapes_of_levels(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Return height and width of each level of a pyramid, the finest first."""
    shapes = [shape]
    while max(shapes[-1]) > _SHORTEST:
        height, width = shapes[-1]
        shapes.append((-(-height // 2), -(-width // 2)))
    return shapes


def _halved(array: Any) -> Iterator[np.ndarray]:
    """Yield every second pixel of an array (H, W), by strips: labels have no means."""
    for top in range(0, array.shape[0], 2 * _STRIP):
        yield np.asarray(array[top : top + 2 * _STRIP])[::2, ::2]


def _metadata_of_ngff(
    version: str,
    n_levels: int,
    pixel_sides: tuple[float, float] | None,
    classes: Sequence[str] | None,
) -> dict[str, Any]:
    """Return what OME-NGFF says of a map, see https://ngff.openmicroscopy.org/specifications."""
    unit = {} if pixel_sides is None else {"unit": "micrometer"}
    # The middle of a level's first pixel is that of the finest level's: nothing is shifted.
    scales = [[side * 2**level for side in pixel_sides or (1.0, 1.0)] for level in range(n_levels)]
    multiscale = {
        "version": version,
        "name": _CELLS if classes is None else "classes",
        "type": "nearest",
        "axes": [{"name": axis, "type": "space", **unit} for axis in "yx"],
        "datasets": [
            {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
            for level, scale in enumerate(scales)
        ],
    }
    image_label: dict[str, Any] = {"version": version}
    if classes is not None:
        labels = cell_labels(classes)
        colours = colours_of(classes)
        image_label["colors"] = [
            {"label-value": label, "rgba": [*colours[name], 255]} for name, label in labels.items()
        ]
        image_label["properties"] = [
            {"label-value": label, "class": name} for name, label in labels.items()
        ]
    return {"multiscales": [multiscale], "image-label": image_label}


def classes_of_map(path: Path) -> tuple[str, ...] | None:
    """Return what the labels of a map in OME-TIFF or OME-Zarr stand for, as `write_map` says it.

    Returns
    -------
    tuple of str or None
        Names of the labels 0, 1, ... of a class map; () where they are numbers of cells; None where
        the file does not say that it holds labels.
    """
    if path.is_dir():
        label = read_metadata(path)[1].get("image-label")
        if label is None:
            return None
        named = {each["label-value"]: each.get("class") for each in label.get("properties", [])}
        names = [named[value] for value in sorted(named) if value]
        return () if None in names or not names else check_classes(("background", *names))
    with tifffile.TiffFile(path) as file:
        text = file.ome_metadata if file.is_ome else None
    if not text:
        return None
    root = parse_xml(text.encode(), name="its OME-XML")
    channels = [each.get("Name") for each in root.iter() if each.tag.endswith("}Channel")]
    if channels == [_CELLS]:
        return ()
    numbered = [each.partition(" ") for each in (channels[0] or "").split(", ")] if channels else []
    if [number for number, _, _ in numbered] != [str(place) for place in range(len(numbered))]:
        return None
    return check_classes([name for _, _, name in numbered]) if numbered else None


def check_output(path: Any) -> Path:
    """Return the path of a map to write, before any work is done."""
    path = expanded(path)
    if path.suffix.lower() not in (".tif", ".tiff", ".zarr"):
        raise ValueError(f"output must end in .tif, .tiff or .zarr; got {str(path)!r}.")
    if path.exists():
        raise FileExistsError(f"{path} exists. Choose another name, or remove it first.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} into.")
    check_place(path, "The map")
    if path.suffix.lower() == ".zarr":
        import_extra("zarr", extra="slides", need="Zarr files need the package zarr")
    return path
