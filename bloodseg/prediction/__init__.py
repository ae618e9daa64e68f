"""From images to class maps and cells: what callers pass, a network that only predicts, the result.

Nothing here writes to what was fitted: a `Predictor` owns a copy of the network.
"""

from ._magnification import Ruler as Ruler
from ._magnification import check_red_cell_diameter as check_red_cell_diameter
from ._map_files import check_output as check_output
from ._map_files import classes_of_map as classes_of_map
from ._map_files import write_map as write_map
from ._network import TileNetwork as TileNetwork
from ._network import check_tile_size as check_tile_size
from ._network import explain_memory_errors as explain_memory_errors
from ._predictor import Predictor as Predictor
from ._segmented import LabelRows as LabelRows
from ._segmented import Segmented as Segmented
from ._segmented import warn_of_doubts as warn_of_doubts
from ._sources import Source as Source
from ._sources import Sources as Sources
from ._sources import check_sources as check_sources
