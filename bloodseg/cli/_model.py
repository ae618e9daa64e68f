"""What `bloodseg predict` and `bloodseg evaluate` share: a model, and inputs that may fail."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from .._hardware import choose_device
from ..datasets import Slide
from ..estimators import BloodCellSegmenter
from ..models import model_file
from ..networks import resolve_tolerances
from ..ode import SolverError
from ..prediction import Segmented, check_red_cell_diameter
from ._output import CommandError

# What one input may fail with. All else is a defect of this package and keeps its traceback.
INPUT_ERRORS = (
    OSError,
    ValueError,
    ImportError,  # of the package that reads its format
    MemoryError,
    SolverError,
    FloatingPointError,
    torch.OutOfMemoryError,
)


def load_model(arguments: argparse.Namespace) -> BloodCellSegmenter:
    """Load the model that ``--model`` names, with the options for prediction.

    The options are checked here, where a mistake in them ends the command; later it would be
    taken for a failure of every image.
    """
    try:
        segmenter = BloodCellSegmenter.load(model_file(arguments.model))
        if arguments.device is not None:
            choose_device(arguments.device)
            segmenter.set_params(device=arguments.device)
        if arguments.predict_ode_tol is not None:
            name = "--predict-ode-tol"
            resolve_tolerances(arguments.predict_ode_tol, tuple(segmenter.ode_tol_), name=name)
            segmenter.set_params(predict_ode_tol=arguments.predict_ode_tol)
        if hasattr(arguments, "red_cell_diameter"):  # None is a value, too
            given = arguments.red_cell_diameter
            check_red_cell_diameter(given, segmenter.red_cell_diameter_)
            segmenter.set_params(red_cell_diameter=given)
    except (OSError, ValueError) as error:
        raise CommandError(str(error)) from error
    return segmenter


def segment_one(segmenter: BloodCellSegmenter, image: Path | Slide) -> Segmented:
    """Return what the network says of one image."""
    (found,) = segmenter.segment([image])
    return found


def name_image(pixels: np.ndarray, name: str) -> Slide:
    """Return an image in memory as one that messages call by its name."""
    return Slide(lambda top, bottom: pixels[top:bottom], pixels.shape, pixels.dtype, None, name)


def list_evaluations(found: Segmented) -> dict[str, int]:
    """Return the evaluations of f at each position, as columns of a table."""
    return {f"evaluations_{position}": count for position, count in found.evaluations.items()}
