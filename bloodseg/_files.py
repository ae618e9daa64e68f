"""Files that are written whole or not at all, and arrays kept in a file."""

from __future__ import annotations

import json
import math
import os
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def check_place(path: Any, what: str) -> Path:
    """Return a path where a file can be written, or raise an OSError that says what can't be."""
    path = Path(path).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        why = "is a folder" if path.is_dir() else f"lies in {path.parent}, which is no folder"
        raise OSError(f"{what} cannot be written: {path} {why}.")
    return path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give the name of a file to write, which takes the place of ``path`` once it is complete."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Write strict JSON, with null in place of NaN."""
    text = json.dumps(_without_nan(value), indent=indent, allow_nan=False)
    with written_whole(path) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if is_nan(value) else value


def is_nan(value: Any) -> bool:
    """Return whether a value is the float that stands for nothing."""
    return isinstance(value, float) and math.isnan(value)


class ArrayFile:
    """An array (H, W) in a temporary file, of which only what is read or written is in memory.

    Not mapped into memory, where all that was touched would count as used. The file lies in the
    system's folder for such (the environment variable TMPDIR) and is gone with the object.

    Parameters
    ----------
    shape : (int, int)
        Height and width. The array starts as zeros.
    dtype : dtype
        Of its elements.
    """

    def __init__(self, shape: tuple[int, int], dtype: Any = np.uint8):
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._file = tempfile.TemporaryFile(prefix="bloodseg-")  # noqa: SIM115 (closed with self)
        weakref.finalize(self, self._file.close)
        self._file.truncate(shape[0] * shape[1] * self.dtype.itemsize)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Read rows."""
        start, stop, _ = rows.indices(self.shape[0])
        self._seek(start, 0)
        values = np.empty((stop - start, self.shape[1]), self.dtype)
        self._file.readinto(values.data)
        return values

    def __setitem__(self, place: tuple[slice, slice], values: np.ndarray) -> None:
        """Write a rectangle of rows and columns."""
        rows, columns = place
        values = np.ascontiguousarray(values, self.dtype)
        if values.shape[1] == self.shape[1]:
            self._seek(rows.start, 0)
            self._file.write(values.data)
            return
        for row, line in zip(range(rows.start, rows.stop), values, strict=True):
            self._seek(row, columns.start)
            self._file.write(line.data)

    def _seek(self, row: int, column: int) -> None:
        self._file.seek((row * self.shape[1] + column) * self.dtype.itemsize)
