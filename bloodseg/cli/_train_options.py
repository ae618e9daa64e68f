"""Options of ``bloodseg train``."""

from __future__ import annotations

import argparse

from ..estimators import BloodCellCounter
from ..networks import NETWORKS
from ..ode import GRADIENTS, METHODS
from ..preprocessing import Preprocessor
from ._options import ANNOTATED, MODEL, add_overwrite, add_quiet
from ._parameter_options import add_machine, add_parameter, default_of, shown
from ._values import (
    batch_size,
    choice,
    class_weights,
    classes,
    diameter,
    or_none,
    path,
    positions,
    tolerances,
)


def add_train(parser: argparse.ArgumentParser) -> None:
    """Add data, output, and the parameters of the estimators."""
    parser.add_argument(
        "data",
        metavar="DIR",
        type=path,
        help=f"{ANNOTATED}; and perhaps groups.csv (image,group), whose groups the validation "
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
    add_overwrite(parser)
    add_quiet(parser)
    _add_network(parser)
    _add_ode_blocks(parser)
    _add_training(parser)
    _add_preprocessing(parser)
    _add_machine(parser)


def _add_network(parser: argparse.ArgumentParser) -> None:
    scale = shown(default_of(BloodCellCounter, "scale"))
    group = parser.add_argument_group("network")
    add_parameter(group, "network", "the network", choices=sorted(NETWORKS))
    add_parameter(group, "width", "channels of the first stage", type=int)
    add_parameter(group, "dropout", "probability of dropout", type=float)
    add_parameter(
        group,
        "pretrained",
        f"{MODEL}, whose weights training starts from; options that are not given are then those "
        "of this model",
        type=path,
        metavar="MODEL",
    )
    add_parameter(
        group,
        "classes",
        'what the labels 0, 1, ... stand for, background first: "background,white,red,platelet", '
        "or names of your own",
        type=classes,
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
        help="with --counts: images are shrunk to this share of their height and width first "
        f"(default: {scale})",
    )


def _add_ode_blocks(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("ODE-blocks")
    add_parameter(
        group,
        "ode_positions",
        'which of the nine stages are ODE-blocks, such as "4,5,6"; "none" makes a U-Net',
        type=positions,
    )
    add_parameter(
        group,
        "ode_tol",
        'tolerance of the solver in training: a number, "4=1e-2,5=1e-3,6=1e-2" or "paper"',
        type=tolerances,
    )
    add_parameter(
        group, "predict_ode_tol", "the same for prediction; none: as in training", type=tolerances
    )
    add_parameter(group, "ode_method", "Runge-Kutta method", choices=["auto", *METHODS])
    add_parameter(
        group,
        "ode_n_steps",
        "steps of the fixed-step methods euler, midpoint and rk4; none takes 4",
        type=int,
    )
    add_parameter(group, "ode_gradient", "how gradients pass the solver", choices=sorted(GRADIENTS))
    add_parameter(
        group,
        "ode_regularization",
        "how much training counts dynamics that one step of the solver cannot carry; try 0.01",
        type=float,
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    add_parameter(group, "max_epochs", "epochs", type=int)
    add_parameter(group, "batch_size", "crops a training step", type=batch_size)
    add_parameter(group, "learning_rate", "highest learning rate", type=float)
    add_parameter(group, "crop_size", "side of the training crops in pixels", type=int)
    add_parameter(
        group,
        "red_cell_diameter",
        "diameter of the red cells in pixels, or auto to measure it: images are rescaled, and the "
        "model works at any magnification",
        type=or_none(diameter),
        metavar="auto|PIXELS",
    )
    add_parameter(
        group,
        "augment",
        "turn the crops and vary their colours; strong: as far as laboratories differ, and blurred "
        "and noisy, too",
        **choice({"yes": True, "no": False, "strong": "strong"}),
    )
    add_parameter(
        group,
        "keep_statistics",
        "with --pretrained: normalise by the statistics of that model, not by those of the "
        "batches; best for a few images and a low learning rate, and always done with published "
        "models",
        action="store_true",
    )
    add_parameter(
        group,
        "loss",
        'training loss, "cross_entropy" or "cross_entropy+dice"; with --counts "huber", '
        '"squared_error" or "poisson"',
        type=str,
    )
    add_parameter(
        group,
        "class_weight",
        'weights of the classes: "balanced", "1,3,1" or "white=3"',
        type=class_weights,
    )
    add_parameter(
        group,
        "validation_fraction",
        'share of images (or groups) that choose the best epoch; "none" trains on all',
        type=or_none(float),
    )
    add_parameter(
        group,
        "early_stopping",
        "stop after --patience epochs without a lower validation loss",
        action="store_true",
    )
    add_parameter(group, "patience", "epochs, with --early-stopping", type=int)
    add_parameter(
        group,
        "checkpoint_dir",
        "folder for checkpoints; the same command then goes on where it was broken off",
        type=path,
    )
    add_parameter(group, "random_state", "seed, for results that can be had again", type=int)


def _add_preprocessing(parser: argparse.ArgumentParser) -> None:
    limit = shown(default_of(Preprocessor, "clip_limit"))
    group = parser.add_argument_group("preprocessing").add_mutually_exclusive_group()
    group.add_argument(
        "--clip-limit",
        metavar="NUMBER",
        type=float,
        help=f"contrast limit of the enhancement by CLAHE (default: {limit})",
    )
    group.add_argument(
        "--no-preprocessor", action="store_true", help="give the images to the network as they are"
    )


def _add_machine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("machine")
    add_machine(group)
    add_parameter(
        group, "n_jobs", "threads that preprocess images; none is 1, -1 all cores", type=int
    )
    group.add_argument(
        "--accelerator",
        action="store_true",
        default=argparse.SUPPRESS,
        help="train through Hugging Face Accelerate, which sees to devices and precision. Several "
        "processes that `torchrun --nproc-per-node N -m bloodseg train` starts train one model so, "
        "with or without this option",
    )
