"""How well single cells are found and counted, against what a user might try instead.

    python -m benchmarks.cells --data FOLDER --masks
    python -m benchmarks.cells --data FOLDER --model MODEL [--json FILE]
    python -m benchmarks.cells --bccd FOLDER --fold 0 --model MODEL
    python -m benchmarks.cells --data FOLDER --maps MAPS

FOLDER has images/, masks/ and boxes.csv (image,class,xmin,ymin,xmax,ymax; classes rbc and wbc;
others are passed over). Without boxes.csv, fields are counted whose number of white cells is that
of the white pieces of their masks. With --masks the class maps are the true ones, so that the split
into cells is measured alone; with --maps they are those that `bloodseg predict` wrote there. A
found cell is right where its box has an IoU of 0.5 with the box of a true one, each used once. The
boxes of BCCD leave out many red cells: only their recall means something. "Spread" is that of the
sizes of red cells that no border cuts: half the way from the 16th to the 84th percentile of the
boxes' mean sides, over the median of the field; the mean of the fields. Rivals: connected
components of the class map; the usual watershed of its distance to the background; Otsu's threshold
and that watershed on the image, which knows no classes. Cells and megapixels are by seconds of
processor time. For --bccd, also the mean absolute error of the count an image, against predicting
the mean of the other folds.
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
from skimage.io import imread
from skimage.segmentation import watershed

from bloodseg import BloodCellSegmenter
from bloodseg.cells import find_cells
from bloodseg.datasets import load_folder, load_voc
from bloodseg.metrics import cell_report
from bloodseg.models import model_file

from ._tables import print_heading, print_row
from ._timing import machine, write_json

CLASSES = {"white": 1, "red": 2}
NAMES = {"wbc": "white", "rbc": "red"}
LEAST_IOU = 0.5
COLUMNS = ["class", "true", "found", "precision", "recall", "f1", "f1_low", "f1_high"]
COLUMNS += ["panoptic_quality", "average_precision", "count_error", "count_bias"]
SMALLEST = 20  # pixels, of the rivals' cells
LEAST_WHITE = 1000  # pixels, of a white piece of a mask that is a cell
LEAST_RED = 5  # whole red cells in a field that have a spread


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
    return np.reshape(boxes, (-1, 4)), [names.get(classes[number], "cell") for number, _ in found]


def true_cells(table, image):
    rows = table[(table["image"] == image) & table["class"].isin(NAMES)]
    return rows[["ymin", "xmin", "ymax", "xmax"]].to_numpy(), rows["class"].map(NAMES).tolist()


def spread_of_sizes(fields, shapes):
    """Return the mean spread of the sizes of whole red cells, in shares of their median."""
    spreads = []
    for (boxes, classes), shape in zip(fields, shapes, strict=True):
        whole = (boxes[:, :2] > 0).all(axis=1) & (boxes[:, 2:] < shape).all(axis=1)
        sides = (boxes[:, 2:] - boxes[:, :2])[whole & (np.array(classes) == "red")].mean(axis=1)
        if len(sides) >= LEAST_RED:
            low, middle, high = np.percentile(sides, [16, 50, 84])
            spreads.append((high - low) / 2 / middle)
    return float(np.mean(spreads)) if spreads else None


def measure(images, maps, true):
    """Return a row for each method and class, on class maps with the boxes of true cells."""
    rows = []
    shapes = [class_map.shape for class_map in maps]
    for name, method in METHODS.items():
        start = time.process_time()
        cells = [method(*pair) for pair in zip(images, maps, strict=True)]
        seconds = time.process_time() - start
        found = [cells_of(*each) for each in cells]
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
            if row["class"] == "red" and not name.startswith("Otsu"):
                rows[-1]["spread"] = spread_of_sizes(found, shapes)
        rows[-1]["cells per second"] = rows[-1]["found"] / seconds
        rows[-1]["megapixels per second"] = sum(m.size for m in maps) / 1e6 / seconds
    rows.append({"method": "the boxes", "class": "red", "spread": spread_of_sizes(true, shapes)})
    return rows


def white_counts(data, maps):
    """Return how many fields have the number of white cells that their masks have."""
    pieces = [ndimage.label(mask == CLASSES["white"])[0] for mask in data.masks]
    areas = [np.bincount(labels.ravel())[1:] for labels in pieces]
    true = [np.count_nonzero(each >= LEAST_WHITE) for each in areas]
    rows = []
    for name, method in METHODS.items():
        if name.startswith("Otsu"):
            continue
        cells = [method(*pair) for pair in zip(data.images, maps, strict=True)]
        found = [np.count_nonzero(classes == CLASSES["white"]) for _, classes in cells]
        rows.append({"method": name, "fields": len(maps), "white": sum(true), "found": sum(found)})
        rows[-1]["share right"] = float(np.mean(np.equal(true, found)))
    return rows


def of_fold(data, fold):
    """Return the images of a fold of BCCD, the boxes and classes of their cells, and the names."""
    held_out = np.flatnonzero(np.asarray(data.fold) == fold)
    names = {value: name for name, value in CLASSES.items()}
    true = []
    for index in held_out:
        of_cells = data.labels[index] > 0
        boxes = data.boxes[index][of_cells][:, [1, 0, 3, 2]]
        true.append((boxes, [names[label] for label in data.labels[index][of_cells]]))
    return [data.images[i] for i in held_out], true, [data.names[i] for i in held_out]


def count_errors(data, fold, maps):
    held_out = np.asarray(data.fold) == fold
    counted = [list(find_cells(class_map).counts.values()) for class_map in maps]
    true, mean = data.counts[held_out], data.counts[~held_out].mean(axis=0)
    rows = []
    for name, guess in (("bloodseg", np.array(counted)), ("mean of the other folds", mean)):
        error, bias = np.abs(guess - true).mean(axis=0), (guess - true).mean(axis=0)
        rows.append({"method": name, "images": len(maps)})
        for index, kind in enumerate(("white", "red")):
            rows[-1] |= {f"{kind} error": error[index], f"{kind} bias": bias[index]}
    return rows


def print_rows(title, rows):
    columns = list(dict.fromkeys(key for row in rows for key in row))
    print(f"\n{title}\n")
    print_heading(columns)
    for row in rows:
        cells = (row.get(name, "") for name in columns)
        print_row(f"{cell:.3f}" if isinstance(cell, float) else cell for cell in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of images/, masks/ and perhaps boxes.csv")
    parser.add_argument("--bccd", type=Path, help="folder of images and boxes with folds")
    parser.add_argument("--fold", type=int, default=0)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--masks", action="store_true", help="take the true class maps")
    source.add_argument("--model", type=model_file, help="take the class maps of a model")
    source.add_argument("--maps", type=Path, help="take those that bloodseg predict wrote")
    parser.add_argument("--json", help="write the rows there, too")
    arguments = parser.parse_args()
    if arguments.masks and arguments.bccd is not None:
        parser.error("--bccd has no masks: pass --model or --maps")
    device = torch.device("cpu")
    print(machine(device))
    results = {}
    segmenter = None if arguments.model is None else BloodCellSegmenter.load(arguments.model)

    def maps_of(images, names):
        if segmenter is not None:
            return segmenter.predict(images)
        return [imread(arguments.maps / f"{name}_mask.png") for name in names]

    if arguments.data is not None:
        data = load_folder(arguments.data)
        maps = data.masks if arguments.masks else maps_of(data.images, data.names)
        boxes = arguments.data / "boxes.csv"
        if boxes.exists():
            table = pd.read_csv(boxes, dtype={"image": str})
            table["image"] = table["image"].map(lambda name: Path(name).stem)
            true = [true_cells(table, image) for image in data.names]
            results["cells"] = measure(data.images, maps, true)
            print_rows(f"Boxes matched at IoU {LEAST_IOU}", results["cells"])
        else:
            results["white"] = white_counts(data, maps)
            print_rows("White cells a field", results["white"])
    if arguments.bccd is not None:
        data = load_voc(arguments.bccd)
        images, true, names = of_fold(data, arguments.fold)
        maps = maps_of(images, names)
        results["boxed"] = measure(images, maps, true)
        print_rows(f"Boxes of fold {arguments.fold}: recall", results["boxed"])
        results["counts"] = count_errors(data, arguments.fold, maps)
        print_rows(f"Counts an image, fold {arguments.fold}", results["counts"])
    write_json(arguments.json, machine=machine(device), **results)


if __name__ == "__main__":
    main()
