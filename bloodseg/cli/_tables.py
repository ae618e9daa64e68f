r"""Tables in CSV, whose cells are safe in spreadsheets and on terminals.

Numbers stay numbers. In texts, which are names of files for the most part,

- what is no visible character is escaped as Python writes it, so ``\n`` or ``\udcff``, and a
  backslash is written as two: `from_cell` gives the name back;
- what a spreadsheet would take for a formula, a text that starts with ``=``, ``+``, ``-`` or ``@``,
  gets ``./`` before it, with which a path stays the path of the same file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from .._files import is_nan, printable, written_whole

# The last four are the same signs as wide as a Chinese character.
_STARTS_A_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def to_cell(value: Any) -> Any:
    """Return a value as it stands in a table; None and NaN as an empty cell."""
    if value is None or is_nan(value):
        return ""
    if not isinstance(value, str):
        return value
    text = printable(value.replace("\\", "\\\\"))
    return f"./{text}" if text.startswith(_STARTS_A_FORMULA) else text


def from_cell(text: str) -> str:
    """Return the text that `to_cell` has written, but for the ``./`` of a path.

    Raises
    ------
    ValueError
        If it is no text of `to_cell`.
    """
    return text.encode("latin-1", "backslashreplace").decode("unicode_escape")


def write_csv(
    path: Path, rows: Sequence[Mapping[str, Any]], *, columns: Iterable[str] = ()
) -> None:
    """Write rows as CSV, whole or not at all; their columns may differ.

    ``columns`` come first, and are there without rows, too.
    """
    cells = [{name: to_cell(value) for name, value in row.items()} for row in rows]
    write_cells(path, cells, columns=columns)


def write_cells(
    path: Path, rows: Sequence[Mapping[str, Any]], *, columns: Iterable[str] = ()
) -> None:
    """Write rows of cells as `write_csv`."""
    with (
        written_whole(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        _write(file, rows, columns)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as CSV, as `write_csv` writes them."""
    file = io.StringIO(newline="")
    _write(file, [{name: to_cell(value) for name, value in row.items()} for row in rows], ())
    return file.getvalue()


def _write(file: TextIO, rows: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> None:
    columns = list(dict.fromkeys([*columns, *(column for row in rows for column in row)]))
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
