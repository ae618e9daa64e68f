"""The command line: parses, calls the API, prints."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ._arguments import make_parser
from ._output import CommandError, complain, first_line, flush, notes_in_words
from ._signals import ended_gently

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
        0 all done; 1 done in part; 2 nothing could be done; 130 stopped by Ctrl-C or SIGTERM.

    Examples
    --------
    >>> from bloodseg.cli import main
    >>> main(["train"])
    2
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with notes_in_words(), ended_gently():
            return _run(arguments)
    finally:
        flush()


@contextmanager
def _shared_out(n_processes: int) -> Iterator[None]:
    """Let tiles and blocks of cells go to so many processes."""
    if n_processes == 1:
        yield
        return
    from joblib import parallel_config

    with parallel_config(n_jobs=n_processes):
        yield


def _run(arguments: list[str]) -> int:
    try:
        parsed = make_parser(arguments[0] if arguments else None).parse_args(arguments)
        command = importlib.import_module(f"._{parsed.command}", __name__)
        with _shared_out(vars(parsed).get("processes", 1)):
            return command.run(parsed)
    except SystemExit as stop:  # how argparse ends --help, --version and wrong usage
        return int(stop.code or 0)
    except CommandError as error:
        complain(f"error: {error}")
        return 2
    except (OSError, MemoryError) as error:  # of the machine, and nobody else's fault
        complain(f"error: {first_line(error)}")
        return 2
    except KeyboardInterrupt:
        complain("stopped by Ctrl-C or SIGTERM.")
        return 130
