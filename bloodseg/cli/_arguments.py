"""The commands and their options.

Nothing here imports torch, so that ``bloodseg --help`` answers at once; only the options of the
commands that train are read off the estimator, by modules of their own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .._version import __version__
from ._options import (
    ANNOTATED,
    MODEL,
    add_excluded_sides,
    add_images,
    add_model,
    add_open,
    add_overwrite,
    add_pixel_size,
    add_prediction,
    add_processes,
    add_quiet,
    add_strict,
)
from ._output import PROGRAM
from ._values import class_names, classes, formats, path, port, seed, step_numbers

_EPILOG = """\
exit codes:
  0    all done
  1    done in part: some inputs failed or were skipped, training ended early, or results lie
       elsewhere than asked for; with --strict, also where the result for an image is in doubt
  2    nothing could be done: wrong usage, a missing model, no readable image
  130  stopped by Ctrl-C, SIGTERM or a terminal that is closed; what was done by then is written.
       A training that has done an epoch saves the best weights and ends with 1
"""

_COMMANDS = {
    "train": "train a network on annotated images",
    "predict": "label the pixels of images",
    "evaluate": "score a model on annotated images",
    "compare": "compare two models on annotated images, with intervals",
    "count": "count the cells of images, white and red ones",
    "measure": "measure the cells of images one by one",
    "convert": "write annotated images in the format of another program",
    "report": "count and measure the cells of images and show them on one HTML page",
    "serve": "serve a page on this machine to drop photos on, which answers with their report",
    "models": "list the published models and what is known of them",
    "export": "write a model's network as an ONNX file, with fixed steps of the solver",
    "study": "run the paper's experiments on a folder of images and label maps",
    "demo": "draw blood smears, show what the published weights and a small training make of them",
}


class _Parser(argparse.ArgumentParser):
    def __init__(self, **settings: Any):
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG, **settings
        )

    def error(self, message: str) -> NoReturn:
        """End with a short message; argparse's own puts a screenful of usage before it."""
        self.exit(2, f"{PROGRAM}: error: {message}. See `{self.prog} --help`.\n")


def make_whole_parser() -> argparse.ArgumentParser:
    """Return the parser with the options of all commands, for the documentation.

    Without the list of exit codes at each command's end, which is layout for terminals.
    """
    parser = _make_parser(tuple(_COMMANDS))
    parsers: list[Any] = [parser]
    for each in parsers:  # grows as it goes: the studies are commands of a command
        each.epilog = None
        for action in each._actions:
            if isinstance(action, argparse._SubParsersAction):
                parsers += action.choices.values()
    return parser


def make_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser, with the options of one command.

    Only of one, since those of ``train`` take seconds to import.
    """
    return _make_parser((command,))


def _make_parser(commands: Sequence[str | None]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Find red and white cells in images of blood smears.",
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    parsers = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", required=True
    )
    for name, text in _COMMANDS.items():
        described = parsers.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
        )
        if name in commands:
            _ADD_ARGUMENTS[name](described)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    from ._train_options import add_train

    add_train(parser)


def _add_predict(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=path,
        required=True,
        help="folder for STEM_mask.png (labels 0 background, 1 white, 2 red), STEM_overlay.png "
        "and predictions.csv. Of images with one STEM, those after the first become STEM-2, "
        "STEM-3, ..., over several runs too; predictions.csv says which is which",
    )
    add_model(parser)
    parser.add_argument("--no-overlay", action="store_true", help="write the label maps alone")
    add_overwrite(parser, "replace outputs that exist (default: skip such images)")
    add_strict(parser)
    add_quiet(parser)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        metavar="DIR",
        type=path,
        help=f"{ANNOTATED}. Cells are scored, too, where single ones are known: all of these but "
        "masks alone, beside which may be instances/NAME.png or boxes.csv "
        "(image,class,xmin,ymin,xmax,ymax)",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=path,
        help="folder for metrics.json, metrics.csv and overlays/ (default: print only)",
    )
    add_model(parser)
    add_overwrite(parser)
    add_strict(parser)
    add_quiet(parser)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("first", metavar="A", type=path, help=MODEL)
    parser.add_argument("second", metavar="B", type=path, help="another, of the same classes")
    parser.add_argument("data", metavar="DIR", type=path, help="as for `bloodseg evaluate`")
    parser.add_argument(
        "-o", "--output", metavar="CSV", type=path, help="table to write (default: print only)"
    )
    parser.add_argument(
        "--random-state",
        metavar="N",
        type=seed,
        default=0,
        help="seed of the images that are drawn anew for the intervals (default: 0)",
    )
    add_prediction(parser)
    add_processes(parser)
    add_overwrite(parser)
    add_strict(parser)
    add_quiet(parser)


def _add_count(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="CSV",
        type=path,
        help="table of the counts, one row an image (default: print only)",
    )
    parser.add_argument(
        "--summary",
        action="store_true",
        help="sum up all images: densities, ratios, sizes of red cells, with and without those in "
        "doubt; with -o NAME.csv, NAME.summary.csv has it, too",
    )
    add_pixel_size(parser)
    add_excluded_sides(parser)
    add_model(parser)
    add_overwrite(parser)
    add_strict(parser)
    add_quiet(parser)


def _add_measure(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=path,
        required=True,
        help="folder for cells.csv (one row a cell), cells.coco.json, and STEM.geojson and "
        "STEM.rois.zip for each image",
    )
    parser.add_argument(
        "--format",
        dest="formats",
        metavar="LIST",
        type=formats,
        default=("csv",),
        help='what to write: "csv", "geojson", "coco" or several, as "csv,geojson" (default: csv)',
    )
    parser.add_argument(
        "--rois",
        action="store_true",
        help="write the outlines as regions of interest of ImageJ and Fiji, too",
    )
    add_pixel_size(parser)
    add_excluded_sides(parser)
    add_model(parser)
    add_overwrite(parser)
    add_strict(parser)
    add_quiet(parser)


def _add_report(parser: argparse.ArgumentParser) -> None:
    add_images(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="PAGE",
        type=path,
        default=Path("report.html"),
        help="HTML file to write, complete in itself (default: report.html)",
    )
    parser.add_argument(
        "--title", metavar="TEXT", default="Blood smear report", help="heading of the page"
    )
    add_open(parser)
    add_pixel_size(parser)
    add_model(parser)
    add_overwrite(parser)
    add_strict(parser)
    add_quiet(parser)


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host",
        metavar="NAME",
        default="127.0.0.1",
        help="address to be reached at (default: 127.0.0.1, by this machine alone); nothing asks "
        "for a password",
    )
    parser.add_argument(
        "--port", metavar="N", type=port, default=8000, help="port (default: 8000; 0: any free one)"
    )
    add_open(parser)
    add_pixel_size(parser)
    add_model(parser)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="show the card of this one, or of a model file (default: the newest)",
    )


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", type=path, help=MODEL)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=path,
        required=True,
        help="ONNX file to write. Images go into it after the preprocessor, which is not in it",
    )
    parser.add_argument(
        "--images",
        metavar="IMAGE",
        nargs="+",
        type=path,
        default=[],
        help="image files, or folders of them, to find the number of steps on and to compare with "
        "the model (default: steps as long as the solver's first)",
    )
    parser.add_argument(
        "--steps",
        metavar="LIST",
        type=step_numbers,
        help='numbers of steps: "2", or "4=2,5=3" (default: as many as the solver takes)',
    )
    add_prediction(parser)
    add_overwrite(parser)


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=path,
        default=Path("bloodseg-demo"),
        help="folder for overview.png, metrics.csv, metrics.json, model.safetensors and the drawn "
        "smears (default: bloodseg-demo)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="seconds in place of minutes, and poor results"
    )
    parser.add_argument(
        "--random-state",
        metavar="N",
        type=seed,
        default=0,
        help="seed of smears and weights (default: 0)",
    )
    add_overwrite(parser)
    add_quiet(parser)


def _add_study(parser: argparse.ArgumentParser) -> None:
    from ._study_options import add_study

    add_study(parser)


def _add_convert(parser: argparse.ArgumentParser) -> None:
    from .._images import CLASS_NAMES
    from ..datasets import FORMATS

    parser.add_argument("data", metavar="IN", type=path, help=ANNOTATED)
    parser.add_argument("output", metavar="OUT", type=path, help="folder to write")
    parser.add_argument(
        "--to",
        dest="format",
        choices=FORMATS,
        required=True,
        help="masks: images/NAME.png and masks/NAME.png; others: images, and outlines of the cells",
    )
    parser.add_argument(
        "--classes",
        metavar="NAMES",
        type=classes,
        default=CLASS_NAMES,
        help="what the labels 0, 1, ... stand for, background first (default: "
        f"{','.join(CLASS_NAMES)}); platelets are background where they are no class",
    )
    parser.add_argument(
        "--class-names",
        metavar="TEXT=CLASS",
        type=class_names,
        help='classes of the texts in IN that are not known, "Neutrophil=white,blast cell=white"; '
        "those that are to be left out are background",
    )
    add_overwrite(parser, "write into a folder that holds files (default: refuse)")


_ADD_ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], None]] = {
    "train": _add_train,
    "predict": _add_predict,
    "evaluate": _add_evaluate,
    "compare": _add_compare,
    "count": _add_count,
    "measure": _add_measure,
    "convert": _add_convert,
    "report": _add_report,
    "serve": _add_serve,
    "models": _add_models,
    "export": _add_export,
    "study": _add_study,
    "demo": _add_demo,
}
