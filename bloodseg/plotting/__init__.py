"""Plots as scikit-learn Display objects: made from an estimator or from what it gave, then drawn.

They need matplotlib: ``pip install 'bloodseg[plot]'``.
"""

from ._cells import CellSizeDisplay
from ._history import TrainingHistoryDisplay
from ._instances import InstanceDisplay
from ._segmentation import SegmentationDisplay
from ._tolerance import ToleranceCurveDisplay

__all__ = [
    "CellSizeDisplay",
    "InstanceDisplay",
    "SegmentationDisplay",
    "ToleranceCurveDisplay",
    "TrainingHistoryDisplay",
]
