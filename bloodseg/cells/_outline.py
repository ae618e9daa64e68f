"""Outlines that vote for what lies inwards of them, along the normal.

Of an arc of a circle, votes a radius away all meet in the middle, however little of the rest of the
circle is to be seen. So they find the middles of cells in a clump, and the radius at which most of
them meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_SOFTEN = 0.06  # of a radius: the blur of outlines before their normals are taken
KERNEL_SUM = 512  # of the blur's whole-numbered kernel, about


@dataclass(frozen=True)
class Outline:
    """The pixels of a mask at its border, and which way is inwards.

    Attributes
    ----------
    shape : (int, int)
        Of the mask.
    rows, columns : ndarray of shape (n,), int
        The pixels.
    down, right : ndarray of shape (n,), float64
        Unit vectors inwards.
    """

    shape: tuple[int, ...]
    rows: np.ndarray
    columns: np.ndarray
    down: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, radius: float, outside: np.ndarray | None = None) -> Outline:
        """Take the outline of a mask of cells of about this radius.

        The border of the window is no outline, nor is that of the picture.
        """
        inside = mask if outside is None else mask | outside
        inner = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1)
        rows, columns = np.nonzero(mask & (inner == 0))
        soft = blurred(inside, max(_SOFTEN * radius, 0.5))
        down = cv2.Sobel(soft, cv2.CV_32F, 0, 1)[rows, columns].astype(float)
        right = cv2.Sobel(soft, cv2.CV_32F, 1, 0)[rows, columns].astype(float)
        length = np.maximum(np.hypot(down, right), 1)
        return cls(mask.shape, rows, columns, down / length, right / length)

    def votes(self, *reaches: float, every: int = 1, margin: int = 0) -> np.ndarray:
        """Return how many votes each pixel gets, if every pixel votes at these distances.

        Or each block of ``every`` pixels a side; what no whole block covers is left out. With a
        margin, those of so many pixels around the mask count, too.
        """
        steps = np.array(reaches)[:, np.newaxis]
        # The way is rounded, not its end: halves would go up or down with the window's place.
        rows = (self.rows + margin + np.rint(steps * self.down).astype(np.intp)) // every
        columns = (self.columns + margin + np.rint(steps * self.right).astype(np.intp)) // every
        height, width = ((side + 2 * margin) // every for side in self.shape)
        within = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        places = rows[within] * width + columns[within]
        return np.bincount(places, minlength=height * width).reshape(height, width)


def blurred(counts: np.ndarray, spread: float) -> np.ndarray:
    """Return counts blurred by a Gaussian, times ``KERNEL_SUM`` squared.

    In whole numbers, which float32 holds exactly up to 2**24, far above what votes come to: blurs
    of fractions round in other ways near a window's right border, and a tie between two pixels
    would end otherwise in another block.
    """
    side = 2 * int(np.ceil(3 * spread)) + 1
    kernel = np.rint(cv2.getGaussianKernel(side, spread) * KERNEL_SUM)
    return cv2.sepFilter2D(counts.astype(np.float32), cv2.CV_32F, kernel, kernel)
