"""Scores of images as they come, in print and as files: of pixels, and of cells where known."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from .._files import write_json
from .._images import CLASS_NAMES, PLATELET, cell_labels, counted, in_words
from ..cells import Cells
from ..datasets import Slide, TrueCells
from ..estimators import BloodCellSegmenter
from ..metrics import (
    as_masks_know,
    confusion_matrix,
    know_platelets,
    overlaps,
    report_of_overlaps,
    scores_from_confusion,
)
from ..prediction import Segmented
from ._batch import Files, list_evaluations, segment_one
from ._tables import write_csv

METRICS_FILES = ("metrics.json", "metrics.csv")


@dataclass(frozen=True)
class ScoredImage:
    """The scores of one image, of which nothing is kept unless all is known.

    Attributes
    ----------
    about : dict of str to object
        Its name, ``image``, and what predicting it took; columns of a table.
    matrix : ndarray of shape (K, K)
        Its confusion matrix.
    cells : CellOverlaps or None
        Its cells, where single ones are known.
    """

    about: dict[str, Any]
    matrix: np.ndarray
    cells: CellOverlaps | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of images, pooled and one by one: of pixels, and of cells where known."""

    images: Sequence[ScoredImage]
    classes: Sequence[str] = CLASS_NAMES

    @cached_property
    def confusion(self) -> np.ndarray:
        """Confusion matrix over all pixels of all images."""
        return np.sum([image.matrix for image in self.images], axis=0)

    @cached_property
    def scores(self) -> dict[str, float]:
        """Scores over all pixels of all images."""
        return self._scores_of(self.confusion, self.confusion)

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """What there is to say of each image."""
        of_set = self.confusion
        return [
            {
                "image": image.about["image"],
                **self._scores_of(image.matrix, of_set),
                **image.about,
            }
            for image in self.images
        ]

    def _scores_of(self, matrix: np.ndarray, of_set: np.ndarray) -> dict[str, float]:
        known = as_masks_know(matrix, self.classes, of_set=of_set)
        return scores_from_confusion(known, classes=self.classes)

    @property
    def cells(self) -> list[CellOverlaps]:
        """The cells of each image; none where single ones are not known."""
        return [image.cells for image in self.images if image.cells is not None]

    @cached_property
    def cell_rows(self) -> list[dict[str, Any]]:
        """Rows of `bloodseg.metrics.cell_report`; none where no cells are known."""
        if not self.cells:
            return []
        report = report_of_overlaps(
            [each.table for each in self.cells], [(each.true, each.found) for each in self.cells]
        )
        return report.to_dict("records")

    @property
    def seconds(self) -> float:
        """Time that the predictions took."""
        return sum(image.about["seconds"] for image in self.images)

    def table(self) -> list[str]:
        """Return the lines of the pooled scores in print."""
        lines = [*self._pixel_lines(), *self._cell_lines()]
        n = len(self.images)
        lines.append(f"{'seconds an image':<36}{self.seconds / n:>12.2f}")
        lines += ["", f"{counted(n, 'image')}, {self.seconds:.1f} s."]
        return [*lines, *self.notes()]

    def notes(self) -> Iterator[str]:
        """Yield which classes the label maps lack, and what that makes of the scores."""
        if not know_platelets(self.confusion, self.classes):
            yield f"No label map holds a {PLATELET}: those found count as background."
        absent = [
            f"{in_words(name)} ({label})"
            for name, label in cell_labels(self.classes).items()
            if name != PLATELET and self.confusion[:, label].any() > self.confusion[label].any()
        ]
        if absent:
            yield (
                f"No label map holds {' or '.join(absent)}: those found count as wrong. If the "
                "maps do not tell all classes apart, the scores say little of the model."
            )

    def _pixel_lines(self) -> Iterator[str]:
        scores = self.scores
        widths = {name: max(12, len(name) + 2) for name in self.classes}
        yield " " * 12 + "".join(f"{name:>{width}}" for name, width in widths.items())
        for title, prefix in (("CPA", "cpa"), ("IoU", "iou")):
            cells = [f"{show_score(scores[f'{prefix}_{name}']):>{widths[name]}}" for name in widths]
            yield f"{title:<12}" + "".join(cells)
        yield ""
        for title, key in (
            ("pixel accuracy (PA)", "pixel_accuracy"),
            ("mean IoU", "mean_iou"),
            ("mean Dice", "mean_dice"),
        ):
            yield f"{title:<36}{show_score(scores[key]):>12}"

    def _cell_lines(self) -> Iterator[str]:
        rows = self.cell_rows
        if not rows:
            return
        of = "boxes" if any(each.boxes for each in self.cells) else "cells"
        yield ""
        shown = {f"cells, IoU of {of} at least 0.5": [row["class"] for row in rows]}
        shown |= {title: [str(row[key]) for row in rows] for title, key in _COUNTED.items()}
        shown |= {
            title: [_with_interval(row, key) for row in rows] for title, key in _RATED.items()
        }
        widths = [2 + max(map(len, column)) for column in zip(*shown.values(), strict=True)]
        for title, cells in shown.items():
            yield f"{title:<36}" + "".join(
                f"{cell:>{max(24, width)}}" for cell, width in zip(cells, widths, strict=True)
            )
        if len(self.images) > 1:
            yield f"in brackets what 95 % of {len(self.images)} images drawn anew give"
        yield ""

    def files(self, folder: Path, **more: Any) -> Files:
        """Return what writes metrics.csv and metrics.json."""
        pooled = {"image": "(pooled)", **self.scores, "seconds": self.seconds}
        report = {
            **more,
            "classes": self.classes,
            "n_images": len(self.images),
            "seconds": self.seconds,
            "scores": self.scores,
            "confusion_matrix": self.confusion.tolist(),
            "cells": self.cell_rows,
            "images": self.rows,
        }
        return {
            folder / "metrics.csv": partial(write_csv, rows=[pooled, *self.rows]),
            folder / "metrics.json": partial(write_json, value=report),
        }


@dataclass(frozen=True)
class CellOverlaps:
    """The cells of one image: how they overlap, and the classes of the true and found ones."""

    table: sparse.csr_array
    true: np.ndarray
    found: np.ndarray
    boxes: bool

    @classmethod
    def of(cls, true: TrueCells, found: Cells) -> CellOverlaps:
        """Compare annotated cells to found ones."""
        is_boxes = true.cells.shape[1] == 4
        return cls(overlaps(true.cells, found.labels), true.classes, found.names, is_boxes)


_COUNTED = {
    "annotated": "true",
    "found": "found",
    "right (true positives)": "tp",
    "wrong (false positives)": "fp",
    "missed (false negatives)": "fn",
}
_RATED = {
    "precision": "precision",
    "recall": "recall",
    "F1": "f1",
    "mean IoU of right ones": "mean_matched_iou",
    "panoptic quality (PQ)": "panoptic_quality",
    "average precision, IoU 0.5 to 0.95": "average_precision",
    "count error an image": "count_error",
    "count bias an image": "count_bias",
}


def _with_interval(row: dict[str, Any], key: str) -> str:
    values = (row[key], row[f"{key}_low"], row[f"{key}_high"])
    if math.isnan(values[0]):
        return "-"
    if math.isnan(values[1]):  # of a single image
        return f"{values[0]:.3f}"
    return "{:.3f} [{:.3f}, {:.3f}]".format(*values)


def show_score(score: float) -> str:
    """Return a score in print; "-" where there is none."""
    return "-" if math.isnan(score) else f"{score:.4f}"


def score_image(
    segmenter: BloodCellSegmenter,
    name: str,
    image: np.ndarray,
    mask: np.ndarray,
    cells: TrueCells | None,
) -> tuple[ScoredImage, Segmented]:
    """Return the scores of what the network says of an image, and that itself."""
    started = time.perf_counter()
    found = segment_one(segmenter, _name_image(image, name))
    seconds = time.perf_counter() - started
    about = {"image": name, "seconds": seconds, **list_evaluations(found)}
    about["doubts"] = "; ".join(found.doubts())
    matrix = confusion_matrix([mask], [found.class_map[:]], n_classes=len(found.classes))
    overlaps = None if cells is None else CellOverlaps.of(cells, found.cells())
    return ScoredImage(about, matrix, overlaps), found


def _name_image(pixels: np.ndarray, name: str) -> Slide:
    """Return an image in memory as one that messages call by its name."""
    return Slide(
        lambda rows, columns: pixels[rows, columns], pixels.shape, pixels.dtype, None, name
    )
