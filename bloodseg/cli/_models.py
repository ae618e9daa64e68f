"""``bloodseg models``."""

from __future__ import annotations

import argparse

from ..models import list_models, model_card
from ._output import CommandError, say


def run(arguments: argparse.Namespace) -> int:
    """Print the names of the published models and the card of one."""
    try:
        card = model_card(arguments.name)
    except ValueError as error:
        raise CommandError(str(error)) from error
    say(f"Published models: {', '.join(list_models())}", "", *card.splitlines())
    return 0
