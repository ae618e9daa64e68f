"""Cells drawn over each other, as annotations list them."""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from typing import Any

import numpy as np

# How often shapes may cover an image, or one of so many pixels: no cells lie so, and work ends.
_MOST_DRAWN, _SMALL = 256, 2**16


class Canvas:
    """An image's cells: later ones lie over earlier ones, and class 0 erases.

    Parameters
    ----------
    size : (int, int)
        Height and width.
    source : str
        What messages call the annotations.
    """

    def __init__(self, size: tuple[int, int], source: str):
        self._drawn = np.zeros(size, np.int32)
        self._classes = [0]
        self._numbers: dict[Hashable, int] = {}
        self._n_drawn = 0
        self._n_shapes = self._n_outside = 0
        self._source = source

    def reserve(self, n_pixels: int) -> None:
        """Raise where so many pixels more would be too many to draw."""
        self._n_drawn += n_pixels
        if self._n_drawn > _MOST_DRAWN * max(self._drawn.size, _SMALL):
            raise ValueError(
                f"{self._source} has shapes that cover the image more than {_MOST_DRAWN} times. "
                "Remove those that lie over each other."
            )

    def draw(
        self, place: tuple[slice, slice], inside: Any, label: int, cell: Hashable = None
    ) -> None:
        """Draw a shape of a class: the pixels of a window that ``inside`` chooses.

        Shapes of one ``cell`` are one; by default each is a cell of its own.
        """
        self.reserve(self._drawn[place].size)
        self._n_shapes += 1
        if not self._drawn[place][inside].size:
            self._n_outside += 1
            return
        number = 0
        if label:
            key = len(self._classes) if cell is None else (label, cell)
            number = self._numbers.setdefault(key, len(self._classes))
            if number == len(self._classes):
                self._classes.append(label)
        self._drawn[place][inside] = number

    def cells(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the cells' numbers (H, W) and the class of each number, 0 included.

        Cells that later ones hide entirely are not there: numbers stay consecutive. Shapes without
        a pixel in the image are told of, since they were perhaps drawn on another one.
        """
        if self._n_outside:
            height, width = self._drawn.shape
            warnings.warn(
                f"{self._source}: of {self._n_shapes} shapes {self._n_outside} left out, which "
                f"have no pixel in the image of {height} x {width} pixels. Were they drawn on "
                "another image, or on this one at another size?",
                stacklevel=3,
            )
        seen = np.unique(self._drawn)
        seen = seen[seen > 0]
        renumber = np.zeros(len(self._classes), np.int32)
        renumber[seen] = np.arange(1, len(seen) + 1)
        classes = np.array([0, *np.array(self._classes)[seen]], np.uint8)
        return renumber[self._drawn], classes
