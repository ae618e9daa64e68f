"""Arrays of pixels: checked, resized by strips of rows, cut into tiles and blended."""

from ._checks import (
    check_image,
    check_images,
    check_masks,
    check_sample_weight,
    in_container_of,
    middle,
    split_batch,
    to_rgb,
)
from ._classes import (
    CLASS_NAMES,
    NOT_LABELLED,
    PLATELET,
    RED,
    WHITE,
    cell_labels,
    check_classes,
    colours_of,
    in_words,
    label_of,
    mask_of,
    numbered,
    with_labels,
)
from ._lazy import LazyImage, LazyImages, RecentImages, change_image, made_ahead
from ._marks import find_marks, paint_over
from ._rescaling import ScaledRows, rescale_labels, rescaled_shape, restore_size
from ._surround import find_surround, levels
from ._tiling import STRIDE, blend_tiles, cut_spans

__all__ = [
    "CLASS_NAMES",
    "NOT_LABELLED",
    "PLATELET",
    "RED",
    "STRIDE",
    "WHITE",
    "LazyImage",
    "LazyImages",
    "RecentImages",
    "ScaledRows",
    "blend_tiles",
    "cell_labels",
    "change_image",
    "check_classes",
    "check_image",
    "check_images",
    "check_masks",
    "check_sample_weight",
    "colours_of",
    "cut_spans",
    "find_marks",
    "find_surround",
    "in_container_of",
    "in_words",
    "label_of",
    "levels",
    "made_ahead",
    "mask_of",
    "middle",
    "numbered",
    "paint_over",
    "rescale_labels",
    "rescaled_shape",
    "restore_size",
    "split_batch",
    "to_rgb",
    "with_labels",
]
