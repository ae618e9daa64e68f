"""The estimators: scikit-learn's contract around training and prediction."""

from ._counter import BloodCellCounter
from ._segmenter import BloodCellSegmenter

__all__ = ["BloodCellCounter", "BloodCellSegmenter"]
