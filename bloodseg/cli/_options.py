"""Options that several commands share. Nothing here imports torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..models import list_models
from ._values import choice, diameter, micrometres, or_none, path, processes, tile_size, tolerances

ANNOTATED = (
    "folder with images/NAME.png and masks/NAME.png (labels 0 background, 1 white, 2 red), or "
    "instances/NAME.png (a number a cell) and cells.csv (image,label,class); or with files of "
    "LabelMe, Pascal VOC, COCO or GeoJSON"
)

MODEL = "model file of `bloodseg train`, or a name of `bloodseg models`"

COMPILE = "fuse the sums of the ODE-solver, which pays for large states in long jobs"
COMPILE_CHOICES = {"auto": "auto", "yes": True, "no": False}
_SIDES: dict[str, tuple[str, ...]] = {
    "bottom,right": ("bottom", "right"),
    "bottom,left": ("bottom", "left"),
    "top,right": ("top", "right"),
    "top,left": ("top", "left"),
    "none": (),
}


def add_images(parser: argparse.ArgumentParser) -> None:
    """Add the images that a command goes through."""
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        type=path,
        help="image files, or folders of them (PNG, JPEG, HEIC, TIFF, BMP, scanners' TIFFs, Zarr)",
    )
    parser.add_argument(
        "-r",
        "--recursive",
        action="store_true",
        help="search subfolders, too; what is written for an image then lies in a subfolder of the "
        "same name (default: they are left out, and named)",
    )


def add_pixel_size(parser: argparse.ArgumentParser) -> None:
    """Add ``--pixel-size``."""
    parser.add_argument(
        "--pixel-size",
        metavar="UM",
        type=micrometres,
        default=argparse.SUPPRESS,
        help="side of a pixel in micrometres (default: what the file says, if it does)",
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the model, and all that prediction with it goes by."""
    parser.add_argument(
        "-m",
        "--model",
        metavar="MODEL",
        type=path,
        default=Path(list_models()[0]),
        help=f"{MODEL} (default: {list_models()[0]})",
    )
    add_prediction(parser)
    add_processes(parser)


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Add ``--processes``."""
    parser.add_argument(
        "--processes",
        metavar="N",
        type=processes,
        default=argparse.SUPPRESS,
        help="processes that share the tiles of a large image, and then its blocks of cells, on a "
        "CPU; -1 is one a core (default: 1)",
    )


def add_prediction(parser: argparse.ArgumentParser) -> None:
    """Add the parameters that prediction goes by; by default a model has its own."""
    parser.add_argument(
        "--predict-ode-tol",
        metavar="TOL",
        type=or_none(tolerances),
        default=argparse.SUPPRESS,
        help='tolerance of the solver: a number, "4=1e-2,5=1e-3,6=1e-2" or "paper"; looser is '
        "faster; none: as in training (default: the model's)",
    )
    parser.add_argument(
        "--red-cell-diameter",
        metavar="auto|PIXELS",
        type=or_none(diameter),
        default=argparse.SUPPRESS,
        help="diameter of the images' red cells in pixels, auto to measure it in each image, or "
        "none to take them as they are (default: the model's)",
    )
    parser.add_argument(
        "--tile-size",
        metavar="auto|PIXELS",
        type=or_none(tile_size),
        default=argparse.SUPPRESS,
        help="largest side of the tiles that large images go through the network in, a multiple "
        "of 16; small ones need little memory, none takes images whole (default: the model's)",
    )
    parser.add_argument(
        "--device",
        metavar="DEVICE",
        default=argparse.SUPPRESS,
        help='"auto" (CUDA where there is one), "cpu", "cuda:0" (default: the model\'s)',
    )
    parser.add_argument(
        "--compile",
        default=argparse.SUPPRESS,
        help=f"{COMPILE} (default: the model's)",
        **choice(COMPILE_CHOICES),
    )


def add_excluded_sides(parser: argparse.ArgumentParser) -> None:
    """Add ``--excluded-sides``."""
    parser.add_argument(
        "--excluded-sides",
        default=argparse.SUPPRESS,
        help="sides whose cells do not count in the frame that densities are counted in: "
        '"bottom,right", "bottom,left", "top,right", "top,left", or "none", which counts all '
        "cells, so that small photos show too many (default: bottom,right)",
        **{**choice(_SIDES), "metavar": "SIDES"},  # they have commas within
    )


def add_open(parser: argparse.ArgumentParser) -> None:
    """Add ``--open``."""
    parser.add_argument("--open", action="store_true", help="show the page in a browser")


def add_overwrite(
    parser: argparse.ArgumentParser, text: str = "replace files that exist (default: refuse)"
) -> None:
    """Add ``--overwrite``."""
    parser.add_argument("--overwrite", action="store_true", help=text)


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add ``--quiet``."""
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")


def add_strict(parser: argparse.ArgumentParser) -> None:
    """Add ``--strict``."""
    parser.add_argument(
        "--strict",
        action="store_true",
        help="end with exit code 1 where a result is in doubt; it is written all the same",
    )
