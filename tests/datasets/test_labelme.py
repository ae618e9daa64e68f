"""LabelMe: shapes become label maps, cells and classes."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from skimage import draw

from bloodseg.datasets import load_folder, load_labelme
from bloodseg.datasets._polygon import fill_polygon

SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared real images")

HEIGHT, WIDTH = 20, 30
PICTURE = np.random.RandomState(0).randint(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
SQUARE = [[2, 3], [9, 3], [9, 8], [2, 8]]
FOUR = ("background", "white", "red", "platelet")


def _png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def _shape(points, kind="polygon", label="red", **more):
    return {"label": label, "points": points, "shape_type": kind, **more}


@pytest.fixture
def save(tmp_path):
    """Save an image and LabelMe shapes; return the JSON file's path."""
    Image.fromarray(PICTURE).save(tmp_path / "a.png")

    def write(shapes, /, **fields):
        document = {"imagePath": "a.png", "imageData": None, "shapes": shapes}
        document.update(imageHeight=HEIGHT, imageWidth=WIDTH)
        (tmp_path / "a.json").write_text(json.dumps({**document, **fields}))
        return tmp_path / "a.json"

    return write


def test_shapes_of_all_types_are_drawn(save):
    mask = np.zeros((4, 3), np.uint8)
    mask[1:] = 1
    shapes = [
        _shape(SQUARE),
        _shape([[15, 2], [12, 6]], "rectangle", "WBC"),
        _shape([[24, 10], [24, 13.5]], "circle", "Red_Cell"),
        _shape([[3, 14], [5, 17]], "mask", "leukocyte", mask=_png(mask)),
    ]
    data = load_labelme(save(shapes).parent)
    expected = np.zeros((HEIGHT, WIDTH), np.int32)
    expected[3:9, 2:10] = 1
    expected[2:7, 12:16] = 2
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    expected[(y - 10) ** 2 + (x - 24) ** 2 < 3.5**2] = 3
    expected[15:18, 3:6] = 4
    np.testing.assert_array_equal(data.instances[0], expected)
    np.testing.assert_array_equal(data.masks[0], np.array([0, 2, 1, 2, 1])[expected])
    assert data.counts.tolist() == [[2, 2]]
    assert data.names == ["a"]
    assert data.groups is None
    assert data.masks[0].dtype == np.uint8
    assert data.instances[0].dtype == np.int32
    np.testing.assert_array_equal(data.images[0], PICTURE)


def test_later_shapes_hide_earlier_ones(save):
    shapes = [
        _shape([[2, 2], [4, 4]], "rectangle", "red"),
        _shape([[1, 1], [8, 8]], "rectangle", "white"),
        _shape([[8, 8], [12, 12]], "rectangle", "red"),
        _shape([[10, 10], [20, 20]], "rectangle", "Platelet"),
    ]
    data = load_labelme(save(shapes))
    assert data.counts.tolist() == [[1, 1]]
    assert data.instances[0].max() == 2
    assert data.masks[0][3, 3] == 1
    assert data.masks[0][8, 8] == 2
    assert data.masks[0][11, 11] == 0


def test_shapes_of_one_group_are_one_cell(save):
    boxes = [[[1, 1], [3, 3]], [[6, 1], [8, 3]], [[11, 1], [13, 3]]]
    shapes = [
        _shape(box, "rectangle", group_id=g) for box, g in zip(boxes, (5, 5, None), strict=True)
    ]
    data = load_labelme(save(shapes))
    assert data.counts.tolist() == [[0, 2]]
    assert data.instances[0][2, 2] == data.instances[0][2, 7] == 1


def test_a_group_is_one_cell_however_its_class_is_written(save):
    boxes = [[[1, 1], [3, 3]], [[6, 1], [8, 3]], [[11, 1], [13, 3]]]
    shapes = [
        _shape(box, "rectangle", label, group_id=1)
        for box, label in zip(boxes, ("rbc", "RBC", "wbc"), strict=True)
    ]
    data = load_labelme(save(shapes))
    assert data.counts.tolist() == [[1, 1]]
    assert data.instances[0][2, 2] == data.instances[0][2, 7] == 1


def test_fields_that_say_nothing_are_like_absent_ones(save):
    data = load_labelme(save([_shape(SQUARE, None)], imageData=""))
    np.testing.assert_array_equal(data.images[0], PICTURE)
    np.testing.assert_array_equal(data.masks[0], load_labelme(save([_shape(SQUARE)])).masks[0])
    assert data.counts.tolist() == [[0, 1]]


def test_class_names_add_to_the_known_ones(save):
    shapes = [
        _shape([[1, 1], [3, 3]], "rectangle", "Neutro-phil"),
        _shape([[6, 1], [8, 3]], "rectangle", "Dirt"),
        _shape([[11, 1], [13, 3]], "rectangle", "erythrocyte"),
    ]
    file = save(shapes)
    data = load_labelme(file, class_names={"neutro phil": "white", "dirt": 0})
    assert data.counts.tolist() == [[1, 1]]
    with pytest.raises(
        ValueError,
        match=r"class_names must say what 'Dirt', 'Neutro-phil' is; the files hold the labels "
        r"'Dirt', 'Neutro-phil', 'erythrocyte'\. Pass class_names=\{'Dirt': \"white\"\}",
    ):
        load_labelme(file)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"x": 3}, r"class_names\['x'\] must be one of 'background', 'white', 'red'.*; got 3"),
        ({"x": True}, "must be one of"),
        ({"x": "purple"}, "got 'purple'"),
        (["x"], "class_names must be a dict .*; got list"),
    ],
)
def test_wrong_class_names_are_refused(save, names, message):
    with pytest.raises(ValueError, match=message):
        load_labelme(save([]), class_names=names)


def test_embedded_images_come_first(save):
    other = 255 - PICTURE
    data = load_labelme(save([], imageData=_png(other), imagePath="../gone.png"))
    np.testing.assert_array_equal(data.images[0], other)
    assert data.counts.tolist() == [[0, 0]]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    points=st.lists(
        st.tuples(*[st.one_of(st.floats(-50, 80), st.floats(-1e300, 1e300), st.integers())] * 2),
        min_size=3,
        max_size=12,
    ),
    kind=st.sampled_from(["polygon", "rectangle", "circle"]),
)
def test_any_finite_points_are_clipped(save, points, kind):
    if kind != "polygon":
        points = points[:2]
    data = load_labelme(save([_shape([list(point) for point in points], kind)]))
    assert data.masks[0].shape == (HEIGHT, WIDTH)
    assert set(np.unique(data.masks[0])) <= {0, 2}
    assert data.counts[0, 1] == data.instances[0].max()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    mask=arrays(
        np.uint8, st.tuples(st.integers(1, 25), st.integers(1, 35)), elements=st.integers(0, 1)
    ),
    top=st.integers(-30, 30),
    left=st.integers(-40, 40),
)
def test_masks_are_cut_at_the_borders(save, mask, top, left):
    corners = [[left, top], [left + mask.shape[1] - 1, top + mask.shape[0] - 1]]
    data = load_labelme(save([_shape(corners, "mask", mask=_png(mask))]))
    expected = np.zeros((HEIGHT + 120, WIDTH + 160), np.uint8)
    expected[60 + top :, 80 + left :][: mask.shape[0], : mask.shape[1]] = 2 * mask
    np.testing.assert_array_equal(data.masks[0], expected[60:-60, 80:-80])


def _filled(corners, size):
    found = np.zeros(size, bool)
    x, y = np.array(corners, float).T
    place, inside = fill_polygon(x, y, size)
    found[place] = inside
    return found


@pytest.mark.parametrize("at_once", [1, 7, 2**20])
def test_polygons_are_what_scikit_image_makes_of_them(monkeypatch, at_once):
    monkeypatch.setattr("bloodseg.datasets._polygon._AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    for _ in range(300):
        size = tuple(rng.integers(1, 40, 2).tolist())
        corners = rng.uniform(-20, 60, (rng.integers(3, 12), 2))
        for each in (corners, corners.round()):  # corners lie on rows of pixels mostly
            expected = draw.polygon2mask(size, each[:, ::-1])
            np.testing.assert_array_equal(_filled(each, size), expected)


def test_pixels_on_the_outline_of_a_polygon_belong_to_it():
    expected = np.zeros((6, 7), bool)
    expected[1:4, 2:6] = True
    np.testing.assert_array_equal(_filled([[2, 1], [5, 1], [5, 3], [2, 3]], (6, 7)), expected)
    np.testing.assert_array_equal(_filled([[2, 2], [2, 2], [2, 2]], (6, 7)).sum(), 1)
    triangle = _filled([[0, 0], [4, 0], [0, 4]], (6, 7))
    assert triangle.sum() == 15
    assert triangle[2, 2]


def test_a_million_points(save):
    """Asking each pixel for each edge would take hours."""
    angle = np.linspace(0, 2 * np.pi, 1_000_000, endpoint=False)
    disc = _filled(np.c_[300 + 250 * np.cos(angle), 300 + 250 * np.sin(angle)], (600, 600))
    assert disc.sum() == pytest.approx(np.pi * 250**2, rel=1e-3)


def test_shapes_that_cover_an_image_without_end(save, monkeypatch):
    whole = _shape([[0, 0], [WIDTH, HEIGHT]], "rectangle")
    assert load_labelme(save([whole] * 300)).counts.tolist() == [[0, 1]]  # the image is small
    monkeypatch.setattr("bloodseg.datasets._canvas._SMALL", 1)
    with pytest.raises(ValueError, match=r"a\.json has shapes that cover the image more than 256 "):
        load_labelme(save([whole] * 300))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_outlines_lie_on_the_picture_as_it_is_shown(save, save_turned, tmp_path, orientation, name):
    save_turned(tmp_path / name, PICTURE, orientation)
    data = load_labelme(save([_shape(SQUARE)], imagePath=name))
    np.testing.assert_array_equal(data.images[0], PICTURE)
    assert data.masks[0].shape == PICTURE.shape[:2]


def test_outlines_drawn_on_the_picture_as_it_is_stored(save, save_turned, tmp_path):
    save_turned(tmp_path / "a.png", PICTURE, 6)
    data = load_labelme(save([_shape(SQUARE)], imageHeight=WIDTH, imageWidth=HEIGHT))
    np.testing.assert_array_equal(data.images[0], np.rot90(PICTURE))


def test_convex_polygons_agree_with_half_planes(save):
    rng = np.random.RandomState(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for _ in range(10):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 7))
        corners = np.c_[15 + 11 * np.cos(angle), 10 + 8 * np.sin(angle)]
        inside = np.ones((HEIGHT, WIDTH), bool)
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            inside &= (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) >= 0
        mask = load_labelme(save([_shape(corners.tolist())])).masks[0]
        np.testing.assert_array_equal(mask > 0, inside)


WRONG_SHAPES = [
    (3, r"a\.json, shapes\[0\] must be a JSON object; got int"),
    ({"points": SQUARE}, r"shapes\[0\] must have a text as label; got None"),
    ({"label": "red"}, r"shapes\[0\] \(polygon\) must have at least 3 points; got None"),
    (_shape(SQUARE[:2]), r"\(polygon\) must have at least 3 points; got 2"),
    (_shape(SQUARE, "circle"), r"\(circle\) must have 2 points; got 4"),
    (_shape("abc"), r"must have at least 3 points; got 'abc'"),
    (_shape([[1, 2], [3, 4], [5]]), r"points \[x, y\] of finite numbers; got \[5\]"),
    (_shape([[1, 2], [3, 4], [5, None]]), "of finite numbers"),
    (_shape([[1, 2], [3, 4], [5, True]]), "of finite numbers"),
    (_shape([[1, 2], [3, 4], [5, float("nan")]]), "of finite numbers"),
    (_shape([[1, 2], [3, 4], [5, float("inf")]]), "of finite numbers"),
    (_shape([[1, 2], [3, 4], [5, 10**400]]), "of finite numbers"),
    (_shape(SQUARE, "line"), r"one of the shape types polygon, .*; got 'line'\. Outline"),
    (_shape(SQUARE, ["x"]), r"one of the shape types"),
    (_shape(SQUARE, group_id=[1]), r"a number or null as group_id"),
    (_shape([[0, 0], [3, 3]], "mask"), r"shapes\[0\]\.mask must be a base64 text; got NoneType"),
    (_shape([[0, 0], [3, 3]], "mask", mask="%%"), r"shapes\[0\]\.mask must be a base64 text"),
    (_shape([[0, 0], [3, 3]], "mask", mask="AAAA"), r"\.mask cannot be read as a PNG mask"),
    (
        _shape([[0, 0], [3, 3]], "mask", mask=_png(np.zeros((9000, 9000), bool))),
        r"\.mask must have the size \(4, 4\), height and width; got \(9000, 9000\)",
    ),
    (_shape([[0, 0], [2, 0]], "mask", mask=_png(PICTURE[:1, :3])), "must have one channel"),
]


@pytest.mark.parametrize(("shape", "message"), WRONG_SHAPES)
def test_wrong_shapes_are_refused(save, shape, message):
    with pytest.raises(ValueError, match=message):
        load_labelme(save([shape]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shapes": None}, r"a\.json must be a JSON object with a list of shapes"),
        ({"imageHeight": 10**9}, r"imageHeight must be that of the image, 20; got 1000000000"),
        ({"imageWidth": "30"}, r"imageWidth must be that of the image, 30; got '30'"),
        ({"imageData": "%"}, r"imageData must be a base64 text"),
        ({"imageData": 3}, r"imageData must be a base64 text; got int"),
        ({"imageData": "AAAA"}, r"a\.json, imageData cannot be read as an image"),
        ({"imagePath": None}, r"imagePath must be a text; got None"),
        ({"imagePath": "x/../../a.png"}, r"imagePath must lie in the folder of the JSON file"),
        ({"imagePath": "/etc/passwd"}, r"imagePath must lie in the folder"),
        ({"imagePath": "..\\a.png"}, r"imagePath must lie in the folder"),
        ({"imagePath": "C:\\a.png"}, r"imagePath must lie in the folder"),
        ({"imagePath": "out.png"}, r"imagePath must lie in the folder"),
        ({"imagePath": "a\0.png"}, r"imagePath cannot be a path"),
        ({"imagePath": "a.json"}, r"cannot be read as an image"),
    ],
)
def test_wrong_fields_are_refused(save, tmp_path_factory, fields, message):
    outside = tmp_path_factory.mktemp("outside") / "a.png"
    Image.fromarray(PICTURE).save(outside)
    file = save([], **fields)
    (file.parent / "out.png").symlink_to(outside)
    with pytest.raises(ValueError, match=message):
        load_labelme(file)


def test_images_may_lie_deeper_and_must_exist(save):
    file = save([], imagePath="deep\\b.png")
    with pytest.raises(FileNotFoundError, match=r"imagePath must name an image; .*b\.png is not"):
        load_labelme(file)
    (file.parent / "deep").mkdir()
    Image.fromarray(PICTURE).save(file.parent / "deep/b.png")
    assert len(load_labelme(file).images) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "must be a JSON object with a list of shapes"),
        ("{", r"a\.json cannot be read as JSON"),
        ('{"shapes": ' + "[" * 200_000, "is nested too deeply|cannot be read as JSON"),
        ('{"shapes": [' + "[" * 500 + "]" * 500 + "]}", r"shapes\[0\] must be a JSON object"),
        ('{"shapes": [{"label": ' + "[" * 500 + "]" * 500 + "}]}", "must have a text as label"),
        ('{"shapes": [' + "9" * 9999 + "]}", "cannot be read as JSON|must be a JSON object"),
        (b"\xff\xff\xff", "cannot be read as JSON"),
    ],
)
def test_hostile_json_is_refused(tmp_path, text, message):
    file = tmp_path / "a.json"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ValueError, match=message):
        load_labelme(file)


def test_large_json_is_refused_before_it_is_read(tmp_path):
    file = tmp_path / "a.json"
    with file.open("wb") as stream:
        stream.truncate(2**28 + 1)  # a hole in the file: takes no space
    with pytest.raises(ValueError, match=r"must have at most 268,435,456 bytes; got 268,435,457"):
        load_labelme(file)


def test_folders_without_json_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="at least one JSON file of LabelMe"):
        load_labelme(tmp_path)
    with pytest.raises(FileNotFoundError, match="path must be a folder with LabelMe's JSON"):
        load_labelme(tmp_path / "none")


@needs_shared
def test_real_polygons_give_back_the_masks_they_were_traced_from():
    data = load_labelme(SHARED / "labelme")
    folder = load_folder(SHARED / "smear256" / "train")
    agreement = [
        (mask == folder.masks[folder.names.index(name)]).mean()
        for name, mask in zip(data.names, data.masks, strict=True)
    ]
    # Polygons cannot say holes, which some masks have.
    assert np.median(agreement) > 0.99
    assert np.mean(agreement) > 0.98


def test_platelets_are_a_class_where_they_are_named(save):
    shapes = [
        _shape([[1, 1], [3, 3]], "rectangle", "Platelets"),
        _shape([[6, 1], [8, 3]], "rectangle", "RBC"),
        _shape([[11, 1], [13, 3]], "rectangle", "plt"),
    ]
    file = save(shapes)
    assert load_labelme(file).counts.tolist() == [[0, 1]]
    data = load_labelme(file, classes=FOUR)
    assert data.counts.tolist() == [[0, 1, 2]]
    assert data.target_names == FOUR
    assert [data.masks[0][2, column] for column in (2, 7, 12)] == [3, 2, 3]


def test_shapes_may_have_classes_of_ones_own(save):
    shapes = [
        _shape([[1, 1], [3, 3]], "rectangle", "Parasite"),
        _shape([[6, 1], [8, 3]], "rectangle", "ring form"),
        _shape([[11, 1], [13, 3]], "rectangle", "rbc"),
    ]
    file, names = save(shapes), ("background", "parasite")
    data = load_labelme(file, {"ring form": "parasite", "rbc": "background"}, classes=names)
    assert data.counts.tolist() == [[2]]
    with pytest.raises(
        ValueError,
        match=r"class_names must say what 'rbc', 'ring form' is; .* Pass class_names=\{'rbc': "
        r"\"parasite\"\}, with 'background', 'parasite' for each, or name it in classes\.",
    ):
        load_labelme(file, classes=names)
    with pytest.raises(
        ValueError, match="must be one of 'background', 'parasite' or their numbers 0, 1; got 2"
    ):
        load_labelme(file, {"rbc": 2}, classes=names)
