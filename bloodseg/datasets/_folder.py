"""Folders of images and label maps."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.utils import Bunch

from .._files import expanded
from .._images import CLASS_NAMES, NOT_LABELLED, check_classes, with_labels
from ._bounds import MAX_IMAGE_BYTES
from ._decoding import decode_labels, label_colours
from ._files import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    check_folder,
    group_by_stem,
    only_file,
    read_bytes,
    read_table,
)
from ._slides import read_image

_LAYOUT = "subfolders images and masks"


def load_folder(path: str | os.PathLike, *, classes: Sequence[str] = CLASS_NAMES) -> Bunch:
    """Load images and label maps from a folder.

    The folder holds ``images/NAME.png`` (or jpg, jpeg, tif, tiff, bmp) and for each image
    ``masks/NAME.png`` (or tif, tiff, bmp): one channel with the labels 0 background, 1 white cells,
    2 red cells, or those of other ``classes``, or 255 where the class is not known. Of paletted
    masks the colours are the labels where they are greys of these values, in whatever order; else
    the palette's indices are, if its first colour is black. A file ``groups.csv`` with the columns
    image and group may say which images show the same patient or field.

    Parameters
    ----------
    path : str or path-like
        The folder.
    classes : sequence of str, default=("background", "white", "red")
        Names of the labels 0, 1, ..., as `bloodseg.BloodCellSegmenter` takes them.

    Returns
    -------
    Bunch
        images : list of ndarray of shape (H, W, 3)
            RGB, uint8; or float32 in [0, 1] for files of 16 bits a channel.
        masks : list of ndarray of shape (H, W), uint8
            Labels, places in ``classes``, and 255.
        names : list of str
            File names without suffix; all lists are sorted by them.
        groups : ndarray of str of shape (n,), or None
            For GroupKFold and its like; None without ``groups.csv``.
        target_names : tuple of str
            ``classes``.

    Raises
    ------
    FileNotFoundError
        If a folder or a label map is missing.
    ValueError
        If files do not pair up, cannot be read, or hold other sizes or labels.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skimage.io import imsave
    >>> from bloodseg.datasets import load_folder, make_smears
    >>> smears = make_smears(1, image_size=32, random_state=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for kind, picture in (("images", smears.images[0]), ("masks", smears.masks[0])):
    ...         (Path(folder) / kind).mkdir()
    ...         imsave(f"{folder}/{kind}/a.png", picture, check_contrast=False)
    ...     data = load_folder(folder)
    >>> data.names, data.images[0].shape, data.masks[0].shape
    (['a'], (32, 32, 3), (32, 32))
    """
    target_names = check_classes(classes)
    pairs = list_pairs(path)
    names = [pair.name for pair in pairs]
    images, masks = [], []
    for pair in pairs:
        image, mask = read_pair(pair, classes=target_names)
        images.append(image)
        masks.append(mask)
    _check_colours_agree(pairs, len(target_names))
    labels = set().union(*(np.unique(mask).tolist() for mask in masks))
    if labels == {0, NOT_LABELLED}:  # the two values of a mask of cells, more likely
        raise ValueError(
            f"{path} must have cells in its label maps, {with_labels(target_names, first=1)}; got "
            f"only 0 and {NOT_LABELLED}, which is for pixels whose class is not known. Map your "
            "values to these labels and save the label maps again."
        )
    table = expanded(path) / "groups.csv"
    groups = read_table(table, ["group"], names)["group"] if table.exists() else None
    return Bunch(images=images, masks=masks, names=names, groups=groups, target_names=target_names)


def _check_colours_agree(pairs: Sequence[Pair], n_classes: int) -> None:
    """Raise where palettes give a label several colours: then its indices are no labels."""
    seen: dict[int, tuple[Any, Path]] = {}
    for pair in pairs:
        data = read_bytes(pair.mask, limit=MAX_IMAGE_BYTES)
        for label, colour in label_colours(data, n_classes).items():
            earlier, file = seen.setdefault(label, (colour, pair.mask))
            if earlier != colour:
                raise ValueError(
                    f"{file} and {pair.mask} give label {label} the colours {earlier} and "
                    f"{colour}, so that the indices of their palettes are perhaps no labels. Save "
                    "the labels as grey images (mode L)."
                )


class Pair(NamedTuple):
    """The files of one image and its label map."""

    name: str
    image: Path
    mask: Path


def list_pairs(
    path: str | os.PathLike, *, on_error: Callable[[str, Exception], object] | None = None
) -> list[Pair]:
    """List the files of a folder as `load_folder` takes it, without reading them.

    Parameters
    ----------
    path : str or path-like
        The folder, with ``images`` and ``masks`` in it.
    on_error : callable, optional
        Is called with a name and the exception where files do not pair up, in place of raising;
        that name is left out.

    Returns
    -------
    list of Pair
        Tuples of name, image file and label map file, sorted by name.

    Raises
    ------
    FileNotFoundError
        If a folder is missing or holds no images; without ``on_error``, if a label map is missing.
    ValueError
        Without ``on_error``, if other files do not pair up.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from bloodseg.datasets import list_pairs
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("images/a.jpg", "masks/a.png", "images/b.jpg"):
    ...         (Path(folder) / name).parent.mkdir(exist_ok=True)
    ...         (Path(folder) / name).touch()
    ...     pairs = list_pairs(folder, on_error=lambda name, error: print("left out:", name))
    left out: b
    >>> [(pair.name, pair.image.name, pair.mask.name) for pair in pairs]
    [('a', 'a.jpg', 'a.png')]
    """
    folder = check_folder(path, holds=_LAYOUT)
    for kind in ("images", "masks"):
        check_folder(folder / kind, holds=f"files, one of the {_LAYOUT}")
    images = group_by_stem(folder / "images", IMAGE_SUFFIXES)
    masks = group_by_stem(folder / "masks", MASK_SUFFIXES)
    if not images:
        raise FileNotFoundError(
            f"{folder / 'images'} must hold at least one image ({', '.join(IMAGE_SUFFIXES)}); "
            "got none."
        )
    pairs = []
    others = sorted(os.listdir(folder / "masks"))
    for name in sorted(images.keys() | masks.keys()):
        try:
            pairs.append(_pair(folder, name, images.get(name, []), masks.get(name, []), others))
        except (FileNotFoundError, ValueError) as error:
            if on_error is None:
                raise
            on_error(name, error)
    return pairs


def read_pair(pair: Pair, *, classes: Sequence[str] = CLASS_NAMES) -> tuple[np.ndarray, np.ndarray]:
    """Read one image and its label map.

    Parameters
    ----------
    pair : Pair
        An element of what `list_pairs` returns.
    classes : sequence of str, default=("background", "white", "red")
        As for `load_folder`.

    Returns
    -------
    image : ndarray of shape (H, W, 3)
        As from `read_image`.
    mask : ndarray of shape (H, W), uint8

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file cannot be read, or sizes or labels are wrong.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> import numpy as np
    >>> from skimage.io import imsave
    >>> from bloodseg.datasets import list_pairs, read_pair
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for kind in ("images", "masks"):
    ...         (Path(folder) / kind).mkdir()
    ...         imsave(f"{folder}/{kind}/a.png", np.ones((4, 6), np.uint8), check_contrast=False)
    ...     image, mask = read_pair(list_pairs(folder)[0])
    >>> image.shape, mask.shape
    ((4, 6, 3), (4, 6))
    """
    image = read_image(pair.image)
    return image, _read_mask(pair.mask, image, pair.image, check_classes(classes))


def _pair(
    folder: Path, name: str, images: list[Path], masks: list[Path], others: Sequence[str]
) -> Pair:
    if not masks:
        # Of other endings, or with a word appended to the image's name.
        near = next((f for f in others if f.startswith((f"{name}.", f"{name}_", f"{name}-"))), None)
        advice = "Add it, or move the image away."
        if near:
            advice = (
                f"There is {near}, though: give a label map the name of its image, and save it as "
                "PNG, TIFF or BMP, for JPEG changes labels."
            )
        raise FileNotFoundError(
            f"{images[0]} has no label map: {folder / 'masks' / name}.png (or .tif, .bmp) does not "
            f"exist. {advice}"
        )
    if not images:
        raise ValueError(
            f"{masks[0]} has no image: {folder / 'images'} holds no image {name}. "
            "Add it, or move the label map away."
        )
    return Pair(name, only_file(images), only_file(masks))


def read_labels(file: str | os.PathLike, *, classes: Sequence[str] = CLASS_NAMES) -> np.ndarray:
    """Read a label map (H, W); whether its labels are those of the classes is not looked at."""
    data = read_bytes(expanded(file), limit=MAX_IMAGE_BYTES)
    return decode_labels(data, name=str(file), n_classes=len(classes))


def _read_mask(
    file: Path, image: np.ndarray, image_file: Path, classes: Sequence[str]
) -> np.ndarray:
    mask = read_labels(file, classes=classes)
    if mask.shape != image.shape[:2]:
        raise ValueError(
            f"{file} must have the size of its image, {image.shape[:2]}; got {mask.shape}. "
            f"Export it again from {image_file.name}."
        )
    found = np.unique(mask)
    if not np.isin(found, (*range(len(classes)), NOT_LABELLED)).all():
        shown = ", ".join(map(str, found[:8])) + (", ..." if found.size > 8 else "")
        raise ValueError(
            f"{file} must hold the labels {with_labels(classes)}, or {NOT_LABELLED} where the "
            f"class is not known; got {shown}. Map your values to these labels and save it again, "
            "or name further classes."
        )
    return mask.astype(np.uint8)
