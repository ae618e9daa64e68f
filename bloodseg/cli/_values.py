"""The short forms in which values are written on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .._files import expanded


def positions(text: str) -> tuple[int, ...]:
    """Parse positions of ODE-blocks: "4,5,6", or "none" or "" for a U-Net."""
    if text.strip() in ("", "none"):
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'positions are written as "4,5,6", or "none"; got {text!r}'
        ) from None


def tolerances(text: str) -> Any:
    """Parse tolerances: "1e-3", "paper", "4=1e-2,5=1e-3" or "1e-2,1e-3,1e-2"."""
    if text == "paper":
        return text
    try:
        if "=" in text:
            return {int(key): float(value) for key, value in _pairs(text)}
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'tolerances are written as "1e-3", "4=1e-2,5=1e-3" or "paper"; got {text!r}'
        ) from None
    return values[0] if len(values) == 1 else values


def _auto_or(number: Callable[[str], Any], form: str) -> Callable[[str], Any]:
    """Return what parses "auto" or a number; ``form`` says how it is written."""

    def parse(text: str) -> Any:
        try:
            return text if text == "auto" else number(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{form}; got {text!r}") from None

    return parse


diameter = _auto_or(float, 'a diameter is written as "auto", a number of pixels or "none"')
tile_size = _auto_or(int, 'a side of tiles is written as "auto", a number of pixels or "none"')
batch_size = _auto_or(int, 'the crops a step are written as "auto" or a number')


def processes(text: str) -> int:
    """Parse a number of processes: at least 1, or -1 for as many as there are cores."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1 and number != -1:
        raise argparse.ArgumentTypeError(
            f"processes are a whole number from 1 on, or -1 for one a core; got {text!r}"
        )
    return number


def seed(text: str) -> int:
    """Parse a seed of random numbers: 0 to 2**32 - 1, as NumPy takes them."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(
            f"a seed is a whole number from 0 to {2**32 - 1}; got {text!r}"
        )
    return int(text)


def port(text: str) -> int:
    """Parse a port: 1 to 65535, or 0 for any that is free."""
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"a port is a whole number up to 65535; got {text!r}")
    return int(text)


def choice(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `add_argument` needs for an option that takes one of some words."""

    def parse(text: str) -> Any:
        if text not in values:
            words = ", ".join(map(repr, values))
            raise argparse.ArgumentTypeError(f"choose from {words}; got {text!r}")
        return values[text]

    return {"type": parse, "metavar": f"{{{','.join(values)}}}"}


def class_weights(text: str) -> Any:
    """Parse weights of the classes: "balanced", "1,3,1" or "white=3"."""
    if text == "balanced":
        return text
    try:
        if "=" in text:
            return {key.strip(): float(value) for key, value in _pairs(text)}
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'weights are written as "1,3,1" (background, white, red), "white=3" or "balanced"; '
            f"got {text!r}"
        ) from None


def classes(text: str) -> tuple[str, ...]:
    """Parse names of classes: "background,white,red"."""
    return tuple(part.strip() for part in text.split(","))


def class_names(text: str) -> dict[str, str]:
    """Parse classes of label texts: "Neutrophil=white,blast cell=white"."""
    try:
        return {label.strip(): name.strip() for label, name in _pairs(text)}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'classes of texts are written as "Neutrophil=white,blast cell=white"; got {text!r}'
        ) from None


def micrometres(text: str) -> float:
    """Parse a length in micrometres."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'micrometres are written as a number with a point, as "0.1"; got {text!r}'
        ) from None


def step_numbers(text: str) -> Any:
    """Parse numbers of steps: "2" or "4=2,5=3"."""
    try:
        if "=" in text:
            return {int(key): int(value) for key, value in _pairs(text)}
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'numbers of steps are written as "2" or "4=2,5=3"; got {text!r}'
        ) from None


def formats(text: str) -> tuple[str, ...]:
    """Parse formats of tables: "csv", "csv,geojson,coco"."""
    names = tuple(part.strip() for part in text.split(","))
    if not names or not set(names) <= {"csv", "geojson", "coco"}:
        raise argparse.ArgumentTypeError(
            f'formats are "csv", "geojson" and "coco", several with commas between; got {text!r}'
        )
    return names


def or_none(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return ``parse`` with "none" for None, which is how help shows it."""

    def parse_or_none(text: str) -> Any:
        try:
            return None if text.strip() == "none" else parse(text)
        except ValueError:
            noun = "a whole number" if parse is int else "a number"
            raise argparse.ArgumentTypeError(f'not {noun}, nor "none": {text!r}') from None

    return parse_or_none


def path(text: str) -> Path:
    """Parse a path; shells leave the ~ of ``-o=~/x`` and ``'~/x'`` as it is."""
    if not text:  # which would be this folder
        raise argparse.ArgumentTypeError(
            "a path must not be empty; perhaps a variable of the shell is not set"
        )
    return expanded(text)


def _pairs(text: str) -> list[list[str]]:
    return [part.split("=") for part in text.split(",")]
