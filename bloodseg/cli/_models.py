"""``bloodseg models``."""

from __future__ import annotations

import argparse

from ..models import list_models, model_card
from ._output import CommandError, say
from ._values import path


def run(arguments: argparse.Namespace) -> int:
    """Print the card of a model file; or the names of the published models and one's card."""
    name = arguments.name
    if name is not None and name not in list_models() and path(name).is_file():
        from ._model import load_any  # torch takes seconds, and published cards do without

        say(*load_any(path(name)).card().splitlines())
        return 0
    try:
        card = model_card(name)
    except ValueError as error:
        raise CommandError(str(error)) from error
    say(f"Published models: {', '.join(list_models())}", "", *card.splitlines())
    return 0
