"""Data sets: folders, LabelMe, Pascal VOC, COCO and GeoJSON in; blood smears drawn on demand."""

from ._annotated import load_annotated
from ._bounds import MAX_PIXELS as MAX_PIXELS  # `as`: for other rooms, not public
from ._coco import load_coco
from ._decoding import formats_read_here as formats_read_here
from ._files import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from ._files import UnknownLabelError as UnknownLabelError
from ._files import files_by_stem as files_by_stem
from ._files import is_image as is_image
from ._files import is_zarr as is_zarr
from ._files import list_images, list_passed_over
from ._files import read_rows as read_rows
from ._files import read_table as read_table
from ._folder import list_pairs, load_folder, read_pair
from ._folder import read_labels as read_labels
from ._geojson import load_geojson
from ._geojson import read_features as read_features
from ._geojson import read_outline as read_outline
from ._instances import load_instances
from ._labelme import load_labelme
from ._pixel_size import in_micrometres as in_micrometres
from ._pixel_size import pixel_sides as pixel_sides
from ._saving import FORMATS as FORMATS
from ._saving import save_annotated
from ._slides import Slide, open_slide, read_image
from ._smears import make_smears
from ._true_cells import Annotated as Annotated
from ._true_cells import TrueCells as TrueCells
from ._true_cells import list_annotated as list_annotated
from ._true_cells import true_cells_of as true_cells_of
from ._voc import load_voc
from ._weak import masks_from_boxes
from ._xml import parse_xml as parse_xml
from ._zarr import read_metadata as read_metadata

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
