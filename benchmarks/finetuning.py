"""What a handful of labelled images adds to the published weights, and what they do without them.

    python -m benchmarks.finetuning FOLDER [--images 2 4 8] [--seeds 0 1 2] [--json FILE]

FOLDER has images/ and masks/ of a laboratory that the weights have not seen. Half of its fields are
scored and never trained on; of the other half, each seed draws as many as each row says. Beside
fine-tuning, a network of the same form learns from the same images from scratch, in as many epochs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.base import clone

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import load_folder
from bloodseg.training import check_groups, split_images

from ._tables import print_heading, print_row
from ._timing import machine, write_json

FROM_SCRATCH = {"pretrained": None, "learning_rate": 2e-3}


def chosen(data, indices):
    return [data.images[i] for i in indices], [data.masks[i] for i in indices]


def trainings(start, data, n_images, seeds, epochs):
    """Yield a row for each number of images, seed and start."""
    groups = check_groups(data.get("groups"), len(data.images))
    pool, scored = split_images(len(data.images), groups, 0.5, seed=0)
    scored = chosen(data, scored)
    yield {
        "start": "as published",
        "images": 0,
        "seed": None,
        "mean IoU": 100 * start.score(*scored),
    }
    for n in n_images:
        for seed in seeds:
            few = np.random.default_rng(seed).choice(pool, size=n, replace=False)
            for name, parameters in (("fine-tuned", {}), ("from scratch", FROM_SCRATCH)):
                segmenter = clone(start).set_params(
                    max_epochs=epochs, random_state=seed, **parameters
                )
                score = 100 * segmenter.fit(*chosen(data, few)).score(*scored)
                yield {"start": name, "images": n, "seed": seed, "mean IoU": score}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="a published model's name (default: the newest)")
    parser.add_argument("--images", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", type=int, help="threads of torch")
    parser.add_argument("--json", help="write the rows there, too")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    data = load_folder(arguments.folder)
    start = BloodCellSegmenter.from_pretrained(arguments.model)
    rows = []
    print_heading(["start", "images", "seed", "mean IoU"])
    for row in trainings(start, data, arguments.images, arguments.seeds, arguments.epochs):
        rows.append(row)
        seed = "" if row["seed"] is None else row["seed"]
        print_row([row["start"], row["images"], seed, f"{row['mean IoU']:.2f}"])
    write_json(arguments.json, machine=machine(torch.device("cpu")), rows=rows)


if __name__ == "__main__":
    main()
