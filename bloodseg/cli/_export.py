"""``bloodseg export``."""

from __future__ import annotations

import argparse
import os

from .._images import counted
from ..export import to_onnx
from ._batch import INPUT_ERRORS, find_images
from ._model import load_segmenter
from ._output import CommandError, check_output, first_line, say


def run(arguments: argparse.Namespace) -> int:
    """Write a model's network as an ONNX file, and say how far it keeps to the model."""
    check_output(arguments.output, overwrite=arguments.overwrite)
    if os.path.realpath(arguments.output) == os.path.realpath(arguments.model):
        raise CommandError(f"{arguments.output} is the model itself. Choose another name.")
    stems, failed = find_images(arguments.images)
    images = list(stems)
    if arguments.images and not images:
        raise CommandError("none of the inputs is an image.")
    segmenter = load_segmenter(arguments)
    try:
        written = to_onnx(segmenter, arguments.output, images or None, steps=arguments.steps)
    except INPUT_ERRORS as error:
        raise CommandError(first_line(error)) from error
    for position, number in written.steps.items():
        say(f"ODE-block {position}: {number} x {written.methods[position]}")
    if written.changed is not None:
        of_images = counted(len(images), "image")
        say(f"{written.changed:.3%} of the pixels of {of_images} change their class.")
    say(f"Network: {written.path}")
    return 1 if failed else 0
