"""What commands say where annotated images cannot be read."""

from __future__ import annotations

import shlex

from ..datasets import UnknownLabelError
from ._output import CommandError, first_line


def unreadable(error: Exception) -> CommandError:
    """Return why, in words of the command line: which class a label is of, only `convert` asks."""
    text = first_line(error)
    if isinstance(error, UnknownLabelError):
        fact, _, _ = text.partition(" Pass ")
        known = shlex.quote(f"{error.unknown}=white")
        text = (
            f"{fact} Say so by `bloodseg convert IN OUT --to masks --class-names {known}`, and go "
            "on with OUT."
        )
    return CommandError(text)
