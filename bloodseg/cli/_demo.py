"""``bloodseg demo``."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._progress import track
from ..datasets import make_smears, save_annotated, true_cells_of
from ..estimators import BloodCellSegmenter
from ..metrics import mean_iou
from ..models import list_models
from ..plotting import coloured, overlay_of, sheet
from ..prediction import Segmented
from ._evaluation import METRICS_FILES, Evaluation, ScoredImage, score_image
from ._output import complain, make_folder, refuse_existing, refuse_filled, reported, say, write_png
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
    """Draw smears, show what the published weights make of them, and train a network beside."""
    folder = arguments.output
    files = [folder / name for name in ("overview.png", "model.safetensors", *METRICS_FILES)]
    refuse_existing(files, overwrite=arguments.overwrite)
    refuse_filled(folder / "smears", overwrite=arguments.overwrite)
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
    shown = f"{size.n_test} smears not trained on"
    published = BloodCellSegmenter.from_pretrained()
    at_once, found_at_once = _evaluate(published, test, quiet=arguments.quiet)
    say(f"The published weights, {list_models()[0]}, on {shown}:", "", *at_once.table())
    if not arguments.quick:
        complain("training a small NODEs-UNet on drawn smears; this takes 1 to 2 minutes.")
    segmenter = _make_segmenter(arguments, size)
    seconds = fit(segmenter, train.images, train.masks)
    with reported(folder / "model.safetensors"):
        save(segmenter, folder / "model.safetensors")
    result, found = _evaluate(segmenter, test, quiet=arguments.quiet)
    published_scores = {
        "model": list_models()[0],
        "scores": at_once.scores,
        "cells": at_once.cell_rows,
    }
    metrics = result.files(folder, data=f"{size.n_test} drawn smears", published=published_scores)
    for path, write in metrics.items():
        with reported(path):
            write(path)
    with reported(folder / "smears"):
        for smears, name in ((train, "train"), (test, "test")):
            save_annotated(smears, folder / "smears" / name, "masks")
    with reported(folder / "overview.png"):
        write_png(folder / "overview.png", _overview(test, found_at_once, found))
    say("", f"Trained here: {summary(segmenter, seconds)} On the same smears:", "")
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
) -> tuple[Evaluation, list[Segmented]]:
    scores: list[ScoredImage] = []
    predictions: list[Segmented] = []
    pairs = list(zip(smears.images, smears.masks, smears.instances, strict=True))
    for image, mask, instances in track(pairs, label="evaluating", unit="image", shown=not quiet):
        name = f"smear {len(predictions) + 1}"
        cells = true_cells_of(instances, mask, segmenter.class_names_)
        scored, found = score_image(segmenter, name, image, mask, cells)
        scores.append(scored)
        predictions.append(found)
    return Evaluation(scores), predictions


def _overview(
    smears: Any, at_once: Sequence[Segmented], trained: Sequence[Segmented]
) -> np.ndarray:
    smears_and_found = zip(smears.images, smears.masks, at_once, trained, strict=True)
    shown = list(itertools.islice(smears_and_found, _N_SHOWN))
    return sheet(
        [
            (
                image,
                coloured(mask),
                overlay_of(first, image),
                coloured(first.class_map[:]),
                coloured(second.class_map[:]),
            )
            for image, mask, first, second in shown
        ],
        titles=("Image", "Truth", "Published weights", "the same", "Trained here"),
        captions=[
            f"mean IoU {_score(mask, first)} and {_score(mask, second)}"
            for _, mask, first, second in shown
        ],
        heading="Red and white cells, told apart",
        subheading="bloodseg demo: drawn smears that no network was trained on",
    )


def _score(mask: np.ndarray, found: Segmented) -> str:
    return f"{mean_iou([mask], [found.class_map[:]]):.3f}"


def _where_to_look(folder: Path) -> tuple[str, ...]:
    return (
        "",
        f"Look at {folder / 'overview.png'}. The numbers of both are in {folder / 'metrics.json'}, "
        f"those of the model trained here in {folder / 'metrics.csv'}, too.",
        f"Try the published weights: bloodseg report {folder / 'smears/test/images'} --open",
        f"Try the model trained here: the same with -m {folder / 'model.safetensors'}. Images of "
        "your own go in the place of these.",
    )
