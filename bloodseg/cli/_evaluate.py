"""``bloodseg evaluate``."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .._files import write_json
from .._images import CLASS_NAMES
from ..datasets import list_pairs, read_pair
from ..estimators import BloodCellSegmenter
from ..metrics import confusion_matrix, scores_from_confusion
from ..plotting._pictures import LEGEND, overlay
from ._model import INPUT_ERRORS, list_evaluations, load_model, name_image, segment_one
from ._output import (
    CommandError,
    complain,
    first_line,
    make_folder,
    progress,
    refuse_existing,
    reported,
    say,
    write_csv,
    write_png,
)

METRICS_FILES = ("metrics.json", "metrics.csv")


@dataclass
class Evaluation:
    """Scores of images as they come, pooled and one by one."""

    confusion: np.ndarray = field(
        default_factory=lambda: np.zeros((len(CLASS_NAMES), len(CLASS_NAMES)), np.int64)
    )
    rows: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, mask: Any, predicted: Any, seconds: float, **more: Any) -> None:
        """Add the scores of one image."""
        confusion = confusion_matrix([mask], [predicted])
        self.confusion += confusion
        scores = scores_from_confusion(confusion)
        self.rows.append({"image": name, **scores, "seconds": seconds, **more})

    def fail(self, name: str, error: Exception) -> None:
        """Report an image that cannot be scored."""
        self.failed[name] = first_line(error)
        complain(f"{name} skipped: {self.failed[name]}")

    @property
    def scores(self) -> dict[str, float]:
        """Scores over all pixels of all images."""
        return scores_from_confusion(self.confusion)

    @property
    def seconds(self) -> float:
        """Time that the predictions took."""
        return sum(row["seconds"] for row in self.rows)

    def table(self) -> str:
        """Return the pooled scores in print."""
        scores = self.scores
        lines = ["".join(f"{text:>12}" for text in ("", *CLASS_NAMES))]
        for title, prefix in (("CPA", "cpa"), ("IoU", "iou")):
            cells = (_shown(scores[f"{prefix}_{name}"]) for name in CLASS_NAMES)
            lines.append(f"{title:<12}" + "".join(f"{cell:>12}" for cell in cells))
        lines.append("")
        for title, key in (
            ("pixel accuracy (PA)", "pixel_accuracy"),
            ("mean IoU", "mean_iou"),
            ("mean Dice", "mean_dice"),
        ):
            lines.append(f"{title:<36}{_shown(scores[key]):>12}")
        n = len(self.rows)
        lines.append(f"{'seconds an image':<36}{self.seconds / n:>12.2f}")
        lines.append(f"\n{n} image{'s' * (n != 1)}, {self.seconds:.1f} s.")
        return "\n".join(lines)

    def write(self, folder: Path, **more: Any) -> None:
        """Write metrics.json and metrics.csv."""
        pooled = {"image": "(pooled)", **self.scores, "seconds": self.seconds}
        with reported(folder / "metrics.csv"):
            write_csv(folder / "metrics.csv", [pooled, *self.rows])
        report = {
            **more,
            "classes": CLASS_NAMES,
            "n_images": len(self.rows),
            "seconds": self.seconds,
            "scores": self.scores,
            "confusion_matrix": self.confusion.tolist(),
            "images": self.rows,
            "failed": self.failed,
        }
        with reported(folder / "metrics.json"):
            write_json(folder / "metrics.json", report)


def _shown(score: float) -> str:
    return "-" if math.isnan(score) else f"{score:.4f}"


def timed_prediction(
    segmenter: BloodCellSegmenter, image: np.ndarray, name: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the label map of an image, and what it cost."""
    started = time.perf_counter()
    found = segment_one(segmenter, name_image(image, name))
    seconds = time.perf_counter() - started
    return found.class_map[:], {"seconds": seconds, **list_evaluations(found)}


def run(arguments: argparse.Namespace) -> int:
    """Score a model on a folder; what fails is reported and left out."""
    result = Evaluation()
    segmenter = load_model(arguments)
    try:
        pairs = list_pairs(arguments.data, on_error=result.fail)
    except OSError as error:
        raise CommandError(str(error)) from error
    overlays = _prepare(arguments, [pair.name for pair in pairs])
    for pair in progress(pairs, label="evaluating", quiet=arguments.quiet):
        try:
            image, mask = read_pair(pair)
            predicted, cost = timed_prediction(segmenter, image, pair.name)
            result.add(pair.name, mask, predicted, **cost)
        except INPUT_ERRORS as error:
            result.fail(pair.name, error)
        else:
            if overlays:
                _write_overlay(overlays[pair.name], image, predicted)
    if not result.rows:
        raise CommandError(f"no image of {arguments.data} could be evaluated.")
    if overlays:
        result.write(arguments.output, model=str(arguments.model), data=str(arguments.data))
    say(result.table())
    if result.failed:
        say(f"{len(result.failed)} left out, see the messages.")
    if overlays:
        say(f"Results: {arguments.output} (overlays: {LEGEND})")
    return 1 if result.failed else 0


def _prepare(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, Path]:
    """Make the output folders and return the overlay file of each image; none without -o."""
    if arguments.output is None:
        return {}
    folder = arguments.output / "overlays"
    overlays = {name: folder / f"{name}_overlay.png" for name in names}
    tables = [arguments.output / name for name in METRICS_FILES]
    refuse_existing([*tables, *overlays.values()], overwrite=arguments.overwrite)
    make_folder(arguments.output)
    make_folder(folder)
    return overlays


def _write_overlay(path: Path, image: np.ndarray, predicted: np.ndarray) -> None:
    try:
        write_png(path, overlay(image, predicted))
    except (OSError, MemoryError) as error:  # the scores do not depend on it
        complain(f"{path} not written: {first_line(error)}")
