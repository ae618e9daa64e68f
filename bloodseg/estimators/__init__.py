"""The estimators: scikit-learn's contract around training and prediction."""

from ._base import NetworkEstimator as NetworkEstimator
from ._counter import BloodCellCounter as BloodCellCounter
from ._features import SmearFeatures as SmearFeatures
from ._model_file import read_header as read_header
from ._parameters import of_the_result as of_the_result
from ._segmenter import BloodCellSegmenter as BloodCellSegmenter
