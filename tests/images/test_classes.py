"""Names of classes, their labels and colours."""

import numpy as np
import pytest

from bloodseg._images import (
    CLASS_NAMES,
    cell_labels,
    check_classes,
    colours_of,
    counted_cells,
    in_words,
    label_of,
    mask_of,
    numbered,
    with_labels,
)

FOUR = (*CLASS_NAMES, "platelet")


@pytest.mark.parametrize("given", [FOUR, list(FOUR), np.array(FOUR)])
def test_names_come_as_a_tuple_of_text(given):
    names = check_classes(given)
    assert names == FOUR
    assert all(type(name) is str for name in names)


def test_there_may_be_as_many_as_labels_leave_room_for():
    names = ("background", *map(str, range(254)))
    assert check_classes(names) == names
    with pytest.raises(ValueError, match="classes must hold 2 to 255 different names"):
        check_classes((*names, "one more"))


def test_labels_are_places():
    swapped = ("background", "red", "parasite")
    assert cell_labels(swapped) == {"red": 1, "parasite": 2}
    assert (label_of(swapped, "red"), label_of(swapped, "white")) == (1, None)
    class_map = np.array([[0, 1], [2, 1]], np.uint8)
    assert mask_of(class_map, swapped, "red").tolist() == [[False, True], [False, True]]
    assert not mask_of(class_map, swapped, "white").any()
    assert numbered(3) == CLASS_NAMES
    assert numbered(4) == ("0", "1", "2", "3")
    assert with_labels(CLASS_NAMES) == "0 (background), 1 (white) and 2 (red)"
    assert with_labels(CLASS_NAMES, first=1) == "1 (white) and 2 (red)"
    assert with_labels(("background", "cell"), first=1) == "1 (cell)"
    assert [in_words(name) for name in FOUR[1:]] == ["white cells", "red cells", "platelets"]
    assert in_words("parasite") == "parasite"
    assert [in_words(name, 1) for name in ("white", "parasites")] == ["white cell", "parasites"]
    assert [counted_cells(n, "red") for n in (0, 1, 2)] == [
        "0 red cells",
        "1 red cell",
        "2 red cells",
    ]
    assert [counted_cells(n, "parasites") for n in (1, 2)] == ["parasites: 1", "parasites: 2"]


def test_colours_belong_to_names():
    plain = colours_of(CLASS_NAMES)
    assert plain == {"white": (0, 114, 178), "red": (230, 159, 0)}
    more = colours_of(("background", "nucleus", "red", "platelet", "white", "cytoplasm"))
    assert {name: more[name] for name in plain} == plain
    assert more["nucleus"] == (86, 180, 233)
    assert more["cytoplasm"] == (213, 94, 0)


def test_a_dozen_classes_have_a_dozen_colours():
    names = ("background", *(f"kind {number}" for number in range(12)))
    assert len(set(colours_of(names).values())) == 12


def test_all_classes_have_colours_of_eight_bits():
    names = ("background", *(f"kind {number}" for number in range(254)))
    assert all(0 <= value <= 255 for colour in colours_of(names).values() for value in colour)
