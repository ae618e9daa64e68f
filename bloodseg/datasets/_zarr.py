"""Zarr arrays and OME-Zarr images, checked before the package zarr decodes anything.

Its codecs are looked up by the names that a file gives, and some of them run code ("pickle") or
unpack without end. So metadata are read here first: only codecs known to do nothing but unpack go
on, and chunks are plain files of the folder that unpack to no more than their shape says.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._extras import import_extra
from ._bounds import (
    HEADER,
    PACKINGS,
    SAY_THEIR_LENGTH,
    check_part,
    check_size,
    check_unpacked,
    least_bytes,
)
from ._files import read_bytes
from ._pixel_size import in_micrometres, pixel_sides
from ._slide import Slide, unknown_layout

_MAX_JSON_BYTES = 2**24
_FILTERS = ("adler32", "crc32", "crc32c", "delta", "fletcher32", "shuffle")  # change no lengths
_CHECKSUM = "crc32c"
_TYPES = re.compile(r"[<>|][buif][1248]|bool|u?int(8|16|32|64)|float(16|32|64)")
_EMPTY = 2**64 - 1  # where a shard has no chunk


def open_zarr(folder: Path, name: str) -> Slide:
    """Open an array, or the one image of a group of a known layout."""
    need = f"{name} is a folder, taken for Zarr, which needs the package zarr"
    zarr = import_extra("zarr", extra="slides", need=need)
    image = _image_in(folder, name)
    stored = _Stored.read(image.folder, Path(os.path.realpath(folder)))
    version = int(zarr.__version__.split(".")[0])
    if version < stored.zarr_format:
        raise ImportError(f"{name} is Zarr 3, which needs zarr 3: pip install 'zarr>=3'.")
    options: dict[str, Any] = {} if version < 3 else {"zarr_format": stored.zarr_format}
    array = zarr.open_array(str(image.folder), mode="r", **options)
    return _slide_of(array, stored, image, name)


@dataclass(frozen=True)
class _Image:
    """Where an image's array lies, and what its group says of it."""

    folder: Path
    axes: tuple[str, ...] | None = None
    pixel_sides: tuple[float, float] | None = None


def _image_in(folder: Path, name: str) -> _Image:
    kind, attributes = read_metadata(folder)
    if kind == "array":
        return _Image(folder)
    multiscales = attributes.get("multiscales")
    if multiscales:
        return _image_of(folder, multiscales, name)
    if "bioformats2raw.layout" in attributes:
        series = [child for child in _children(folder) if child.isdigit()]
    elif "well" in attributes:
        series = [str(each["path"]) for each in attributes["well"]["images"]]
    else:
        series = []
    if len(series) == 1:
        return _image_in(_inside(folder, series[0]), f"{name}/{series[0]}")
    raise _several(folder, name, attributes, series)


def _image_of(folder: Path, multiscales: Any, name: str) -> _Image:
    """Return the finest level of the one image of OME-Zarr, versions 0.1 to 0.5."""
    paths = [str(each["datasets"][0]["path"]) for each in multiscales]
    if len(set(paths)) > 1:
        raise _several(folder, name, {}, paths)
    multiscale = multiscales[0]
    axes = multiscale.get("axes")
    if axes is not None:
        axes = tuple(_axis_name(axis) for axis in axes)
    array = _inside(folder, paths[0])
    if read_metadata(array)[0] != "array":
        raise ValueError(f"its first level {paths[0]!r} is no array.")
    return _Image(array, axes, _sides_of(multiscale))


def _axis_name(axis: Any) -> str:
    """Return the name of an axis, "c" for one of channels whatever its name."""
    if not isinstance(axis, dict):
        return str(axis)
    return "c" if axis.get("type") == "channel" else str(axis.get("name"))


def _several(folder: Path, name: str, attributes: Any, series: Sequence[str]) -> ValueError:
    """Return the error for a group of which it is not known what its image is, with advice."""
    if "plate" in attributes:
        series = [f"{well['path']}/0" for well in attributes["plate"].get("wells", [])]
    series = series or _children(folder)
    if not series:
        return ValueError("it holds no image.")
    named = ", ".join(f"{name}/{path}" for path in series[:4])
    return ValueError(
        "it holds several images, or none in a layout that is known (OME-Zarr's multiscales). Give "
        f"the one you want, perhaps {named}{', ...' if len(series) > 4 else ''}."
    )


def _children(folder: Path) -> list[str]:
    """Return the names of the groups and arrays in a group."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    files = ("zarr.json", ".zarray", ".zgroup")
    return [name for name in names if any((folder / name / file).is_file() for file in files)]


def _inside(folder: Path, path: str) -> Path:
    """Return a folder in a group, which must not lead out of it."""
    inner = folder / path
    if not Path(os.path.realpath(inner)).is_relative_to(os.path.realpath(folder)):
        raise ValueError(f"the path {path!r} leads out of its folder.")
    return inner


def read_metadata(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return whether a folder is an "array" or a "group" of Zarr, and its attributes."""
    if (folder / "zarr.json").exists():
        document = _read_json(folder / "zarr.json")
        attributes = document.get("attributes", {})
        return str(document.get("node_type")), attributes.get("ome", attributes)
    if (folder / ".zarray").exists():
        return "array", {}
    if not (folder / ".zgroup").exists():
        raise ValueError(f"there is no Zarr array or group in {folder}.")
    attributes = _read_json(folder / ".zattrs") if (folder / ".zattrs").exists() else {}
    return "group", attributes.get("ome", attributes)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(read_bytes(file, limit=_MAX_JSON_BYTES))
    except RecursionError:
        raise ValueError(f"{file.name} is nested too deeply.") from None
    if not isinstance(document, dict):
        raise ValueError(f"{file.name} must hold a JSON object.")
    return document


def _sides_of(multiscale: Any) -> tuple[float, float] | None:
    """Return height and width of a pixel of the finest level."""
    sides: dict[str, float | None] = {}
    for index, axis in enumerate(multiscale.get("axes", [])):
        if isinstance(axis, dict) and axis.get("name") in ("y", "x"):
            scale = math.prod(
                float(each["scale"][index])
                for place in (multiscale["datasets"][0], multiscale)
                for each in place.get("coordinateTransformations", [])
                if each.get("type") == "scale"
            )
            sides[axis["name"]] = in_micrometres(scale, str(axis.get("unit", "")))
    return pixel_sides(sides.get("y"), sides.get("x"))


@dataclass(frozen=True)
class _Packed:
    """Chunks of one shape, packed in one way."""

    shape: tuple[int, ...]
    n_bytes: int
    packing: str | None

    def check(self, read: Callable[[int], bytes], n_packed: int) -> None:
        """Raise where a chunk, of which so many bytes are to be read, is more than it may be."""
        if self.packing is None:
            return check_unpacked(None, b"", n_packed, self.n_bytes)
        header_only = self.packing in SAY_THEIR_LENGTH
        data = read(HEADER if header_only else n_packed)
        return check_unpacked(self.packing, data, n_packed, self.n_bytes)


@dataclass(frozen=True)
class _Stored:
    """How an array is stored: nothing in it but what is known to be harmless."""

    folder: Path
    root: Path
    zarr_format: int
    shape: tuple[int, ...]
    file_shape: tuple[int, ...]
    prefix: str
    separator: str
    packed: _Packed
    index_at_end: bool | None = None
    index_checksum: bool = False

    @classmethod
    def read(cls, folder: Path, root: Path) -> _Stored:
        """Read the metadata of an array and check them."""
        if (folder / "zarr.json").exists():
            return cls._of_3(folder, root, _read_json(folder / "zarr.json"))
        return cls._of_2(folder, root, _read_json(folder / ".zarray"))

    @classmethod
    def _of_2(cls, folder: Path, root: Path, metadata: dict[str, Any]) -> _Stored:
        dtype = _known_type(metadata["dtype"])
        for each in metadata.get("filters") or ():
            if each.get("id") not in _FILTERS:
                raise _unknown_codec(each.get("id"))
        packing = _packing_of(metadata.get("compressor"), "id")
        shape, chunks = _lengths(metadata["shape"]), _lengths(metadata["chunks"])
        separator = metadata.get("dimension_separator", ".")
        packed = _packed(chunks, dtype, packing)
        return cls(folder, root, 2, shape, chunks, "", separator, packed)

    @classmethod
    def _of_3(cls, folder: Path, root: Path, metadata: dict[str, Any]) -> _Stored:
        dtype = _known_type(metadata["data_type"])
        grid, keys = metadata["chunk_grid"], metadata["chunk_key_encoding"]
        default = keys["name"] == "default"
        if grid["name"] != "regular" or keys["name"] not in ("default", "v2"):
            raise ValueError("its chunks are not in a regular grid of files.")
        if metadata.get("storage_transformers"):
            raise ValueError("it has storage transformers, which are not known.")
        separator = keys.get("configuration", {}).get("separator", "/" if default else ".")
        shape = _lengths(metadata["shape"])
        chunks = _lengths(grid["configuration"]["chunk_shape"])
        common = (folder, root, 3, shape, chunks, "c" + separator if default else "", separator)
        codecs = metadata["codecs"]
        if [_name_of(each) for each in codecs] != ["sharding_indexed"]:
            return cls(*common, _packed(chunks, dtype, _chain(codecs)))
        sharding = codecs[0]["configuration"]
        inner = _lengths(sharding["chunk_shape"])
        index = [_name_of(each) for each in sharding["index_codecs"]]
        if index not in (["bytes"], ["bytes", _CHECKSUM]):
            raise _unknown_codec(index[-1] if index else None)
        return cls(
            *common,
            _packed(inner, dtype, _chain(sharding["codecs"])),
            sharding.get("index_location", "end") == "end",
            index[-1] == _CHECKSUM,
        )

    def check(self, places: Sequence[slice]) -> None:
        """Check the files that hold a part of the array."""
        for numbers in _grid(places, self.file_shape):
            file = self.folder / (self.prefix + self.separator.join(map(str, numbers)))
            if not os.path.lexists(file):
                continue  # nothing but the fill value
            if not Path(os.path.realpath(file)).is_relative_to(self.root) or not file.is_file():
                raise ValueError(f"its chunk {file.name} is no file of its folder.")
            with file.open("rb") as opened:
                n_bytes = os.fstat(opened.fileno()).st_size
                if self.index_at_end is None:
                    self.packed.check(opened.read, n_bytes)
                else:
                    self._check_shard(opened, n_bytes, numbers, places)

    def _check_shard(self, file: Any, n_bytes: int, numbers: Any, places: Sequence[slice]) -> None:
        per_side = [
            outer // inner for outer, inner in zip(self.file_shape, self.packed.shape, strict=True)
        ]
        length = 16 * math.prod(per_side)
        check_part(length, "indices of shards")
        at = n_bytes - length - 4 * self.index_checksum if self.index_at_end else 0
        if at < 0:
            raise ValueError("one of its shards is cut off.")
        file.seek(at)
        index = np.frombuffer(file.read(length), "<u8").reshape(*per_side, 2)
        starts = [number * outer for number, outer in zip(numbers, self.file_shape, strict=True)]
        within = [
            slice(max(place.start - start, 0), min(place.stop - start, outer))
            for place, start, outer in zip(places, starts, self.file_shape, strict=True)
        ]
        for inner in _grid(within, self.packed.shape):
            offset, n_packed = map(int, index[tuple(inner)])
            if offset == n_packed == _EMPTY:
                continue
            if offset + n_packed > n_bytes:
                raise ValueError("one of its shards is cut off.")
            file.seek(offset)
            self.packed.check(file.read, n_packed)

    def n_bytes(self, enough: int) -> int:
        """Return how many bytes the files of the array have, or any number that is enough."""
        total = 0
        for place, _, names in os.walk(self.folder):
            for name in names:
                total += os.stat(os.path.join(place, name), follow_symlinks=False).st_size
                if total >= enough:
                    return total
        return total


def _grid(places: Sequence[slice], shape: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the numbers of the chunks of one shape that hold a part of an array."""
    return itertools.product(
        *(
            range(place.start // length, -(-place.stop // length))
            for place, length in zip(places, shape, strict=True)
        )
    )


def _packed(shape: tuple[int, ...], dtype: np.dtype, packing: str | None) -> _Packed:
    n_bytes = math.prod(shape) * dtype.itemsize
    check_part(n_bytes, "chunks")
    return _Packed(shape, n_bytes, packing)


def _lengths(values: Any) -> tuple[int, ...]:
    lengths = tuple(map(int, values))
    if not lengths or min(lengths) < 1:
        raise ValueError(f"its shape, and that of its chunks, must be above zero; got {values!r}.")
    return lengths


def _known_type(name: Any) -> np.dtype:
    if not isinstance(name, str) or not _TYPES.fullmatch(name):
        raise ValueError(f"its pixels must be numbers; got the type {name!r:.60}.")
    return np.dtype(name)


def _name_of(codec: Any) -> str:
    return str(codec["name"] if isinstance(codec, dict) else codec).removeprefix("numcodecs.")


def _chain(codecs: Sequence[Any]) -> str | None:
    """Return how Zarr 3 packs chunks, of whose codecs the order is checked, too."""
    names = [_name_of(each) for each in codecs]
    while names and names[0] == "transpose":
        del names[0]
    if not names or names[0] not in ("bytes", "endian"):
        raise _unknown_codec(names[0] if names else None)
    packed = [each for each in codecs if _name_of(each) in PACKINGS]
    for name in names[1:]:
        if name not in (*PACKINGS, _CHECKSUM, "shuffle"):
            raise _unknown_codec(name)
    if len(packed) > 1:
        raise ValueError("its chunks are packed more than once.")
    return _packing_of(packed[0], "name") if packed else None


def _packing_of(codec: Any, key: str) -> str | None:
    """Return the name of a compressor, one of those that are known."""
    if codec is None:
        return None
    name = _name_of(codec if key == "name" else codec[key])
    settings = codec if key == "id" else codec.get("configuration", {})
    raw = name == "lzma" and settings.get("format", 1) not in (1, 2)
    if name not in PACKINGS or raw:
        raise _unknown_codec(name)
    return name


def _unknown_codec(name: Any) -> ValueError:
    known = ", ".join(PACKINGS)
    return ValueError(
        f"it is packed by the codec {name!r:.60}, which is not known to be harmless; known are "
        f"{known}. Save it anew with one of these."
    )


def _slide_of(node: Any, stored: _Stored, image: _Image, name: str) -> Slide:
    shape = tuple(node.shape)
    if shape != stored.shape:
        raise ValueError("its metadata contradict each other.")
    rows, columns, channels = _axes_of(shape, image.axes)
    others = set(range(len(shape))) - {rows, columns, channels}
    n_channels = 1 if channels is None else shape[channels]
    if any(shape[axis] > 1 for axis in others) or n_channels not in (1, 3, 4):
        raise unknown_layout(shape, "".join(image.axes or ()))
    height, width = shape[rows], shape[columns]
    check_size(height, width, stored.n_bytes(least_bytes(height * width)))

    def read(down: slice, right: slice) -> np.ndarray:
        places = [slice(0, length) for length in shape]
        places[rows], places[columns] = down, right
        stored.check(places)
        wanted = [0 if axis in others else place for axis, place in enumerate(places)]
        pixels = np.asarray(node[tuple(wanted)])
        kept = [axis for axis in range(len(shape)) if axis not in others]
        order = [rows, columns] if channels is None else [rows, columns, channels]
        pixels = pixels.transpose([kept.index(axis) for axis in order])
        return pixels.reshape(*pixels.shape[:2], n_channels)

    return Slide(read, (height, width, n_channels), node.dtype, image.pixel_sides, name)


def _axes_of(shape: tuple[int, ...], names: tuple[str, ...] | None) -> tuple[int, int, int | None]:
    """Return which axes are rows, columns and channels, if any."""
    if len(shape) < 2 or (names is not None and len(names) != len(shape)):
        raise unknown_layout(shape, "".join(names or ()))
    if names is not None:
        if not {"y", "x"} <= set(names):
            raise unknown_layout(shape, "".join(names))
        return names.index("y"), names.index("x"), names.index("c") if "c" in names else None
    last = len(shape) - 1
    if last >= 2 and shape[-1] in (1, 3, 4):
        return last - 2, last - 1, last
    channels = next((axis for axis in range(last - 1) if shape[axis] in (3, 4)), None)
    return last - 1, last, channels
