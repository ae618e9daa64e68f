"""Which size of red cells the ruler tells, and what it asks the network for it."""

from types import SimpleNamespace

import numpy as np
import pytest

from bloodseg.cells import scale_to
from bloodseg.cells._diameter import measured_diameter
from bloodseg.datasets import make_smears
from bloodseg.prediction import Ruler
from bloodseg.prediction._magnification import Scaling, weigh_answer


def scaling_of(image, given, measure_sureness):
    """Return what a ruler for cells of 36 pixels says, with a stand-in for the network."""
    network = SimpleNamespace(measure_sureness=measure_sureness)
    return Ruler(given, 36).measure(image, image, network, label="images[0]")


def surest_of(wanted_size, image, *, at_most=0.9, wanted=36):
    """Return a stand-in for a network that is surest of an image at one diameter, and its log."""
    sizes = []

    def sureness(window, diameter):
        assert diameter == wanted
        sizes.append(wanted * image.shape[0] / window.shape[0])
        return at_most - 0.01 * np.log(sizes[-1] / wanted_size) ** 2

    return sureness, sizes


@pytest.mark.parametrize("size", [30, 48, 75])
def test_where_neither_image_nor_red_cells_tell_the_network_does(size):
    empty = np.full((160, 160, 3), 240, np.uint8)
    sureness, sizes = surest_of(size, empty, at_most=0.49)
    scaling = scaling_of(empty, "auto", sureness)
    assert 36 / scaling.factor == pytest.approx(size, rel=0.05)
    assert scaling.guessed
    assert min(sizes) < 40
    assert max(sizes) > 150


@pytest.mark.parametrize(("distance", "octaves"), [(np.hypot, 0), (np.maximum, 0.5)])
def test_an_estimate_from_outlines_that_are_hardly_round_may_be_off(distance, octaves):
    rows, columns = np.abs(np.indices((300, 300)) % 60 - 30)
    image = np.full((300, 300, 3), 230, np.uint8)
    image[distance(rows, columns) <= 10] = (200, 110, 130)  # discs, and squares
    assert measured_diameter(image)[1] == octaves


def two_cells():
    """Return an image whose outlines are enough for a guess: cells of 48 pixels."""
    image = np.full((160, 160, 3), 235, np.uint8)
    for middle in ((50, 50), (110, 105)):
        rows, columns = np.indices((160, 160))
        image[np.hypot(rows - middle[0], columns - middle[1]) < 24] = (205, 130, 140)
    return image


def test_an_estimate_stands_where_the_network_finds_cells_of_its_size():
    image = two_cells()
    estimate, octaves = measured_diameter(image)
    assert estimate == pytest.approx(48, rel=0.1)
    assert octaves == 1
    sureness, sizes = surest_of(60, image)  # that is how it looks, but cells are 48 pixels wide
    scaling = scaling_of(image, "auto", sureness)
    assert 36 / scaling.factor == pytest.approx(estimate)
    assert not scaling.guessed
    assert len(sizes) == 1


def size_shown(window, image):
    return 36 * image.shape[0] / window.shape[0]


@pytest.mark.parametrize("times", [2**0.5, 2])
def test_an_unreliable_estimate_gives_way_to_a_larger_size_with_cells(times):
    image = two_cells()
    right = measured_diameter(image)[0] * times

    def sureness(window, _):
        size = size_shown(window, image)
        # There seem to be cells where it is shown too large, too.
        return 0.9 if abs(np.log2(size / right)) < 0.1 else 0.95 if size < 45 else 0.45

    scaling = scaling_of(image, "auto", sureness)
    assert 36 / scaling.factor == pytest.approx(right, rel=0.03)
    assert not scaling.guessed


@pytest.mark.parametrize("estimated", [True, False])
def test_without_red_cells_in_any_size_the_peak_at_the_largest_tells(estimated):
    """A network may be surest of what it is shown far too large."""
    image = two_cells() if estimated else np.full((160, 160, 3), 240, np.uint8)

    def sureness(window, _):
        size = size_shown(window, image)
        return max(0.49 - 0.02 * abs(np.log2(size / 24)), 0.48 - 0.02 * abs(np.log2(size / 96)))

    scaling = scaling_of(image, "auto", sureness)
    assert 36 / scaling.factor == pytest.approx(96, rel=0.1)
    assert scaling.guessed


def test_where_no_size_near_an_estimate_agrees_all_are_tried():
    image = two_cells()

    def sureness(window, _):
        return 0.9 if 120 < size_shown(window, image) < 150 else 0.45

    scaling = scaling_of(image, "auto", sureness)
    assert 36 / scaling.factor == pytest.approx(136, rel=0.1)
    assert scaling.guessed


@pytest.mark.parametrize(
    ("confirmed", "size"),
    [
        ([24, 68, 96], 88),  # the longest run, although the network is surest of its texture at 24
        ([12, 17, 68, 96], 88),  # of equals, the one of larger sizes
        ([17, 24, 34, 48, 68, 96], 68),  # its largest sizes
        ([12, 17, 34, 48, 192], 44),  # not one by chance
        ([48], 48),
        ([192], 192),
    ],
)
def test_of_sizes_that_red_cells_confirm_the_largest_in_a_row_tell(confirmed, size):
    empty = np.full((80, 80, 3), 240, np.uint8)  # shown whole in each size

    def sureness(window, _):
        shown = size_shown(window, empty)
        sure = 0.95 - 0.0005 * shown  # a network is surer of what it is shown larger
        return sure / (1 if min(abs(np.log2(shown / each)) for each in confirmed) < 0.2 else 2)

    scaling = scaling_of(empty, "auto", sureness)
    assert 36 / scaling.factor == pytest.approx(size, rel=0.3)
    assert scaling.guessed


@pytest.mark.parametrize(
    ("found", "confirmed", "again"),
    [
        (30, [], None),  # as wide as was expected
        (60, [60], 60),
        (12, [12], 12),
        (60, [96], 96),  # no red cells of that width, but of another
        (1, [96], 96),  # beyond all sense
        (60, [], 68),  # none of any, but it is surest of this
        (60, [24], None),  # but what was expected is found
    ],
)
def test_cells_of_another_size_than_expected_are_the_ruler(found, confirmed, again):
    image = np.full((80, 80, 3), 240, np.uint8)  # shown whole in each size

    def sureness(window, _):
        size = size_shown(window, image)
        if any(abs(np.log2(size / each)) < 0.2 for each in confirmed):
            return 0.9
        return 0.45 - 0.01 * abs(np.log2(size / 68))

    network = SimpleNamespace(measure_sureness=sureness)
    scaling = Ruler("auto", 36).measure_again(found, Scaling(36 / 28), image, network)
    if again is None:
        assert scaling is None
    else:
        assert scaling.guessed
        assert 36 / scaling.factor == pytest.approx(again, rel=0.06)


@pytest.mark.parametrize("given", ["auto", 20, None])
def test_the_network_is_asked_only_where_need_be(given):
    image = make_smears(1, 300, 0, red_cell_diameter=20, white_cells=(0, 0)).images[0]

    def never(*_):
        raise AssertionError

    scaling = scaling_of(image, given, never)
    assert not scaling.guessed
    assert scaling.factor == (1 if given is None else pytest.approx(36 / 20, rel=0.1))


def test_windows_of_large_images_are_small():
    image = np.full((2000, 3000, 3), 240, np.uint8)
    sizes = set()
    scaling_of(image, "auto", lambda window, _: sizes.add(window.shape) or 0.5)
    assert all(max(shape) <= 256 for shape in sizes)


def probabilities_of(labels, sure=0.9):
    rest = (1 - sure) / 2
    return np.where(np.arange(3)[:, None, None] == labels, sure, rest)


def discs(radius, label, side=120):
    """Return a label map of four discs."""
    quarter = side // 4
    labels = np.zeros((side, side), np.uint8)
    for row in (quarter, 3 * quarter):
        for column in (quarter, 3 * quarter):
            rows, columns = np.indices(labels.shape)
            labels[np.hypot(rows - row, columns - column) < radius] = label
    return labels


@pytest.mark.parametrize(
    ("labels", "weight"),
    [
        (discs(18, 2), 0.9),
        (discs(9, 2), 0.45),  # red cells of another width
        (discs(28, 1), 0.45),  # white cells as wide as they mostly are, and no red ones
        (np.ones((120, 120), np.uint8), 0.405),  # nothing but white cell
        (np.zeros((120, 120), np.uint8), 0),
    ],
)
def test_only_red_cells_confirm_a_size(labels, weight):
    assert weigh_answer(probabilities_of(labels), 36) == pytest.approx(weight)


def test_the_sure_answer_that_all_is_white_cell_does_not_win():
    """A crop around a white cell, shown too small, is a white cell to a network, and surely so."""
    crop = discs(18, 2)
    crop[40:80, 40:80] = 1

    def sureness(window, diameter):
        right = abs(np.log2(window.shape[0] / 120)) < 0.6
        answer = crop if right else np.ones_like(crop)
        return weigh_answer(probabilities_of(answer, 0.9 if right else 0.99), diameter)

    empty = np.full((120, 120, 3), 240, np.uint8)
    scaling = scaling_of(empty, "auto", sureness)
    assert abs(np.log2(scaling.factor)) < 0.6
    assert scaling.guessed


def test_what_is_nearly_of_the_right_size_is_left_as_it_is():
    assert scale_to(36, 37) == scale_to(37, 36) == 1
    assert scale_to(36, 40) == 40 / 36
