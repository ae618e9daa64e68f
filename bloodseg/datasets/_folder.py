"""Folders of images and label maps."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from sklearn.utils import Bunch

from .._images import CLASS_NAMES
from ._files import (
    IMAGE_SUFFIXES,
    MASK_SUFFIXES,
    MAX_IMAGE_BYTES,
    check_folder,
    decode_labels,
    files_by_stem,
    read_bytes,
    read_image,
    read_table,
)

_LAYOUT = "subfolders images and masks"


def load_folder(path: str | os.PathLike) -> Bunch:
    """Load images and label maps from a folder.

    The folder holds ``images/NAME.png`` (or jpg, jpeg, tif, tiff, bmp) and for each image
    ``masks/NAME.png`` (or tif, tiff, bmp): one channel with the labels 0 background, 1 white cells,
    2 red cells. Of paletted masks the palette's indices are the labels. A file ``groups.csv`` with
    the columns image and group may say which images show the same patient or field.

    Parameters
    ----------
    path : str or path-like
        The folder.

    Returns
    -------
    Bunch
        images : list of ndarray of shape (H, W, 3)
            RGB, uint8; or float32 in [0, 1] for files of 16 bits a channel.
        masks : list of ndarray of shape (H, W), uint8
        names : list of str
            File names without suffix; all lists are sorted by them.
        groups : ndarray of str of shape (n,), or None
            For GroupKFold and its like; None without ``groups.csv``.
        target_names : tuple of str
            Names of the labels 0, 1, 2.

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
    folder = check_folder(path, holds=_LAYOUT)
    for name in ("images", "masks"):
        check_folder(folder / name, holds=f"files, one of the {_LAYOUT}")
    pairs = _pair(folder)
    names = sorted(pairs)
    images, masks = [], []
    for name in names:
        image_file, mask_file = pairs[name]
        image = read_image(image_file)
        images.append(image)
        masks.append(_read_mask(mask_file, image, image_file))
    table = folder / "groups.csv"
    groups = read_table(table, ["group"], names)["group"] if table.exists() else None
    return Bunch(images=images, masks=masks, names=names, groups=groups, target_names=CLASS_NAMES)


def _pair(folder: Path) -> dict[str, tuple[Path, Path]]:
    images = files_by_stem(folder / "images", IMAGE_SUFFIXES)
    masks = files_by_stem(folder / "masks", MASK_SUFFIXES)
    if not images:
        raise FileNotFoundError(
            f"{folder / 'images'} must hold at least one image ({', '.join(IMAGE_SUFFIXES)}); "
            "got none."
        )
    for name, file in images.items():
        if name not in masks:
            raise FileNotFoundError(
                f"{file} has no label map: {folder / 'masks' / name}.png (or .tif, .bmp) does not "
                "exist. Add it, or move the image away."
            )
    for name, file in masks.items():
        if name not in images:
            raise ValueError(
                f"{file} has no image: {folder / 'images'} holds no image {name}. "
                "Add it, or move the label map away."
            )
    return {name: (images[name], masks[name]) for name in images}


def _read_mask(file: Path, image: np.ndarray, image_file: Path) -> np.ndarray:
    mask = decode_labels(read_bytes(file, limit=MAX_IMAGE_BYTES), name=str(file))
    if mask.shape != image.shape[:2]:
        raise ValueError(
            f"{file} must have the size of its image, {image.shape[:2]}; got {mask.shape}. "
            f"Export it again from {image_file.name}."
        )
    found = np.unique(mask)
    if found[0] < 0 or found[-1] >= len(CLASS_NAMES):
        shown = ", ".join(map(str, found[:8])) + (", ..." if found.size > 8 else "")
        raise ValueError(
            f"{file} must hold the labels 0 (background), 1 (white) and 2 (red); got {shown}. "
            "Map your values to these labels and save it again."
        )
    return mask.astype(np.uint8)
