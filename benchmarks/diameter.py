"""How well the diameter of red cells is estimated from an image, at several magnifications.

    python -m benchmarks.diameter [--data TRAIN]... [--bccd DIR] [--json FILE] [--quick]

Drawn smears of several diameters, whose mean is known; TRAIN has images/ and masks/, and the
typical diameter in its label maps is taken for the true one; of --bccd, folds 1 to 4, the median
side of the boxes of red cells that no border cuts. --quick: a few drawn smears.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd

from bloodseg.cells import estimate_red_cell_diameter
from bloodseg.cells._scale import typical_radius
from bloodseg.datasets import load_folder, load_voc, make_smears

from ._resizing import resized
from ._timing import write_json

FACTORS = (1, 0.5, 2)
DIAMETERS = (10, 20, 40, 80, 160)
RED = 2
LEAST_BOXES = 3


def drawn(diameter, n_samples):
    smears = make_smears(n_samples, 5 * diameter + 60, diameter, red_cell_diameter=diameter)
    return [(image, diameter) for image in smears.images]


def of_folder(path):
    data = load_folder(path)
    radii = map(typical_radius, data.masks)
    return [(image, 2 * r) for image, r in zip(data.images, radii, strict=True) if r is not None]


def of_boxes(path):
    data = load_voc(path)
    pairs = []
    for image, boxes, labels, fold in zip(
        data.images, data.boxes, data.labels, data.fold, strict=True
    ):
        height, width = image.shape[:2]
        left, top, right, bottom = boxes.T
        whole = (left > 3) & (top > 3) & (right < width - 3) & (bottom < height - 3)
        red = boxes[whole & (labels == RED)]
        if fold != 0 and len(red) >= LEAST_BOXES:
            pairs.append((image, float(np.median(red[:, 2:] - red[:, :2]))))
    return pairs


def measure(name, pairs, factor):
    errors, start = [], time.perf_counter()
    for image, diameter in pairs:
        found = estimate_red_cell_diameter(resized(image, factor))
        errors.append(np.nan if found is None else found / (factor * diameter) - 1)
    seconds = (time.perf_counter() - start) / len(pairs)
    off = np.nan_to_num(np.abs(errors), nan=np.inf)
    return {
        "images": name,
        "magnified": factor,
        "number": len(pairs),
        "bias": float(np.nanmedian(errors)),
        "median error": float(np.median(off)),
        "90 % within": float(np.quantile(off, 0.9, method="lower")),
        "off by 10 %": float((off > 0.1).mean()),
        "off by 25 %": float((off > 0.25).mean()),
        "none": int(np.isnan(errors).sum()),
        "seconds": seconds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--bccd", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    diameters, n_samples = (DIAMETERS[:3], 2) if arguments.quick else (DIAMETERS, 20)
    sets = {f"drawn, {d} pixels": drawn(d, n_samples) for d in diameters}
    rows = [measure(name, pairs, 1) for name, pairs in sets.items()]
    sets = {str(path): of_folder(path) for path in arguments.data}
    if arguments.bccd is not None:
        sets[f"{arguments.bccd}, folds 1 to 4"] = of_boxes(arguments.bccd)
    rows += [measure(name, pairs, factor) for name, pairs in sets.items() for factor in FACTORS]
    print(pd.DataFrame(rows).to_string(index=False, float_format="%.3f"))
    write_json(arguments.json, rows=rows)


if __name__ == "__main__":
    main()
