"""What callers may pass as images and label maps, checked in one place.

A batch is an array ``(n, H, W[, C])`` or a sequence of ``(H, W[, C])`` arrays of any sizes.
Nothing that comes in is ever written to.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import numpy as np
from PIL import Image
from skimage.color import rgba2rgb

from ._classes import CLASS_NAMES, NOT_LABELLED

_PATH_TYPES = (str, bytes, os.PathLike)
# Modes of Pillow's images whose values are shades or colours as they are.
_PLAIN_MODES = ("1", "L", "RGB", "RGBA", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_READ_FIRST = (
    "Read files first, for instance with bloodseg.datasets.load_folder or skimage.io.imread."
)


def as_array(item: Any, *, name: str) -> np.ndarray:
    """Return one image or label map that a caller passed as an array, uncopied where it is one.

    ``name`` is what the error messages call it.
    """
    if np.ma.is_masked(item):
        raise ValueError(
            f"{name} must have no masked pixels, for what a mask hides would be counted. Give "
            "images a fourth channel, alpha, that is 0 there; label maps the label of background."
        )
    try:
        array = np.asarray(item)
    except Exception as error:  # tensors of other devices, lists of rows of several lengths
        raise ValueError(f"{name} cannot be taken as an array: {error}") from error
    if array.dtype == object and array.ndim == 0:  # files that are open, None
        raise ValueError(f"{name} must be an array; got {type(item).__name__}. {_READ_FIRST}")
    return array


def as_image(item: Any, *, name: str) -> np.ndarray:
    """Return what `as_array` does; of Pillow's images, the colours that their values stand for."""
    if isinstance(item, Image.Image):
        transparent = "transparency" in item.info or item.mode in ("PA", "LA", "La", "RGBa")
        if transparent or item.mode not in _PLAIN_MODES:
            item = item.convert("RGBA" if transparent else "RGB")
    return as_array(item, name=name)


def split_batch(
    batch: Any, *, name: str, item: str, convert: Callable[..., np.ndarray] = as_array
) -> list[np.ndarray]:
    """Return the items of an array or sequence of arrays as a list of arrays, uncopied.

    ``item`` says in words what one item is, for the error message; ``convert`` makes it an array.
    """
    scalar = isinstance(batch, np.ndarray) and batch.ndim == 0  # has __len__, but no length
    unordered = isinstance(batch, (Mapping, Set))
    if scalar or unordered or isinstance(batch, _PATH_TYPES) or not hasattr(batch, "__len__"):
        raise ValueError(
            f"{name} must be an array or a list of arrays, each {item}; "
            f"got {type(batch).__name__}. {_READ_FIRST}"
        )
    if len(batch) == 0:
        raise ValueError(f"{name} must hold at least one {item}; got none.")
    elements = list(batch)  # once: a sequence may read its images from disk as it is indexed
    for index, element in enumerate(elements):
        if isinstance(element, _PATH_TYPES):
            raise ValueError(
                f"{name}[{index}] must be an array, {item}; "
                f"got {type(element).__name__}. {_READ_FIRST}"
            )
    return [convert(element, name=f"{name}[{index}]") for index, element in enumerate(elements)]


def check_images(images: Any, *, name: str = "images") -> list[np.ndarray]:
    """Check a batch of images and return them as a list of arrays, uncopied.

    Parameters
    ----------
    images : ndarray of shape (n, H, W[, C]) or sequence of (H, W[, C]) ndarrays
        Grey, RGB or RGBA. bool; uint8; uint16; or floating point in [0, 1].
    name : str
        What the error messages call the argument.

    Returns
    -------
    list of ndarray

    Raises
    ------
    ValueError
        If a shape, dtype or value is none of the above, or not finite.
    """
    if isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[-1] in (3, 4):
        raise ValueError(
            f"{name} must be a batch (n, H, W, C) or a list of images; got one array of shape "
            f"{images.shape}, which looks like a single image. Pass {name}[np.newaxis] or [{name}]."
        )
    if isinstance(images, np.ndarray) and images.ndim == 2:
        raise ValueError(
            f"{name} must be a batch (n, H, W[, C]) or a list of images; got one array of shape "
            f"{images.shape}. Pass [{name}] if it is a single grey image."
        )
    item = "image (H, W) or (H, W, 3)"
    arrays = split_batch(images, name=name, item=item, convert=as_image)
    for index, array in enumerate(arrays):
        check_image(array, name=f"{name}[{index}]")
    return arrays


def check_image(image: np.ndarray, *, name: str) -> None:
    """Check one image of those that `check_images` takes."""
    channels_ok = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3, 4))
    if not channels_ok or 0 in image.shape:
        raise ValueError(
            f"{name} must have shape (H, W) or (H, W, C) with C one of 1 (grey), 3 (RGB) and "
            f"4 (RGBA), and hold pixels; got shape {image.shape}. "
            "Move the channels to the last axis."
        )
    if image.dtype == bool or (image.dtype.kind == "u" and image.dtype.itemsize <= 2):
        return  # either byte order: TIFF files have both
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(
            f"{name} must have dtype bool, uint8, uint16 or floating point; got {image.dtype}. "
            "Cast 8-bit values with .astype(np.uint8)."
        )
    low, high = image.min(), image.max()  # both are NaN where any pixel is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError(
            f"{name} must hold finite values; got NaN or infinity. "
            "Replace them, for instance with np.nan_to_num."
        )
    if low < 0 or high > 1:
        rounding = low > -1e-3 and high < 1 + 1e-3
        found = f"{low!s} to {high!s}" if rounding else f"{low:g} to {high:g}"
        raise ValueError(
            f"{name} has dtype {image.dtype}, so its values must lie in [0, 1]; "
            f"got values from {found}. "
            + (
                "Cut off what rounding has added with np.clip(image, 0, 1)."
                if rounding
                else "Divide by the white level (255 for 8-bit data)."
            )
        )


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Return a checked image as RGB, uint8 or float32 in [0, 1]; a copy only where it must.

    Grey is repeated, RGBA laid over white (the colour of an empty smear), bool becomes 0 and 255.
    """
    if image.dtype == bool:
        image = image.astype(np.uint8) * np.uint8(255)
    elif image.dtype.kind == "u" and image.dtype.itemsize == 2:
        image = image.astype(np.float32) / np.float32(65535)
    elif image.dtype != np.uint8:
        image = image.astype(np.float32, copy=False)
    if image.ndim == 2:
        image = image[..., np.newaxis]
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    if image.shape[2] == 4:
        opaque = 255 if image.dtype == np.uint8 else 1
        if (image[..., 3] == opaque).all():
            return image[..., :3]
        return rgba2rgb(image).astype(np.float32)
    return image


def to_bytes(image: np.ndarray) -> np.ndarray:
    """Return a checked image of any kind as RGB, uint8."""
    rgb = to_rgb(check_images([image])[0])
    return rgb if rgb.dtype == np.uint8 else (rgb * 255 + 0.5).astype(np.uint8)


def middle(image: Any, side: int) -> np.ndarray:
    """Return the square in the middle of an image, or what there is of it.

    Of an image on disk only the rows of the square are read.
    """
    top, left = (max(length - side, 0) // 2 for length in image.shape[:2])
    return np.asarray(image[top : top + side])[:, left : left + side]


def check_masks(
    masks: Any,
    *,
    images: Sequence[np.ndarray] | None = None,
    classes: Sequence[str] = CLASS_NAMES,
    partial: bool = False,
    name: str = "masks",
) -> list[np.ndarray]:
    """Check a batch of label maps and return them as a list of uint8 arrays (H, W).

    Parameters
    ----------
    masks : ndarray of shape (n, H, W) or sequence of (H, W) ndarrays
        Labels, places in ``classes``, of any dtype that holds them exactly.
    images : sequence of ndarray, optional
        Checked images that the label maps must match in number and size.
    classes : sequence of str
        Names of the labels 0, 1, ...
    partial : bool
        Whether pixels may be `NOT_LABELLED`.
    name : str
        What the error messages call the argument.

    Returns
    -------
    list of ndarray of uint8

    Raises
    ------
    ValueError
        If number, shape or labels are wrong.
    """
    if isinstance(masks, np.ndarray) and masks.dtype != object and masks.ndim != 3:
        raise ValueError(
            f"{name} must be a batch (n, H, W) or a list of label maps (H, W); got one array of "
            f"shape {masks.shape}. Pass [{name}] if it is a single label map."
        )
    arrays = split_batch(masks, name=name, item="label map (H, W)")
    if images is not None and len(images) != len(arrays):
        raise ValueError(
            f"{name} must hold one label map an image; "
            f"got {len(arrays)} label maps for {len(images)} images."
        )
    checked = []
    for index, array in enumerate(arrays):
        where = f"{name}[{index}]"
        expected = (None if images is None else images[index].shape[:2]) or array.shape
        if array.ndim != 2 or array.size == 0 or array.shape != expected:
            wanted = "(H, W)" if images is None else f"{expected}, as its image has"
            raise ValueError(f"{where} must have shape {wanted}; got {array.shape}.")
        checked.append(_check_labels(array, classes=classes, partial=partial, name=where))
    return checked


def _check_labels(
    mask: np.ndarray, *, classes: Sequence[str], partial: bool, name: str
) -> np.ndarray:
    if mask.dtype.kind not in "buif":
        raise ValueError(
            f"{name} must hold numbers; got dtype {mask.dtype}. Cast labels with .astype(np.uint8)."
        )
    known = mask[mask != NOT_LABELLED] if partial and mask.max() == NOT_LABELLED else mask
    if known.size == 0 or (known.min() >= 0 and known.max() < len(classes)):
        labels = mask.astype(np.uint8, copy=False)
        if mask.dtype.kind in "bui" or (labels == mask).all():
            return labels
    found = np.unique(mask)
    shown = ", ".join(str(value) for value in found[:8]) + (", ..." if len(found) > 8 else "")
    raise ValueError(
        f"{name} must hold the labels 0 to {len(classes) - 1}"
        + ("" if classes[0] == "0" else f" ({', '.join(classes)})")
        + (f", or {NOT_LABELLED} where the class is not known" if partial else "")
        + f"; got {shown}. Map your labels to these first. Or pass the classes that they stand for."
    )


def check_sample_weight(sample_weight: Any, n_images: int) -> np.ndarray:
    """Return the weight of each image.

    Raises
    ------
    ValueError
        If there is not one finite weight an image, or one is negative.
    """
    if sample_weight is None:
        return np.ones(n_images)
    try:
        weights = np.asarray(sample_weight, dtype=float)
    except (TypeError, ValueError):
        weights = np.full(n_images, np.nan)
    if not np.isfinite(weights).all() or weights.shape != (n_images,) or (weights < 0).any():
        raise ValueError(
            f"sample_weight must hold one finite weight, not negative, for each of {n_images} "
            f"images; got {sample_weight!r}."
        )
    return weights


def in_container_of(arrays: list[np.ndarray], batch: Any) -> Any:
    """Return ``arrays`` stacked where ``batch`` is one numeric array, else as the list."""
    if isinstance(batch, np.ndarray) and batch.dtype.kind in "buif":
        return np.stack(arrays)
    return arrays
