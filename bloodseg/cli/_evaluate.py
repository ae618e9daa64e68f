"""``bloodseg evaluate``."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from .._files import write_json
from .._images import CLASS_NAMES
from ..datasets import Slide, list_pairs, read_pair
from ..datasets._folder import Pair
from ..estimators import BloodCellSegmenter
from ..metrics import confusion_matrix, scores_from_confusion
from ..plotting._pictures import LEGEND, overlay
from ..prediction import Segmented
from ._batch import Batch, list_evaluations, segment_one
from ._model import load_segmenter
from ._output import (
    CommandError,
    complain,
    first_line,
    make_folder,
    refuse_existing,
    reported,
    say,
    write_png,
)
from ._tables import write_csv

METRICS_FILES = ("metrics.json", "metrics.csv")


@dataclass
class Evaluation:
    """Scores of images as they come, pooled and one by one."""

    confusion: np.ndarray = field(
        default_factory=lambda: np.zeros((len(CLASS_NAMES), len(CLASS_NAMES)), np.int64)
    )
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, mask: Any, predicted: Any, seconds: float, **more: Any) -> None:
        """Add the scores of one image."""
        confusion = confusion_matrix([mask], [predicted])
        self.confusion += confusion
        scores = scores_from_confusion(confusion)
        self.rows.append({"image": name, **scores, "seconds": seconds, **more})

    @property
    def scores(self) -> dict[str, float]:
        """Scores over all pixels of all images."""
        return scores_from_confusion(self.confusion)

    @property
    def seconds(self) -> float:
        """Time that the predictions took."""
        return sum(row["seconds"] for row in self.rows)

    def table(self) -> list[str]:
        """Return the lines of the pooled scores in print."""
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
        return [*lines, "", f"{n} image{'s' * (n != 1)}, {self.seconds:.1f} s."]

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
        }
        with reported(folder / "metrics.json"):
            write_json(folder / "metrics.json", report)


def _shown(score: float) -> str:
    return "-" if math.isnan(score) else f"{score:.4f}"


def time_prediction(
    segmenter: BloodCellSegmenter, image: np.ndarray, name: str
) -> tuple[Segmented, dict[str, Any]]:
    """Return what the network says of an image, and what that cost."""
    started = time.perf_counter()
    found = segment_one(segmenter, name_image(image, name))
    seconds = time.perf_counter() - started
    return found, {"seconds": seconds, **list_evaluations(found)}


def run(arguments: argparse.Namespace) -> int:
    """Score a model on a folder; what fails is reported and left out."""
    batch, result = Batch(arguments), Evaluation()
    segmenter = load_segmenter(arguments)
    pairs = list_pairs(arguments.data, on_error=batch.fail)
    overlays = _prepare(arguments, [pair.name for pair in pairs])

    def score(pair: Pair) -> None:
        image, mask = read_pair(pair)
        found, cost = time_prediction(segmenter, image, pair.name)
        batch.judge(found)
        doubts = "; ".join(found.doubts())
        result.add(pair.name, mask, found.class_map[:], **cost, doubts=doubts)
        if overlays:
            _write_overlay(overlays[pair.name], image, found.class_map[:])

    for _ in batch.run(pairs, score, doing="evaluating", name=attrgetter("name")):
        pass
    if not result.rows:
        raise CommandError(f"no image of {arguments.data} could be evaluated.")
    if overlays:
        result.write(
            arguments.output,
            model=str(arguments.model),
            data=str(arguments.data),
            failed=batch.failed,
        )
    say(*result.table())
    if batch.failed:
        say(f"{len(batch.failed)} left out, see the messages.")
    if overlays:
        say(f"Results: {arguments.output} (overlays: {LEGEND})")
    return batch.exit_code


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


def name_image(pixels: np.ndarray, name: str) -> Slide:
    """Return an image in memory as one that messages call by its name."""
    return Slide(lambda top, bottom: pixels[top:bottom], pixels.shape, pixels.dtype, None, name)
