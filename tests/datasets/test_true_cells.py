"""Single cells of annotated folders, image by image."""

import json

import numpy as np
import pytest
from messages import raises
from PIL import Image

from bloodseg.datasets import list_annotated, make_smears

CLASSES = ("background", "white", "red")


def drawn():
    return make_smears(2, 64, 3, red_cell_diameter=16, white_cells=(1, 2))


@pytest.fixture
def folder(tmp_path):
    smears = drawn()
    for kind in ("images", "masks", "instances"):
        (tmp_path / kind).mkdir()
        arrays = getattr(smears, kind)
        for name, array in zip("ab", arrays, strict=True):
            array = array.astype(np.uint16) if kind == "instances" else array
            Image.fromarray(array).save(tmp_path / kind / f"{name}.png")
    return tmp_path


def read(folder, classes=CLASSES):
    listed = list_annotated(folder, classes=classes, on_error=_raise)
    return [(each.name, *each.read()) for each in listed]


def _raise(name, error):
    raise error


def test_instances_have_the_class_of_most_of_their_pixels(folder):
    smears = drawn()
    mask = smears.masks[0].copy()
    edge = (smears.instances[0] == 1) & (np.indices(mask.shape)[0] % 3 == 0)
    mask[edge] = 2  # a third of the first cell, which is white
    columns = np.indices(mask.shape)[1] % 5
    mask[(smears.instances[0] == 1) & (columns == 0)] = 255
    mask[(smears.instances[0] == 1) & (columns < 3) & (columns > 0)] = 0  # which is no class
    Image.fromarray(mask).save(folder / "masks/a.png")
    for index, (name, image, mask, cells) in enumerate(read(folder)):
        assert name == "ab"[index]
        assert image.shape == (64, 64, 3)
        assert mask.shape == (64, 64)
        assert np.array_equal(cells.cells, smears.instances[index])
        n_white, n_red = smears.counts[index]
        assert cells.classes.tolist() == ["white"] * n_white + ["red"] * n_red


def test_without_instances_and_boxes_cells_are_not_known(folder):
    (folder / "instances").rename(folder / "other")
    assert [cells for *_, cells in read(folder)] == [None, None]


def test_instances_that_are_not_right(folder):
    labels = np.zeros((64, 64), np.uint8)
    file = folder / "instances/a.png"
    Image.fromarray(labels[:32]).save(file)
    with raises(f"{file} must have the size of its label map, (64, 64); got (32, 64). Export it"):
        read(folder)
    mask = np.asarray(Image.open(folder / "masks/a.png"))
    row, column = np.argwhere(mask == 0)[0]
    labels[row, column] = 7
    Image.fromarray(labels).save(file)
    with raises(
        f"{file} must hold cells that have a class in {folder / 'masks/a.png'}; cell 7 lies where "
        "that has background or unknown pixels alone. Correct one of the two."
    ):
        read(folder)
    file.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"a has no label image of cells: .*instances/a\.png \(or"
    ):
        read(folder)


BOXES = """image,class,xmin,ymin,xmax,ymax
a.png,WBC,1,2,30.5,40
a,rbc,0,0,10,12
a,platelet,5,5,8,8
elsewhere,rbc,5,5,8,8
"""


def test_boxes_of_a_table(folder):
    (folder / "instances").rename(folder / "other")
    (folder / "boxes.csv").write_text(BOXES)
    (_, _, _, first), (_, _, _, second) = read(folder)
    assert first.cells.tolist() == [[2, 1, 40, 30.5], [0, 0, 12, 10]]
    assert first.classes.tolist() == ["white", "red"]
    assert second.cells.shape == (0, 4)
    assert len(second.classes) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,class\na,rbc\n", "boxes.csv must have the columns image, class, xmin, ymin, xmax,"),
        (
            "image,class,xmin,ymin,xmax,ymax\nIMG_a.jpg,rbc,1,1,2,2\n",
            "the first of its 1 rows is about 'IMG_a.jpg', and none is about one of them.",
        ),
        (BOXES.replace("10,12", "0,12"), "row 3 must have numbers with xmin < xmax and ymin <"),
        (BOXES.replace("10,12", "x,12"), "got 0, 0, x, 12."),
        (BOXES.replace("rbc", "tree"), "'tree'"),
    ],
)
def test_boxes_that_are_not_right(folder, text, message):
    (folder / "instances").rename(folder / "other")
    (folder / "boxes.csv").write_text(text)
    with pytest.raises(ValueError, match="boxes") as caught:
        read(folder)
    assert message in str(caught.value)


def test_boxes_of_pascal_voc(tmp_path):
    names = ("WBC", 1, 2, 5, 7), ("Platelets", 1, 1, 3, 3), ("RBC", 4, 0, 9, 6)
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x2}</xmax>"
        f"<ymax>{y2}</ymax></bndbox></object>"
        for name, x, y, x2, y2 in names
    )
    for kind in ("annotations", "images"):
        (tmp_path / kind).mkdir()
    picture = np.full((9, 9, 3), 220, np.uint8)
    picture[2:7, 1:5] = 60
    (tmp_path / "annotations/a.xml").write_text(f"<annotation>{objects}</annotation>")
    Image.fromarray(picture).save(tmp_path / "images/a.png")
    ((name, image, mask, cells),) = read(tmp_path)
    assert (name, image.shape, mask.shape) == ("a", (9, 9, 3), (9, 9))
    assert cells.cells.tolist() == [[2, 1, 7, 5], [0, 4, 6, 9]]
    assert cells.classes.tolist() == ["white", "red"]
    ((*_, cells),) = read(tmp_path, (*CLASSES, "platelet"))
    assert cells.classes.tolist() == ["white", "platelet", "red"]


def test_shapes_of_labelme(tmp_path):
    shapes = [
        {"label": label, "shape_type": "rectangle", "points": points}
        for label, points in (("rbc", [[0, 0], [3, 3]]), ("wbc", [[5, 5], [8, 7]]))
    ]
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(json.dumps({"imagePath": "a.png", "shapes": shapes}))
    ((name, _, mask, cells),) = read(tmp_path)
    assert name == "a"
    assert cells.classes.tolist() == ["red", "white"]
    assert [(cells.cells == number).sum() for number in (1, 2)] == [16, 12]
    assert [(mask == label).sum() for label in (2, 1)] == [16, 12]
