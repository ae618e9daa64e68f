"""Count cells in two ways on BCCD's boxes: straight from the images, and by segmenting first.

    python -m benchmarks.counting BCCD_DIR [--model smears-1] [--pretrained smears-1 --scale 0.35]

BCCD_DIR is a folder for `load_voc` with a split.csv. The counter is trained on the folds of
--folds, a quarter of whose groups choose the epoch; the fold of --report is used once, for the
numbers that are printed. Many cells of BCCD have no box, most of all in clumps, and a few images
have no box around any red cell: errors are given with these images and without, and of the
segmenter's counts a line to the boxes of the other folds is fitted, too.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LinearRegression

from bloodseg import BloodCellCounter, BloodCellSegmenter
from bloodseg.counter import shrunk
from bloodseg.datasets import load_voc
from bloodseg.models import model_file

OF_MODEL = ("preprocessor", "network", "width", "ode_positions")
QUICK = {"width": 2, "max_epochs": 1, "ode_tol": 1e-1}


def trained_counter(data, arguments):
    chosen = np.flatnonzero(np.isin(data.fold, arguments.folds))
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
    return counter.fit(
        [data.images[i] for i in chosen], data.counts[chosen], groups=data.groups[chosen]
    )


def segmented_counts(segmenter, images, scale):
    table = segmenter.count([shrunk(image, scale) for image in images])
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
    print("| counted by | " + " | ".join(columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{row[column]:.3f}" for column in columns) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
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

    data = load_voc(arguments.folder)
    start = time.process_time()
    counter = trained_counter(data, arguments)
    result = {"training cpu seconds": time.process_time() - start, "history": counter.history_}
    if arguments.save:
        counter.save(arguments.save)
    known = data.counts[np.isin(data.fold, arguments.folds)]
    reported = np.flatnonzero(data.fold == arguments.report)
    images = [data.images[i] for i in reported]
    answers = {
        "the mean of training": known.mean(axis=0),
        "the median of training": np.median(known, axis=0),
        "BloodCellCounter": counter.predict(images),
    }
    if arguments.model:
        segmenter = BloodCellSegmenter.load(arguments.model)
        found = segmented_counts(segmenter, images, arguments.model_scale)
        answers["segmenting first"] = found
        others = [data.images[i] for i in np.flatnonzero(np.isin(data.fold, arguments.folds))]
        line = LinearRegression()
        line.fit(segmented_counts(segmenter, others, arguments.model_scale), known)
        answers["segmenting first, and a line from there to the boxes"] = line.predict(found)
    result["errors"] = errors_of(answers, data.counts[reported])
    result["best epoch"] = counter.best_epoch_
    print_table(result["errors"], len(images))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
