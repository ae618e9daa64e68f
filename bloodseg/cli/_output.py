"""What the commands share: messages, errors, and files that are written whole or not at all."""

from __future__ import annotations

import csv
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .._files import check_place, is_nan, written_whole

PROGRAM = "bloodseg"
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tab and line feed


class CommandError(Exception):
    """Ends a command with a sentence for the user, without a traceback."""


def say(text: str) -> None:
    """Print a result on stdout."""
    _to_stdout(lambda: print(_printable(text, sys.stdout), flush=True))


def _printable(text: str, stream: Any) -> str:
    """Return a text as a stream can show it: names of files may hold anything."""
    text = _CONTROLS.sub(lambda found: repr(found[0])[1:-1], text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def flush() -> None:
    """Flush stdout, so that a closed pipe is noticed here and not at the interpreter's end."""
    _to_stdout(sys.stdout.flush)


def _to_stdout(write: Any) -> None:
    try:
        write()
    except BrokenPipeError:
        # The reader (`| head`) has what it wants. The work goes on; what is still in the buffer
        # must go somewhere, or Python complains as it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def complain(text: str, *, prefix: str = PROGRAM) -> None:
    """Print a message on stderr, clear of progress bars."""
    tqdm.write(_printable(f"{prefix}: {text}", sys.stderr), file=sys.stderr)


def progress(items: Iterable[Any], *, label: str, quiet: bool) -> Iterable[Any]:
    """Return the items with a progress bar around them."""
    return tqdm(items, desc=label, unit="image", disable=quiet, file=sys.stderr)


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def reported(path: Path, note: str = "") -> Iterator[None]:
    """End the command with a sentence where ``path`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {first_line(error)}{note}") from error


def write_csv(
    path: Path, rows: Sequence[Mapping[str, Any]], *, columns: Iterable[str] = ()
) -> None:
    """Write rows as CSV; their columns may differ, and what is None or NaN stays empty.

    ``columns`` come first, and are there without rows, too.
    """
    columns = list(dict.fromkeys([*columns, *(column for row in rows for column in row)]))
    # Names of files need not be valid Unicode.
    with (
        written_whole(path) as unfinished,
        unfinished.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: "" if is_nan(value) else value for name, value in row.items()})


def write_png(path: Path, pixels: Any) -> None:
    """Write pixels (H, W) or (H, W, 3) of uint8 as PNG."""
    from PIL import Image

    with written_whole(path) as unfinished:
        Image.fromarray(pixels).save(unfinished, format="PNG")


def make_folder(path: Path) -> Path:
    """Make an output folder and see that files can be written there, before any work is done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            f"the output folder {path} cannot be made ({error.strerror}). Choose another."
        ) from error
    return check_writable(path)


def check_writable(folder: Path) -> Path:
    """Return a folder in which files can be made."""
    if not folder.is_dir():
        raise CommandError(f"there is no folder {folder} to write into. Make it first.")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".bloodseg-"):
            return folder
    except OSError as error:
        raise CommandError(
            f"the folder {folder} cannot be written into ({error.strerror}). Choose another."
        ) from error


def refuse_existing(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Raise if an output file is there already and may not be replaced."""
    for path in paths:
        if os.path.isdir(path):
            raise CommandError(f"{path} is a folder; name a file.")
        if os.path.isdir(path.parent):  # else that is said
            with reported(path):
                check_place(path, "The output")
        if os.path.exists(path) and not overwrite:
            raise CommandError(f"{path} exists. Choose another name, or pass --overwrite.")
