"""COCO, GeoJSON and instance labels in; any format found out, and written."""

import json
import re

import numpy as np
import pytest
from messages import raises
from PIL import Image
from skimage.io import imsave

from bloodseg.cells import find_cells, measure_cells, to_coco, to_geojson
from bloodseg.datasets import (
    list_annotated,
    load_annotated,
    load_coco,
    load_geojson,
    load_instances,
    load_labelme,
    make_smears,
    save_annotated,
)
from bloodseg.datasets._geojson import fill_corners

HEIGHT, WIDTH = 20, 30
PICTURE = np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
SQUARE = [2, 3, 9, 3, 9, 8, 2, 8]  # pixels 2 to 8 across, 3 to 7 down


def where(mask):
    rows, columns = np.nonzero(mask)
    return rows.min(), rows.max(), columns.min(), columns.max(), len(rows)


@pytest.fixture
def save(tmp_path):
    """Return a function that saves the picture and what is drawn on it."""

    def save_file(document, name):
        Image.fromarray(PICTURE).save(tmp_path / "a.png")
        (tmp_path / name).write_text(
            document if isinstance(document, str) else json.dumps(document)
        )
        return tmp_path

    return save_file


def coco(*annotations, names=("RBC", "WBC", "Platelets"), **image):
    described = {"id": 5, "file_name": "elsewhere\\a.png", "height": HEIGHT, "width": WIDTH}
    return {
        "images": [described | image],
        "categories": [{"id": 10 * i, "name": name} for i, name in enumerate(names, start=1)],
        "annotations": [{"image_id": 5, "category_id": 10} | each for each in annotations],
    }


def geojson(geometry, name="red"):
    classification = {} if name is None else {"classification": {"name": name}}
    return {"type": "Feature", "geometry": geometry, "properties": classification}


# ---------------------------------------------------------------- COCO


def test_coco_polygons(save):
    parts = [[20, 1, 22, 1, 22, 2, 20, 2], [25, 1, 26, 1, 26, 2, 25, 2]]
    data = load_coco(
        save(
            coco(
                {"segmentation": [SQUARE]},
                {"segmentation": parts, "category_id": 20},
                {"segmentation": [[4, 4, 6, 4, 6, 6, 4, 6]], "category_id": 30},
            ),
            "cells.json",
        )
    )
    (mask,), (instances,) = data.masks, data.instances
    assert where(mask == 2) == (3, 7, 2, 8, 35 - 4)  # the platelet erases four
    assert where(instances == 2) == where(mask == 1) == (1, 1, 20, 25, 3)
    assert data.counts.tolist() == [[1, 1]]
    assert data.names == ["a"]
    assert (data.images[0] == PICTURE).all()


# What pycocotools.mask.encode makes of pixels 2 to 8 across and 3 to 7 down, and the runs.
RUNS = [43, *[5, 15] * 6, 5, 600 - 43 - 6 * 20 - 5]


def compressed(counts):
    """Write run lengths as the C code of pycocotools does."""
    text = ""
    for index, count in enumerate(counts):
        value, more = count - (counts[index - 2] if index > 2 else 0), True
        while more:
            group, value = value & 31, value >> 5
            more = value != -1 if group & 16 else value != 0
            text += chr(48 + (group | 32 * more))
    return text


@pytest.mark.parametrize("counts", [RUNS, compressed(RUNS)])
def test_coco_run_lengths(save, counts):
    runs = {"segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}}
    data = load_coco(save(coco(runs), "a.json"))
    assert where(data.masks[0] == 2) == (3, 7, 2, 8, 35)


def test_crowds_are_not_known(save):
    crowd = {"segmentation": [[0, 0, 5, 0, 5, 5, 0, 5]], "iscrowd": 1}
    data = load_coco(save(coco(crowd, {"segmentation": [SQUARE]}), "a.json"))
    assert (data.masks[0] == 255).sum() == 25 - 6
    assert data.counts.tolist() == [[0, 1]]


@pytest.mark.parametrize("iscrowd", [0, 1])
def test_parts_without_end_are_drawn_one_by_one(save, monkeypatch, iscrowd):
    """All at once, those of a file of a few kilobytes would fill the memory."""
    monkeypatch.setattr("bloodseg.datasets._canvas._SMALL", 1)
    filled = []

    def fill(*arguments):
        filled.append(arguments)
        return fill_corners(*arguments)

    monkeypatch.setattr("bloodseg.datasets._coco.fill_corners", fill)
    whole = [0, 0, WIDTH, 0, WIDTH, HEIGHT, 0, HEIGHT]
    folder = save(coco({"segmentation": [whole] * 1000, "iscrowd": iscrowd}), "cells.json")
    with raises("cells.json has shapes that cover the image more than 256 times. Remove those"):
        load_coco(folder)
    assert len(filled) == 257


def test_coco_boxes_alone_become_weak_labels(save):
    folder = save(
        coco({"bbox": [2, 3, 10, 10]}, {"bbox": [15, 3, 10, 10], "category_id": 20}), "a.json"
    )
    data = load_annotated(folder)
    assert data.format == "coco"
    assert data.instances is None
    assert data.counts.tolist() == [[1, 1]]
    assert data.masks[0][8, 7] == 2
    assert data.masks[0][8, 20] == 1
    ((*_, cells),) = (each.read() for each in list_of(folder))
    assert cells.cells.tolist() == [[3, 2, 13, 12], [3, 15, 13, 25]]
    assert cells.classes.tolist() == ["red", "white"]
    with raises("annotations[1] must have a segmentation, as others of the file have"):
        load_coco(save(coco({"segmentation": [SQUARE]}, {"bbox": [1, 1, 2, 2]}), "a.json"))


def list_of(folder):
    def refuse(name, error):
        raise error

    return list_annotated(folder, classes=("background", "white", "red"), on_error=refuse)


def test_coco_boxes_are_cut_at_the_border_and_dropped_beyond_it(save):
    boxes = [25, 15, 10, 10], [40, 3, 5, 5], [-3, -3, 6, 6]
    folder = save(coco(*({"bbox": box} for box in boxes)), "a.json")
    data = load_coco(folder)
    assert data.boxes[0].tolist() == [[25, 15, 30, 20], [0, 0, 3, 3]]
    assert (data.counts.tolist(), data.n_dropped.tolist()) == ([[0, 2]], [1])
    ((*_, cells),) = (each.read() for each in list_of(save(coco(), "a.json")))
    assert not cells.cells.any()  # no box at all, and no outline either


def test_an_image_without_boxes_beside_one_with_some(save):
    document = coco({"bbox": [2, 3, 10, 10]})
    document["images"].append({"id": 6, "file_name": "b.png"})
    folder = save(document, "a.json")
    Image.fromarray(PICTURE).save(folder / "b.png")
    first, second = list_of(folder)
    assert len(first.read()[2].cells) == 1
    assert second.read()[2].cells.shape == (0, 4)


def test_coco_says_where_it_is_not_known_how_an_image_was_turned(save, save_turned):
    folder = save(coco({"segmentation": [SQUARE]}, width=HEIGHT), "a.json")
    save_turned(folder / "a.png", PICTURE[:, :HEIGHT], 3)
    told = f"{folder / 'a.json'} does not tell whether its annotations were drawn on it so"
    with pytest.warns(UserWarning, match=re.escape(told)):
        data = load_coco(folder)
    assert (data.images[0] == PICTURE[:, :HEIGHT]).all()


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("[" * 100_000, "is nested too deeply to be a file of COCO"),
        ("{", "cannot be read as JSON"),
        ({"images": []}, "got no categories"),
        (coco(file_name=3), "images[0] must have a text as file_name."),
        (coco(height=7), "must declare the size of a.png, (20, 30)"),
        (coco({"image_id": [5]}), "annotations[0] must have the image_id of an entry"),
        (coco({"category_id": 9}), "annotations[0] must have the category_id of an entry"),
        (coco({"segmentation": [SQUARE]}, names=["blast"]), "class_names must say what 'blast' is"),
        (
            coco({"segmentation": [[1, 2, 3]]}),
            "annotations[0] cannot be drawn: its segmen",
        ),
        (coco({"segmentation": [[1, 2, 3, 4]]}), "at least three points of finite numbers"),
        (coco({"segmentation": SQUARE}), "must be a list of polygons, each a list x, y, x, y, ..."),
        (
            coco() | {"categories": [{"id": 1, "name": "RBC"}, {"id": 1, "name": "WBC"}]},
            "a.json, categories must have different ids; got 1 twice",
        ),
        (coco({"segmentation": {"counts": [7], "size": [20, 30]}}), "runs must be of 20 x 30"),
        (coco({"segmentation": {"counts": "o" * 99, "size": [20, 30]}}), "lengths are damaged"),
        (coco({"bbox": [1, 2, 0, 4]}), "or a bbox of finite numbers [x, y, width, height]"),
    ],
)
def test_wrong_coco_is_refused(save, document, text):
    with raises(text):
        load_coco(save(document, "a.json") / "a.json")


def test_coco_images_must_be_there(save):
    with raises("lists an image b, and there is none. Add it.", FileNotFoundError):
        load_coco(save(coco(file_name="b.png"), "a.json"))
    folder = save(coco(), "a.json")
    (folder / "b.json").write_text("{}")
    with raises("path must hold one JSON file", FileNotFoundError):
        load_coco(folder)


# ---------------------------------------------------------------- GeoJSON


def test_geojson_holes_and_parts(save):
    outer = [[2, 3], [9, 3], [9, 8], [2, 8], [2, 3]]
    hole = [[4, 4], [6, 4], [6, 6], [4, 6], [4, 4]]
    many = [[[[20, 1], [22, 1], [22, 2], [20, 2]]], [[[25, 1], [26, 1], [26, 2], [25, 2]]]]
    document = [
        geojson({"type": "Polygon", "coordinates": [outer, hole]}),
        geojson({"type": "MultiPolygon", "coordinates": many}, "WBC"),
    ]
    data = load_geojson(save(document, "a.geojson"))
    assert where(data.masks[0] == 2) == (3, 7, 2, 8, 35 - 4)
    assert where(data.instances[0] == 2) == where(data.masks[0] == 1) == (1, 1, 20, 25, 3)
    assert load_annotated(save(document, "a.geojson") / "a.geojson").format == "geojson"


def test_holes_without_end(save, monkeypatch):
    monkeypatch.setattr("bloodseg.datasets._canvas._SMALL", 1)
    whole = [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]
    polygon = {"type": "Polygon", "coordinates": [whole] * 300}
    with raises("a.geojson has shapes that cover the image more than 256 times. Remove those"):
        load_geojson(save([geojson(polygon)], "a.geojson"))


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("{", "cannot be read as JSON"),
        ({"a": 1}, "must hold a GeoJSON FeatureCollection; got none."),
        ([geojson({"type": "Point"})], "features[0] must be a Polygon or a MultiPolygon; got 'Poi"),
        (["x"], "features[0] must be a Polygon"),
        ([geojson({"type": "Polygon"}, None)], "must have a classification with a name"),
        ([geojson({"type": "Polygon"})], "must have rings of at least three points"),
        ([geojson({"type": "Polygon", "coordinates": [[[1, 2]] * 2]})], "at least three points"),
        ([geojson({"type": "Polygon", "coordinates": []})], "at least three points"),
        ([geojson({"type": "MultiPolygon", "coordinates": [[]]})], "at least three points"),
        ([geojson({"type": "Polygon", "coordinates": [[[1, "x"]] * 3]})], "of finite numbers"),
        ([geojson({"type": "Polygon", "coordinates": [[[1, 1e999]] * 3]})], "of finite numbers"),
    ],
)
def test_wrong_geojson_is_refused(save, document, text):
    with raises(text):
        load_geojson(save(document, "a.geojson"))


def test_classes_that_qupath_has_derived_from_others(save):
    ring = [[2, 3], [9, 3], [9, 8], [2, 8]]
    feature = geojson({"type": "Polygon", "coordinates": [ring]})
    feature["properties"] = {"classification": {"names": ["Tumour", "Positive"]}}
    folder = save([feature], "a.geojson")
    assert load_geojson(folder, class_names={"tumour: positive": "red"}).counts.tolist() == [[0, 1]]


def left_out(n, of):
    text = f"of {of} shapes {n} left out, which have no pixel in the image of 20 x 30 pixels."
    return pytest.warns(UserWarning, match=re.escape(text))


def test_shapes_beside_the_image_are_told_of(save):
    beside = [[x + 100, y] for x, y in ((2, 3), (9, 3), (9, 8), (2, 8))]
    here = [[2, 3], [9, 3], [9, 8], [2, 8]]
    features = [geojson({"type": "Polygon", "coordinates": [ring]}) for ring in (beside, here)]
    with left_out(1, of=2):
        data = load_geojson(save(features, "a.geojson"))
    assert data.counts.tolist() == [[0, 1]]
    outlines = [{"segmentation": [np.ravel(ring).tolist()]} for ring in (beside, beside, here)]
    with left_out(2, of=3):
        data = load_coco(save(coco(*outlines), "a.json"))
    assert data.counts.tolist() == [[0, 1]]
    shapes = [{"label": "rbc", "points": ring} for ring in (beside, here)]
    with left_out(1, of=2):
        data = load_labelme(save({"imagePath": "a.png", "shapes": shapes}, "a.json"))
    assert data.counts.tolist() == [[0, 1]]


def test_geojson_needs_its_image(save):
    with raises("b.geojson has no image: there is none b. Add it.", FileNotFoundError):
        load_geojson(save([], "b.geojson"))


# ---------------------------------------------------------------- instance labels


def save_instances(folder, labels, rows, header="image,label,class", name="a.png"):
    for kind in ("images", "instances"):
        (folder / kind).mkdir(exist_ok=True)
    Image.fromarray(PICTURE).save(folder / "images" / "a.png")
    imsave(folder / "instances" / name, labels, check_contrast=False)
    (folder / "cells.csv").write_text("\n".join([header, *rows]))
    return folder


def test_instances_get_their_classes_from_the_table(tmp_path):
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    labels[1:3], labels[5:8], labels[10:12] = 7, 300, 9
    rows = ["folder/a.tif,7,white", "a.png,300,red", "a,9,platelet", "b,1,red"]
    data = load_instances(save_instances(tmp_path, labels, rows))
    assert (data.masks[0][[1, 5, 10, 15], 0] == [1, 2, 0, 0]).all()
    assert (data.instances[0][[1, 5, 10, 15], 0] == [1, 2, 0, 0]).all()
    assert data.counts.tolist() == [[1, 1]]
    assert load_annotated(tmp_path).format == "instances"


def test_an_image_full_of_cells_has_no_background(tmp_path):
    labels = np.full((HEIGHT, WIDTH), 4, np.uint8)
    data = load_instances(save_instances(tmp_path, labels, ["a,4,red"]))
    assert (data.masks[0] == 2).all()


def test_numbers_below_zero_are_no_cells(tmp_path):
    """They would shift the numbers, so that the background became a cell."""
    labels = np.zeros((HEIGHT, WIDTH), np.int32)
    labels[1:3], labels[5:8] = 7, -1
    text = "must hold numbers of cells from 1 to 2,147,483,647, and 0 where there is no cell; got"
    folder = save_instances(tmp_path, labels, ["a,7,white", "a,-1,red"], name="a.tif")
    with raises(f"a.tif {text} -1. Number the cells anew."):
        load_instances(folder)
    (folder / "masks").mkdir()
    Image.fromarray(2 * (labels != 0).astype(np.uint8)).save(folder / "masks" / "a.png")
    with raises(f"a.tif {text} -1"):
        load_annotated(folder)
    labels = labels.astype(np.uint32)
    labels[1:3] = 2**31 + 7  # which Pillow reads as a number below zero
    labels[5:8] = 0
    save_instances(tmp_path, labels, ["a,2147483655,white"], name="a.tif")
    with raises(f"a.tif {text} -2147483641"):
        load_instances(folder)


def test_cells_of_images_of_one_name_in_several_folders(tmp_path):
    labels = np.full((HEIGHT, WIDTH), 4, np.uint8)
    folder = save_instances(tmp_path, labels, ["x/a.png,4,red", "y/a.png,4,white"])
    with raises(
        "cells.csv must say one class of each cell; of label 4 in a, row 3 says 'white', and one "
        "before 'red'."
    ):
        load_instances(folder)
    save_instances(tmp_path, labels, ["x/a.png,4,red", "y/a.png,4,red"])
    assert load_instances(folder).counts.tolist() == [[0, 1]]


def test_wrong_instances_are_refused(tmp_path):
    labels = np.full((HEIGHT, WIDTH), 4, np.uint8)
    with raises("must say the class of every cell; got none of label 4 in a."):
        load_instances(save_instances(tmp_path, labels, ["a,3,red"]))
    with raises("must have the columns image, label, class, label a whole number; row 2 has not."):
        load_instances(save_instances(tmp_path, labels, ["a,x,red"]))
    with raises("a.png must have the size of its image, (20, 30); got (19, 30)."):
        load_instances(save_instances(tmp_path, labels[1:], ["a,4,red"]))
    (tmp_path / "images" / "b.png").write_bytes(b"")
    with raises("has no instance labels b. Add the file, or remove its pair.", FileNotFoundError):
        load_instances(tmp_path)
    (tmp_path / "images" / "b.png").unlink()
    (tmp_path / "cells.csv").unlink()
    with raises("cells.csv must say the class of each cell", FileNotFoundError):
        load_instances(tmp_path)


# ---------------------------------------------------------------- any format


@pytest.fixture(scope="module")
def drawn():
    smears = make_smears(2, image_size=96, random_state=1)
    smears.update(names=["one", "two"], groups=np.array(["x", "y"]))
    return smears


@pytest.mark.parametrize("format", ["masks", "coco", "geojson", "labelme"])
def test_what_is_saved_is_loaded(drawn, tmp_path, format):
    save_annotated(drawn, tmp_path / "new", format)
    data = load_annotated(tmp_path / "new")
    assert (data.format, data.names, data.groups.tolist()) == (format, ["one", "two"], ["x", "y"])
    for index in range(2):
        assert (data.images[index] == drawn.images[index]).all()
        assert (data.masks[index] == drawn.masks[index]).all()
    if format != "masks":
        assert (data.counts == drawn.counts).all()


def test_what_measure_writes_comes_back(drawn, tmp_path):
    cells = find_cells(drawn.masks[0])
    table = measure_cells(cells, outlines=True).assign(image="some/where/one.png")
    for name, document in (
        ("coco/cells.coco.json", to_coco(table, {"some/where/one.png": cells.labels.shape})),
        ("geojson/one.geojson", to_geojson(table)),
    ):
        file = tmp_path / name
        file.parent.mkdir()
        file.write_text(json.dumps(document))
        Image.fromarray(drawn.images[0]).save(file.parent / "one.png")
        data = load_annotated(file.parent)
        assert (data.instances[0] == cells.labels).all()
        assert (data.masks[0] == np.r_[0, cells.classes][cells.labels]).all()


def test_cells_of_label_maps_are_found_and_boxes_stay_boxes(drawn, tmp_path):
    mask = drawn.masks[0].copy()
    mask[:30] = 255
    alone = {"images": drawn.images[:1], "masks": [mask], "target_names": drawn.target_names}
    save_annotated(alone, tmp_path / "outlined", "coco")
    found = load_annotated(tmp_path / "outlined")
    assert found.names == ["0"]
    known = np.where(mask == 255, 0, mask)
    cells = find_cells(known)
    agree = found.masks[0] == np.where(cells.labels > 0, known, 0)
    assert agree.mean() > 0.99  # holes are filled
    assert found.counts.sum() == len(cells)
    boxes = {"boxes": [[[3, 4, 20, 30], [5, 5, 9, 9]]], "labels": [[2, 0]]}
    save_annotated(alone | boxes, tmp_path / "boxed", "geojson")
    data = load_annotated(tmp_path / "boxed")
    assert where(data.masks[0] == 2) == (4, 29, 3, 19, 17 * 26)


@pytest.mark.parametrize("format", ["coco", "geojson", "labelme"])
def test_a_cell_in_the_hole_of_another_is_not_lost(tmp_path, format):
    instances = np.zeros((HEIGHT, WIDTH), np.int32)
    instances[2:18, 2:18], instances[6:12, 6:12], instances[3, 25] = 9, 4, 2
    mask = np.select([instances == 9, instances == 4, instances == 2], [2, 1, 2]).astype(np.uint8)
    names = ("background", "white", "red")
    data = {"images": [PICTURE], "masks": [mask], "instances": [instances], "target_names": names}
    save_annotated(data, tmp_path, format)
    back = load_annotated(tmp_path)
    assert (back.masks[0] == mask).all()
    assert back.counts.tolist() == [[1, 2]]


@pytest.mark.parametrize("format", ["coco", "geojson", "labelme"])
def test_a_cell_of_unknown_class_is_left_out(tmp_path, format):
    instances = np.zeros((HEIGHT, WIDTH), np.int32)
    instances[2:8, 2:8], instances[10:16, 2:8] = 1, 2
    mask = np.select([instances == 1, instances == 2], [255, 2]).astype(np.uint8)
    names = ("background", "white", "red")
    data = {"images": [PICTURE], "masks": [mask], "instances": [instances], "target_names": names}
    save_annotated(data, tmp_path, format)
    back = load_annotated(tmp_path)
    assert (back.instances[0] == (instances == 2)).all()
    assert back.counts.tolist() == [[0, 1]]


@pytest.mark.parametrize("format", ["coco", "geojson", "labelme"])
def test_numbers_of_cells_stay_where_none_hides_another(drawn, tmp_path, format):
    save_annotated(drawn, tmp_path, format)
    for back, instances in zip(load_annotated(tmp_path).instances, drawn.instances, strict=True):
        assert (back == instances).all()


def test_boxes_stay_boxes_in_coco(drawn, tmp_path):
    alone = {"images": drawn.images[:1], "masks": drawn.masks[:1]}
    boxes = {"boxes": [[[3, 4, 20, 30], [5, 5, 9, 9]]], "labels": [[2, 0]]}
    save_annotated(alone | boxes | {"target_names": drawn.target_names}, tmp_path, "coco")
    (kept,) = json.loads((tmp_path / "annotations.json").read_text())["annotations"]
    assert (kept["bbox"], kept["segmentation"]) == ([3, 4, 17, 26], [])
    data = load_annotated(tmp_path)
    assert data.instances is None
    assert data.boxes[0].tolist() == [[3, 4, 20, 30]]


def test_instances_beside_label_maps_are_the_cells_that_are_written(drawn, tmp_path):
    instances = drawn.instances[0].astype(np.uint8)
    places = (("images", drawn.images[0]), ("masks", drawn.masks[0]), ("instances", instances))
    for kind, pixels in places:
        (tmp_path / "maps" / kind).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "maps" / kind / "one.png")
    data = load_annotated(tmp_path / "maps")
    assert (data.format, (data.instances[0] == instances).all()) == ("masks", True)
    save_annotated(data, tmp_path / "new", "coco")
    assert (load_annotated(tmp_path / "new").instances[0] == instances).all()
    (tmp_path / "maps/instances/one.png").unlink()
    with raises("one has no label image of cells: ", FileNotFoundError):
        load_annotated(tmp_path / "maps")


@pytest.mark.parametrize(("number", "suffix"), [(300, ".png"), (70_000, ".tif")])
def test_numbers_of_cells_are_kept_beside_label_maps(drawn, tmp_path, number, suffix):
    instances = drawn.instances.copy()
    instances[0][instances[0] == 1] = number
    mask = np.where(instances == 2, 255, drawn.masks)  # of this cell no class is known
    save_annotated(drawn | {"masks": mask, "instances": instances}, tmp_path, "masks")
    assert (tmp_path / f"instances/one{suffix}").exists()
    back = load_annotated(tmp_path).instances[0]
    instances = instances[0]
    assert len(np.unique(back)) == len(np.unique(instances)) - 1
    assert ((back > 0) == ((instances > 0) & (instances != 2))).all()
    assert len(np.unique(back[instances == number])) == 1


def test_names_and_groups_are_written_in_utf_8(drawn, tmp_path):
    data = drawn | {"names": ["Blut Ä 1", "z"], "groups": ["Müller", "y"]}
    save_annotated(data, tmp_path, "masks")
    written = (tmp_path / "groups.csv").read_bytes()
    assert written == "image,group\nBlut Ä 1,Müller\nz,y\n".encode()


def test_images_of_16_bits_stay_so(tmp_path):
    image = np.linspace(0, 1, 12 * 8 * 3, dtype=np.float32).reshape(12, 8, 3)
    mask = np.zeros((12, 8), np.uint8)
    save_annotated({"images": [image], "masks": [mask], "target_names": ()}, tmp_path, "masks")
    (back,) = load_annotated(tmp_path).images
    assert np.abs(back - image).max() < 1e-5


def test_folders_of_no_format_or_several(save, tmp_path):
    with raises("path must hold annotated images: subfolders images and", FileNotFoundError):
        load_annotated(tmp_path)
    with raises("nowhere is not there.", FileNotFoundError):
        load_annotated(tmp_path / "nowhere")
    save([], "a.geojson")
    save(coco(), "a.json")
    with raises("has geojson (a.geojson) and coco (a.json). Move one away."):
        load_annotated(tmp_path)
    with raises("format must be one of masks, coco, geojson, labelme; got 'yolo'."):
        save_annotated({}, tmp_path, "yolo")


@pytest.mark.parametrize("format", ["coco", "geojson", "labelme"])
def test_further_classes(tmp_path, format):
    classes = ("background", "white", "red", "platelet", "blast")
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[2:9, 2:9], mask[2:12, 15:25] = 3, 4
    data = {"images": [PICTURE], "masks": [mask], "target_names": classes}
    save_annotated(data | {"instances": [np.where(mask, mask - 2, 0)]}, tmp_path, format)
    back = load_annotated(tmp_path, classes=classes)
    assert (back.masks[0] == mask).all()
    assert back.counts.tolist() == [[0, 0, 1, 1]]
    assert back.target_names == classes
    back = load_annotated(tmp_path, {"blast": "white"})
    assert (back.masks[0] == np.select([mask == 4], [1], 0)).all()  # platelets are background
