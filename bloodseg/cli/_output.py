"""What the commands share: messages, errors, and places for outputs."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .._files import check_place, printable, written_whole

PROGRAM = "bloodseg"
TABLE, PAGE = (".csv", ".txt"), (".html", ".htm")  # endings of what is written

_subject: ContextVar[str] = ContextVar("_subject", default="")


class CommandError(Exception):
    """Ends a command with a sentence for the user, without a traceback."""


def say(*lines: str) -> None:
    """Print lines of results on stdout."""
    text = "\n".join(map(printable, lines))
    _to_stdout(lambda: print(_encodable(text, sys.stdout), flush=True))


def flush() -> None:
    """Flush stdout, so that a closed pipe is noticed here and not at the interpreter's end."""
    if sys.stdout is not None:  # as it is where the shell has closed it
        _to_stdout(sys.stdout.flush)


def _to_stdout(write: Any) -> None:
    try:
        write()
    except BrokenPipeError:
        # The reader (`| head`) has what it wants. The work goes on; what is still in the buffer
        # must go somewhere, or Python complains as it ends.
        _forget_stdout()
    except OSError as error:  # a full disk behind it, say
        _forget_stdout()
        raise CommandError(f"what is printed cannot be written: {error.strerror}.") from error


def _forget_stdout() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _encodable(text: str, stream: Any) -> str:
    """Return a text with all that a stream cannot show escaped."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def complain(text: str) -> None:
    """Print a message of one line on stderr, clear of progress bars."""
    # A terminal that is gone, or a log on a full disk: no reason to end the work.
    with suppress(OSError):
        tqdm.write(_encodable(f"{PROGRAM}: {printable(text)}", sys.stderr), file=sys.stderr)


@contextmanager
def about(subject: str) -> Iterator[None]:
    """Let what libraries note meanwhile be said of an input."""
    token = _subject.set(subject)
    try:
        yield
    finally:
        _subject.reset(token)


@contextmanager
def notes_in_words() -> Iterator[None]:
    """Give warnings, and what libraries log, as messages of this program."""
    handler = _LogHandler(logging.WARNING)
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings():
            # Notes between libraries, of no use to who types a command.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.showwarning = _show_warning
            yield
    finally:
        logging.getLogger().removeHandler(handler)


class _LogHandler(logging.Handler):
    """Shows what is logged, with the input that it is about and the library that says so."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        _note(record.getMessage(), record.name)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """Show a warning: one meant for users as a sentence, any other with its place in the code."""
    if issubclass(category, UserWarning):
        complain(f"warning: {_one_line(message)}")
    else:
        _note(str(message), f"{category.__name__}, {Path(filename).name} line {lineno}")


def _note(text: str, source: str) -> None:
    parts = [_subject.get(), _one_line(text)]
    complain(f"warning: {': '.join(filter(None, parts))} ({source})")


def _one_line(text: Any) -> str:
    return " ".join(str(text).split())


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return _one_line(error) or type(error).__name__


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """End the command with a sentence where ``path`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise CommandError(_unwritten(path, error)) from error


def _unwritten(path: Path, error: OSError) -> str:
    """Say why a path cannot be written; what another path fails with names that."""
    if error.strerror is None and str(path) in str(error):  # of `check_place`
        return first_line(error).removesuffix(".")
    is_it = error.strerror is not None and error.filename in (None, os.fspath(path))
    return f"{path} cannot be written: {error.strerror if is_it else first_line(error)}"


def write_results(path: Path, write: Callable[[Path], object]) -> Path:
    """Write results to a file, or elsewhere where its place has become none.

    What hours have gone into is not lost to a disk that is full, or a folder that is gone: it then
    lies in a new folder among the system's for temporary files, which is said.

    Parameters
    ----------
    path : Path
        The file.
    write : callable
        ``write(path)`` writes it.

    Returns
    -------
    Path
        Where it is.

    Raises
    ------
    CommandError
        If it is nowhere.
    """
    try:
        write(path)
        return path
    except OSError as error:
        why = _unwritten(path, error)
        try:
            spare = Path(tempfile.mkdtemp(prefix="bloodseg-")) / path.name
            write(spare)
        except OSError:
            raise CommandError(why) from error
    complain(f"{why}. It is {spare} instead: move it to where it is safe.")
    return spare


def open_in_browser(address: str, shown: Any) -> None:
    """Show a page in a browser, or say what to open there."""
    import webbrowser  # for two commands

    if not webbrowser.open(address):
        complain(f"no browser could be started. Open {shown} in one.")


def write_png(path: Path, pixels: Any) -> None:
    """Write pixels (H, W) or (H, W, 3) of uint8 as PNG."""
    from PIL import Image

    with written_whole(path) as unfinished:
        Image.fromarray(pixels).save(unfinished, format="PNG")


def make_folder(path: Path) -> Path:
    """Make an output folder and see that files can be written there, before any work is done."""
    if os.path.exists(path) and not os.path.isdir(path):
        raise CommandError(f"the output {path} is a file, where a folder is wanted. Name a folder.")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            f"the output folder {path} cannot be made ({error.strerror}). Choose another."
        ) from error
    return check_writable(path)


def check_writable(folder: Path) -> Path:
    """Return a folder in which files can be made."""
    if not os.path.isdir(folder):
        raise CommandError(f"there is no folder {folder} to write into. Make it first.")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".bloodseg-"):
            return folder
    except OSError as error:
        raise CommandError(
            f"the folder {folder} cannot be written into ({error.strerror}). Choose another."
        ) from error


def check_output(path: Path, *, overwrite: bool, endings: Sequence[str] = ()) -> None:
    """Find out before any work whether a file can be written, and replaces none to be kept.

    A name may have no ending, or one of ``endings``, if there are any: a CSV file called .xlsx is
    one that no spreadsheet opens.
    """
    from ..datasets import is_image  # not for --help: it takes two seconds

    refuse_existing([path], overwrite=overwrite)
    check_writable(path.parent)
    with reported(path):
        check_place(path, "The output")
        if is_image(path):  # as of `-o *.png`, where the first photo becomes the output
            raise CommandError(f"{path} is an image, which is not replaced. Choose another name.")
    if endings and path.suffix and path.suffix.lower() not in endings:
        raise CommandError(
            f"the output must be called by what it is, {' or '.join(endings)}; got {path.name}."
        )


def refuse_existing(paths: Iterable[Path], *, overwrite: bool) -> None:
    """Raise if an output is there already and may not be replaced."""
    for path in map(os.fspath, paths):  # `Path.exists` raises for some names
        if os.path.isdir(path):
            raise CommandError(f"{path} is a folder; name a file.")
        if os.path.exists(path) and not overwrite:
            raise CommandError(f"{path} exists. Choose another name, or pass --overwrite.")


def refuse_filled(folder: Path, *, overwrite: bool) -> None:
    """Raise if a folder of outputs holds files already that may not be replaced."""
    if os.path.isdir(folder) and any(folder.iterdir()) and not overwrite:
        raise CommandError(f"{folder} holds files. Choose another folder, or pass --overwrite.")
