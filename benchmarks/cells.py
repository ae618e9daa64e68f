"""How well single cells are found and counted, against what a user might try instead.

    python -m benchmarks.cells --data TEST --masks
    python -m benchmarks.cells --data TEST --model MODEL [--bccd DIR --fold 0] [--json FILE]

TEST has images/, masks/ and boxes.csv (image,class,xmin,ymin,xmax,ymax; classes rbc and wbc). With
--masks the class maps are the true ones, so that the split into cells is measured alone. A found
cell is right where its box has an IoU of 0.5 with the box of a true one, each used once. Rivals:
connected components of the class map; the usual watershed of its distance to the background;
Otsu's threshold and that watershed on the image, which knows no classes. For --bccd, the mean
absolute error of the count an image, against predicting the mean of the other folds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from skimage.color import rgb2gray
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from bloodseg import BloodCellSegmenter
from bloodseg.cells import find_cells
from bloodseg.datasets import load_folder, load_voc
from bloodseg.models import model_file

from ._timing import machine, write_json

CLASSES = {"white": 1, "red": 2}
NAMES = {"wbc": "white", "rbc": "red"}
LEAST_IOU = 0.5
SMALLEST = 20  # pixels, of the rivals' cells


def ours(image, class_map):
    cells = find_cells(class_map)
    return cells.labels, np.concatenate([[0], cells.classes])


def components(image, class_map):
    return per_class(class_map, lambda mask: ndimage.label(mask)[0])


def plain_watershed(image, class_map):
    return per_class(class_map, split_by_distance)


def otsu(image, class_map):
    grey = rgb2gray(image)
    labels = split_by_distance(ndimage.binary_fill_holes(grey < threshold_otsu(grey)))
    return without_specks(labels, np.zeros(labels.max() + 1, int))


def per_class(class_map, split):
    labels, classes = np.zeros(class_map.shape, int), [0]
    for value in CLASSES.values():
        found = split(class_map == value)
        labels = np.where(found > 0, found + len(classes) - 1, labels)
        classes += [value] * found.max()
    return without_specks(labels, np.array(classes))


def split_by_distance(mask):
    """Split as in scikit-image's example of the watershed."""
    distance = ndimage.distance_transform_edt(mask)
    peaks = peak_local_max(distance, min_distance=10, labels=ndimage.label(mask)[0])
    markers = np.zeros(mask.shape, int)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-distance, markers, mask=mask)


def without_specks(labels, classes):
    small = np.bincount(labels.ravel(), minlength=len(classes)) < SMALLEST
    return np.where(small[labels], 0, labels), classes


METHODS = {
    "bloodseg": ours,
    "connected components": components,
    "watershed of the map": plain_watershed,
    "Otsu + watershed": otsu,
}


def boxes_of(labels, classes):
    """Return boxes (top, left, bottom, right) of the cells of each class, and of all."""
    boxes: dict[str, list] = {"white": [], "red": [], "all": []}
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        if place is None:
            continue
        box = [side.start for side in place] + [side.stop for side in place]
        boxes["all"].append(box)
        for name, value in CLASSES.items():
            if classes[number] == value:
                boxes[name].append(box)
    return boxes


def true_boxes(table, image):
    rows = table[table["image"] == image]
    boxes = {"all": rows[["ymin", "xmin", "ymax", "xmax"]].to_numpy()}
    for short, name in NAMES.items():
        boxes[name] = boxes["all"][rows["class"] == short]
    return boxes


def n_matches(found, true):
    """Return the number of pairs in the best matching of boxes."""
    if len(found) == 0 or len(true) == 0:
        return 0
    a, b = np.asarray(found, float)[:, np.newaxis], np.asarray(true, float)
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    shared = sides.clip(0).prod(axis=-1)
    areas = [(each[..., 2:] - each[..., :2]).prod(axis=-1) for each in (a, b)]
    iou = shared / (areas[0] + areas[1] - shared)
    right = iou >= LEAST_IOU
    return int(right[linear_sum_assignment(right, maximize=True)].sum())


def score(pairs):
    """Return scores over images, from pairs of found and true boxes."""
    found, true = (sum(len(pair[i]) for pair in pairs) for i in (0, 1))
    right = sum(n_matches(*pair) for pair in pairs)
    errors = [len(pair[0]) - len(pair[1]) for pair in pairs]
    precision, recall = right / max(found, 1), right / max(true, 1)
    return {
        "true": true,
        "found": found,
        "precision": precision,
        "recall": recall,
        "F1": 2 * right / max(found + true, 1),
        "count error": float(np.mean(np.abs(errors))),
        "bias": float(np.mean(errors)),
    }


def measure(data, maps, table):
    rows = []
    for name, method in METHODS.items():
        start = time.perf_counter()
        cells = [method(*pair) for pair in zip(data.images, maps, strict=True)]
        seconds = time.perf_counter() - start
        found = [boxes_of(*each) for each in cells]
        true = [true_boxes(table, image) for image in data.names]
        for kind in ("red", "white", "all"):
            if name.startswith("Otsu") and kind != "all":
                continue
            pairs = [(f[kind], t[kind]) for f, t in zip(found, true, strict=True)]
            rows.append({"method": name, "cells": kind, **score(pairs)})
        rows[-1]["cells per second"] = rows[-1]["found"] / seconds
        rows[-1]["megapixels per second"] = sum(m.size for m in maps) / 1e6 / seconds
    return rows


def count_errors(segmenter, folder, fold):
    data = load_voc(folder)
    held_out = np.asarray(data.fold) == fold
    images = [data.images[i] for i in np.flatnonzero(held_out)]
    counted = segmenter.count(images)[["white", "red"]].to_numpy()
    true, mean = data.counts[held_out], data.counts[~held_out].mean(axis=0)
    rows = []
    for name, guess in (("bloodseg", counted), ("mean of the other folds", mean)):
        error, bias = np.abs(guess - true).mean(axis=0), (guess - true).mean(axis=0)
        rows.append({"method": name, "images": len(images)})
        for index, kind in enumerate(("white", "red")):
            rows[-1] |= {f"{kind} error": error[index], f"{kind} bias": bias[index]}
    return rows


def print_rows(title, rows):
    print(f"\n{title}\n\n| " + " | ".join(columns := list({key: 0 for row in rows for key in row})))
    print("|---" * len(columns) + "|")
    for row in rows:
        cells = (row.get(name, "") for name in columns)
        shown = (f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells)
        print("| " + " | ".join(shown) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of images/, masks/ and boxes.csv")
    parser.add_argument("--masks", action="store_true", help="take the true class maps")
    parser.add_argument("--model", type=model_file)
    parser.add_argument("--bccd", type=Path, help="folder of images and boxes with folds")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--json", help="write the rows there, too")
    arguments = parser.parse_args()
    if not arguments.masks and arguments.model is None:
        parser.error("pass --model or --masks")
    device = torch.device("cpu")
    print(machine(device))
    results = {}
    segmenter = None if arguments.model is None else BloodCellSegmenter.load(arguments.model)
    if arguments.data is not None:
        data = load_folder(arguments.data)
        table = pd.read_csv(arguments.data / "boxes.csv", dtype={"image": str})
        maps = data.masks if arguments.masks else segmenter.predict(data.images)
        results["cells"] = measure(data, maps, table)
        of = "the true class maps" if arguments.masks else arguments.model.name
        print_rows(f"Cells of {of}, boxes matched at IoU {LEAST_IOU}", results["cells"])
    if arguments.bccd is not None and segmenter is not None:
        results["counts"] = count_errors(segmenter, arguments.bccd, arguments.fold)
        print_rows(f"Counts an image, fold {arguments.fold}", results["counts"])
    write_json(arguments.json, machine=machine(device), **results)


if __name__ == "__main__":
    main()
