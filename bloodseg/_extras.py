"""Packages of the extras, imported where they are needed."""

from __future__ import annotations

import importlib
from typing import Any


def import_extra(package: str, *, extra: str, need: str) -> Any:
    """Return a package, or a module of one, that an extra brings.

    Parameters
    ----------
    package : str
        Its name.
    extra : str
        The extra of this package that brings it.
    need : str
        What needs it, as a clause: "plots need matplotlib".

    Raises
    ------
    ImportError
        If it is missing; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f"{need}: pip install 'bloodseg[{extra}]'.") from error
