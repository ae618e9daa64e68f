"""``bloodseg convert``."""

from __future__ import annotations

import argparse
import os

from ..datasets import load_annotated, save_annotated
from ._output import CommandError, first_line, make_folder, reported, say


def run(arguments: argparse.Namespace) -> int:
    """Read annotated images and write them in another format."""
    output = arguments.output
    if os.path.isdir(output) and any(output.iterdir()) and not arguments.overwrite:
        raise CommandError(f"{output} holds files. Choose another folder, or pass --overwrite.")
    try:
        data = load_annotated(arguments.data)
    except (OSError, ValueError) as error:
        raise CommandError(first_line(error)) from error
    make_folder(output)
    with reported(output):
        save_annotated(data, output, arguments.format)
    n_images = len(data.names)
    say(
        f"{n_images} image{'s' * (n_images != 1)}, from {data.format} to {arguments.format}: "
        f"{output}"
    )
    return 0
