"""The estimators: scikit-learn's contract around training and prediction."""

from ._counter import BloodCellCounter as BloodCellCounter
from ._segmenter import BloodCellSegmenter as BloodCellSegmenter
