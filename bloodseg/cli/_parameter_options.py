"""Parameters of the estimators as options, with the estimators' own defaults.

Imports torch, which takes seconds: only the commands that train do so before they parse.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable
from typing import Any

from ..estimators import BloodCellSegmenter
from ._options import COMPILE, COMPILE_CHOICES
from ._values import choice, or_none


def default_of(callable_: Callable[..., Any], name: str) -> Any:
    """Return the default of a parameter."""
    return inspect.signature(callable_).parameters[name].default


def add_parameter(
    group: Any, name: str, text: str, *, default_shown: str | None = None, **settings: Any
) -> None:
    """Add a parameter of `BloodCellSegmenter` as an option.

    What is not given is left out of what is parsed: the estimator, a model that training starts
    from, or a study has a default of its own; ``default_shown`` says a study's in words.
    """
    if settings.get("action") is None:
        default = default_of(BloodCellSegmenter, name)
        if default is None:
            settings["type"] = or_none(settings["type"])
        settings.setdefault("metavar", None if "choices" in settings else _metavar(name))
        text += f" (default: {shown(default) if default_shown is None else default_shown})"
    flag = "--" + name.replace("_", "-")
    group.add_argument(flag, help=text, default=argparse.SUPPRESS, **settings)


def add_machine(group: Any) -> None:
    """Add where training runs, and how."""
    add_parameter(group, "device", '"auto" (CUDA where there is one), "cpu", "cuda:0"')
    add_parameter(group, "precision", "of convolutions", choices=["auto", "float32", "bfloat16"])
    add_parameter(group, "compile", COMPILE, **choice(COMPILE_CHOICES))


def _metavar(name: str) -> str:
    last = name.split("_")[-1].upper()
    return {"POSITIONS": "LIST", "WEIGHT": "WEIGHTS", "STATE": "N", "JOBS": "N"}.get(last, last)


def shown(value: Any) -> str:
    """Return a default in the form in which it would be typed."""
    if isinstance(value, tuple):
        return ",".join(map(shown, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
