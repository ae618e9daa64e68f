"""``bloodseg models``."""

from __future__ import annotations

import argparse

from ..models import list_models, model_card
from ._output import say
from ._values import path


def run(arguments: argparse.Namespace) -> int:
    """Print the card of a model file; or the names of the published models and one's card."""
    name = arguments.name
    if name is not None and name not in list_models():
        from ._model import load_any  # torch takes seconds, and published cards do without

        say(*load_any(path(name)).card().splitlines())
        return 0
    say(f"Published models: {', '.join(list_models())}", "", *model_card(name).splitlines())
    return 0
