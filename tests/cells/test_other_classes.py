"""Cells of classes that have no rules of their own, beside white and red ones and alone."""

import numpy as np
import pytest

from bloodseg.cells import find_cells, measure_cells
from bloodseg.cells._blocks import blocks_of_cells
from bloodseg.cells._scale import typical_radii, typical_radius
from bloodseg.datasets import make_smears

FOUR = ("background", "white", "red", "platelet")
TWO = ("background", "parasite")


def discs(shape, *places):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.any([(y - r) ** 2 + (x - c) ** 2 <= radius**2 for r, c, radius in places], axis=0)


def test_touching_platelets_are_two_and_far_smaller_than_red_cells():
    class_map = 2 * discs((120, 160), (40, 40, 20), (40, 120, 20)).astype(np.uint8)
    class_map[discs(class_map.shape, (90, 40, 4), (90, 48, 4), (90, 100, 5))] = 3
    cells = find_cells(class_map, classes=FOUR)
    assert cells.counts == {"white": 0, "red": 2, "platelet": 3}
    assert cells.class_names == FOUR
    # In areas of red cells, these would be specks.
    areas = np.bincount(cells.labels.ravel())[1:]
    assert areas[cells.classes == 3].max() < 0.12 * areas[cells.classes == 2].min()


def test_debris_is_no_platelet_however_much_of_it_there_is():
    class_map = 2 * discs((160, 200), (40, 40, 20), (40, 120, 20)).astype(np.uint8)
    class_map[discs(class_map.shape, (120, 40, 4), (120, 90, 6))] = 3
    debris = [(row, column, 2) for row in (90, 145) for column in range(10, 190, 15)]
    class_map[discs(class_map.shape, *debris)] = 3
    assert find_cells(class_map, classes=FOUR).counts["platelet"] == 2
    alone = np.where(class_map == 3, class_map, 0)  # nothing tells what is debris
    assert find_cells(alone, classes=FOUR).counts["platelet"] == 2 + len(debris)


def test_specks_are_those_of_the_class():
    class_map = np.zeros((120, 160), np.uint8)
    class_map[discs(class_map.shape, (30, 30, 9), (30, 90, 8), (90, 30, 9), (90, 90, 2))] = 1
    cells = find_cells(class_map, classes=TWO)
    assert cells.counts == {"parasite": 3}


def test_what_hangs_together_is_one_cell_whatever_its_shape():
    ring = discs((200, 200), (100, 100, 50)) & ~discs((200, 200), (100, 100, 40))
    assert find_cells(ring, classes=("background", "cytoplasm")).counts == {"cytoplasm": 1}
    nucleus = discs(ring.shape, (100, 100, 35))
    both = ring + 2 * nucleus
    names = ("background", "cytoplasm", "nucleus")
    assert find_cells(both, classes=names).counts == {"cytoplasm": 1, "nucleus": 1}
    rod = np.zeros((60, 200), bool)
    rod[26:34, 20:120] = True
    assert find_cells(rod, classes=TWO).counts == {"parasite": 1}


def test_a_class_that_is_not_to_be_seen_has_no_radius():
    class_map = 2 * discs((100, 100), (50, 50, 20)).astype(np.uint8)
    radii = typical_radii(class_map, classes=FOUR)
    assert radii.others == {}
    assert radii.of("platelet") is None
    assert radii == typical_radii(class_map)
    assert typical_radii(np.zeros((50, 50), np.uint8), classes=FOUR) is None


def test_platelets_tell_nothing_of_red_cells():
    class_map = 3 * discs((100, 100), (50, 50, 6)).astype(np.uint8)
    assert typical_radius(class_map, classes=FOUR) is None
    radii = typical_radii(class_map, classes=FOUR)
    assert (radii.red, radii.white) == (None, None)
    assert radii.typical == radii.of("platelet") == pytest.approx(6, abs=1)
    assert find_cells(class_map, classes=FOUR).counts == {"white": 0, "red": 0, "platelet": 1}


def test_large_red_cells_are_measured_beside_platelets():
    class_map = 2 * discs((700, 700), (350, 350, 200)).astype(np.uint8)
    class_map[discs(class_map.shape, (40, 40, 8))] = 3
    assert typical_radii(class_map, classes=FOUR).red == typical_radii(class_map).red


def test_labels_of_red_and_white_cells_may_be_others():
    masks = make_smears(1, image_size=160, random_state=4, white_cells=(2, 2)).masks
    straight = find_cells(masks[0])
    swapped = find_cells(
        np.array([0, 2, 1], np.uint8)[masks[0]], classes=("background", "red", "white")
    )
    assert swapped.counts == straight.counts
    assert straight.counts["white"] == 2
    assert np.array_equal(swapped.labels > 0, straight.labels > 0)
    order = measure_cells(swapped)["class"].unique().tolist()
    assert order == ["red", "white"]


def test_blocks_agree_on_cells_of_all_classes():
    smears = make_smears(
        1,
        image_size=320,
        red_cell_diameter=30,
        density=(0.1, 0.1),
        platelets="label",
        random_state=2,
    )
    class_map = smears.masks[0]
    radii = typical_radii(class_map, classes=FOUR)
    small = list(blocks_of_cells(class_map, radii, classes=FOUR, side=60))
    assert len(small) > 20
    found = sum(np.bincount(block.split.classes[block.owned], minlength=4) for block in small)
    cells = find_cells(class_map, classes=FOUR)
    assert found[1:].tolist() == list(cells.counts.values())
    assert found[3] >= 5


def test_drawn_platelets_are_counted_as_they_are_drawn():
    smears = make_smears(4, image_size=256, density=(0.1, 0.2), platelets="label", random_state=0)
    found = sum(find_cells(mask, classes=FOUR).counts["platelet"] for mask in smears.masks)
    drawn = smears.counts[:, 2].sum()
    assert drawn > 10
    assert abs(found - drawn) <= 0.15 * drawn
