"""Red and white cells in blood smears: neural-ODE U-Nets behind a scikit-learn API."""

from ._version import __version__
from .preprocessing import Preprocessor
from .segmenter import BloodCellSegmenter

__all__ = ["BloodCellSegmenter", "Preprocessor", "__version__"]
