"""The fields of all laboratories: what each may be used for, and its images and label maps."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd

from bloodseg._images import NOT_LABELLED
from bloodseg.cells._scale import typical_radius
from bloodseg.datasets import load_folder, load_voc, masks_from_boxes

from ._resizing import resized

DIAMETER = 36  # pixels of a red cell in training


class Fields(NamedTuple):
    """Fields of one laboratory."""

    folder: str
    labels: str = "masks"  # or "boxes", or "white cells": crops around single ones
    part: Any = slice(None)  # of the fields in order of name; of BCCD the folds
    use: str = "train"  # or "choose" between models, or "report" scores when all is chosen
    times: int = 1  # an epoch, so that a large set does not drown a small one


TRAINING = {
    "smear256": Fields("smear256/train", times=4),
    "bccd": Fields("bccd", "boxes", part=(1, 2, 3, 4)),
    "pbc_barcelona": Fields("pbc_barcelona"),
    "chula_bangkok": Fields("chula_bangkok", part=slice(0, None, 2)),
    "krd_erbil": Fields("krd_erbil", times=6),
    "nlm_chittagong": Fields("nlm_chittagong", times=2),
}
JUDGES = {
    "leukocyte300": Fields("leukocyte300/train", use="choose"),
    "chula_bangkok, other half": Fields("chula_bangkok", part=slice(1, None, 2), use="choose"),
    "leukocyte300, white cells": Fields("leukocyte300/train", "white cells", use="choose"),
    "krd_erbil, white cells": Fields("krd_erbil", "white cells", use="choose"),
    "smear256, test": Fields("smear256/test", use="report"),
    "leukocyte300, test": Fields("leukocyte300/test", use="report"),
    "bccd, fold 0": Fields("bccd", "boxes", part=(0,), use="report"),
}
CROP, CROP_IN_CELLS = 128, 3.5  # side around a white cell: pixels, and diameters of red cells


def rescaled(image, mask):
    """Return an image and its label map with red cells of the training's diameter."""
    radius = typical_radius(mask)
    if radius is None:
        return None
    factor = DIAMETER / 2 / radius
    labels = np.unique(mask)
    shares = [resized((mask == label).astype(np.float32), factor) for label in labels]
    return resized(image, factor), labels[np.argmax(shares, axis=0)]


def all_rescaled(images, masks):
    """Return images and masks, rescaled; those without red cells have no ruler and are left out."""
    pairs = [rescaled(image, mask) for image, mask in zip(images, masks, strict=True)]
    kept = [pair for pair in pairs if pair is not None]
    return [image for image, _ in kept], [mask for _, mask in kept]


def labelled_by_boxes(bccd, folds):
    chosen = np.flatnonzero(np.isin(bccd.fold, folds))
    images, boxes, labels = (
        [each[i] for i in chosen] for each in (bccd.images, bccd.boxes, bccd.labels)
    )
    return images, masks_from_boxes(images, boxes, labels)


def read(data, fields):
    """Return the images and label maps of fields: at the ruler's size, or crops as they are."""
    folder = data / fields.folder
    if fields.labels == "boxes":
        return all_rescaled(*labelled_by_boxes(load_voc(folder), fields.part))
    bunch = load_folder(folder)
    images, masks, names = bunch.images[fields.part], bunch.masks[fields.part], bunch.names
    if fields.labels == "masks":
        return all_rescaled(images, with_platelets(folder, masks, names[fields.part]))
    by_hand = folder / "masks_wbc"
    crops = []
    for image, mask, name in zip(images, masks, names[fields.part], strict=True):
        white = mask == 1
        if by_hand.is_dir():
            white = cv2.imread(str(by_hand / f"{name}.png"), cv2.IMREAD_GRAYSCALE) > 0
        crops.append(crop_of_white_cell(image, white, 2 * typical_radius(mask)))
    return [image for image, _ in crops], [mask for _, mask in crops]


def with_platelets(folder, masks, names):
    """Return label maps in which platelets that have a box and were unknown are background."""
    if not (folder / "boxes.csv").exists():
        return masks
    boxes = pd.read_csv(folder / "boxes.csv", dtype={"image": str})  # "002" is a name, too
    return [
        _with_platelets(mask, boxes[boxes.image.str.partition(".")[0] == name])
        for mask, name in zip(masks, names, strict=True)
    ]


def _with_platelets(mask, boxes):
    mask, in_cells = mask.copy(), np.zeros(mask.shape, bool)
    corners = boxes[["xmin", "ymin", "xmax", "ymax"]].to_numpy().astype(int)
    platelets = (boxes["class"] == "platelet").to_numpy()
    for left, top, right, bottom in corners[~platelets]:
        in_cells[top : bottom + 1, left : right + 1] = True
    for left, top, right, bottom in corners[platelets]:
        box = np.s_[top : bottom + 1, left : right + 1]
        mask[box][(mask[box] == NOT_LABELLED) & ~in_cells[box]] = 0
    return mask


def crop_of_white_cell(image, white, red_cell_diameter):
    """Return a crop around the largest white cell, and where in it white cells are (1, 0)."""
    stats, middles = cv2.connectedComponentsWithStats(white.astype(np.uint8))[2:]
    largest = 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
    side = min(round(CROP_IN_CELLS * red_cell_diameter), *white.shape)
    left, top = (
        min(max(int(middle) - side // 2, 0), length - side)
        for middle, length in zip(middles[largest], white.shape[::-1], strict=True)
    )
    rows, columns = slice(top, top + side), slice(left, left + side)
    size = (CROP, CROP)
    crop = cv2.resize(image[rows, columns], size, interpolation=cv2.INTER_AREA)
    mask = white[rows, columns].astype(np.uint8)
    return crop, cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
