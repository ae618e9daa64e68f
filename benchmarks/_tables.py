"""Tables in Markdown, which go into the docs as they are printed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def print_heading(columns: Iterable[Any]) -> None:
    """Print the first two lines of a table."""
    names = list(columns)
    print_row(names)
    print("|---" * len(names) + "|")


def print_row(cells: Iterable[Any]) -> None:
    """Print a line of a table at once, for who watches a long run."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)
