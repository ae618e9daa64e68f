"""Red and white cells in blood smears: neural-ODE U-Nets behind a scikit-learn API."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .counter import BloodCellCounter
    from .preprocessing import Preprocessor
    from .segmenter import BloodCellSegmenter

__all__ = ["BloodCellCounter", "BloodCellSegmenter", "Preprocessor", "__version__"]

# Loaded on first use: metrics and datasets then do without the seconds that torch takes.
_HOME = {
    "BloodCellCounter": ".counter",
    "BloodCellSegmenter": ".segmenter",
    "Preprocessor": ".preprocessing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
