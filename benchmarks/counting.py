"""Count cells in two ways on boxes: straight from the images, and by segmenting first.

    python -m benchmarks.counting BCCD_DIR [--model smears-5] [--pretrained smears-5 --scale 0.35]
    python -m benchmarks.counting TRAIN --test TEST [--model smears-5] [--scale 0.5]

BCCD_DIR is a folder for `load_voc` with a split.csv. The counter is trained on the folds of
--folds, a quarter of whose groups choose the epoch; the fold of --report is used once, for the
numbers that are printed. Many cells of BCCD have no box, most of all in clumps, and a few images
have no box around any red cell: errors are given with these images and without, and of the
segmenter's counts a line to the boxes of the other folds is fitted, too. TRAIN and TEST have
images/, masks/ and boxes.csv (image,class,...; classes rbc and wbc).
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LinearRegression

from bloodseg import BloodCellCounter, BloodCellSegmenter
from bloodseg._images import shrink
from bloodseg.datasets import load_folder, load_voc
from bloodseg.models import model_file

from ._tables import print_heading, print_row
from ._timing import write_json

OF_MODEL = ("preprocessor", "network", "width", "ode_positions")
QUICK = {"width": 2, "max_epochs": 1, "ode_tol": 1e-1}


@dataclass(frozen=True)
class Counted:
    """Images, their numbers of white and red cells, and which belong together."""

    images: list
    counts: np.ndarray
    groups: np.ndarray | None

    @classmethod
    def of_folds(cls, data, folds):
        chosen = np.flatnonzero(np.isin(data.fold, folds))
        return cls([data.images[i] for i in chosen], data.counts[chosen], data.groups[chosen])

    @classmethod
    def of_folder(cls, folder):
        data = load_folder(folder)
        boxes = pd.read_csv(folder / "boxes.csv", dtype={"image": str})
        counts = pd.crosstab(boxes["image"], boxes["class"])
        counts = counts.reindex(index=data.names, columns=["wbc", "rbc"], fill_value=0)
        return cls(data.images, counts.to_numpy(), data.get("groups"))


def trained_counter(data, arguments):
    network = {"network": arguments.network, "width": arguments.width}
    if arguments.pretrained:
        of_model = BloodCellSegmenter.load(arguments.pretrained).get_params()
        network = {name: of_model[name] for name in OF_MODEL}
    counter = BloodCellCounter(
        **network,
        pretrained=arguments.pretrained,
        scale=arguments.scale,
        ode_tol=arguments.ode_tol,
        learning_rate=arguments.learning_rate,
        max_epochs=arguments.max_epochs,
        checkpoint_dir=arguments.checkpoint_dir,
        random_state=arguments.seed,
        verbose=1,
    )
    return counter.fit(data.images, data.counts, groups=data.groups)


def segmented_counts(segmenter, images, scale):
    table = segmenter.count([shrink(image, scale) for image in images])
    return table[["white", "red"]].to_numpy()


def errors_of(answers, counts):
    """Return the mean absolute errors of each answer, and of those images that have red boxes."""
    boxed = counts[:, 1] > 0
    rows = {}
    for name, answer in answers.items():
        error = np.abs(answer - counts)
        rows[name] = {
            "white": error[:, 0].mean(),
            "red": error[:, 1].mean(),
            "red, images with red boxes": error[boxed, 1].mean(),
        }
    return rows


def print_table(rows, n_images):
    columns = list(next(iter(rows.values())))
    print(f"Mean absolute errors over {n_images} images:\n")
    print_heading(["counted by", *columns])
    for name, row in rows.items():
        print_row([name, *(f"{row[column]:.3f}" for column in columns)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--test", type=Path, help="folder to report on, in place of a fold")
    parser.add_argument("--folds", nargs="+", type=int, default=(1, 2, 3, 4))
    parser.add_argument("--report", type=int, default=0)
    parser.add_argument("--model", type=model_file, help="segmenter that segments and then counts")
    parser.add_argument(
        "--model-scale", type=float, default=1.0, help="shrinks images for --model by this"
    )
    parser.add_argument(
        "--pretrained",
        type=model_file,
        help="model that the counter starts from, its preprocessor and network's width included",
    )
    parser.add_argument("--network", default="nodes-unet")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--scale", type=float, default=0.25)
    parser.add_argument("--ode-tol", type=float, default=1e-2)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--max-epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--checkpoint-dir", type=Path)
    parser.add_argument("--save", type=Path, help="file for the counter")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--quick", action="store_true", help="only see whether it runs")
    arguments = parser.parse_args()
    if arguments.report in arguments.folds:
        parser.error(f"--report {arguments.report} is one of --folds: it must not be trained on.")
    if arguments.quick:
        vars(arguments).update(QUICK)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    if arguments.test:
        training, reported = map(Counted.of_folder, (arguments.folder, arguments.test))
    else:
        data = load_voc(arguments.folder)
        training = Counted.of_folds(data, arguments.folds)
        reported = Counted.of_folds(data, [arguments.report])
    start = time.process_time()
    counter = trained_counter(training, arguments)
    result = {"training cpu seconds": time.process_time() - start, "history": counter.history_}
    if arguments.save:
        counter.save(arguments.save)
    answers = {
        "the mean of training": training.counts.mean(axis=0),
        "the median of training": np.median(training.counts, axis=0),
        "BloodCellCounter": counter.predict(reported.images),
    }
    if arguments.model:
        segmenter = BloodCellSegmenter.load(arguments.model)
        found = segmented_counts(segmenter, reported.images, arguments.model_scale)
        answers["segmenting first"] = found
        line = LinearRegression()
        others = segmented_counts(segmenter, training.images, arguments.model_scale)
        line.fit(others, training.counts)
        answers["segmenting first, and a line from there to the boxes"] = line.predict(found)
    result["errors"] = errors_of(answers, reported.counts)
    result["best epoch"] = counter.best_epoch_
    print_table(result["errors"], len(reported.images))
    write_json(arguments.json, **result)


if __name__ == "__main__":
    main()
