"""What eight fields add to the published weights where platelets have labels.

    python -m benchmarks.platelets DATA/bccd [--seeds 0 1]

A model that also knows platelets starts from the weights, and learns from eight drawn smears of 128
x 128 pixels, or from as many crops of BCCD's folds 1 and 2 with a platelet in each. It is scored on
64 other drawn smears, and on 12 whole fields of folds 3 and 4 against labels by boxes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import load_voc, make_smears, masks_from_boxes
from bloodseg.metrics import confusion_matrix

from ._laboratories import DIAMETER, rescaled

NAMES = ("background", "white", "red", "platelet")
SIDE = 128


def drawn(n_smears, seed):
    smears = make_smears(
        n_smears, SIDE, red_cell_diameter=DIAMETER, platelets="label", random_state=seed
    )
    return list(smears.images), list(smears.masks)


def labelled_by_boxes(bccd, folds, n_fields, side, seed):
    """Return fields at the ruler's size; with a side, crops around platelets."""
    rng = np.random.default_rng(seed)
    images, masks = [], []
    for index in rng.permutation(np.flatnonzero(np.isin(bccd.fold, folds))):
        image = np.asarray(bccd.images[index])
        boxes = masks_from_boxes([image], [bccd.boxes[index]], [bccd.labels[index]], classes=NAMES)
        pair = rescaled(image, boxes[0])
        if pair is None:
            continue
        image, mask = pair
        if side is not None:
            rows, columns = np.nonzero(mask == NAMES.index("platelet"))
            if len(rows) == 0:
                continue
            place = rng.integers(len(rows))
            top = int(np.clip(rows[place] - rng.integers(side), 0, mask.shape[0] - side))
            left = int(np.clip(columns[place] - rng.integers(side), 0, mask.shape[1] - side))
            image, mask = (each[top : top + side, left : left + side] for each in pair)
        images.append(image)
        masks.append(mask.astype(np.uint8))
        if len(images) == n_fields:
            break
    return images, masks


def main() -> None:
    """Print IoU of each class, and the share of platelets' pixels that are found, in per cent."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bccd", type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    given = parser.parse_args()
    torch.set_num_threads(1)
    bccd = load_voc(given.bccd, classes=NAMES)
    for seed in given.seeds:
        sets = {
            "drawn": (drawn(8, 0), drawn(64, 100)),
            "bccd": (
                labelled_by_boxes(bccd, (1, 2), 8, SIDE, seed),
                labelled_by_boxes(bccd, (3, 4), 12, None, 0),
            ),
        }
        for name, (taught, scored) in sets.items():
            segmenter = BloodCellSegmenter.from_pretrained(
                classes=NAMES,
                class_weight={"platelet": 10},
                red_cell_diameter=DIAMETER,
                max_epochs=20,
                batch_size=2,
                ode_regularization=0,
                random_state=seed,
            ).fit(*taught)
            matrix = confusion_matrix(scored[1], segmenter.predict(scored[0]), n_classes=4)
            common = matrix.diagonal()
            iou = 100 * common / (matrix.sum(axis=0) + matrix.sum(axis=1) - common)
            found = 100 * common[3] / matrix[3].sum()
            print(name, seed, iou.round(1), f"found {found:.0f}", flush=True)


if __name__ == "__main__":
    main()
