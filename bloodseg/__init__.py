"""Red and white cells in blood smears: neural-ODE U-Nets behind a scikit-learn API."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .cells import summarize
    from .estimators import BloodCellCounter, BloodCellSegmenter, SmearFeatures
    from .prediction import Segmented
    from .preprocessing import Preprocessor

__all__ = [
    "BloodCellCounter",
    "BloodCellSegmenter",
    "Preprocessor",
    "Segmented",
    "SmearFeatures",
    "__version__",
    "summarize",
]

# Loaded on first use: metrics and datasets then do without the seconds that torch takes.
_HOME = {
    "BloodCellCounter": ".estimators",
    "BloodCellSegmenter": ".estimators",
    "Preprocessor": ".preprocessing",
    "Segmented": ".prediction",
    "SmearFeatures": ".estimators",
    "summarize": ".cells",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
