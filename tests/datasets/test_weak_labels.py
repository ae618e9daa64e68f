"""Label maps made from boxes: what they are sure of has to be right."""

import re

import numpy as np
import pytest

from bloodseg.datasets import make_smears, masks_from_boxes


def boxes_of(instances):
    rows_columns = [np.nonzero(instances == cell) for cell in range(1, instances.max() + 1)]
    return [[x.min(), y.min(), x.max() + 1, y.max() + 1] for y, x in rows_columns]


@pytest.fixture(scope="module")
def smears():
    return make_smears(6, 192, random_state=0, white_cells=(1, 2))


@pytest.fixture(scope="module")
def weak(smears):
    boxes = [boxes_of(each) for each in smears.instances]
    labels = [[1] * white + [2] * red for white, red in smears.counts]
    return masks_from_boxes(smears.images, boxes, labels)


def test_what_is_labelled_is_right(smears, weak):
    weak, truth = np.stack(weak), smears.masks
    assert weak.dtype == np.uint8
    assert set(np.unique(weak)) == {0, 1, 2, 255}
    labelled = weak != 255
    assert labelled.mean() > 0.7
    assert (weak == truth)[labelled].mean() > 0.93
    for label in range(3):
        right = ((weak == label) & (truth == label)).sum()
        assert right / ((weak == label) & labelled).sum() > 0.85
        assert right / (truth == label).sum() > 0.5


def test_missed_cells_are_left_unlabelled(smears):
    (mask,) = masks_from_boxes(smears.images[:1], [[]], [[]])
    stained = smears.masks[0] > 0
    assert set(np.unique(mask)) == {0, 255}
    assert (mask[stained] == 255).mean() > 0.7
    assert (mask[~stained] == 0).mean() > 0.7


def test_platelets_are_background():
    image = np.full((60, 60, 3), 240, np.uint8)
    image[20:40, 20:40] = 90
    (mask,) = masks_from_boxes([image], [[[20, 20, 40, 40]]], [[0]])
    assert (mask[24:36, 24:36] == 0).all()
    assert mask[21, 21] == 255  # stained, but too far out in the box to be sure


def test_where_a_white_and_a_red_cell_meet_nothing_is_said():
    image = np.full((60, 80, 3), 240, np.uint8)
    image[20:40, 20:60] = 90
    (mask,) = masks_from_boxes([image], [[[20, 20, 40, 40], [40, 20, 60, 40]]], [[1, 2]])
    assert mask[30, 30] == 1
    assert mask[30, 50] == 2
    assert mask[30, 40] == 255


def test_around_a_cell_that_a_border_cuts_nothing_is_said():
    """What is left of its box tells nothing of where the cell ends."""
    image = np.full((60, 60, 3), 240, np.uint8)
    image[22:38, :12] = image[22:38, 32:44] = 90
    (mask,) = masks_from_boxes([image], [[[0, 20, 14, 40], [30, 20, 46, 40]]], [[2, 2]])
    assert mask[30, 6] == mask[30, 38] == 2
    assert mask[20, 13] == 255
    assert mask[20, 45] == 0


@pytest.mark.parametrize("box", [[-30, -20, 10, 12], [55, 55, 90, 80], [0, 0, 60, 60]])
def test_boxes_at_the_border(box):
    image = np.full((60, 60, 3), 240, np.uint8)
    image[::2] = 100
    (mask,) = masks_from_boxes([image], [[box]], [[2]])
    assert mask.shape == (60, 60)


@pytest.mark.parametrize(
    ("boxes", "labels", "text"),
    [
        ([], [[]], "boxes must have an entry for each of 1 images; got 0. Pass an empty one"),
        ([[]], [[], []], "labels must have an entry for each of 1 images; got 2."),
        ([[[0, 0, 9, 9]]], [[3]], "boxes[0] must be rows of xmin < xmax and ymin < ymax, each"),
        ([[[0, 0, 9, 9]]], [[]], "got 1 boxes, labels []"),
        ([[[9, 0, 0, 9]]], [[2]], "boxes[0] must be rows of xmin < xmax"),
        ([[[0, 0, np.nan, 9]]], [[2]], "boxes[0] must be rows of xmin < xmax"),
        ([[[70, 70, 90, 90]]], [[2]], "boxes[0] has a box outside of its image"),
    ],
)  # fmt: skip
def test_bad_boxes(boxes, labels, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        masks_from_boxes([np.zeros((60, 60, 3), np.uint8)], boxes, labels)


def test_boxes_of_further_classes_make_labels_of_them():
    smears = make_smears(
        3, 192, density=(0.1, 0.2), platelets="label", random_state=0, white_cells=(1, 1)
    )
    boxes = [boxes_of(each) for each in smears.instances]
    labels = [np.repeat([1, 2, 3], counts) for counts in smears.counts]
    weak = np.stack(masks_from_boxes(smears.images, boxes, labels, classes=smears.target_names))
    assert set(np.unique(weak)) == {0, 1, 2, 3, 255}
    right = ((weak == 3) & (smears.masks == 3)).sum()
    assert right / (weak == 3).sum() > 0.6
    assert right / (smears.masks == 3).sum() > 0.5
    with pytest.raises(
        ValueError,
        match=r"each with a label: 0 \(background\), 1 \(white\) and 2 \(red\); got",
    ):
        masks_from_boxes(smears.images, boxes, labels)


def test_two_classes_are_enough():
    image = np.full((40, 40, 3), 240, np.uint8)
    image[10:30, 10:30, 1] = 120
    names = ("background", "parasite")
    (mask,) = masks_from_boxes([image], [[[10, 10, 30, 30]]], [[1]], classes=names)
    assert (mask[20, 20], mask[2, 2]) == (1, 0)
