"""Arrays of pixels: checked, resized by strips of rows, cut into tiles and blended."""

from ._checks import (
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
from ._rescaling import ScaledRows, scaled_labels, scaled_shape, unscaled
from ._tiling import STRIDE, blended, spans

__all__ = [
    "CLASS_COLOURS",
    "CLASS_NAMES",
    "COUNT_NAMES",
    "NOT_LABELLED",
    "N_CLASSES",
    "RED",
    "STRIDE",
    "WHITE",
    "ScaledRows",
    "blended",
    "check_images",
    "check_masks",
    "in_container_of",
    "middle",
    "scaled_labels",
    "scaled_shape",
    "spans",
    "split_batch",
    "to_rgb",
    "unscaled",
]
