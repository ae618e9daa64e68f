"""Measurements of known shapes, and what is written of them."""

import itertools
import json
import re
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
import roifile
from scipy import ndimage
from skimage.measure import regionprops_table
from skimage.segmentation import find_boundaries

from bloodseg.cells import find_cells, measure_cells, to_coco, to_geojson, to_imagej_rois
from bloodseg.cells._blocks import KeptBlocks, blocks_of_cells
from bloodseg.cells._measure import measure_blocks
from bloodseg.cells._scale import typical_radii
from bloodseg.datasets import make_smears

WHITE, RED = 1, 2


def ellipse(shape, y, x, a, b, angle=0.0):
    """Return a mask; ``angle`` turns the half-axis a from the rows towards the columns."""
    dy, dx = np.ogrid[: shape[0], : shape[1]]
    dy, dx = dy - y, dx - x
    along = dy * np.cos(angle) + dx * np.sin(angle)
    across = dx * np.cos(angle) - dy * np.sin(angle)
    return (along / a) ** 2 + (across / b) ** 2 <= 1


@pytest.fixture(scope="module")
def smear():
    return make_smears(
        1, image_size=(300, 260), random_state=4, red_cell_diameter=20, white_cells=(3, 4)
    )


@pytest.mark.parametrize("radius", [10, 20, 45])
def test_a_disc(radius):
    class_map = RED * ellipse((120, 130), 60, 62, radius, radius)
    (row,) = measure_cells(find_cells(class_map)).to_dict("records")
    assert row["area"] == np.count_nonzero(class_map)
    assert row["diameter"] == pytest.approx(2 * radius, rel=0.02)
    assert row["perimeter"] == pytest.approx(2 * np.pi * radius, rel=0.05)
    assert 0.93 < row["circularity"] <= 1
    assert row["eccentricity"] < 0.05
    assert (row["centroid_y"], row["centroid_x"]) == (60, 62)
    box = (row["top"], row["left"], row["bottom"], row["right"])
    assert box == (60 - radius, 62 - radius, 61 + radius, 63 + radius)
    assert row["class"] == "red"
    assert row["unit"] == "px"


def test_shapes_are_those_of_scikit_image(smear):
    cells = find_cells(smear.masks[0])
    table = measure_cells(cells)
    same = {
        "area": "area",
        "equivalent_diameter_area": "diameter",
        "perimeter_crofton": "perimeter",
        "eccentricity": "eccentricity",
        "orientation": "orientation",
        "bbox-0": "top",
        "bbox-1": "left",
        "bbox-2": "bottom",
        "bbox-3": "right",
        "centroid-0": "centroid_y",
        "centroid-1": "centroid_x",
    }
    expected = regionprops_table(
        cells.labels, properties=sorted({name.partition("-")[0] for name in same})
    )
    for theirs, ours in same.items():
        assert table[ours].to_numpy() == pytest.approx(expected[theirs], abs=1e-9), ours


@pytest.mark.parametrize("angle", [-1.2, -0.5, 0.3, 1.0])
def test_an_ellipse(angle):
    class_map = RED * ellipse((140, 140), 70, 70, 30, 20, angle)
    (row,) = measure_cells(find_cells(class_map, red_cell_diameter=48)).to_dict("records")
    assert row["eccentricity"] == pytest.approx(np.sqrt(1 - (20 / 30) ** 2), abs=0.01)
    assert row["orientation"] == pytest.approx(angle, abs=0.02)


def test_a_pixel_size_scales_lengths_and_areas(smear):
    cells = find_cells(smear.masks[0])
    pixels = measure_cells(cells, smear.images[0])
    micrometres = measure_cells(cells, smear.images[0], pixel_size=0.5)
    assert set(micrometres["unit"]) == {"um"}
    for name, factor in {
        "area": 0.25,
        "nucleus_area": 0.25,
        "diameter": 0.5,
        "perimeter": 0.5,
    }.items():
        assert np.allclose(micrometres[name], factor * pixels[name], equal_nan=True)
    scaled = ["area", "nucleus_area", "diameter", "perimeter", "unit"]
    pd.testing.assert_frame_equal(micrometres.drop(columns=scaled), pixels.drop(columns=scaled))


def test_colour_pallor_and_nucleus():
    shape = (120, 220)
    image = np.full((*shape, 3), 230, np.uint8)
    red, pale = ellipse(shape, 60, 50, 24, 24), ellipse(shape, 60, 50, 8, 8)
    white, nucleus = ellipse(shape, 60, 150, 36, 36), ellipse(shape, 60, 150, 18, 18)
    image[red] = (200, 100, 100)
    image[pale] = (230, 200, 200)
    image[white] = (200, 180, 220)
    image[nucleus] = (80, 40, 140)
    class_map = np.where(red, RED, np.where(white, WHITE, 0))
    table = measure_cells(find_cells(class_map), image).set_index("class")
    assert table["pallor"]["red"] == pytest.approx(
        np.dot((230, 200, 200), (0.299, 0.587, 0.114))
        / np.dot((200, 100, 100), (0.299, 0.587, 0.114)),
        rel=0.01,
    )
    assert np.isnan(table["pallor"]["white"])
    assert table["nucleus_area"]["white"] == nucleus.sum()
    assert table["nc_ratio"]["white"] == nucleus.sum() / (white.sum() - nucleus.sum())
    assert np.isnan(table["nucleus_area"]["red"])
    expected = image[red].mean(axis=0) / 255
    assert table.loc["red", ["mean_red", "mean_green", "mean_blue"]].tolist() == pytest.approx(
        expected.tolist()
    )
    as_float = measure_cells(find_cells(class_map), image / 255).set_index("class")
    assert as_float["pallor"]["red"] == pytest.approx(table["pallor"]["red"])


@pytest.mark.parametrize("white_level", [255, 1])
def test_colours_are_those_of_plain_sums(smear, white_level):
    image = smear.images[0] if white_level == 255 else smear.images[0] / np.float32(255)
    cells = find_cells(smear.masks[0])
    table = measure_cells(cells, image)
    assert {"white", "red"} == set(table["class"])
    numbers = np.arange(1, len(cells) + 1)
    for channel, name in enumerate(("mean_red", "mean_green", "mean_blue")):
        means = ndimage.mean(image[..., channel] / white_level, cells.labels, numbers)
        np.testing.assert_allclose(table[name], means, rtol=1e-6)
    inner = (cells.labels > 0) & ~find_boundaries(cells.labels, mode="inner")
    beside = np.pad(inner, 1, constant_values=True)  # more of a cell may lie beyond the border
    depth = ndimage.distance_transform_edt(beside)[1:-1, 1:-1]
    deepest = np.append(0, ndimage.maximum(depth, cells.labels, numbers))
    with np.errstate(invalid="ignore"):
        share = depth / deepest[cells.labels]
    brightness = image @ (0.299, 0.587, 0.114)
    middle = ndimage.mean(brightness, np.where(inner & (share >= 2 / 3), cells.labels, 0), numbers)
    at_rim = inner & (share >= 0.15) & (share <= 0.5)
    rim = ndimage.mean(brightness, np.where(at_rim, cells.labels, 0), numbers)
    expected = np.where(cells.names == "red", middle / rim, np.nan)
    np.testing.assert_allclose(table["pallor"], expected, rtol=1e-5)


def test_nothing_is_rounder_than_a_disc():
    class_map = RED * ellipse((40, 40), 20, 20, 4.95, 4.95)  # so few pixels look rounder
    table = measure_cells(find_cells(class_map, red_cell_diameter=10))
    assert table["circularity"].tolist() == [1]


@pytest.mark.parametrize("width", [1, 2])
def test_a_thin_cell_has_no_pallor(width):
    labels = np.zeros((30, 30), np.uint8)
    labels[5:25, 9 : 9 + width] = RED
    table = measure_cells(find_cells(labels, red_cell_diameter=6), np.zeros((30, 30, 3)))
    assert np.isnan(table["pallor"].to_numpy(float)).tolist() == [True]


def test_a_flat_cell_has_no_pallor():
    class_map = RED * ellipse((60, 60), 30, 30, 15, 15)
    table = measure_cells(find_cells(class_map), np.full((60, 60, 3), 90, np.uint8))
    assert table["pallor"].tolist() == pytest.approx([1])


def test_a_flat_white_cell_is_all_nucleus():
    class_map = WHITE * ellipse((60, 60), 30, 30, 15, 15)
    table = measure_cells(find_cells(class_map), np.full((60, 60, 3), 90, np.uint8))
    assert table["nucleus_area"].tolist() == table["area"].tolist()
    assert table["nc_ratio"].tolist() == [np.inf]


def test_no_cells_give_an_empty_table_of_the_same_columns(smear):
    full = measure_cells(find_cells(smear.masks[0]))
    empty = measure_cells(find_cells(np.zeros((9, 9), int)))
    assert len(empty) == 0
    assert list(empty) == list(full)
    of_blocks = measure_blocks(
        KeptBlocks(np.zeros((9, 9), np.uint8), None), None, np.zeros((9, 9, 3))
    )
    assert len(of_blocks) == 0
    assert list(of_blocks) == list(measure_cells(find_cells(smear.masks[0]), smear.images[0]))


def test_tables_of_blocks_are_those_of_the_whole(smear, monkeypatch):
    cells = find_cells(smear.masks[0], smear.masks[0] / 2)
    whole = measure_cells(cells, smear.images[0], outlines=True)
    radii = typical_radii(smear.masks[0])
    for side in (70, 100, 1000):
        monkeypatch.setattr(blocks_of_cells, "__kwdefaults__", {"side": side})
        kept = KeptBlocks(smear.masks[0], radii)
        blocks = measure_blocks(kept, smear.masks[0] / 2, smear.images[0], outlines=True)
        outlines = zip(blocks.pop("outline"), whole["outline"], strict=True)
        assert all(np.array_equal(*pair) for pair in outlines)
        pd.testing.assert_frame_equal(blocks, whole.drop(columns="outline"))


class InFile:
    """An array that is read as slides are, and what was read of it."""

    def __init__(self, pixels):
        self.pixels, self.shape = pixels, pixels.shape
        self.read = []

    def __getitem__(self, place):
        found = self.pixels[place]
        self.read.append(found.shape[:2])
        return found


def test_no_more_of_a_slide_is_read_than_the_blocks_show(monkeypatch):
    wide = make_smears(1, image_size=(150, 700), random_state=4, red_cell_diameter=10)
    class_map, confidence, image = map(InFile, (wide.masks[0], wide.masks[0], wide.images[0]))
    outside = InFile(np.zeros((150, 700), bool))
    kept = KeptBlocks(class_map, typical_radii(wide.masks[0]), outside=outside)
    monkeypatch.setattr(
        blocks_of_cells, "__kwdefaults__", {**blocks_of_cells.__kwdefaults__, "side": 100}
    )
    for _ in range(2):  # the second time from what was kept
        table = measure_blocks(kept, confidence, image)
    assert len(table) > 50
    for array in (class_map, confidence, image, outside):
        assert max(height * width for height, width in array.read) < 150 * 350


def test_rows_are_in_the_order_of_the_labels(smear):
    cells = find_cells(smear.masks[0])
    table = measure_cells(cells)
    assert table["label"].tolist() == list(range(1, len(cells) + 1))
    assert table["area"].tolist() == np.bincount(cells.labels.ravel())[1:].tolist()
    assert table["touches_border"].tolist() == cells.touches_border.tolist()
    sides = table[["touches_top", "touches_left", "touches_bottom", "touches_right"]]
    assert sides.to_numpy().tolist() == cells.sides.tolist()
    assert table["in_frame"].tolist() == cells.in_frame.tolist()


# ---------------------------------------------------------------- other programs' formats


def area_of(corners):
    x, y = np.asarray(corners).T
    return abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2


def test_geojson(smear):
    table = measure_cells(find_cells(smear.masks[0]), smear.images[0], outlines=True)
    collection = json.loads(json.dumps(to_geojson(table), allow_nan=False))
    assert collection["type"] == "FeatureCollection"
    assert collection["unit"] == "px"
    assert len(collection["features"]) == len(table)
    for feature, row in zip(collection["features"], table.to_dict("records"), strict=True):
        (ring,) = feature["geometry"]["coordinates"]
        assert feature["geometry"]["type"] == "Polygon"
        assert feature["id"] == feature["properties"]["measurements"]["label"] == row["label"]
        assert ring[0] == ring[-1]
        assert all(one != two for one, two in itertools.pairwise(ring))
        assert area_of(ring[:-1]) == row["area"]
        assert feature["properties"]["classification"]["name"] == row["class"]
        measurements = feature["properties"]["measurements"]
        for name in ("diameter", "touches_border", "touches_left", "in_frame"):
            assert measurements[name] == row[name]
        low, high = np.min(ring, axis=0), np.max(ring, axis=0)
        assert [*low, *high] == [row["left"], row["top"], row["right"], row["bottom"]]


def test_coco(smear):
    table = measure_cells(find_cells(smear.masks[0]), smear.images[0], outlines=True)
    table = table.assign(image="a.png")
    coco = to_coco(table, {"empty.png": np.array([10, 20]), "a.png": smear.masks[0].shape})
    coco = json.loads(json.dumps(coco, allow_nan=False))
    assert coco["categories"] == [{"id": 1, "name": "white"}, {"id": 2, "name": "red"}]
    assert coco["images"] == [
        {"id": 1, "file_name": "empty.png", "height": 10, "width": 20},
        {"id": 2, "file_name": "a.png", "height": 300, "width": 260},
    ]
    assert [each["id"] for each in coco["annotations"]] == list(range(1, len(table) + 1))
    for annotation, row in zip(coco["annotations"], table.to_dict("records"), strict=True):
        assert annotation["image_id"] == 2
        assert annotation["category_id"] == (RED if row["class"] == "red" else WHITE)
        assert annotation["area"] == row["area"]
        sides = [f"touches_{side}" for side in ("border", "top", "left", "bottom", "right")]
        assert annotation["attributes"] == {name: row[name] for name in [*sides, "in_frame"]}
        (polygon,) = annotation["segmentation"]
        corners = np.reshape(polygon, (-1, 2))
        assert area_of(corners) == row["area"]
        assert annotation["bbox"] == [*corners.min(0), *np.ptp(corners, axis=0)]


def test_rois_of_imagej(smear, tmp_path):
    table = measure_cells(find_cells(smear.masks[0]), outlines=True)
    (tmp_path / "a.zip").write_bytes(to_imagej_rois(table))
    rois = roifile.roiread(tmp_path / "a.zip")
    assert [roi.name for roi in rois] == [
        f"{row.label}-{name}" for row, name in zip(table.itertuples(), table["class"], strict=True)
    ]
    for roi, row in zip(rois, table.to_dict("records"), strict=True):
        assert roi.roitype == roifile.ROI_TYPE.TRACED
        assert np.array_equal(roi.coordinates(), row["outline"])
        assert area_of(roi.coordinates()) == row["area"]
        assert roi.group == (RED if row["class"] == "red" else WHITE)
    assert len({roi.stroke_color for roi in rois}) == 2


def test_rois_of_a_large_slide_and_of_names_with_slashes(tmp_path):
    square = np.array([[70000, 90000], [70000, 90010], [70010, 90010], [70010, 90000]], float)
    table = pd.DataFrame({"label": [1], "class": ["a/b"], "outline": [square]})
    (tmp_path / "a.zip").write_bytes(to_imagej_rois(table, classes=("background", "a/b")))
    (roi,) = roifile.roiread(tmp_path / "a.zip")
    assert np.array_equal(roi.coordinates(), square)
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        assert file.namelist() == ["1-a_b.roi"]


def test_rois_without_their_package(smear, monkeypatch):
    monkeypatch.setitem(sys.modules, "roifile", None)
    table = measure_cells(find_cells(smear.masks[0]), outlines=True)
    with pytest.raises(ImportError, match=re.escape("pip install 'bloodseg[imagej]'")):
        to_imagej_rois(table)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("pixel_size", [0, -1, 1e-200, 1e4, float("nan"), float("inf"), "1", True])
def test_bad_pixel_sizes(pixel_size):
    text = "pixel_size must be the side of a pixel in micrometres, from 0.001 to 1000, or None"
    with pytest.raises(ValueError, match=re.escape(text)):
        measure_cells(find_cells(np.zeros((5, 5), int)), pixel_size=pixel_size)


def test_an_image_of_another_size():
    text = "image must have the cells' size (5, 5); got (5, 6)."
    with pytest.raises(ValueError, match=re.escape(text)):
        measure_cells(find_cells(np.zeros((5, 5), int)), np.zeros((5, 6, 3)))


def test_tables_that_cannot_be_written(smear):
    table = measure_cells(find_cells(smear.masks[0]))
    for write in (to_geojson, to_imagej_rois, lambda each: to_coco(each, {})):
        with pytest.raises(ValueError, match="measure the cells with outlines=True"):
            write(table)
    table = measure_cells(find_cells(smear.masks[0]), outlines=True)
    with pytest.raises(
        ValueError, match=r"this table holds 2\. Pass each image's rows on their own"
    ):
        to_geojson(pd.concat([table.assign(image="a"), table.assign(image="b")]))
    with pytest.raises(ValueError, match=r"ROIs have the coordinates of one image"):
        to_imagej_rois(pd.concat([table.assign(image="a"), table.assign(image="b")]))
    with pytest.raises(ValueError, match="sizes must have the size of every image; got none of b"):
        to_coco(table.assign(image="b"), {"a": (1, 1)})
    with pytest.raises(
        ValueError, match=r"'image'\. To one of measure_cells, add it: table\.assign"
    ):
        to_coco(table, {"a": (1, 1)})
