"""Sizes of pixels that the cells found with them contradict."""

import re

import pytest

from bloodseg.prediction._pixel_size import list_pixel_size_doubts


@pytest.mark.parametrize("sides", [None, (0.17, 0.17), (0.17, 0.171), (0.105, 0.105), (0.25, 0.25)])
def test_sizes_that_fit(sides):
    assert list_pixel_size_doubts(44, sides) == []


@pytest.mark.parametrize(
    ("side", "width"), [(1.0, "44"), (6.45, "284"), (0.05, "2.2"), (0.28, "12.3"), (10, "440")]
)
def test_sizes_that_cannot_be(side, width):
    (text,) = list_pixel_size_doubts(44, (side, side))
    assert re.match(f"with pixels of {side:g} micrometres its red cells are {width} ", text)


def test_pixels_that_are_not_square():
    (text,) = list_pixel_size_doubts(44, (0.1, 0.3))
    assert text.startswith("its pixels are 0.1 by 0.3 micrometres, so that areas are right")
    assert len(list_pixel_size_doubts(44, (1, 3))) == 2


def test_without_red_cells_only_the_shape_of_pixels_tells():
    assert list_pixel_size_doubts(None, (6.45, 6.45)) == []
    assert len(list_pixel_size_doubts(None, (6.45, 3))) == 1
