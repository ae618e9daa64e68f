"""What a page holds of an image to zoom into: the whole photo, and an outline for each cell."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

from .._images import every_nth, to_bytes, turned
from ..cells import svg_path

MAX_PIXELS = 2**24
"""Pixels of a photo that is kept as it is; a larger one is shrunk."""

_QUALITY = 85
_MOST_OUTLINES = 20_000  # of one image: more would be slow to draw, and make the page large


def make_photo(image: Any, shape: tuple[int, int], max_pixels: int, orientation: int = 1) -> bytes:
    """Return an image (H, W[, C]), read by strips of rows, as JPEG of at most so many pixels."""
    step = math.ceil(math.sqrt(max(1.0, math.prod(shape) / max_pixels)))
    return to_jpeg(turned(to_bytes(every_nth(image, shape[0], step)), orientation), _QUALITY)


def to_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """Return a picture (H, W, 3), uint8, as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def trace_all(outlines: Iterable[np.ndarray]) -> tuple[str, ...]:
    """Return outlines (k, 2), corners (x, y), as paths of SVG; none where there are too many."""
    listed = list(outlines)
    return tuple(map(svg_path, listed)) if len(listed) <= _MOST_OUTLINES else ()
