"""Cells in COCO's JSON for detection and segmentation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from .._files import expanded
from .._images import CLASS_NAMES, NOT_LABELLED, check_classes
from ._canvas import Canvas
from ._files import (
    check_class_map,
    check_folder,
    check_labels_known,
    class_of,
    files_in,
    find_pictures,
    read_json,
)
from ._geojson import fill_corners
from ._instances import bunch_of_cells
from ._polygon import FAR
from ._slides import read_as_drawn_on
from ._weak import masks_from_boxes, within_image


def load_coco(
    path: str | os.PathLike,
    images: str | os.PathLike | None = None,
    class_names: Mapping[str, str | int] | None = None,
    *,
    classes: Sequence[str] = CLASS_NAMES,
) -> Bunch:
    """Load images and cells annotated in COCO's format.

    Parameters
    ----------
    path : str or path-like
        A JSON file of COCO's; or a folder that holds one, in ``annotations`` or itself.
    images : str or path-like, optional
        Folder of the images; by default ``images`` or ``JPEGImages`` beside the JSON file, or its
        own folder. Of ``file_name`` only the last part is looked at.
    class_names : mapping from str to str or int, optional
        Classes of the names of categories, beside those that are known; see `load_labelme`.
    classes : sequence of str, default=("background", "white", "red")
        Names of the labels 0, 1, ..., as `bloodseg.BloodCellSegmenter` takes them.

    Returns
    -------
    Bunch
        ``images``, ``masks``, ``instances``, ``counts``, ``names``, ``groups`` and
        ``target_names``, as from `load_labelme`. In ``masks`` crowds (``iscrowd``) are 255, not
        known. Where the file has boxes alone, ``instances`` is None, ``masks`` are those of
        `masks_from_boxes`, and ``boxes``, ``labels`` and ``n_dropped`` are as from `load_voc`.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder, or an image is missing.
    ValueError
        If the file is damaged, not COCO's, or holds categories that have no class.

    Warns
    -----
    UserWarning
        If an image is to be turned for display, and the file does not tell whether its annotations
        were drawn on it so; or if shapes have no pixel in their image, which are left out.

    Notes
    -----
    Polygons and run lengths are read, compressed or not. Later annotations lie over earlier ones.

    References
    ----------
    .. [1] T.-Y. Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, 740-755.

    Examples
    --------
    >>> import json, tempfile
    >>> import numpy as np
    >>> from skimage.io import imsave
    >>> from bloodseg.datasets import load_coco
    >>> coco = {
    ...     "images": [{"id": 7, "file_name": "a.png", "height": 6, "width": 8}],
    ...     "categories": [{"id": 1, "name": "RBC"}],
    ...     "annotations": [
    ...         {"image_id": 7, "category_id": 1, "segmentation": [[2, 1, 5, 1, 5, 3, 2, 3]]}
    ...     ],
    ... }
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     imsave(f"{folder}/a.png", np.full((6, 8, 3), 200, np.uint8), check_contrast=False)
    ...     with open(f"{folder}/cells.json", "w") as file:
    ...         json.dump(coco, file)
    ...     data = load_coco(folder)
    >>> data.counts, int((data.masks[0] == 2).sum())
    (array([[0, 1]]), 6)
    """
    target_names = check_classes(classes)
    known = check_class_map(class_names, target_names, name="class_names")
    file = _find(expanded(path))
    document = _check(file, read_json(file, "COCO"))
    names = {each["id"]: each["name"] for each in document["categories"]}
    of_image = _annotations_of_images(file, document, names)
    used = [names[each["category_id"]] for each in document["annotations"]]
    check_labels_known(used, known, target_names, name="class_names")
    labels = {key: class_of(name, known) or 0 for key, name in names.items()}
    folder = file.parent.parent if file.parent.name == "annotations" else file.parent
    described = sorted(document["images"], key=lambda each: _stem(each["file_name"]))
    stems = [_stem(each["file_name"]) for each in described]
    pixels = _read_images(file, described, find_pictures(folder, images))
    of_each = [of_image[each["id"]] for each in described]
    if document["annotations"] and not any(map(_shape_of, document["annotations"])):
        return _from_boxes(pixels, of_each, labels, stems, target_names)
    drawn, crowds = [], []
    for image, items in zip(pixels, of_each, strict=True):
        canvas, crowd = Canvas(image.shape[:2], str(file)), np.zeros(image.shape[:2], bool)
        for annotation in items:
            for place, inside in _fill(annotation, image.shape[:2], canvas):
                if annotation.get("iscrowd"):
                    canvas.reserve(inside.size)
                    crowd[place] |= inside
                else:
                    label = labels[annotation["category_id"]]
                    canvas.draw(place, inside, label, annotation["where"])
        drawn.append(canvas.cells())
        crowds.append(crowd)
    data = bunch_of_cells(pixels, drawn, stems, target_names)
    for mask, instances, crowd in zip(data.masks, data.instances, crowds, strict=True):
        mask[crowd & (instances == 0)] = NOT_LABELLED
    return data


def _annotations_of_images(
    file: Path, document: dict[str, Any], names: Mapping[Any, str]
) -> dict[Any, list[dict[str, Any]]]:
    """Return the annotations of each image by its id, with the place of each for messages."""
    found: dict[Any, list[dict[str, Any]]] = {each["id"]: [] for each in document["images"]}
    for index, annotation in enumerate(document["annotations"]):
        where = f"{file}, annotations[{index}]"
        for field, known in (("image_id", found), ("category_id", names)):
            value = annotation.get(field)
            if not isinstance(value, (int, str)) or value not in known:
                raise ValueError(
                    f"{where} must have the {field} of an entry of the file; got "
                    f"{str(value)[:60]!r}."
                )
        found[annotation["image_id"]].append(annotation | {"where": where})
    return found


def _read_images(
    file: Path, described: list[dict[str, Any]], pictures: Mapping[str, Path]
) -> list[np.ndarray]:
    _check_stems(file, [_stem(each["file_name"]) for each in described], pictures)
    images = []
    for each in described:
        picture = pictures[_stem(each["file_name"])]
        size = each.get("height"), each.get("width")
        image = read_as_drawn_on(picture, size, told_by=file)
        if None not in size and size != image.shape[:2]:
            raise ValueError(
                f"{file} must declare the size of {picture.name}, {image.shape[:2]} (height, "
                f"width); got {size}. Its annotations belong to another size of the image."
            )
        images.append(image)
    return images


def is_coco(document: Any) -> bool:
    """Return whether a JSON document looks like one of COCO's."""
    return isinstance(document, dict) and {"images", "annotations"} <= document.keys()


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    folder = check_folder(path, holds="a JSON file of COCO's")
    places = [place for place in (folder / "annotations", folder) if place.is_dir()]
    found = [file for place in places for file in files_in(place, (".json",))]
    if len(found) != 1:
        raise FileNotFoundError(
            f"path must hold one JSON file; {path} has {len(found)}. Name the file itself."
        )
    return found[0]


def _check(file: Path, document: Any) -> dict[str, Any]:
    fields = {"images": ("id", "file_name"), "categories": ("id", "name"), "annotations": ()}
    for name, needed in fields.items():
        entries = document.get(name) if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise ValueError(
                f"{file} must be a JSON object with the lists images, categories and annotations, "
                f"as COCO has them; got no {name}."
            )
        for index, entry in enumerate(entries):
            for field in needed:
                value = entry.get(field) if isinstance(entry, dict) else None
                text = field in ("file_name", "name")
                if not isinstance(value, str if text else (int, str)):
                    kind = "a text" if text else "a number"
                    raise ValueError(f"{file}, {name}[{index}] must have {kind} as {field}.")
            if not isinstance(entry, dict):
                raise ValueError(f"{file}, {name}[{index}] must be a JSON object.")
        ids = [entry["id"] for entry in entries] if "id" in needed else []
        if len(set(ids)) < len(ids):
            twice = next(each for index, each in enumerate(ids) if each in ids[:index])
            raise ValueError(
                f"{file}, {name} must have different ids; got {twice!r} twice, so that it is not "
                "known which of them an annotation means."
            )
    return document


def _stem(file_name: str) -> str:
    return Path(file_name.replace("\\", "/")).stem


def _check_stems(file: Path, stems: list[str], pictures: Mapping[str, Path]) -> None:
    if not stems:
        raise ValueError(f"{file} must list at least one image; got none.")
    for index, stem in enumerate(stems):
        if stem not in pictures:
            raise FileNotFoundError(f"{file} lists an image {stem}, and there is none. Add it.")
        if index and stem == stems[index - 1]:
            raise ValueError(f"{file} must list images of different names; got {stem} twice.")


def _shape_of(annotation: dict[str, Any]) -> Any:
    return annotation.get("segmentation") or None


def _from_boxes(
    images: list[np.ndarray],
    of_each: list[list[dict[str, Any]]],
    labels: Mapping[Any, int],
    names: list[str],
    classes: Sequence[str],
) -> Bunch:
    data = bunch_of_cells(images, None, names, classes)
    data.update(boxes=[], labels=[])
    dropped = []
    for image, items in zip(images, of_each, strict=True):
        of_items = [labels[each["category_id"]] for each in items]
        boxes, kept, n_dropped = within_image(list(map(_box, items)), of_items, image.shape[:2])
        data.boxes.append(boxes)
        data.labels.append(kept)
        dropped.append(n_dropped)
    counts = [np.bincount(kept, minlength=len(classes))[1:] for kept in data.labels]
    data.update(counts=np.array(counts, np.int64), n_dropped=np.array(dropped, np.int64))
    data.masks = masks_from_boxes(images, data.boxes, data.labels, classes=classes)
    return data


def _box(annotation: dict[str, Any]) -> list[float]:
    try:
        left, top, width, height = map(float, annotation["bbox"])
        if not np.isfinite([left, top, width, height]).all() or min(width, height) <= 0:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"{annotation['where']} must have a segmentation, or a bbox of finite numbers [x, y, "
            "width, height] with an area."
        ) from None
    return [left, top, left + width, top + height]


def _fill(
    annotation: dict[str, Any], size: tuple[int, int], canvas: Canvas
) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Return the windows of an annotation's parts, and which of their pixels are in it.

    They are made one by one, for they may be many, and each as large as the image.
    """
    shape, where = _shape_of(annotation), annotation["where"]
    if shape is None:
        raise ValueError(
            f"{where} must have a segmentation, as others of the file have; got a box alone. "
            "Outline the cell, or keep the boxes alone in a file of their own."
        )
    try:
        if isinstance(shape, dict):
            return iter([_fill_runs(shape, size, canvas)])
        rings = [_ring(part) for part in shape]
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"{where} cannot be drawn: {error}") from error
    return (fill_corners(ring.clip(-FAR, FAR), size) for ring in rings)


def _ring(part: Any) -> np.ndarray:
    values = np.array(part, float)
    if values.ndim != 1 or len(values) < 6 or len(values) % 2 or not np.isfinite(values).all():
        raise ValueError(
            "its segmentation must be a list of polygons, each a list x, y, x, y, ... of at least "
            "three points of finite numbers"
        )
    return values.reshape(-1, 2)


def _fill_runs(shape: dict[str, Any], size: tuple[int, int], canvas: Canvas) -> Any:
    """Return a window and its pixels in runs, which go down the columns, outside first."""
    counts = shape["counts"]
    runs = np.array(_decompressed(counts) if isinstance(counts, str) else counts, np.int64)
    if list(shape["size"]) != list(size) or (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ValueError(f"its runs must be of {size[0]} x {size[1]} pixels, as its image")
    ends = np.cumsum(runs)
    starts, ends = ends[:-1:2], ends[1::2]
    canvas.reserve(int((ends - starts).sum()))
    lengths = ends - starts
    offsets = np.repeat(starts - np.r_[0, np.cumsum(lengths)[:-1]], lengths)
    columns, rows = np.divmod(np.arange(len(offsets)) + offsets, size[0])
    if not len(rows):
        return (slice(0, 0), slice(0, 0)), np.zeros((0, 0), bool)
    place = slice(rows.min(), rows.max() + 1), slice(columns.min(), columns.max() + 1)
    inside = np.zeros([each.stop - each.start for each in place], bool)
    inside[rows - place[0].start, columns - place[1].start] = True
    return place, inside


def _decompressed(text: str) -> list[int]:
    """Return run lengths that pycocotools has compressed.

    A number comes in groups of 5 bits, the lowest first, each with a bit that says whether more
    follow; from the fourth on it is the difference to the number before last.
    """
    counts: list[int] = []
    value = n_bits = 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64 or n_bits > 60:
            raise ValueError("its run lengths are damaged")
        value |= (group & 31) << n_bits
        n_bits += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << n_bits
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = n_bits = 0
    return counts
