"""What is known of a fitted model, in words: its card."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

from .._files import printable
from .._images import counted

_LONGEST = 200  # characters of a value: a file may hold any


def write_card(kind: type, parameters: Mapping[str, Any], fitted: Mapping[str, Any]) -> str:
    """Return the card of a model in Markdown.

    Parameters
    ----------
    kind : type
        Class of the estimator, whose defaults are left out.
    parameters, fitted : mapping of str to object
        Its parameters, and its attributes.
    """
    lines = [f"# A {kind.__name__}", ""]
    architecture = fitted["architecture_"]
    lines.append(
        f"Network {_shown(architecture['network'])} of width {_shown(architecture['width'])}, for "
        f"the classes {', '.join(map(_shown, fitted['class_names_']))}."
    )
    diameter = fitted.get("red_cell_diameter_")
    if diameter is not None:
        lines.append(f"Red cells are {diameter:.3g} pixels wide as the network sees them.")
    lines += ["", "## Trained on", "", *_data(fitted["training_"])]
    lines += ["", "## Parameters", "", *_parameters(kind, parameters)]
    lines += ["", "## Scores", "", *_scores(fitted), ""]
    return "\n".join(lines)


def _data(training: Mapping[str, Any]) -> Iterator[str]:
    if not training:
        yield "Not known: the file is of an earlier version."
        return
    images, held_out = training["images"], training["validation_images"]
    chose = f"; {counted(held_out, 'other')} chose the epoch" if held_out else ""
    yield f"{counted(images, 'image')}{chose}. By bloodseg {_shown(training['bloodseg'])}."
    for place, name in enumerate(training["started_from"]):
        yield f"{'It started from' if place == 0 else 'That one from'} {_shown(name)}."
    if not training["started_from"]:
        yield "It started from new weights."


def _parameters(kind: type, parameters: Mapping[str, Any]) -> Iterator[str]:
    defaults = inspect.signature(kind).parameters
    changed = {
        name: value
        for name, value in sorted(parameters.items())
        if repr(value) != repr(defaults[name].default)
    }
    for name, value in changed.items():
        yield f"- {name}: {_shown(repr(value))}"
    yield "All others have their defaults." if changed else "All have their defaults."


def _scores(fitted: Mapping[str, Any]) -> Iterator[str]:
    best, history = fitted["best_epoch_"], fitted["history_"]
    row = history[best - 1] if best else {}
    scores = {name: value for name, value in row.items() if name.startswith("valid_")}
    yield f"Epoch {best} of {len(history)}; training ended by: {_shown(fitted['end_reason_'])}."
    for name, value in scores.items():
        yield f"- {name.removeprefix('valid_').replace('_', ' ')}: {value:.4g}"
    if scores:
        yield "On the images that chose the epoch, so rather too good: score it on others."
    else:
        yield "None are known: no images were held out."


def _shown(value: Any) -> str:
    text = printable(str(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
