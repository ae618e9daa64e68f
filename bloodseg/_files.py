"""Files that are written whole or not at all, and arrays kept in a file."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unicodedata import category

import numpy as np

try:
    import fcntl
except ImportError:  # Windows, where a file that is held can't take the other's place
    fcntl = None  # type: ignore[assignment]

_UNFINISHED = ".bloodseg-", ".tmp"  # what the names of unfinished files start and end with
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_ROOM = (*_DISK_FULL, errno.EFBIG)
_swept: set[str] = set()  # folders in which this process has looked for leftovers


def expanded(path: str | os.PathLike) -> Path:
    """Return a path with a leading ``~`` as the home folder, unless a file has just that name."""
    path = Path(path)
    if os.path.lexists(path):
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # there is no such user
        return path


def check_place(path: Any, what: str) -> Path:
    """Return a path where a file can be written, or raise an OSError that says what can't be."""
    path = expanded(path)
    why = _why_not_written(path)
    if why:
        raise OSError(f"{what} cannot be written: {path} {why}.")
    return path


def _why_not_written(path: Path) -> str:
    """Return in words why no file can be put in a place; "" where one can."""
    if "\0" in str(path):
        return "cannot be a path (it holds a null byte)"
    try:
        os.lstat(path)  # the questions below hide what is wrong with a name
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:  # such as a name that is too long
        return f"cannot be a path ({error.strerror})"
    if os.path.isdir(path):
        return "is a folder"
    if not os.path.isdir(path.parent):
        return f"lies in {path.parent}, which is no folder"
    if os.path.exists(path) and not os.path.isfile(path):
        return "is a pipe or a device, which a file would take the place of"
    return ""


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error says that the disk of a file of `written_whole` is full."""
    full = isinstance(error, OSError) and error.errno in _DISK_FULL
    return full and getattr(error, "filename", None) is not None


@contextmanager
def written_whole(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Give the name of a file to write, which takes the place of ``path`` once it is complete.

    Each call writes under a name of its own, whatever else writes the same path. What killed
    processes have left in the folder is removed when a process first writes there; not on Windows,
    where nothing tells that their writers are gone.

    Parameters
    ----------
    path : Path
        The file.
    folder : bool
        Whether it is a folder, which is given empty; ``path`` must not exist then.

    Raises
    ------
    OSError
        If there can be no such file; of what stands for no file (a pipe, a device), none is made.
    """
    path = check_place(path, "The file")
    _sweep(path.parent)
    unfinished, held = _new_unfinished(path.parent, folder=folder)
    try:
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        if error.errno in _NO_ROOM and error.filename is None:
            error.filename = str(path)  # which the system does not say of what it writes
        raise
    finally:
        _remove(unfinished)
        if held is not None:
            os.close(held)


def _new_unfinished(place: Path, *, folder: bool) -> tuple[Path, int | None]:
    """Make an unfinished file or folder; its lock, if there are any, says that its writer lives."""
    while True:
        # Short whatever the name of the file: names end at 255 bytes.
        unfinished = place / secrets.token_hex(8).join(_UNFINISHED)
        if folder:
            unfinished.mkdir()
        else:
            unfinished.touch(exist_ok=False)
        if fcntl is None:
            return unfinished, None
        try:
            held = os.open(unfinished, os.O_RDONLY)
        except FileNotFoundError:
            continue  # swept away
        with suppress(OSError):  # there are file systems without locks
            fcntl.flock(held, fcntl.LOCK_EX)
        if os.path.exists(unfinished):  # not swept away before it was locked
            return unfinished, held
        os.close(held)


def _sweep(place: Path) -> None:
    """Remove what killed writers have left in a folder, once a process."""
    where = os.path.realpath(place)
    if fcntl is None or where in _swept:
        return
    _swept.add(where)
    start, end = _UNFINISHED
    with suppress(OSError), os.scandir(where) as entries:
        for entry in entries:
            if entry.name.startswith(start) and entry.name.endswith(end):
                with suppress(OSError):
                    _remove_dead(Path(entry.path))


def _remove_dead(unfinished: Path) -> None:
    """Remove an unfinished file that no living process holds; else raise an OSError."""
    # Neither links are followed nor pipes waited for: the name is all that is known.
    held = os.open(unfinished, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(unfinished)
    finally:
        os.close(held)


def _remove(unfinished: Path) -> None:
    if unfinished.is_dir():
        shutil.rmtree(unfinished, ignore_errors=True)
    else:
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


def rectangle(place: slice | tuple[slice, slice], shape: Sequence[int]) -> tuple[slice, slice]:
    """Return the rows and columns of an array that ``[rows]`` or ``[rows, columns]`` asks for.

    Both have a start, a stop and a step within the array's ``shape``.

    Raises
    ------
    IndexError
        If they are no slices, or go backwards.
    """
    rows, columns = place if isinstance(place, tuple) and len(place) == 2 else (place, slice(None))
    slices = []
    for each, length in zip((rows, columns), shape, strict=False):
        if not isinstance(each, slice) or (each.step or 1) < 1:
            raise IndexError(
                "pixels of a file are read by slices that go forwards, [10:20] of rows or "
                f"[10:20, 5:9] of rows and columns; got {place!r}. Read all by [:], and index that."
            )
        start, stop, step = each.indices(length)
        slices.append(slice(start, max(start, stop), step))
    return slices[0], slices[1]


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

    def __getitem__(self, place: slice | tuple[slice, slice]) -> np.ndarray:
        """Read rows, or a rectangle of rows and columns."""
        rows, columns = rectangle(place, self.shape)
        values = np.empty((rows.stop - rows.start, columns.stop - columns.start), self.dtype)
        if values.shape[1] == self.shape[1]:
            self._seek(rows.start, 0)
            self._file.readinto(values.data)
        else:
            for row, line in enumerate(values, start=rows.start):
                self._seek(row, columns.start)
                self._file.readinto(line.data)
        return values[:: rows.step, :: columns.step]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all, as numpy asks for it."""
        return np.asarray(self[:], dtype)

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


# Control characters, bytes that are no text, line separators, and marks that turn the direction
# of writing or show nothing.
_NOT_SHOWN = ("Cc", "Cs", "Cf", "Zl", "Zp")


def printable(text: Any) -> str:
    r"""Return a text in which all that is no visible character is escaped, as Python writes it.

    Names of files may hold line breaks, commands to the terminal, and bytes that are no text.

    Examples
    --------
    >>> from bloodseg._files import printable
    >>> print(printable("a\nb\udcff.png"))
    a\nb\udcff.png
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(
        each.encode("unicode_escape").decode() if category(each) in _NOT_SHOWN else each
        for each in text
    )
