"""Arrays of pixels: checked, resized by strips of rows, cut into tiles and blended."""

from ._checks import (
    check_image,
    check_images,
    check_masks,
    in_container_of,
    middle,
    split_batch,
    to_rgb,
)
from ._classes import (
    CLASS_COLOURS,
    CLASS_NAMES,
    COUNT_NAMES,
    N_CLASSES,
    NOT_LABELLED,
    RED,
    WHITE,
)
from ._lazy import LazyImage, LazyImages, RecentImages, change_image
from ._marks import find_marks, paint_over
from ._rescaling import ScaledRows, rescale_labels, rescaled_shape, restore_size
from ._surround import find_surround, levels
from ._tiling import STRIDE, blend_tiles, cut_spans

__all__ = [
    "CLASS_COLOURS",
    "CLASS_NAMES",
    "COUNT_NAMES",
    "NOT_LABELLED",
    "N_CLASSES",
    "RED",
    "STRIDE",
    "WHITE",
    "LazyImage",
    "LazyImages",
    "RecentImages",
    "ScaledRows",
    "blend_tiles",
    "change_image",
    "check_image",
    "check_images",
    "check_masks",
    "cut_spans",
    "find_marks",
    "find_surround",
    "in_container_of",
    "levels",
    "middle",
    "paint_over",
    "rescale_labels",
    "rescaled_shape",
    "restore_size",
    "split_batch",
    "to_rgb",
]
