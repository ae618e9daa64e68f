"""The command line: parses, calls the API, prints."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from ._arguments import make_parser
from ._output import PROGRAM, CommandError, complain, flush

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of ``bloodseg`` and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments, by default those of the process.

    Returns
    -------
    int
        0 all done; 1 done in part; 2 nothing could be done; 130 stopped by Ctrl-C.

    Examples
    --------
    >>> from bloodseg.cli import main
    >>> main(["train"])
    2
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with warnings.catch_warnings():
            # Notes between libraries, of no use to who types a command.
            warnings.simplefilter("ignore", FutureWarning)
            warnings.showwarning = _show_warning
            return _run(arguments)
    finally:
        flush()


def _run(arguments: list[str]) -> int:
    try:
        parsed = make_parser(arguments[0] if arguments else None).parse_args(arguments)
        command = importlib.import_module(f"._{parsed.command}", __name__)
        return command.run(parsed)
    except SystemExit as stop:  # how argparse ends --help, --version and wrong usage
        return int(stop.code or 0)
    except CommandError as error:
        complain(f"error: {error}")
        return 2
    except KeyboardInterrupt:
        complain("stopped by Ctrl-C.")
        return 130


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """Print a warning meant for users as a sentence, any other one with its place in the code."""
    if category is UserWarning:
        complain(f"warning: {message}")
    else:
        text = warnings.formatwarning(message, category, filename, lineno, line)
        complain(text.rstrip(), prefix=PROGRAM)
