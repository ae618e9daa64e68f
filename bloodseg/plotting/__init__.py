"""Plots as scikit-learn Display objects: made from an estimator or from what it gave, then drawn.

They need matplotlib: ``pip install 'bloodseg[plot]'``.
"""

from ._cells import CellSizeDisplay
from ._history import TrainingHistoryDisplay
from ._instances import InstanceDisplay
from ._pictures import coloured as coloured
from ._pictures import legend as legend
from ._pictures import overlay as overlay
from ._pictures import overlay_of as overlay_of
from ._pictures import sheet as sheet
from ._segmentation import SegmentationDisplay
from ._tolerance import ToleranceCurveDisplay

__all__ = [
    "CellSizeDisplay",
    "InstanceDisplay",
    "SegmentationDisplay",
    "ToleranceCurveDisplay",
    "TrainingHistoryDisplay",
]
