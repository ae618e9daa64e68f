"""Data sets: folders, LabelMe, Pascal VOC, COCO and GeoJSON in; blood smears drawn on demand."""

from ._annotated import load_annotated
from ._coco import load_coco
from ._files import list_images, list_passed_over
from ._folder import list_pairs, load_folder, read_pair
from ._folder import read_labels as read_labels  # `as`: for other rooms, not public
from ._geojson import load_geojson
from ._instances import load_instances
from ._labelme import load_labelme
from ._saving import save_annotated
from ._slides import Slide, open_slide, read_image
from ._smears import make_smears
from ._true_cells import Annotated as Annotated
from ._true_cells import TrueCells as TrueCells
from ._true_cells import list_annotated as list_annotated
from ._voc import load_voc
from ._weak import masks_from_boxes

__all__ = [
    "Slide",
    "list_images",
    "list_pairs",
    "list_passed_over",
    "load_annotated",
    "load_coco",
    "load_folder",
    "load_geojson",
    "load_instances",
    "load_labelme",
    "load_voc",
    "make_smears",
    "masks_from_boxes",
    "open_slide",
    "read_image",
    "read_pair",
    "save_annotated",
]
