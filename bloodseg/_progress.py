"""How far work has come: a bar where someone watches, a line now and then in a log."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, TypeVar

from tqdm import tqdm

_APART = 30.0  # seconds between two lines of a log, at least
_SHARE = 0.01  # of the work between two lines, at least: a hundred lines, however long it takes

_Item = TypeVar("_Item")


class Progress:
    """Shows how far a piece of work has come, on stderr.

    A terminal gets a bar and a notebook its own kind of bar. A log file gets lines, the first after
    half a minute, so that work which is done sooner leaves none.

    Parameters
    ----------
    total : int
        Units of work.
    label : str
        What is done, such as "counting".
    unit : str
        What is counted, in the singular, such as "image".
    done : int
        Units that were done before.
    shown : bool
        Whether anything is shown.

    Examples
    --------
    >>> with Progress(2, label="counting", unit="image", shown=False) as progress:
    ...     for name in ("a.png", "b.png"):
    ...         progress.advance()
    """

    def __init__(self, total: int, *, label: str, unit: str, done: int = 0, shown: bool = True):
        self._bar = open_bar(total, label=label, unit=unit, done=done) if shown else None
        self._in_lines = shown and self._bar is None
        self._total = total
        self._label = label
        self._unit = unit
        self._done = self._done_before = self._done_at_line = done
        self._started = self._time_of_line = time.monotonic()

    def __enter__(self) -> Progress:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the bar as it stands."""
        if self._bar is not None:
            self._bar.close()

    def advance(self, n: int = 1) -> None:
        """Note that more units are done."""
        self._done += n
        if self._bar is not None:
            self._bar.update(n)
        elif self._in_lines and self._is_line_due():
            self._write_line()

    def _is_line_due(self) -> bool:
        if self._done == self._total:  # an end for what has begun
            return self._time_of_line > self._started
        is_later = time.monotonic() - self._time_of_line >= _APART
        return is_later and self._done - self._done_at_line >= _SHARE * self._total

    def _write_line(self) -> None:
        self._time_of_line, self._done_at_line = time.monotonic(), self._done
        elapsed = self._time_of_line - self._started
        line = (
            f"{self._label}: {self._done} of {self._total} {self._unit}s "
            f"({self._done / self._total:.0%}) in {tqdm.format_interval(elapsed)}"
        )
        if self._done < self._total:
            left = elapsed * (self._total - self._done) / (self._done - self._done_before)
            line += f", about {tqdm.format_interval(left)} left"
        write_line(line)


def track(items: Sequence[_Item], *, label: str, unit: str, shown: bool) -> Iterator[_Item]:
    """Yield the items, and show how many are done.

    Examples
    --------
    >>> list(track(["a.png", "b.png"], label="counting", unit="image", shown=False))
    ['a.png', 'b.png']
    """
    with Progress(len(items), label=label, unit=unit, shown=shown) as progress:
        for item in items:
            yield item
            progress.advance()


def open_bar(total: int, *, label: str, unit: str, done: int = 0) -> Any:
    """Return a bar of tqdm on stderr, or None where it would fill a log."""
    make = tqdm
    if _is_in_notebook():
        if find_spec("ipywidgets"):  # else a bar of text; tqdm.auto would warn
            make = importlib.import_module("tqdm.notebook").tqdm
    elif not getattr(sys.stderr, "isatty", bool)():
        return None
    return make(total=total, initial=done, desc=label, unit=unit, file=sys.stderr)


def write_line(text: str) -> None:
    """Write a line to stderr."""
    if sys.stderr is not None:
        # A pipe that nobody reads any more, or a full disk: no reason to end the work.
        with suppress(OSError):
            print(text, file=sys.stderr, flush=True)


def _is_in_notebook() -> bool:
    """Return whether a notebook shows what is written, of which only Jupyter's kernel tells."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(shell, "config", ())
