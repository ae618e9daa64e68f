"""Cells are split where there is evidence of it: a free convex region is one, whatever its size."""

import numpy as np
import pytest
from scipy import ndimage

from bloodseg.cells import find_cells
from bloodseg.cells._arcs import ellipses_of_arcs
from bloodseg.cells._blocks import KeptBlocks, blocks_of_cells
from bloodseg.cells._instances import assemble, count_cells
from bloodseg.cells._outline import Outline, blurred
from bloodseg.cells._scale import typical_radii
from bloodseg.cells._shapes import (
    area_of_dents,
    distance_inside,
    is_convex,
    radius_of_discs,
    without_holes,
)

WHITE, RED = 1, 2
RADIUS = 12  # of the red cells that are drawn


def ellipse(shape, row, column, radius, ratio=1.0, turn=0.0):
    """Return a mask of an ellipse as large as a disc of the radius, ``ratio`` times as long."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    along = (x - column) * np.cos(turn) + (y - row) * np.sin(turn)
    across = (y - row) * np.cos(turn) - (x - column) * np.sin(turn)
    return (along / radius / ratio**0.5) ** 2 + (across / radius * ratio**0.5) ** 2 < 1


def field(side, *masks):
    """Return a class map with six red discs at the left, and other red masks."""
    class_map = np.zeros((side, side), np.uint8)
    for row in np.linspace(RADIUS + 4, side - RADIUS - 4, 6):
        class_map[ellipse(class_map.shape, row, RADIUS + 4, RADIUS)] = RED
    for mask in masks:
        class_map[mask] = RED
    return class_map


def pair(side, radius, distance, turn=0.0, ratio=1.0):
    """Return a mask of two equal cells so many pixels apart."""
    down, right = np.array([np.sin(turn), np.cos(turn)]) * distance / 2
    middle = side / 2 + RADIUS
    return ellipse((side, side), middle - down, middle - right, radius, ratio) | ellipse(
        (side, side), middle + down, middle + right, radius, ratio
    )


# ---------------------------------------------------------------- what lies free is one


@pytest.mark.parametrize("ratio", [1.0, 1.3, 1.6, 2.0, 3.0])
@pytest.mark.parametrize("radius", [4, 9, 20])
def test_oval_red_cells_count_once_each(ratio, radius):
    step = 5 * radius
    class_map = np.zeros((3 * step, 4 * step), np.uint8)
    for number in range(12):
        row, column = (number // 4 + 0.5) * step, (number % 4 + 0.5) * step
        class_map[ellipse(class_map.shape, row, column, radius, ratio, turn=number / 3)] = RED
    assert find_cells(class_map).counts == {"white": 0, "red": 12}


@pytest.mark.parametrize("times", [1.2, 1.7, 2.3, 3, 4, 6])
@pytest.mark.parametrize("ratio", [1.0, 1.5, 2.0])
def test_a_white_cell_is_one_however_large(times, ratio):
    side = int(RADIUS * (2 * times * ratio**0.5 + 6))
    class_map = field(max(side, 200))
    middle = class_map.shape[0] / 2 + RADIUS
    class_map[ellipse(class_map.shape, middle, middle, times * RADIUS, ratio, 0.5)] = WHITE
    assert find_cells(class_map).counts == {"white": 1, "red": 6}


def test_red_cells_of_many_sizes_count_once_each():
    class_map = np.zeros((150, 480), np.uint8)
    for number, times in enumerate([0.5, 0.6, 0.8, 1, 1, 1, 1, 1.3, 1.6, 2]):
        row, column = (35, 105)[number % 2], 30 + 46 * number
        class_map[ellipse(class_map.shape, row, column, times * 14, turn=number)] = RED
    assert find_cells(class_map).counts["red"] == 10


def crescent(shape, row, column):
    return ellipse(shape, row, column, 16) & ~ellipse(shape, row, column - 11, 15)


def teardrop(shape, row, column):
    y, x = np.ogrid[: shape[0], : shape[1]]
    tail = (abs(y - row) < 7 * (1 - (x - column) / 34)) & (x > column) & (x < column + 34)
    return ellipse(shape, row, column, RADIUS) | tail


def ring(shape, row, column):
    return ellipse(shape, row, column, RADIUS) & ~ellipse(shape, row, column, 0.7 * RADIUS)


def open_ring(shape, row, column):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return ring(shape, row, column) & ~((abs(y - row) < 3) & (x > column))


@pytest.mark.parametrize("draw", [crescent, teardrop, ring, open_ring])
def test_a_cell_of_another_shape_is_one(draw):
    shape = (180, 180)
    masks = [draw(shape, row, column) for row in (40, 90, 140) for column in (70, 130)]
    assert find_cells(field(180, *masks)).counts["red"] == 12


def test_a_field_of_rings():
    class_map = np.zeros((200, 200), np.uint8)
    for row in range(25, 200, 50):
        for column in range(25, 200, 50):
            class_map[ring(class_map.shape, row, column)] = RED
    cells = find_cells(class_map)
    assert cells.counts["red"] == 16
    assert cells.labels[25, 25]  # the pallor belongs to the cell


@pytest.mark.parametrize("diameter", [6, 9, 300, 600, 1000])
@pytest.mark.parametrize("label", [WHITE, RED])
def test_a_disc_is_one_cell_at_any_scale(diameter, label):
    side = int(1.4 * diameter) + 4
    disc = ellipse((side, side), side / 2, side / 2, diameter / 2)
    assert len(find_cells(np.where(disc, label, 0))) == 1


def test_what_lies_free_and_is_convex_takes_no_watershed(monkeypatch):
    def never(*arguments, **options):
        raise AssertionError("watershed")

    monkeypatch.setattr("bloodseg.cells._split.watershed", never)
    class_map = field(200, ellipse((200, 200), 100, 120, 2 * RADIUS, 1.5, 0.4))
    cells = find_cells(class_map)
    assert cells.counts["red"] == 7
    assert np.array_equal(cells.labels > 0, class_map == RED)
    with pytest.raises(AssertionError, match="watershed"):
        find_cells(field(200, pair(200, RADIUS, 1.8 * RADIUS)))


def test_rough_outlines_are_no_evidence(rng):
    class_map = field(300)
    noise = ndimage.gaussian_filter(rng.normal(size=class_map.shape), 5)
    distance = ndimage.distance_transform_edt(ellipse(class_map.shape, 160, 165, 40, 1.5))
    distance -= ndimage.distance_transform_edt(distance == 0)
    class_map[distance + 2 * noise / noise.std() > 0] = WHITE
    assert find_cells(class_map).counts == {"white": 1, "red": 6}


def test_red_cells_that_cover_a_white_one_do_not_split_it():
    class_map = field(240)
    class_map[ellipse(class_map.shape, 130, 130, 40, 1.4)] = WHITE
    for row, column in ((98, 130), (162, 130), (130, 180)):
        class_map[ellipse(class_map.shape, row, column, RADIUS)] = RED
    assert find_cells(class_map).counts == {"white": 1, "red": 9}


def test_a_red_speck_does_not_set_the_scale_of_white_cells():
    class_map = np.zeros((260, 260), np.uint8)
    for row, column in ((70, 70), (190, 80), (130, 190)):
        class_map[ellipse(class_map.shape, row, column, 40, 1.4, row)] = WHITE
    class_map[ellipse(class_map.shape, 20, 200, 3.5)] = RED
    assert find_cells(class_map).counts == {"white": 3, "red": 0}


@pytest.mark.parametrize("shown", [0.3, 0.5, 0.8])
def test_a_cell_that_the_border_cuts_is_one(shown):
    class_map = field(200)
    class_map[ellipse(class_map.shape, 100, 200 + 40 - 80 * shown, 40)] = WHITE
    class_map[ellipse(class_map.shape, 200 + 15 - 30 * shown, 60, 15)] = RED
    assert find_cells(class_map).counts == {"white": 1, "red": 7}


# ---------------------------------------------------------------- a neck is evidence


@pytest.mark.parametrize("distance", [1.2, 1.5, 1.8, 1.97])
@pytest.mark.parametrize("turn", [0, 0.6, 1.2])
def test_two_red_cells_that_touch_or_overlap(distance, turn):
    mask = pair(180, RADIUS, distance * RADIUS, turn)
    assert find_cells(field(180, mask)).counts["red"] == 8


@pytest.mark.parametrize("distance", [0.8, 0.9, 1.0])
@pytest.mark.parametrize("turn", [0, 0.6, 1.2])
def test_two_red_cells_that_overlap_by_half(distance, turn):
    mask = pair(180, RADIUS, distance * RADIUS, turn)
    assert find_cells(field(180, mask)).counts["red"] == 8


def test_a_red_cell_half_as_large_again_is_one_if_it_is_an_ellipse():
    middle = 90 + RADIUS
    for ratio in (1.2, 1.4, 1.7, 2):
        mask = ellipse((180, 180), middle, middle, 1.23 * RADIUS, ratio, 0.4)
        assert find_cells(field(180, mask)).counts["red"] == 7


@pytest.mark.parametrize("times", [1.2, 1.7, 2.5, 3.5])
@pytest.mark.parametrize("distance", [1.4, 1.7, 1.95])
def test_two_white_cells_that_touch_or_overlap(times, distance):
    side = int(RADIUS * times * 4 + 5 * RADIUS)
    class_map = field(max(side, 200))
    radius = RADIUS * times
    class_map[pair(class_map.shape[0], radius, distance * radius, 0.3)] = WHITE
    assert find_cells(class_map).counts == {"white": 2, "red": 6}


@pytest.mark.parametrize("width", [0.15, 0.3])
def test_a_long_white_cell_with_a_waist(width):
    class_map = field(200)
    y, x = np.mgrid[:200, :200] - (100 + RADIUS)
    along, across = x * np.cos(0.3) + y * np.sin(0.3), y * np.cos(0.3) - x * np.sin(0.3)
    half = 2 * RADIUS * (1 - 0.12 * np.exp(-((along / (2 * RADIUS * width)) ** 2)))
    class_map[(along / (3 * RADIUS)) ** 2 + (across / half) ** 2 < 1] = WHITE
    assert find_cells(class_map).counts == {"white": 1, "red": 6}


def test_two_white_cells_alone():
    mask = pair(260, 40, 70, 0.4)
    assert find_cells(WHITE * mask).counts["white"] == 2


def test_a_chain_of_cells():
    shape = (120, 200)
    masks = [ellipse(shape, 60 + 12 * (i % 2), 40 + 20 * i, RADIUS) for i in range(7)]
    assert find_cells(RED * np.any(masks, axis=0)).counts["red"] == 7


def test_a_small_cell_at_a_large_one():
    large = ellipse((200, 200), 90, 110, 1.5 * RADIUS)
    small = ellipse((200, 200), 90, 110 + 2 * RADIUS, 0.6 * RADIUS)
    assert find_cells(field(200, large | small)).counts["red"] == 8


def test_two_oval_cells_end_to_end_and_side_by_side():
    shape = (200, 200)
    end_to_end = [ellipse(shape, 50, column, RADIUS, 1.8) for column in (70, 101)]
    beside = [ellipse(shape, row, 120, RADIUS, 1.8) for row in (120, 136)]
    free = [ellipse(shape, 170, column, RADIUS, 1.8) for column in (50, 100, 150)]
    mask = np.any([*end_to_end, *beside, *free], axis=0)
    assert find_cells(RED * mask).counts["red"] == 7


def clump(rng, n_cells, ratio, radius=14):
    """Return a class map of oval cells each of which touches or overlaps an earlier one."""
    side = 5 * radius * n_cells
    mask, cells = np.zeros((side, side), bool), []
    while len(cells) < n_cells:
        turn, way = rng.uniform(0, np.pi, 2)
        place = np.full(2, side / 2)
        if cells:
            place, other = cells[rng.integers(len(cells))]
            way += np.pi * rng.integers(2)
            reach = sum(
                radius / np.hypot(np.cos(each - way) / ratio**0.5, np.sin(each - way) * ratio**0.5)
                for each in (turn, other)
            )
            place = place + 0.92 * reach * np.array([np.sin(way), np.cos(way)])
        cell = ellipse(mask.shape, *place, radius, ratio, turn)
        if np.count_nonzero(cell & mask) < 0.2 * np.count_nonzero(cell):
            mask |= cell
            cells.append((place, turn))
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return RED * np.pad(cut, 4).astype(np.uint8)


def beside_each_other(maps):
    height = max(each.shape[0] for each in maps)
    return np.hstack([np.pad(each, ((0, height - len(each)), (0, 0))) for each in maps])


@pytest.mark.parametrize("ratio", [1.0, 1.3, 1.5, 1.6])
@pytest.mark.parametrize("sizes", [[2] * 8, [3] * 6, [2, 3, 4, 5], [1, 1, 2, 3, 4], [6, 7]])
def test_clumps_of_oval_cells_tell_their_size(ratio, sizes, rng):
    class_map = beside_each_other([clump(rng, n_cells, ratio) for n_cells in sizes])
    assert typical_radii(class_map).red == pytest.approx(14, rel=0.08)
    assert find_cells(class_map).counts["red"] == pytest.approx(sum(sizes), abs=1)


@pytest.mark.parametrize(("ratio", "sizes"), [(2.0, [1, 2, 3, 4]), (2.5, [1, 2])])
def test_clumps_of_long_cells_are_not_doubled(ratio, sizes, rng):
    class_map = beside_each_other([clump(rng, n_cells, ratio) for n_cells in sizes * 3])
    assert typical_radii(class_map).red == pytest.approx(14, rel=0.08)
    assert find_cells(class_map).counts["red"] == pytest.approx(3 * sum(sizes), rel=0.12)


@pytest.mark.parametrize("times", [1.3, 1.6, 2])
@pytest.mark.parametrize("distance", [0.85, 0.92, 1])
def test_a_large_cell_that_a_usual_one_touches_is_one(times, distance, rng):
    class_map = np.zeros((400, 400), np.uint8)
    for row in (100, 300):
        for column in (100, 300):
            turn = rng.uniform(0, 2 * np.pi)
            reach = distance * (1 + times) * 16
            beside = row + reach * np.sin(turn), column + reach * np.cos(turn)
            class_map[ellipse(class_map.shape, row, column, times * 16)] = RED
            class_map[ellipse(class_map.shape, *beside, 16)] = RED
            for side in (-76, 76):  # free ones, of the usual size
                class_map[ellipse(class_map.shape, row + side, column + side, 16)] = RED
    assert find_cells(class_map).counts["red"] == 16


@pytest.mark.parametrize("radius", [11, 12, 16, 20])
def test_three_cells_around_a_gap_are_three(radius):
    turns = np.array([0.2, 2.3, 4.4])
    side = 8 * radius
    masks = [
        ellipse(
            (side, side), *(side / 2 + 1.15 * radius * np.array([np.sin(t), np.cos(t)])), radius
        )
        for t in turns
    ]
    class_map = np.where(np.any(masks, axis=0), RED, 0)
    assert find_cells(class_map, red_cell_diameter=2 * radius).counts["red"] == 3


def test_long_cells_that_the_border_of_a_small_field_cuts(rng):
    """Hardly one of them shows enough of itself to tell the size of all."""
    side, true, found = 7 * RADIUS, 0, 0
    for _ in range(12):
        instances = np.zeros((side, side), int)
        for number in range(1, 60):
            place, turn = rng.uniform(0, side, 2), rng.uniform(0, np.pi)
            cell = ellipse(instances.shape, *place, RADIUS, 2.3, turn)
            if cell.any() and (instances[cell] > 0).mean() < 0.1:
                instances[cell & (instances == 0)] = number
        areas = np.bincount(instances.ravel())[1:]
        true += np.count_nonzero(areas > 0.15 * np.pi * RADIUS**2)
        found += find_cells(np.where(instances > 0, RED, 0)).counts["red"]
    assert found == pytest.approx(true, rel=0.25)  # 1.9 times if the short sides tell


@pytest.mark.parametrize(("n_cells", "n_told"), [(5, 3), (8, 3)])
def test_a_stack_of_cells_is_several(n_cells, n_told):
    """Rouleaux hide how many they are, but are not one."""
    side = 24 * RADIUS
    row = side / 2 + (np.arange(n_cells) - n_cells / 2) * 0.7 * RADIUS
    stack = np.any([ellipse((side, side), side / 2, x, RADIUS) for x in row], axis=0)
    assert is_convex(stack)
    assert radius_of_discs(stack) == pytest.approx(RADIUS, rel=0.05)
    class_map = field(side, stack)
    assert find_cells(class_map).counts["red"] - 6 == n_told
    long = field(side, ellipse((side, side), side / 2, side / 2, 1.5 * RADIUS, 2.5))
    assert find_cells(long).counts["red"] - 6 == 1


def test_lobes_too_small_for_a_white_cell_are_one():
    """Of each alone it would be said that it is a platelet."""
    class_map = field(240)
    for column in (120, 120 + 1.65 * RADIUS):
        class_map[ellipse(class_map.shape, 120, column, 0.68 * RADIUS)] = WHITE
    assert find_cells(class_map).counts == {"white": 1, "red": 6}
    class_map[:, 121 + int(0.68 * RADIUS) :] = 0
    assert find_cells(class_map).counts == {"white": 0, "red": 6}


def test_three_cells_that_overlap_in_the_middle_of_a_field_are_three():
    shape = (180, 180)
    turns = 0.3 + 2 * np.pi * np.arange(3) / 3
    masks = [ellipse(shape, 90 + 13 * np.sin(t), 110 + 13 * np.cos(t), RADIUS) for t in turns]
    assert find_cells(field(180, *masks)).counts["red"] == 9


def test_the_area_of_dents():
    assert area_of_dents(np.ones((7, 30), bool)) == 0
    notch = np.ones((30, 60), bool)
    notch[:9, 27:33] = False
    assert area_of_dents(notch) == pytest.approx(54, rel=0.2)
    assert area_of_dents(ellipse((90, 90), 45, 45, 30)) < 0.02 * np.pi * 30**2


def test_votes_by_blocks_are_the_sums_of_their_pixels():
    outline = Outline.of(ellipse((60, 72), 31, 35, 20, 1.3, 0.4), 20)
    votes = outline.votes(17, 20)
    assert votes.sum() == 2 * len(outline.rows)
    sums = votes.reshape(20, 3, 24, 3).sum(axis=(1, 3))
    assert np.array_equal(outline.votes(17, 20, every=3), sums)
    assert outline.votes(17, 20, every=50).shape == (1, 1)  # whole blocks only


@pytest.mark.parametrize("spread", [0.5, 3, 24])
def test_blurs_are_whole_numbers(spread, rng):
    counts = rng.integers(0, 60, (150, 150))
    blurs = blurred(counts, spread)
    assert np.array_equal(blurs, np.rint(blurs))
    assert blurs.max() < 2**24
    # so they are the same in every window
    assert np.array_equal(blurred(counts[:, :140], spread)[75, :60], blurs[75, :60])


@pytest.mark.parametrize("ratio", [1.0, 1.5, 2.0])
def test_arcs_between_notches_tell_whole_ellipses(ratio):
    alone = ellipse((90, 90), 40, 45, 20, ratio, 0.4)
    reach = 20 / ratio**0.5 + 10
    beside = ellipse((90, 90), 40 + reach * np.cos(0.4), 45 - reach * np.sin(0.4), 12)
    for mask in (alone, alone | beside):
        ellipses = ellipses_of_arcs(mask, 14)
        row, long, short = ellipses[ellipses[:, 1].argmax()]
        assert row == pytest.approx(40, abs=1)
        assert (long, short) == pytest.approx((20 * ratio**0.5, 20 / ratio**0.5), rel=0.03)
    assert len(ellipses_of_arcs(alone[:40], 14)) == 0  # no more than half is seen
    assert len(ellipses_of_arcs(np.ones((90, 90), bool), 14)) == 0


# ---------------------------------------------------------------- the edge is no evidence


@pytest.mark.parametrize("shown", [0.35, 0.5, 0.65, 0.9])
@pytest.mark.parametrize("distance", [1.5, 1.8, 1.95])
def test_cells_that_touch_each_other_and_the_border(shown, distance):
    class_map = field(200)
    column = 200 + RADIUS - 2 * RADIUS * shown
    for row in (100 - distance * RADIUS, 100, 100 + distance * RADIUS):
        class_map[ellipse(class_map.shape, row, column, RADIUS)] = RED
    assert find_cells(class_map).counts["red"] == 9


def cells_in_view(class_map, outside):
    """Return the labels of cells where a part of the map is no picture."""
    seen = np.where(outside, 0, class_map).astype(np.uint8)
    return assemble(KeptBlocks(seen, typical_radii(class_map), outside=outside), None).labels


@pytest.mark.parametrize("shown", [0.35, 0.5, 0.65, 0.9])
@pytest.mark.parametrize("distance", [1.5, 1.8, 1.95])
def test_cells_that_touch_each_other_and_the_edge_of_a_strip(shown, distance):
    class_map = field(200)
    edge = int(150 + 2 * RADIUS * shown)
    for row in (60, 60 + distance * RADIUS, 60 + 2 * distance * RADIUS):
        class_map[ellipse(class_map.shape, row, 150 + RADIUS, RADIUS)] = RED
    outside = np.zeros(class_map.shape, bool)
    outside[:, edge:] = True
    labels = cells_in_view(class_map, outside)
    assert labels.max() == 9
    assert not labels[outside].any()
    alone = KeptBlocks(class_map[:, :edge], typical_radii(class_map))  # the border of an image
    assert count_cells(alone)["red"] == 9


@pytest.mark.parametrize("label", [WHITE, RED])
def test_cells_around_a_round_field_are_those_in_view(label):
    class_map = np.zeros((300, 300), np.uint8)
    y, x = np.mgrid[:300, :300]
    outside = (y - 150) ** 2 + (x - 150) ** 2 > 120**2
    for turn in np.linspace(0, 1.5 * np.pi, 18):  # neighbours overlap; half of each is seen
        row, column = 150 + 120 * np.sin(turn), 150 + 120 * np.cos(turn)
        class_map[ellipse(class_map.shape, row, column, 17)] = label
    assert cells_in_view(class_map, outside).max() == 18


def test_a_large_cell_that_the_edge_of_the_picture_cuts_is_one():
    class_map = field(260)
    y, x = np.mgrid[:260, :260]
    outside = (y - 130) ** 2 + (x - 130) ** 2 > 128**2
    class_map[ellipse(class_map.shape, 215, 215, 45, 1.3, 0.7)] = WHITE
    labels = cells_in_view(class_map, outside)
    assert len(np.unique(labels[(class_map == WHITE) & ~outside])) == 1


def beside_a_whole_one(shown, turn):
    """Return two overlapping cells, of one of which so many radii show left of column 200."""
    row, column = 100, 200 + RADIUS * (1 - shown)
    down, right = 1.5 * RADIUS * np.array([np.sin(turn), -np.cos(turn)])
    cells = [ellipse((200, 240), row, column, RADIUS)]
    return [*cells, ellipse((200, 240), row + down, column + right, RADIUS)]


# The middle of what is cut lies where nothing is seen.
@pytest.mark.parametrize("turn", [0.8, -0.7])
@pytest.mark.parametrize("shown", [0.5, 0.6, 0.8])
def test_a_sliver_at_the_border_is_no_part_of_its_neighbour(shown, turn):
    class_map = field(200)
    for cell in beside_a_whole_one(shown, turn):
        class_map[cell[:, :200]] = RED
    for quarters in range(4):
        assert find_cells(np.rot90(class_map, quarters)).counts["red"] == 8


@pytest.mark.parametrize("shown", [0.5, 0.6, 0.8])
def test_a_sliver_at_the_edge_of_the_picture_is_no_part_of_its_neighbour(shown):
    class_map = np.pad(field(200), [(0, 0), (0, 40)])
    for cell in beside_a_whole_one(shown, 0.8):
        class_map[cell] = RED
    y, x = np.mgrid[:200, :240]
    for outside in (x >= 200, (y - 100) ** 2 + (x - 80) ** 2 > 120**2):
        labels = cells_in_view(class_map, outside)
        assert labels.max() == 8
        assert labels[100, 197] not in (0, labels[112, 187])


# ---------------------------------------------------------------- blocks, parts


@pytest.mark.parametrize("side", [97, 150])
def test_large_cells_are_the_same_in_blocks(side):
    class_map = field(400)
    for row, column, times in ((120, 150, 5), (300, 300, 3), (90, 310, 2), (330, 130, 2.5)):
        class_map[ellipse(class_map.shape, row, column, times * RADIUS, 1.2, row)] = WHITE
    radii = typical_radii(class_map)
    counts = np.zeros(3, int)
    for block in blocks_of_cells(class_map, radii, side=side):
        counts += np.bincount(block.split.classes[block.owned], minlength=3)
    assert counts.tolist() == [0, 4, 6]
    assert count_cells(KeptBlocks(class_map, radii)) == {"white": 4, "red": 6}


def test_what_is_wider_than_any_cell_is_no_single_cell():
    class_map = field(400)
    class_map[40:380, 60:390] = RED
    assert find_cells(class_map, red_cell_diameter=2 * RADIUS).counts["red"] > 100


def test_what_is_convex():
    assert is_convex(ellipse((90, 90), 45, 45, 20, 2.5, 0.4))
    assert is_convex(np.ones((7, 30), bool))
    assert not is_convex(pair(90, 12, 14))
    notch = np.ones((30, 60), bool)
    notch[:9, 27:33] = False
    assert not is_convex(notch)
    hidden = np.zeros_like(notch)
    hidden[:9, 25:35] = True
    assert is_convex(notch, hidden)


@pytest.mark.parametrize("radius", [8, 12, 30])
def test_what_is_discs_in_a_row(radius):
    side = 6 * radius
    for ratio in (1.15, 1.3, 1.6, 2):
        assert (
            radius_of_discs(ellipse((side, side), side / 2, side / 2, radius, ratio, 0.4)) is None
        )
    for distance in (0.7, 0.9, 1.2):
        discs = pair(side, radius, distance * radius, 0.4)
        assert radius_of_discs(discs) == pytest.approx(radius, rel=0.05)


def test_round_holes_are_filled_and_gaps_are_not():
    cell = ellipse((60, 60), 30, 30, 20)
    assert np.array_equal(without_holes(cell & ~ellipse((60, 60), 30, 30, 14), 0), cell)
    gap = np.ones((60, 60), bool)
    gap[20:40, 29:31] = gap[29:31, 20:40] = False  # a cross
    assert not without_holes(gap, 0).all()
    assert not without_holes(gap, 80).all()
    assert without_holes(gap, 80, pallor=False).all()
    assert without_holes(gap, 800).all()  # too small to have a shape


def test_holes_with_something_in_them():
    """Of a target cell all is the cell; what lies in a gap between cells is another."""
    cell, hole, dot = (ellipse((60, 60), 30, 30, radius) for radius in (20, 15, 8))
    assert np.array_equal(without_holes(cell & ~hole | dot, 0), cell)
    turns = np.arange(6) * np.pi / 3
    around = [
        ellipse((120, 120), 60 + 2 * RADIUS * np.sin(turn), 60 + 2 * RADIUS * np.cos(turn), RADIUS)
        for turn in turns
    ]
    clump = np.any(around, axis=0) | ellipse((120, 120), 60, 60, RADIUS - 3)
    assert np.count_nonzero(without_holes(clump, 0) ^ clump) < 10  # pixels where cells touch
    assert find_cells(np.where(clump, RED, 0)).counts == {"white": 0, "red": 7}


def test_distances_are_roots_of_whole_numbers(rng):
    distance = distance_inside(rng.random((96, 96)) < 0.97, 1000)
    assert np.array_equal(distance, np.sqrt(np.rint(distance**2)))
    assert distance_inside(np.ones((9, 9), bool), 5).max() == 5


@pytest.mark.parametrize(("share", "n_found"), [(0.5, 0), (0.75, 1)])
def test_white_cells_are_no_smaller_than_red_ones(share, n_found):
    """What is smaller is a platelet with its halo; of one at the border only a part shows."""
    mask = np.zeros((200, 260), np.uint8)
    for column in (40, 90, 140, 190):
        for row in (40, 90):
            draw(mask, row, column, 20, 2)
    draw(mask, 150, 60, 20 * share**0.5, 1)
    assert find_cells(mask).counts == {"white": n_found, "red": 8}
    half = mask.copy()
    draw(half, 199, 200, 15, 1)  # a half of it shows, 0.28 of a red cell's area
    assert find_cells(half).counts == {"white": n_found, "red": 8}
    draw(mask, 199, 200, 26, 1)  # a half of a white cell, 0.85 of a red cell's area
    assert find_cells(mask).counts == {"white": n_found + 1, "red": 8}


def draw(mask, row, column, radius, label):
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    mask[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = label
