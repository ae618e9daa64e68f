"""From class maps to cells: found one by one, measured and written out."""

from ._blocks import KeptBlocks as KeptBlocks  # `as`: for other rooms, not public
from ._diameter import estimate_red_cell_diameter
from ._diameter import measured_diameter as measured_diameter
from ._export import coco_polygon as coco_polygon
from ._export import import_roifile as import_roifile
from ._export import make_coco as make_coco
from ._export import make_feature as make_feature
from ._export import outlines_of as outlines_of
from ._export import svg_path as svg_path
from ._export import to_coco, to_geojson, to_imagej_rois
from ._frame import EXCLUDED_SIDES as EXCLUDED_SIDES
from ._frame import CountingFrame
from ._frame import check_excluded_sides as check_excluded_sides
from ._html import SHOWN_SIDE as SHOWN_SIDE
from ._html import embed as embed
from ._html import to_html as to_html
from ._instances import Cells, find_cells
from ._instances import assemble as assemble
from ._instances import count_cells as count_cells
from ._instances import count_in_frame as count_in_frame
from ._instances import label_into as label_into
from ._measure import check_pixel_size as check_pixel_size
from ._measure import measure_blocks as measure_blocks
from ._measure import measure_cells
from ._scale import LEAST_DIAMETER as LEAST_DIAMETER
from ._scale import MOST_DIAMETER as MOST_DIAMETER
from ._scale import Radii as Radii
from ._scale import is_diameter as is_diameter
from ._scale import peak_shift as peak_shift
from ._scale import scale_to as scale_to
from ._scale import typical_radii as typical_radii
from ._scale import typical_radius as typical_radius
from ._shapes import Regions as Regions
from ._shapes import labels_at_edge as labels_at_edge
from ._shapes import trace_outlines as trace_outlines
from ._split import Split as Split
from ._split import split_cells as split_cells
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
