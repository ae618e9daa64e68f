"""``bloodseg convert``."""

from __future__ import annotations

import argparse
import os

import numpy as np

from .._images import NOT_LABELLED, counted
from ..datasets import load_annotated, save_annotated
from ._annotations import unreadable
from ._output import CommandError, complain, make_folder, refuse_filled, reported, say


def run(arguments: argparse.Namespace) -> int:
    """Read annotated images and write them in another format."""
    output = arguments.output
    if os.path.realpath(output) == os.path.realpath(arguments.data):
        raise CommandError(
            f"OUT must be another folder than IN; got {output} for both. Of each image there would "
            "be two."
        )
    refuse_filled(output, overwrite=arguments.overwrite)
    try:
        data = load_annotated(arguments.data, arguments.class_names, classes=arguments.classes)
    except (OSError, ValueError) as error:
        raise unreadable(error) from error
    make_folder(output)
    with reported(output):
        save_annotated(data, output, arguments.format)
    if "boxes" in data and arguments.format in ("geojson", "labelme"):
        complain(
            f"{arguments.data} holds boxes alone, which are rectangles in {output}: correct them "
            "before they are taken for outlines of cells. With --to coco they stay boxes."
        )
    elif "boxes" not in data and arguments.format != "masks":
        n_partial = sum(bool((np.asarray(mask) == NOT_LABELLED).any()) for mask in data.masks)
        if n_partial:
            complain(
                f"pixels labelled {NOT_LABELLED}, not known, are background in {output}, whose "
                f"format cannot say so: {n_partial} of {len(data.masks)} label maps have some."
            )
    images = counted(len(data.names), "image")
    say(f"{images}, from {data.format} to {arguments.format}: {output}")
    return 0
