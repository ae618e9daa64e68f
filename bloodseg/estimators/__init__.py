"""The estimators: scikit-learn's contract around training and prediction."""

from ._counter import BloodCellCounter as BloodCellCounter
from ._features import SmearFeatures as SmearFeatures
from ._segmenter import BloodCellSegmenter as BloodCellSegmenter
