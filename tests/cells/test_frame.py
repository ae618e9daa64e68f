"""The unbiased counting frame: each cell counts in one of the frames that tile a plane."""

import itertools
import re

import numpy as np
import pytest
from scipy import ndimage

from bloodseg.cells import CountingFrame, find_cells
from bloodseg.cells._frame import check_excluded_sides, counting_frame
from bloodseg.cells._scale import Radii
from bloodseg.datasets import make_smears

CORNERS = [*itertools.product(("top", "bottom"), ("left", "right"))]


def shapes(rng, side, number):
    """Return a label image of blobs of all shapes and sizes, some in several parts."""
    noise = ndimage.gaussian_filter(rng.normal(size=(side, side)), 3)
    labels, _ = ndimage.label(noise > 0.05)
    return np.where(labels > 0, 1 + (labels - 1) % number, 0)


@pytest.mark.parametrize("sides", CORNERS)
def test_each_cell_counts_in_one_of_the_frames_that_tile_the_plane(rng, sides):
    side, step = 120, 30
    for number in (10, 10**6):
        labels = shapes(rng, side, number)
        n_cells = labels.max()
        times = np.zeros(n_cells, int)
        for top, left in itertools.product(range(0, side, step), repeat=2):
            frame = CountingFrame(top, left, top + step, left + step, sides, step**2)
            times += frame.holds(labels, n_cells)
        assert (times == np.isin(np.arange(1, n_cells + 1), labels)).all()


@pytest.mark.parametrize("sides", CORNERS)
def test_a_window_with_whole_cells_tells_as_much_as_the_image(rng, sides):
    labels = shapes(rng, 100, 10**6)
    frame = CountingFrame(20, 30, 70, 80, sides, 2500)
    expected = frame.holds(labels, labels.max())
    padded = np.pad(labels, ((7, 3), (2, 9)))
    assert np.array_equal(frame.holds(padded, labels.max(), (-7, -2)), expected)
    box = labels[10:95, 5:90]
    whole = ~np.isin(np.arange(1, labels.max() + 1), np.setdiff1d(labels, box))
    edge = np.unique(np.concatenate([box[0], box[-1], box[:, 0], box[:, -1]]))
    whole &= ~np.isin(np.arange(1, labels.max() + 1), edge)
    found = frame.holds(box, labels.max(), (10, 5))
    assert whole.any()
    assert np.array_equal(found[whole], expected[whole])


def test_the_frame_of_an_image():
    radii = Radii(red=12.3, white=28)
    frame = counting_frame((100, 200), radii)
    assert frame == CountingFrame(13, 13, 99, 199, ("bottom", "right"), 86 * 186)
    frame = counting_frame((100, 200), radii, ("right", "top"))
    assert (frame.top, frame.left, frame.bottom, frame.right) == (1, 13, 87, 199)
    every = counting_frame((100, 200), radii, ())
    assert every == CountingFrame(0, 0, 100, 200, (), 20000)
    assert every.holds(np.array([[1, 0, 2]]), 2).all()
    assert counting_frame((100, 200), None).area == 99 * 199
    nothing = counting_frame((13, 200), radii)
    assert nothing.area == 0
    assert not nothing.holds(np.ones((13, 200), int), 1).any()


@pytest.mark.parametrize("shape", [(90, 120), (700, 900)])
def test_in_a_round_field_the_largest_rectangle_takes_the_images_place(shape):
    height, width = shape
    y, x = np.ogrid[:height, :width]
    radius = 0.45 * height
    outside = (y - height / 2) ** 2 + (x - width / 2) ** 2 > radius**2
    frame = counting_frame(shape, None, outside=outside)
    assert not outside[frame.top : frame.bottom + 1, frame.left : frame.right + 1].any()
    assert frame.area == pytest.approx(2 * radius**2, rel=0.05)
    assert counting_frame(shape, None, (), outside=outside).area == (~outside).sum()


def test_a_framed_picture_is_the_frame():
    outside = np.ones((80, 100), bool)
    outside[10:70, 20:90] = False
    frame = counting_frame(outside.shape, Radii(5, 11), outside=outside)
    assert (frame.top, frame.left, frame.bottom, frame.right) == (15, 25, 69, 89)
    assert counting_frame(outside.shape, None, outside=np.ones((80, 100), bool)).area == 0


def photos_of(field, side):
    """Return a drawn field as it is, and as photos that show all of it."""
    tops = range(0, len(field), side)
    parts = [field[y : y + side, x : x + side] for y, x in itertools.product(tops, repeat=2)]
    return [field], parts


def test_density_does_not_depend_on_the_size_of_the_photo():
    # Cells as drawn, but for those of which too little shows to be found.
    counted, areas, shown = np.zeros(2), np.zeros(2), 0
    for seed in range(6):
        field = make_smears(1, 512, seed, red_cell_diameter=27, white_cells=(0, 0)).instances[0]
        for row, photos in enumerate(photos_of(field, 128)):
            for photo in photos:
                frame = counting_frame(photo.shape, Radii(13.5, 31))
                pixels = np.bincount(photo.ravel(), minlength=field.max() + 1)[1:]
                found = pixels > 0.12 * np.pi * 13.5**2
                counted[row] += (frame.holds(photo, field.max()) & found).sum()
                areas[row] += frame.area
                shown += row * np.count_nonzero(pixels)
    whole, parts = counted / areas
    assert parts == pytest.approx(whole, rel=0.02)
    assert shown / (6 * 512**2) > 1.3 * whole  # what all cells that show would tell


def test_density_of_cells_that_are_found():
    counted, areas = np.zeros(2), np.zeros(2)
    for seed in range(4):
        field = make_smears(1, 384, seed, red_cell_diameter=16, white_cells=(0, 0)).masks[0]
        for row, photos in enumerate(photos_of(field, 128)):
            for photo in photos:
                cells = find_cells(photo, red_cell_diameter=16)
                counted[row] += cells.counts_in_frame["red"]
                areas[row] += cells.frame.area
    whole, parts = counted / areas
    assert parts == pytest.approx(whole, rel=0.02)


@pytest.mark.parametrize(
    "sides",
    [
        *("bottom", ("bottom",), ("top", "bottom"), ("left", "left"), ("top", "top")),
        *(("bottom", "bottom"), ("a", "top"), ([], "top"), 3, None),
    ],
)
def test_sides_that_do_not_meet(sides):
    text = (
        "excluded_sides must be two sides that meet, one of 'top' and 'bottom' and one of 'left' "
        f"and 'right', or () where all cells are to count; got {sides!r}. The default is "
        "('bottom', 'right')."
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        find_cells(np.zeros((9, 9), int), excluded_sides=sides)
    assert check_excluded_sides(["left", "top"]) == ("left", "top")
