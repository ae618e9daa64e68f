"""``predictions.csv``: which label map of a folder is that of which image."""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from filelock import FileLock

from .._files import written_whole
from ._output import CommandError, first_line
from ._tables import from_cell, to_cell, write_cells

TABLE = "predictions.csv"
_LOCK = ".predictions.lock"
_MASK = "_mask.png"
_LONGEST_STEM = 200  # bytes, of 255 that a name may have


class PredictionTable:
    """The label maps in a folder, and a row for each that says of which image it is.

    A map comes into the folder together with its row, under a lock: whatever is killed, and however
    many processes write into the folder, there is no map without a row, and none is taken for that
    of another image. A row without its map is that of an image still to be done.

    Parameters
    ----------
    folder : Path
        The folder, which may hold what earlier runs have written.
    stems : iterable of str
        Stems of the images of this run, which no other image's map may take for its name.
    overwrite : bool
        Whether maps that are there may be replaced.

    Raises
    ------
    CommandError
        If the folder holds a table of another kind, which may not be replaced.
    """

    def __init__(self, folder: Path, *, stems: Iterable[str] = (), overwrite: bool = False):
        self._folder = folder
        self._file = folder / TABLE
        self._lock = FileLock(folder / _LOCK)
        self._stems = set(stems)
        self._overwrite = overwrite
        self._columns: list[str] = []
        self._rows: dict[Any, dict[str, Any]] = {}  # cells, by image where that is known
        self._names: dict[str, str] = {}  # of label maps without their ending, by image
        self._ends_well = False  # whether a row can be put behind the last one
        self._state: Any = None  # of the file, as it was read
        with self._lock:
            self._refresh()

    def find(self, image: Path) -> Path | None:
        """Return the label map of an image, if it is there."""
        with self._lock:
            self._refresh()
            name = self._names.get(_key(image))
            return self._mask(name) if name is not None and self._mask(name).exists() else None

    def add(
        self,
        image: Path,
        pictures: Mapping[str, bytes],
        values: Mapping[str, Any],
        *,
        stem: str | None = None,
    ) -> Path | None:
        """Write the pictures of an image, and its row.

        Parameters
        ----------
        image : Path
            The image.
        pictures : mapping of str to bytes
            PNG files by what they are: "mask", and what else there is.
        values : mapping of str to object
            What the row says beside ``image`` and ``mask``.
        stem : str, optional
            What its files are called without their endings, perhaps in a subfolder; by default as
            the image.

        Returns
        -------
        Path or None
            The label map; None if another process has just done this image.
        """
        with self._lock, ExitStack() as files:
            self._refresh()
            key = _key(image)
            name = self._names.get(key)
            if name is None:
                name = self._free_name(image.stem if stem is None else stem)
            elif self._mask(name).exists() and not self._overwrite:
                return None
            # What is entered first takes its name last: where the map is, all is there.
            for kind in sorted(pictures, key=lambda kind: kind != "mask"):
                path = self._folder / f"{name}_{kind}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                files.enter_context(written_whole(path)).write_bytes(pictures[kind])
            # Absolute: a later run, from elsewhere, must know the image again.
            row = {"image": os.path.abspath(image), "mask": f"{name}{_MASK}", **values}
            self._write(key, {column: to_cell(value) for column, value in row.items()})
            self._names[key] = name
        return self._mask(name)

    def _mask(self, name: str) -> Path:
        return self._folder / f"{name}{_MASK}"

    def _free_name(self, stem: str) -> str:
        """Return the stem, or STEM-2, STEM-3, ... where another image's files have it."""
        names = set(self._names.values())

        def is_taken(name: str) -> bool:
            files = (self._folder / f"{name}_{kind}.png" for kind in ("mask", "overlay"))
            return name in names or (not self._overwrite and any(map(os.path.lexists, files)))

        return next_free(stem, is_taken, self._stems)

    def _write(self, key: str, row: dict[str, Any]) -> None:
        """Add a row at the end of the file, or in place of the image's old one."""
        is_next = self._ends_well and key not in self._rows and row.keys() <= set(self._columns)
        rows = self._rows | {key: row}
        columns = list(dict.fromkeys([*self._columns, *row]))
        self._state = None  # unless all goes well, what the file holds is not known
        if is_next:
            with self._file.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, columns, lineterminator="\n").writerow(row)
        else:
            write_cells(self._file, list(rows.values()), columns=columns)
        self._rows, self._columns, self._ends_well = rows, columns, True
        self._state = _state_of(self._file)

    def _refresh(self) -> None:
        """Read the table, if it has been written since, as by another process."""
        state = _state_of(self._file)
        if state is not None and state == self._state:
            return
        self._state, self._columns, self._rows, self._names = state, [], {}, {}
        self._ends_well = False
        if state is None:
            return
        try:
            text = self._file.read_bytes().decode("utf-8-sig", "surrogateescape")
            reader = csv.DictReader(io.StringIO(text, newline=""))
            rows, columns = list(reader), list(reader.fieldnames or [])
        except (OSError, csv.Error) as error:
            raise CommandError(
                f"{self._file} cannot be read ({first_line(error)}). Move it away."
            ) from error
        if columns and (
            "mask" not in columns or "image" not in columns or any(None in row for row in rows)
        ):
            if self._overwrite:
                return
            raise CommandError(
                f"{self._file} is no table of this command. Move it away, or pass --overwrite."
            )
        self._columns = columns
        self._ends_well = bool(columns) and text.endswith("\n")
        for number, row in enumerate(rows):
            key, name = _parse(row)
            broken_off = not self._ends_well and number == len(rows) - 1
            if broken_off and not (name and self._mask(name).exists()):
                continue
            self._rows[number if key is None else key] = row
            if key is not None:
                self._names[key] = name


def next_free(stem: str, is_taken: Callable[[str], bool], stems: Collection[str]) -> str:
    """Return a stem or, where it is taken, STEM-2, STEM-3, ..., which is no other image's stem.

    Very long names are cut short, to leave room for what is put behind them.
    """
    folder, slash, name = stem.rpartition("/")
    if len(os.fsencode(name)) > _LONGEST_STEM:
        name = os.fsencode(name)[:_LONGEST_STEM].decode(errors="ignore")
        stem = f"{folder}{slash}{name}"
    if not is_taken(stem):
        return stem
    numbered = (f"{stem}-{number}" for number in itertools.count(2))
    return next(each for each in numbered if each not in stems and not is_taken(each))


def _parse(row: Mapping[str, str | None]) -> tuple[str | None, str]:
    """Return which image a row is about, and the name of its map; None where it is not known."""
    try:
        image, mask = (from_cell(row[column] or "") for column in ("image", "mask"))
    except ValueError:
        return None, ""
    path = Path(mask)  # without the ./ that a table puts before some names
    leads_out = path.is_absolute() or ".." in path.parts
    if not mask.endswith(_MASK) or leads_out or "\0" in image + mask:
        return None, ""
    return _key(image), path.as_posix().removesuffix(_MASK)


def _key(image: str | Path) -> str:
    """Return what tells images apart, links followed."""
    return os.path.realpath(image)


def _state_of(file: Path) -> Any:
    """Return what changes when a file does; None if there is none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
