"""``bloodseg export``."""

from __future__ import annotations

import argparse

from ..export import to_onnx
from ._model import INPUT_ERRORS, load_model
from ._output import CommandError, check_writable, first_line, refuse_existing, say
from ._predict import find_images


def run(arguments: argparse.Namespace) -> int:
    """Write a model's network as an ONNX file, and say how far it keeps to the model."""
    refuse_existing([arguments.output], overwrite=arguments.overwrite)
    check_writable(arguments.output.parent)
    images, n_failed = find_images(arguments.images)
    if arguments.images and not images:
        raise CommandError("none of the inputs is an image.")
    segmenter = load_model(arguments)
    try:
        written = to_onnx(segmenter, arguments.output, images or None, steps=arguments.steps)
    except INPUT_ERRORS as error:
        raise CommandError(first_line(error)) from error
    for position, number in written.steps.items():
        say(f"ODE-block {position}: {number} x {written.methods[position]}")
    if written.changed is not None:
        say(f"{written.changed:.3%} of the pixels of {len(images)} images change their class.")
    say(f"Network: {written.path}")
    return 1 if n_failed else 0
