"""How photos are turned to be shown: their EXIF data say so, and pixels come as they are stored."""

from __future__ import annotations

from typing import Any

import numpy as np

_AS_STORED = 1
_ROWS_ARE_COLUMNS = (5, 6, 7, 8)
_UPSIDE_DOWN = (3, 4, 7, 8)
_RIGHT_TO_LEFT = (2, 3, 6, 7)


def check_orientation(orientation: Any) -> int:
    """Return what a file says of its orientation, 1 to 8; what means nothing as 1, not turned."""
    return orientation if orientation in range(1, 9) else _AS_STORED


def turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return stored pixels (H, W, ...) as they are shown."""
    if orientation in _ROWS_ARE_COLUMNS:
        pixels = pixels.swapaxes(0, 1)
    if orientation in _UPSIDE_DOWN:
        pixels = pixels[::-1]
    if orientation in _RIGHT_TO_LEFT:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def turned_shape(shape: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return height and width as they are shown."""
    height, width = shape
    return (width, height) if orientation in _ROWS_ARE_COLUMNS else (height, width)


def turned_corners(corners: np.ndarray, shape: tuple[int, int], orientation: int) -> np.ndarray:
    """Return corners (k, 2), x and y, of stored pixels (H, W) where these are shown."""
    height, width = turned_shape(shape, orientation)
    x, y = np.asarray(corners).T
    if orientation in _ROWS_ARE_COLUMNS:
        x, y = y, x
    if orientation in _UPSIDE_DOWN:
        y = height - y
    if orientation in _RIGHT_TO_LEFT:
        x = width - x
    return np.stack([x, y], axis=1)
