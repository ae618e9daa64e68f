"""``bloodseg evaluate``."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._files import write_json
from .._images import CLASS_NAMES, PLATELET
from ..datasets import Slide, list_pairs, load_annotated, read_pair
from ..estimators import BloodCellSegmenter
from ..metrics import as_masks_know, confusion_matrix, know_platelets, scores_from_confusion
from ..plotting._pictures import legend, overlay
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

    classes: Sequence[str] = CLASS_NAMES
    matrices: list[np.ndarray] = field(default_factory=list)
    about: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, mask: Any, predicted: Any, seconds: float, **more: Any) -> None:
        """Add one image."""
        self.matrices.append(confusion_matrix([mask], [predicted], n_classes=len(self.classes)))
        self.about.append({"image": name, "seconds": seconds, **more})

    @property
    def confusion(self) -> np.ndarray:
        """Confusion matrix over all pixels of all images."""
        return np.sum(self.matrices, axis=0)

    @property
    def scores(self) -> dict[str, float]:
        """Scores over all pixels of all images."""
        return self._scores_of(self.confusion)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What there is to say of each image."""
        return [
            {"image": about["image"], **self._scores_of(matrix), **about}
            for matrix, about in zip(self.matrices, self.about, strict=True)
        ]

    def _scores_of(self, matrix: np.ndarray) -> dict[str, float]:
        known = as_masks_know(matrix, self.classes, of_set=self.confusion)
        return scores_from_confusion(known, classes=self.classes)

    @property
    def seconds(self) -> float:
        """Time that the predictions took."""
        return sum(about["seconds"] for about in self.about)

    def table(self) -> list[str]:
        """Return the lines of the pooled scores in print."""
        scores = self.scores
        widths = {name: max(12, len(name) + 2) for name in self.classes}
        lines = [" " * 12 + "".join(f"{name:>{width}}" for name, width in widths.items())]
        for title, prefix in (("CPA", "cpa"), ("IoU", "iou")):
            cells = [f"{_shown(scores[f'{prefix}_{name}']):>{widths[name]}}" for name in widths]
            lines.append(f"{title:<12}" + "".join(cells))
        lines.append("")
        for title, key in (
            ("pixel accuracy (PA)", "pixel_accuracy"),
            ("mean IoU", "mean_iou"),
            ("mean Dice", "mean_dice"),
        ):
            lines.append(f"{title:<36}{_shown(scores[key]):>12}")
        n = len(self.about)
        lines.append(f"{'seconds an image':<36}{self.seconds / n:>12.2f}")
        lines += ["", f"{n} image{'s' * (n != 1)}, {self.seconds:.1f} s."]
        if not know_platelets(self.confusion, self.classes):
            lines.append(f"No label map holds a {PLATELET}: those found count as background.")
        return lines

    def write(self, folder: Path, **more: Any) -> None:
        """Write metrics.json and metrics.csv."""
        pooled = {"image": "(pooled)", **self.scores, "seconds": self.seconds}
        with reported(folder / "metrics.csv"):
            write_csv(folder / "metrics.csv", [pooled, *self.rows])
        report = {
            **more,
            "classes": self.classes,
            "n_images": len(self.about),
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
    batch = Batch(arguments)
    segmenter = load_segmenter(arguments)
    classes = segmenter.class_names_
    result = Evaluation(classes)
    pairs = _list_annotated(arguments.data, batch, classes)
    overlays = _prepare(arguments, [pair.name for pair in pairs])

    def score(pair: Annotated) -> None:
        image, mask = pair.read()
        found, cost = time_prediction(segmenter, image, pair.name)
        batch.judge(found)
        doubts = "; ".join(found.doubts())
        result.add(pair.name, mask, found.class_map[:], **cost, doubts=doubts)
        if overlays:
            _write_overlay(overlays[pair.name], image, found)

    for _ in batch.run(pairs, score, doing="evaluating", name=attrgetter("name")):
        pass
    if not result.about:
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
        say(f"Results: {arguments.output} (overlays: {legend(classes)})")
    return batch.exit_code


class Annotated(NamedTuple):
    """The name of an annotated image, and what reads it and its label map."""

    name: str
    read: Callable[[], tuple[np.ndarray, np.ndarray]]


def _list_annotated(folder: Path, batch: Batch, classes: Sequence[str]) -> list[Annotated]:
    """Return the annotated images of a folder: of one with label maps, read one by one."""
    if (folder / "masks").is_dir():
        pairs = list_pairs(folder, on_error=batch.fail)
        return [Annotated(pair.name, partial(read_pair, pair, classes=classes)) for pair in pairs]
    try:
        data = load_annotated(folder, classes=classes)
    except (OSError, ValueError) as error:
        raise CommandError(first_line(error)) from error
    each = zip(data.names, zip(data.images, data.masks, strict=True), strict=True)
    return [Annotated(name, partial(tuple, loaded)) for name, loaded in each]


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


def _write_overlay(path: Path, image: np.ndarray, found: Segmented) -> None:
    try:
        write_png(path, overlay(image, found.class_map[:], classes=found.classes))
    except (OSError, MemoryError) as error:  # the scores do not depend on it
        complain(f"{path} not written: {first_line(error)}")


def name_image(pixels: np.ndarray, name: str) -> Slide:
    """Return an image in memory as one that messages call by its name."""
    return Slide(lambda top, bottom: pixels[top:bottom], pixels.shape, pixels.dtype, None, name)
