"""Maps of any size as files: TIFF and Zarr, written by strips of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from .._files import check_place, expanded, written_whole

_STRIP = 512  # rows written at a time


def write_map(path: Path, rows: Any, *, dtype: Any, pixel_size: float | None) -> None:
    """Write a map (H, W), read by strips of rows, as TIFF or Zarr."""
    height, width = rows.shape
    strips = (
        np.ascontiguousarray(rows[top : min(top + _STRIP, height)], dtype)
        for top in range(0, height, _STRIP)
    )
    if path.suffix.lower() == ".zarr":
        with written_whole(path, folder=True) as unfinished:
            _write_zarr(unfinished, strips, rows.shape, dtype)
        return
    options: dict[str, Any] = {}
    if pixel_size is not None:
        options = {"resolution": (1e4 / pixel_size,) * 2, "resolutionunit": "CENTIMETER"}
    if path.name.lower().endswith((".ome.tif", ".ome.tiff")):
        options |= {"ome": True, "metadata": _ome_metadata(pixel_size)}
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


def _ome_metadata(pixel_size: float | None) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    if pixel_size is not None:
        for axis in "XY":
            sizes |= {f"PhysicalSize{axis}": pixel_size, f"PhysicalSize{axis}Unit": "µm"}
    return {"axes": "YX", **sizes}


def _tiles(strips: Iterable[np.ndarray], width: int) -> Iterator[np.ndarray]:
    """Cut strips into squares, those at the border filled up with zeros."""
    for strip in strips:
        for left in range(0, width, _STRIP):
            piece = strip[:, left : left + _STRIP]
            tile = np.zeros((_STRIP, _STRIP), strip.dtype)
            tile[: piece.shape[0], : piece.shape[1]] = piece
            yield tile


def _write_zarr(path: Path, strips: Iterable[np.ndarray], shape: Any, dtype: Any) -> None:
    import zarr

    chunks = (min(_STRIP, shape[0]), min(4 * _STRIP, shape[1]))
    array = zarr.open_array(str(path), mode="w-", shape=shape, chunks=chunks, dtype=dtype)
    top = 0
    for strip in strips:
        array[top : top + len(strip)] = strip
        top += len(strip)


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
        try:
            import zarr  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "Zarr files need the package zarr: pip install 'bloodseg[slides]'."
            ) from error
    return path
