"""From images to class maps and cells: what callers pass, a network that only predicts, the result.

Nothing here writes to what was fitted: a `Predictor` owns a copy of the network.
"""

from ._magnification import Ruler, check_red_cell_diameter
from ._map_files import check_output, write_map
from ._network import TileNetwork, check_tile_size, explain_memory_errors
from ._predictor import Predictor
from ._segmented import LabelRows, Segmented
from ._sources import Source, Sources, check_sources

__all__ = [
    "LabelRows",
    "Predictor",
    "Ruler",
    "Segmented",
    "Source",
    "Sources",
    "TileNetwork",
    "check_output",
    "check_red_cell_diameter",
    "check_sources",
    "check_tile_size",
    "explain_memory_errors",
    "write_map",
]
