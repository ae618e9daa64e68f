"""One page that shows what was found in a set of images."""

from ._report import render_report
from ._result import ImageResult
from ._view import MAX_PIXELS as MAX_PIXELS

__all__ = ["ImageResult", "render_report"]
