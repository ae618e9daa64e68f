"""Options of the commands.

Nothing here imports torch, so that ``bloodseg --help`` answers at once; only the options of
``train`` are read off the estimator.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .._version import __version__
from ..models import list_models
from ._output import PROGRAM
from ._values import (
    batch_size,
    choice,
    class_names,
    class_weights,
    diameter,
    formats,
    or_none,
    path,
    port,
    positions,
    processes,
    step_numbers,
    tile_size,
    tolerances,
)

_EPILOG = """\
exit codes:
  0    all done
  1    done in part: some inputs failed or were skipped, or training ended early; with --strict,
       also where the result for an image is in doubt
  2    nothing could be done: wrong usage, a missing model, no readable image
  130  stopped by Ctrl-C (in training, Ctrl-C keeps the best weights and saves the model)
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
    "serve": "serve a page on this machine to drop photos on, which answers with such a page",
    "models": "list the published models and what is known of them",
    "export": "write a model's network as an ONNX file, with fixed steps of the solver",
    "study": "run the paper's experiments on a folder of images and label maps",
    "demo": "draw blood smears, show what the published weights and a small training make of them",
}


_ANNOTATED = (
    "folder with images/NAME.png and masks/NAME.png (labels 0 background, 1 white, 2 red), or "
    "instances/NAME.png (a number a cell) and cells.csv (image,label,class); or with files of "
    "LabelMe, Pascal VOC, COCO or GeoJSON"
)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **settings: Any):
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, epilog=_EPILOG, **settings
        )

    def error(self, message: str) -> NoReturn:
        """End with a short message; argparse's own puts a screenful of usage before it."""
        self.exit(2, f"{PROGRAM}: error: {message}. See `{self.prog} --help`.\n")


_COMPILE = "fuse the sums of the ODE-solver, which pays for large states in long jobs"
_COMPILE_CHOICES = {"auto": "auto", "yes": True, "no": False}
_SIDES: dict[str, tuple[str, ...]] = {
    "bottom,right": ("bottom", "right"),
    "bottom,left": ("bottom", "left"),
    "top,right": ("top", "right"),
    "top,left": ("top", "left"),
    "none": (),
}


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
    parser.add_argument(
        "data",
        metavar="DIR",
        type=path,
        help=f"{_ANNOTATED}; and perhaps groups.csv (image,group), whose groups the validation "
        "split keeps together",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="MODEL",
        type=path,
        required=True,
        help="model file to write, such as cells.safetensors; the history of the training goes "
        "to cells.history.csv beside it",
    )
    _add_overwrite(parser)
    _add_quiet(parser)
    _add_estimator_options(parser)


def _estimator_defaults() -> dict[str, Any]:
    from ..estimators import BloodCellSegmenter

    parameters = inspect.signature(BloodCellSegmenter).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def _scale() -> float:
    from ..estimators import BloodCellCounter

    return inspect.signature(BloodCellCounter).parameters["scale"].default


def _adder(defaults: dict[str, Any]) -> Callable[..., None]:
    """Return a function that adds a parameter of the estimator as an option.

    What is not given is left out of what is parsed: the estimator, a model that training starts
    from, or a study has a default of its own.
    """

    def add(group: Any, name: str, text: str, **settings: Any) -> None:
        default = defaults[name]
        if settings.get("action") is None:
            if default is None:
                settings["type"] = or_none(settings["type"])
            settings.setdefault("metavar", None if "choices" in settings else _metavar(name))
            text += f" (default: {_shown(default)})"
        group.add_argument(_flag(name), help=text, default=argparse.SUPPRESS, **settings)

    return add


def _add_estimator_options(parser: argparse.ArgumentParser) -> None:
    """Add the parameters of `BloodCellSegmenter` as options, with its own defaults."""
    from ..networks import NETWORKS
    from ..ode import GRADIENTS, METHODS
    from ..preprocessing import Preprocessor

    defaults = _estimator_defaults()
    add = _adder(defaults)

    group = parser.add_argument_group("network")
    add(group, "network", "the network", choices=sorted(NETWORKS))
    add(group, "width", "channels of the first stage", type=int)
    add(group, "dropout", "probability of dropout", type=float)
    add(
        group,
        "pretrained",
        "saved model, or name of a published one, whose weights training starts from; options "
        "left at their defaults are then its own",
        type=path,
    )
    add(
        group,
        "classes",
        'what the labels 0, 1, ... stand for, background first: "background,white,red,platelet", '
        "or names of your own",
        type=class_names,
        metavar="NAMES",
    )
    group.add_argument(
        "--counts",
        metavar="CSV",
        type=path,
        help="train a network that only counts, without label maps: from a table with the columns "
        "image, white and red (or the names of --classes) about the images of DIR (or DIR/images); "
        "for `bloodseg count`",
    )
    group.add_argument(
        "--scale",
        metavar="SHARE",
        type=float,
        default=argparse.SUPPRESS,
        help=f"with --counts: how much images are shrunk before (default: {_shown(_scale())})",
    )

    group = parser.add_argument_group("ODE-blocks")
    add(
        group,
        "ode_positions",
        'which of the nine stages are ODE-blocks, such as "4,5,6"; "none" makes a U-Net',
        type=positions,
    )
    add(
        group,
        "ode_tol",
        'tolerance of the solver in training: a number, "4=1e-2,5=1e-3,6=1e-2" or "paper"',
        type=tolerances,
    )
    add(group, "predict_ode_tol", "the same for prediction; none: as in training", type=tolerances)
    add(group, "ode_method", "Runge-Kutta method", choices=["auto", *METHODS])
    add(
        group,
        "ode_n_steps",
        "steps of the fixed-step methods euler, midpoint and rk4; none takes 4",
        type=int,
    )
    add(group, "ode_gradient", "how gradients pass the solver", choices=sorted(GRADIENTS))
    add(
        group,
        "ode_regularization",
        "how much training counts dynamics that one step of the solver cannot carry; try 0.01",
        type=float,
    )

    group = parser.add_argument_group("training")
    add(group, "max_epochs", "epochs", type=int)
    add(group, "batch_size", "crops a training step", type=batch_size)
    add(group, "learning_rate", "highest learning rate", type=float)
    add(group, "crop_size", "side of the training crops in pixels", type=int)
    add(
        group,
        "red_cell_diameter",
        "diameter of the red cells in pixels, or auto to measure it: images are rescaled, and the "
        "model works at any magnification",
        type=or_none(diameter),
        metavar="auto|PIXELS",
    )
    add(
        group,
        "augment",
        "turn the crops and vary their colours; strong: as far as laboratories differ, and blurred "
        "and noisy, too",
        **choice({"yes": True, "no": False, "strong": "strong"}),
    )
    add(
        group,
        "keep_statistics",
        "with --pretrained: normalise by the statistics of that model, as is best for a few images "
        "and a low learning rate; published models do",
        action="store_true",
    )
    add(
        group,
        "loss",
        'training loss, "cross_entropy" or "cross_entropy+dice"; with --counts "huber", '
        '"squared_error" or "poisson"',
        type=str,
    )
    add(
        group,
        "class_weight",
        'weights of the classes: "balanced", "1,3,1" or "white=3"',
        type=class_weights,
    )
    add(
        group,
        "validation_fraction",
        'share of images (or groups) that choose the best epoch; "none" trains on all',
        type=or_none(float),
    )
    add(
        group,
        "early_stopping",
        "stop after --patience epochs without a lower validation loss",
        action="store_true",
    )
    add(group, "patience", "epochs, with --early-stopping", type=int)
    add(
        group,
        "checkpoint_dir",
        "folder for checkpoints; the same command then goes on where it was broken off",
        type=path,
    )
    add(group, "random_state", "seed, for results that can be had again", type=int)

    group = parser.add_argument_group("preprocessing").add_mutually_exclusive_group()
    clip_limit = inspect.signature(Preprocessor).parameters["clip_limit"].default
    group.add_argument(
        "--clip-limit",
        metavar="NUMBER",
        type=float,
        help=f"contrast limit of the enhancement by CLAHE (default: {_shown(clip_limit)})",
    )
    group.add_argument(
        "--no-preprocessor", action="store_true", help="give the images to the network as they are"
    )

    group = parser.add_argument_group("machine")
    _add_machine(group, add)
    add(group, "n_jobs", "threads that preprocess images; none is 1, -1 all cores", type=int)
    group.add_argument(
        "--accelerator",
        action="store_true",
        default=argparse.SUPPRESS,
        help="train through Hugging Face Accelerate, which sees to devices and precision. Several "
        "processes that `torchrun --nproc-per-node N -m bloodseg train` starts train one model so, "
        "with or without this option",
    )


def _add_machine(group: Any, add: Callable[..., None]) -> None:
    add(group, "device", '"auto" (CUDA where there is one), "cpu", "cuda:0"')
    add(group, "precision", "of convolutions", choices=["auto", "float32", "bfloat16"])
    add(group, "compile", _COMPILE, **choice(_COMPILE_CHOICES))


def _add_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images",
        metavar="IMAGE",
        nargs="+",
        type=path,
        help="image files, or folders of them (PNG, JPEG, TIFF, BMP)",
    )
    parser.add_argument(
        "-r",
        "--recursive",
        action="store_true",
        help="search the folders' subfolders, too; files written for each image then keep the "
        "path from there (default: what is left out is named)",
    )


def _add_predict(parser: argparse.ArgumentParser) -> None:
    _add_images(parser)
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
    _add_model(parser)
    parser.add_argument("--no-overlay", action="store_true", help="write the label maps alone")
    _add_overwrite(parser, "replace outputs that exist (default: skip such images)")
    _add_strict(parser)
    _add_quiet(parser)


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data",
        metavar="DIR",
        type=path,
        help=f"{_ANNOTATED}. Cells are scored, too, where single ones are known: all of these but "
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
    _add_model(parser)
    _add_overwrite(parser)
    _add_strict(parser)
    _add_quiet(parser)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    models = "model file of `bloodseg train`, or a name of `bloodseg models`"
    parser.add_argument("first", metavar="A", type=path, help=models)
    parser.add_argument("second", metavar="B", type=path, help="another, of the same classes")
    parser.add_argument("data", metavar="DIR", type=path, help="as for `bloodseg evaluate`")
    parser.add_argument(
        "-o", "--output", metavar="CSV", type=path, help="table to write (default: print only)"
    )
    parser.add_argument(
        "--random-state",
        metavar="N",
        type=int,
        default=0,
        help="seed of the images that are drawn anew for the intervals (default: 0)",
    )
    _add_prediction(parser)
    _add_overwrite(parser)
    _add_strict(parser)
    _add_quiet(parser)


def _add_count(parser: argparse.ArgumentParser) -> None:
    _add_images(parser)
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
    _add_pixel_size(parser)
    _add_excluded_sides(parser)
    _add_model(parser)
    _add_overwrite(parser)
    _add_strict(parser)
    _add_quiet(parser)


def _add_measure(parser: argparse.ArgumentParser) -> None:
    _add_images(parser)
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
    _add_pixel_size(parser)
    _add_excluded_sides(parser)
    _add_model(parser)
    _add_overwrite(parser)
    _add_strict(parser)
    _add_quiet(parser)


def _add_report(parser: argparse.ArgumentParser) -> None:
    _add_images(parser)
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
    parser.add_argument("--open", action="store_true", help="show the page in a browser")
    _add_pixel_size(parser)
    _add_model(parser)
    _add_overwrite(parser)
    _add_strict(parser)
    _add_quiet(parser)


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
    parser.add_argument("--open", action="store_true", help="show the page in a browser")
    _add_pixel_size(parser)
    _add_model(parser)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name",
        metavar="NAME",
        nargs="?",
        help="show the card of this one, or of a model file of your own (default: the newest)",
    )


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", type=path, help="model file of `bloodseg train`")
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
    _add_prediction(parser)
    _add_overwrite(parser)


def _add_pixel_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pixel-size",
        metavar="UM",
        type=float,
        default=argparse.SUPPRESS,
        help="side of a pixel in micrometres (default: what the file says, if it does)",
    )


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=path,
        default=Path("bloodseg-demo"),
        help="folder for overview.png, metrics.csv, metrics.json and model.safetensors "
        "(default: bloodseg-demo)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="seconds in place of minutes, and poor results"
    )
    parser.add_argument(
        "--random-state",
        metavar="N",
        type=int,
        default=0,
        help="seed of smears and weights (default: 0)",
    )
    _add_overwrite(parser)
    _add_quiet(parser)


_STUDIES = {
    "positions": "one ODE-block at each of nine positions, and a U-Net (Table 1)",
    "networks": "U-Net, ResNet and NODEs-UNet (Table 2)",
    "tolerance": "tolerances in training and in prediction",
}


def _add_study(parser: argparse.ArgumentParser) -> None:
    parsers = parser.add_subparsers(dest="study", metavar="STUDY", title="studies", required=True)
    add = _adder(_estimator_defaults())
    for name, text in _STUDIES.items():
        _add_study_options(
            parsers.add_parser(name, help=text, description=f"{text}.", allow_abbrev=False),
            name,
            add,
        )
    text = "tables, verdicts and figures of the studies in a folder"
    report = parsers.add_parser("report", help=text, description=f"{text}.", allow_abbrev=False)
    report.add_argument("output", metavar="DIR", type=path, help="output folder of studies")


def _add_study_options(parser: argparse.ArgumentParser, study: str, add: Any) -> None:
    from ..study import network_names

    folder = "folder with images/NAME.png, masks/NAME.png and perhaps groups.csv"
    parser.add_argument("train", metavar="TRAIN", type=path, help=f"{folder}, to train on")
    parser.add_argument(
        "test",
        metavar="TEST",
        type=path,
        nargs="?",
        help=f"{folder}, to test on; left out with --protocol paper",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=path,
        required=True,
        help="folder for results.csv, report.md, figures, models and checkpoints; the same command "
        "goes on where it was broken off, and several may share a folder",
    )
    group = parser.add_argument_group("study")
    group.add_argument(
        "--dataset", metavar="NAME", help="name of the data in tables (default: TRAIN's own)"
    )
    group.add_argument(
        "--networks",
        metavar="NAME",
        nargs="+",
        choices=network_names(study),
        help=f"some of the networks: {', '.join(network_names(study))} (default: all)",
    )
    group.add_argument(
        "--seeds",
        metavar="N",
        type=int,
        nargs="+",
        default=[0, 1, 2, 3, 4],
        help="fewer than five come to no verdict (default: 0 1 2 3 4)",
    )
    if study == "tolerance":
        _add_tolerances(group)
    group.add_argument(
        "--protocol",
        choices=["folder", "paper"],
        default="folder",
        help="paper: crops of 256 pixels of TRAIN, split by image or group, augmented tenfold; "
        "a fifth of the images is for testing (default: folder)",
    )
    group.add_argument(
        "--results",
        metavar="CSV",
        type=path,
        help="table that the rows are put into, too, in place of those of the same run",
    )
    _add_quiet(parser)
    _add_study_training(parser, study, add)


def _add_tolerances(group: Any) -> None:
    from ..study import PREDICT_TOLERANCES, TRAIN_TOLERANCES

    for flag, values in (("train", TRAIN_TOLERANCES), ("predict", PREDICT_TOLERANCES)):
        group.add_argument(
            f"--{flag}-tolerances",
            metavar="TOL",
            type=float,
            nargs="+",
            default=values,
            help=f"(default: {' '.join(f'{value:g}' for value in values)})",
        )


def _add_study_training(parser: argparse.ArgumentParser, study: str, add: Any) -> None:
    """Add the parameters that all networks of a study share."""
    group = parser.add_argument_group("network and training")
    add(group, "width", "channels of the first stage", type=int)
    if study == "networks":
        add(group, "ode_tol", "tolerance of NODEs-UNet in training", type=tolerances)
    add(group, "crop_size", "side of the training crops in pixels", type=int)
    add(group, "batch_size", "crops a training step", type=batch_size)
    add(group, "max_epochs", "epochs", type=int)
    add(group, "learning_rate", "highest learning rate", type=float)
    group = parser.add_argument_group("machine")
    _add_machine(group, add)
    group.add_argument(
        "--n-jobs",
        metavar="N",
        type=int,
        help="trainings at a time; -1 is one a core, and times are then those of a busy machine "
        "(default: 1)",
    )


def _add_convert(parser: argparse.ArgumentParser) -> None:
    from ..datasets._saving import FORMATS

    parser.add_argument("data", metavar="IN", type=path, help=_ANNOTATED)
    parser.add_argument("output", metavar="OUT", type=path, help="folder to write")
    parser.add_argument(
        "--to",
        dest="format",
        choices=FORMATS,
        required=True,
        help="masks: images/NAME.png and masks/NAME.png; others: images, and outlines of the cells",
    )
    _add_overwrite(parser, "write into a folder that holds files (default: refuse)")


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


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-m",
        "--model",
        metavar="MODEL",
        type=path,
        default=Path(list_models()[0]),
        help="model file of `bloodseg train`, or a name of `bloodseg models` (default: "
        f"{list_models()[0]})",
    )
    _add_prediction(parser)
    parser.add_argument(
        "--processes",
        metavar="N",
        type=processes,
        default=argparse.SUPPRESS,
        help="processes that share the tiles of a large image, and then its blocks of cells, on a "
        "CPU; -1 is one a core (default: 1)",
    )


def _add_prediction(parser: argparse.ArgumentParser) -> None:
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
        help="side of the tiles that large images go through the network in, a multiple of 16; "
        "small ones need little memory, none takes images whole (default: the model's)",
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
        help=f"{_COMPILE} (default: the model's)",
        **choice(_COMPILE_CHOICES),
    )


def _add_excluded_sides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--excluded-sides",
        default=argparse.SUPPRESS,
        help="sides whose cells do not count in the frame that densities are counted in; none "
        "counts all cells, so that small photos show too many (default: bottom,right)",
        **choice(_SIDES),
    )


def _add_overwrite(
    parser: argparse.ArgumentParser, text: str = "replace files that exist (default: refuse)"
) -> None:
    parser.add_argument("--overwrite", action="store_true", help=text)


def _add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress bar")


def _add_strict(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strict",
        action="store_true",
        help="end with exit code 1 where a result is in doubt; it is written all the same",
    )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _metavar(name: str) -> str:
    last = name.split("_")[-1].upper()
    return {"POSITIONS": "LIST", "WEIGHT": "WEIGHTS", "STATE": "N", "JOBS": "N"}.get(last, last)


def _shown(value: Any) -> str:
    """Return a default in the form in which it would be typed."""
    if isinstance(value, tuple):
        return ",".join(map(_shown, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
