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
from skimage.color import rgb2gray
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from bloodseg import BloodCellSegmenter
from bloodseg.cells import find_cells
from bloodseg.datasets import load_folder, load_voc
from bloodseg.metrics import cell_report
from bloodseg.models import model_file

from ._timing import machine, write_json

CLASSES = {"white": 1, "red": 2}
NAMES = {"wbc": "white", "rbc": "red"}
LEAST_IOU = 0.5
COLUMNS = ["class", "true", "found", "precision", "recall", "f1", "f1_low", "f1_high"]
COLUMNS += ["panoptic_quality", "average_precision", "count_error", "count_bias"]
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


def cells_of(labels, classes):
    """Return boxes (top, left, bottom, right) of the cells, and the names of their classes."""
    names = {value: name for name, value in CLASSES.items()}
    places = enumerate(ndimage.find_objects(labels), start=1)
    found = [(number, place) for number, place in places if place is not None]
    boxes = [[side.start for side in place] + [side.stop for side in place] for _, place in found]
    return np.reshape(boxes, (-1, 4)), [names.get(classes[number], "all") for number, _ in found]


def true_cells(table, image):
    rows = table[table["image"] == image]
    return rows[["ymin", "xmin", "ymax", "xmax"]].to_numpy(), rows["class"].map(NAMES).tolist()


def measure(data, maps, table):
    rows = []
    for name, method in METHODS.items():
        start = time.perf_counter()
        cells = [method(*pair) for pair in zip(data.images, maps, strict=True)]
        seconds = time.perf_counter() - start
        found = [cells_of(*each) for each in cells]
        true = [true_cells(table, image) for image in data.names]
        report = cell_report(
            [boxes for boxes, _ in true],
            [boxes for boxes, _ in found],
            true_classes=[classes for _, classes in true],
            found_classes=[classes for _, classes in found],
            iou=LEAST_IOU,
        )
        for row in report[COLUMNS].to_dict("records"):
            if row["class"] == "all" or not name.startswith("Otsu"):
                rows.append({"method": name, **row})
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
