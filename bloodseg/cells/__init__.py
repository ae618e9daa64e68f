"""From class maps to cells: found one by one, measured and written out."""

from ._diameter import estimate_red_cell_diameter
from ._export import to_coco, to_geojson, to_imagej_rois
from ._frame import EXCLUDED_SIDES as EXCLUDED_SIDES
from ._frame import CountingFrame
from ._instances import Cells, find_cells
from ._measure import check_pixel_size as check_pixel_size  # `as`: for other rooms, not public
from ._measure import measure_cells
from ._summary import OF_CELLS as OF_CELLS
from ._summary import summarize as summarize

__all__ = [
    "Cells",
    "CountingFrame",
    "estimate_red_cell_diameter",
    "find_cells",
    "measure_cells",
    "to_coco",
    "to_geojson",
    "to_imagej_rois",
]
