"""What a page holds of an image to zoom into: the whole photo, and an outline for each cell."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ..plotting._pictures import to_bytes

MAX_PIXELS = 2**24
"""Pixels of a photo that is kept as it is; a larger one is shrunk."""

_QUALITY = 85
_MOST_OUTLINES = 20_000  # of one image: more would be slow to draw, and make the page large
_TOLERANCE = 0.75  # pixels by which an outline may be off where corners are left out


def make_photo(image: Any, shape: tuple[int, int], max_pixels: int) -> bytes:
    """Return an image (H, W[, C]), read by strips of rows, as JPEG of at most so many pixels."""
    step = math.ceil(math.sqrt(max(1.0, math.prod(shape) / max_pixels)))
    return to_jpeg(to_bytes(every(image, shape[0], step)), _QUALITY)


def to_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """Return a picture (H, W, 3), uint8, as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


def every(rows: Any, height: int, step: int) -> np.ndarray:
    """Return every step-th row and column of what is read by rows, some rows at a time."""
    strip = step * max(1, 256 // step)
    return np.concatenate(
        [rows[top : min(top + strip, height)][::step, ::step] for top in range(0, height, strip)]
    )


def trace_all(outlines: Iterable[np.ndarray]) -> tuple[str, ...]:
    """Return outlines (k, 2), corners (x, y), as paths of SVG; none where there are too many."""
    listed = list(outlines)
    return tuple(map(_trace, listed)) if len(listed) <= _MOST_OUTLINES else ()


def _trace(outline: np.ndarray) -> str:
    corners = cv2.approxPolyDP(outline.astype(np.int32), _TOLERANCE, closed=True)[:, 0]
    steps = np.diff(corners, axis=0).tolist()
    x, y = corners[0].tolist()
    return f"M{x} {y}l{' '.join(f'{right} {down}' for right, down in steps)}z"


def embed(picture: bytes | None) -> str:
    """Return a JPEG file as the address that it has in the page."""
    return "data:image/jpeg;base64," + base64.b64encode(picture or b"").decode()
