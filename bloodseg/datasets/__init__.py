"""Data sets: folders, LabelMe and Pascal VOC in; blood smears drawn on demand."""

from ._files import list_images, list_passed_over
from ._folder import list_pairs, load_folder, read_pair
from ._folder import read_labels as read_labels  # `as`: for other rooms, not public
from ._labelme import load_labelme
from ._slides import Slide, open_slide, read_image
from ._smears import make_smears
from ._voc import load_voc
from ._weak import masks_from_boxes

__all__ = [
    "Slide",
    "list_images",
    "list_pairs",
    "list_passed_over",
    "load_folder",
    "load_labelme",
    "load_voc",
    "make_smears",
    "masks_from_boxes",
    "open_slide",
    "read_image",
    "read_pair",
]
