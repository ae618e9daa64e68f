"""One page that shows what was found in a set of images."""

from ._report import ImageResult, render_report

__all__ = ["ImageResult", "render_report"]
