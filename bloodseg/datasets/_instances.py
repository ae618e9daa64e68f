"""Folders of images and instance labels: a number for each cell."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.utils import Bunch

from .._images import CLASS_NAMES, NOT_LABELLED, check_classes
from ._files import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    check_class_map,
    check_folder,
    check_labels_known,
    class_of,
    files_by_stem,
    only_file,
    read_rows,
)
from ._folder import read_labels
from ._slides import read_image

_TABLE = "cells.csv"
_COLUMNS = ("image", "label", "class")


def load_instances(
    path: str | os.PathLike,
    class_names: Mapping[str, str | int] | None = None,
    *,
    classes: Sequence[str] = CLASS_NAMES,
) -> Bunch:
    r"""Load images and instance labels from a folder.

    The folder holds ``images/NAME.png`` (or another format that `load_folder` reads), for each
    image ``instances/NAME.png`` (or tif, tiff, bmp), one channel with 0 for the background and a
    number for each cell, and ``cells.csv`` with the columns image, label and class, which says the
    class of each cell: the table that ``bloodseg measure`` writes is one.

    Parameters
    ----------
    path : str or path-like
        The folder.
    class_names : mapping from str to str or int, optional
        Classes of the names in ``cells.csv``, beside those that are known; see `load_labelme`.
    classes : sequence of str, default=("background", "white", "red")
        Names of the labels 0, 1, ..., as `bloodseg.BloodCellSegmenter` takes them.

    Returns
    -------
    Bunch
        ``images``, ``masks``, ``instances``, ``counts``, ``names``, ``groups`` and
        ``target_names``, as from `load_labelme`.

    Raises
    ------
    FileNotFoundError
        If a folder, a file or the table is missing.
    ValueError
        If files do not pair up, cannot be read, or a cell has no class.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from skimage.io import imsave
    >>> from bloodseg.datasets import load_instances
    >>> labels = np.zeros((6, 8), np.uint8)
    >>> labels[1:3, 2:5], labels[4:, 6:] = 1, 2
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for kind, pixels in (("images", labels), ("instances", labels)):
    ...         (Path(folder) / kind).mkdir()
    ...         imsave(f"{folder}/{kind}/a.png", pixels, check_contrast=False)
    ...     _ = Path(folder, "cells.csv").write_text("image,label,class\na,1,red\na,2,white\n")
    ...     data = load_instances(folder)
    >>> data.counts, np.unique(data.masks[0]).tolist()
    (array([[1, 1]]), [0, 1, 2])
    """
    target_names = check_classes(classes)
    known = check_class_map(class_names, target_names, name="class_names")
    folder = check_folder(path, holds="subfolders images and instances")
    pictures, files = (
        files_by_stem(
            check_folder(folder / kind, holds="files, a subfolder images or instances"), suffixes
        )
        for kind, suffixes in (("images", IMAGE_SUFFIXES), ("instances", MASK_SUFFIXES))
    )
    for name in sorted(pictures.keys() ^ files.keys()):
        kind = "instance labels" if name in pictures else "image"
        raise FileNotFoundError(f"{folder} has no {kind} {name}. Add the file, or remove its pair.")
    table = _read_classes(folder / _TABLE)
    check_labels_known(table.values(), known, target_names, name="class_names")
    names = sorted(files)
    images, drawn = [], []
    for name in names:
        image, labels = read_image(pictures[name]), read_labels(files[name])
        if labels.shape != image.shape[:2]:
            raise ValueError(
                f"{files[name]} must have the size of its image, {image.shape[:2]}; got "
                f"{labels.shape}. Export it again from {pictures[name].name}."
            )
        numbers, consecutive = _numbered_anew(labels, name=str(files[name]))
        of_cells = [table.get((name, int(number))) for number in numbers]
        if None in of_cells:
            raise ValueError(
                f"{folder / _TABLE} must say the class of every cell; got none of label "
                f"{numbers[of_cells.index(None)]} in {name}."
            )
        labels_of_cells = [class_of(str(each), known) or 0 for each in of_cells]
        images.append(image)
        drawn.append(_without_background(consecutive, labels_of_cells))
    return bunch_of_cells(images, drawn, names, target_names)


def _numbered_anew(labels: np.ndarray, *, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of cells, ascending, and the labels (H, W) with 1 to k in their place.

    ``name`` is what the error message calls the label image.
    """
    numbers, places = np.unique(labels, return_inverse=True)
    if numbers[0] < 0:
        raise ValueError(
            f"{name} must hold numbers of cells from 1 to {2**31 - 1:,}, and 0 where there is no "
            f"cell; got {numbers[0]}. Number the cells anew."
        )
    consecutive = places.reshape(labels.shape) + (numbers[0] > 0)
    return numbers[numbers > 0], consecutive.astype(np.int32)


def classes_of_cells(
    labels: np.ndarray, mask: np.ndarray, n_classes: int, *, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the class of each cell: the one that most of its pixels have in the label map.

    Parameters
    ----------
    labels : ndarray of shape (H, W)
        A number for each cell, 0 where there is none.
    mask : ndarray of shape (H, W)
        The label map.
    n_classes : int
        How many classes there are.
    name : str
        What the error message calls the label image.

    Returns
    -------
    numbers : ndarray of shape (k,)
        Those of the cells, ascending.
    classes : ndarray of shape (k,)
        The class of each; 0 where all of its pixels are background or not known.
    consecutive : ndarray of shape (H, W), int32
        1 to k in place of the numbers.
    """
    numbers, consecutive = _numbered_anew(labels, name=name)
    known = (mask > 0) & (mask != NOT_LABELLED)
    votes = np.zeros((len(numbers) + 1, n_classes), np.int64)
    np.add.at(votes, (consecutive[known], mask[known]), 1)
    return numbers, votes[1:].argmax(axis=1), consecutive


def read_instances_of(
    name: str, files: Mapping[str, list[Path]], mask: np.ndarray, mask_file: Path, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read the instance labels that lie beside a label map.

    Parameters
    ----------
    name : str
        That of the image, without suffix.
    files : mapping of str to list of Path
        Files of instance labels by such names.
    mask, mask_file
        The label map (H, W), and its file.
    n_classes : int
        How many classes there are.

    Returns
    -------
    labels : ndarray of shape (H, W), int32
        0 background, 1 to k the cells.
    classes : ndarray of shape (k,)
        The class of each cell.
    """
    if name not in files:
        raise FileNotFoundError(
            f"{name} has no label image of cells: {mask_file.parents[1] / 'instances' / name}.png "
            "(or .tif, .bmp) does not exist. Add it, or move the folder instances away."
        )
    file = only_file(files[name])
    labels = read_labels(file)
    if labels.shape != mask.shape:
        raise ValueError(
            f"{file} must have the size of its label map, {mask.shape}; got {labels.shape}. Export "
            "it again from its image."
        )
    numbers, classes, consecutive = classes_of_cells(labels, mask, n_classes, name=str(file))
    if not classes.all():
        raise ValueError(
            f"{file} must hold cells that have a class in {mask_file}; cell "
            f"{numbers[classes == 0][0]} lies where that has background or unknown pixels alone. "
            "Correct one of the two."
        )
    return consecutive, classes


def _without_background(labels: np.ndarray, classes: Sequence[int]) -> Any:
    """Return consecutive labels, those of class background erased, and the class of each."""
    of_label = np.array([0, *classes], np.uint8)
    renumber = np.where(of_label > 0, np.cumsum(of_label > 0), 0).astype(np.int32)
    return renumber[labels], of_label[(of_label > 0) | (np.arange(len(of_label)) == 0)]


def _read_classes(file: Path) -> dict[tuple[str, int], str]:
    """Return the class text of each cell, by the name of its image and its label."""
    if not file.is_file():
        raise FileNotFoundError(
            f"{file} must say the class of each cell, in the columns {', '.join(_COLUMNS)}; it "
            "does not exist. Write it, one row a cell."
        )
    found: dict[tuple[str, int], str] = {}
    for line, row in enumerate(read_rows(file, limit=2**28), start=2):
        try:
            image, label, name = (row[column].strip() for column in _COLUMNS)
            cell = _stem(image), int(label)
        except (AttributeError, KeyError, ValueError):
            raise ValueError(
                f"{file} must have the columns {', '.join(_COLUMNS)}, label a whole number; row "
                f"{line} has not."
            ) from None
        if found.setdefault(cell, name) != name:
            raise ValueError(
                f"{file} must say one class of each cell; of label {label} in {cell[0]}, row "
                f"{line} says {name!r}, and one before {found[cell]!r}. Folders in the column "
                "image do not count: images must have names of their own."
            )
    return found


def _stem(image: str) -> str:
    path = Path(image.replace("\\", "/"))
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def bunch_of_cells(
    images: list[np.ndarray],
    drawn: Sequence[tuple[np.ndarray, np.ndarray]] | None,
    names: Any,
    classes: Sequence[str],
) -> Bunch:
    """Return what loaders of single cells do.

    ``drawn`` are an image's cells (H, W) and the class of each number, 0 included; None where the
    single cells are not known.
    """
    data = Bunch(images=images, masks=None, instances=None, counts=None)
    if drawn is not None:
        data.masks = [of_cells[labels] for labels, of_cells in drawn]
        data.instances = [labels for labels, _ in drawn]
        counts = [np.bincount(of_cells, minlength=len(classes))[1:] for _, of_cells in drawn]
        data.counts = np.array(counts, np.int64)
    data.update(names=list(names), groups=None, target_names=classes)
    return data
