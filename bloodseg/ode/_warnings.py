"""Warnings that name the caller's own line, and that a failing block gives once a call."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType


class SolverWarning(UserWarning):
    """Some samples did not reach the end of the interval, or not as exactly as asked."""


# Packages between a caller's line and the place that warns.
_BETWEEN = frozenset(
    ("bloodseg", "concurrent", "contextlib", "joblib", "sklearn", "skorch", "threading", "torch")
)


def warn_caller(
    text: str, category: type[Warning] = UserWarning, *, each_time: bool = False
) -> None:
    """Warn, with the line outside of this package and those that it runs in as the place.

    Parameters
    ----------
    text : str
        What to say.
    category : type
        Class of the warning.
    each_time : bool
        Python shows equal warnings of one line once. Of arrays in a loop of calls all have the
        same name, so what is said of one would hide what is said of the next: show every one.
    """
    frame = _find_caller()
    namespace = frame.f_globals
    registry = {} if each_time else namespace.setdefault("__warningregistry__", {})
    warnings.warn_explicit(
        text,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        module=namespace.get("__name__"),
        registry=registry,
    )


def _find_caller() -> FrameType:
    """Return the innermost frame of a caller's own code; in a thread of its own, the outermost."""
    frame: FrameType = sys._getframe(2)
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in _BETWEEN:
        frame = frame.f_back
    return frame


_warned: ContextVar[Counter[str] | None] = ContextVar("_warned", default=None)


class WarningOnce:
    """Lets each solve's name warn once in all that is watched, and tells how often it would have.

    For work that is done piece by piece, as a generator does it; else `one_warning_each` is
    simpler. Inside of another one, that one counts.
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count the warnings of the work inside."""
        if _warned.get() is not None:
            yield
            return
        _warned.set(self._counts)
        try:
            yield
        finally:
            _warned.set(None)

    def summarize(self) -> None:
        """Warn of how many warnings were held back."""
        for name, count in self._counts.items():
            if count > 1:
                warn_caller(
                    f"{name}: warned {count} times; only the first warning is shown.",
                    SolverWarning,
                )


@contextmanager
def one_warning_each() -> Iterator[None]:
    """Let each solve's name warn once within, and say at the end how often it would have.

    An ODE-block that fails in one training step fails in the next hundred, too. For use in a
    ``with`` statement or as a decorator.

    Warns
    -----
    SolverWarning
        For each name that had more than one warning.

    Examples
    --------
    >>> import warnings, torch
    >>> from bloodseg.ode import one_warning_each, solve
    >>> with warnings.catch_warnings(record=True) as said:
    ...     with one_warning_each():
    ...         for _ in range(9):
    ...             end = solve(lambda t, y: -1e3 * y, torch.ones(1, 1), max_steps=1, name="block")
    >>> len(said), str(said[-1].message)
    (2, 'block: warned 9 times; only the first warning is shown.')
    """
    once = WarningOnce()
    try:
        with once.watch():
            yield
    finally:
        once.summarize()


def warn_of_solve(text: str, name: str) -> None:
    """Warn of a solve, unless its name has had its one warning."""
    counts = _warned.get()
    if counts is not None:
        counts[name] += 1
        if counts[name] > 1:
            return
    warn_caller(f"{name}: {text}", SolverWarning)
