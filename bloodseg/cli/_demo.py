"""``bloodseg demo``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cells import find_cells
from ..datasets import make_smears
from ..estimators import BloodCellSegmenter
from ..metrics import mean_iou
from ..plotting._pictures import coloured, overlay, sheet
from ..preprocessing import Preprocessor
from ._evaluate import METRICS_FILES, Evaluation, time_prediction
from ._output import complain, make_folder, progress, refuse_existing, reported, say, write_png
from ._train import ended_early, fit, save, summary

_N_SHOWN = 4


@dataclass(frozen=True)
class _Size:
    """How much is drawn and trained."""

    n_train: int
    n_test: int
    side: int
    cell: int  # mean diameter of red cells
    width: int
    max_epochs: int
    crop_size: int


# Cells of little more than half the usual size let small crops hold several of them: on two cores
# the training takes one to two minutes.
_FULL = _Size(n_train=20, n_test=8, side=192, cell=24, width=8, max_epochs=16, crop_size=64)
_QUICK = _Size(n_train=4, n_test=_N_SHOWN, side=64, cell=16, width=4, max_epochs=2, crop_size=32)
_BATCH_SIZE = 4

# Looser than the default: on drawn smears the blocks grow steep early, and a training at 1e-3 takes
# minutes more for the same picture.
_ODE_TOL = 1e-2


def run(arguments: argparse.Namespace) -> int:
    """Draw smears, train, evaluate, and draw what came out."""
    folder = arguments.output
    files = [folder / name for name in ("overview.png", "model.safetensors", *METRICS_FILES)]
    refuse_existing(files, overwrite=arguments.overwrite)
    make_folder(folder)
    size = _QUICK if arguments.quick else _FULL
    # Seeds apart, so that no smear of the test is one of the training.
    seeds = np.random.RandomState(arguments.random_state).randint(2**31 - 1, size=2)
    train, test = (
        make_smears(
            n,
            image_size=size.side,
            red_cell_diameter=size.cell,
            white_cells=(1, 2),
            random_state=int(seed),
        )
        for n, seed in zip((size.n_train, size.n_test), seeds, strict=True)
    )
    if not arguments.quick:
        complain("training a small NODEs-UNet on drawn smears; this takes 1 to 2 minutes.")
    segmenter = _make_segmenter(arguments, size)
    seconds = fit(segmenter, train.images, train.masks)
    save(segmenter, folder / "model.safetensors")
    result, predictions = _evaluate(segmenter, test, quiet=arguments.quiet)
    result.write(folder, data=f"{size.n_test} drawn smears")
    with reported(folder / "overview.png"):
        write_png(folder / "overview.png", _overview(test, predictions))
    say(f"{summary(segmenter, seconds)} On {size.n_test} smears not trained on:", "")
    say(*result.table())
    say(*_where_to_look(folder))
    return 1 if ended_early(segmenter) else 0


def _make_segmenter(arguments: argparse.Namespace, size: _Size) -> BloodCellSegmenter:
    return BloodCellSegmenter(
        width=size.width,
        max_epochs=size.max_epochs,
        crop_size=size.crop_size,
        batch_size=_BATCH_SIZE,
        ode_positions=(5,),
        ode_tol=_ODE_TOL,
        random_state=arguments.random_state,
        verbose=int(not arguments.quiet),
    )


def _evaluate(
    segmenter: BloodCellSegmenter, smears: Any, *, quiet: bool
) -> tuple[Evaluation, list[np.ndarray]]:
    result = Evaluation()
    predictions: list[np.ndarray] = []
    pairs = list(zip(smears.images, smears.masks, strict=True))
    for image, mask in progress(pairs, label="evaluating", quiet=quiet):
        name = f"smear {len(predictions) + 1}"
        found, cost = time_prediction(segmenter, image, name)
        result.add(name, mask, found.class_map[:], **cost)
        predictions.append(found.class_map[:])
    return result, predictions


def _overview(smears: Any, predictions: list[np.ndarray]) -> np.ndarray:
    chosen = range(_N_SHOWN)
    enhanced = Preprocessor().transform(smears.images[:_N_SHOWN])
    return sheet(
        [
            (
                smears.images[i],
                enhanced[i],
                coloured(smears.masks[i]),
                coloured(predictions[i]),
                overlay(smears.images[i], predictions[i], find_cells(predictions[i]).labels),
            )
            for i in chosen
        ],
        titles=("Image", "Preprocessed", "Truth", "Prediction", "Prediction on the image"),
        captions=[f"mean IoU {mean_iou([smears.masks[i]], [predictions[i]]):.3f}" for i in chosen],
        heading="Red and white cells, told apart",
        subheading="bloodseg demo: drawn smears that the network was not trained on",
    )


def _where_to_look(folder: Path) -> tuple[str, ...]:
    return (
        "",
        f"Look at {folder / 'overview.png'}; the numbers are in {folder / 'metrics.csv'}.",
        f"Try the model: bloodseg predict IMAGE -m {folder / 'model.safetensors'} -o results",
    )
