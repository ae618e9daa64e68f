"""Files that napari opens by this package, without napari."""

import json

import numpy as np
import pytest
import tifffile
from messages import raises
from PIL import Image

from bloodseg import cli
from bloodseg.cells import find_cells, measure_cells, to_geojson
from bloodseg.datasets import make_smears
from bloodseg.napari import _reader
from bloodseg.napari._reader import get_reader, read
from bloodseg.prediction import write_map

CLASSES = ("background", "white", "red")
PLACE = {"scale": pytest.approx((0.2, 0.1)), "units": ("micrometer", "micrometer")}


def only(path):
    (layer,) = get_reader(str(path))(str(path))
    return layer


@pytest.fixture
def mask(rng):
    return rng.integers(0, 3, (60, 90)).astype(np.uint8)


def test_slides_have_the_size_of_their_pixels(tmp_path, rng):
    pixels = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, resolution=(1e5, 5e4), resolutionunit="CENTIMETER")
    image, properties, kind = only(path)
    assert kind == "image"
    assert np.array_equal(image, pixels)
    assert properties == {"name": "a", "rgb": True, **PLACE}
    tifffile.imwrite(path, pixels[..., 0])  # grey, of pixels of no known size
    image, properties, kind = only(path)
    assert np.array_equal(image, pixels[..., [0, 0, 0]])
    assert properties == {"name": "a", "rgb": True}


@pytest.mark.parametrize("name", ["a.ome.tif", "a.zarr"])
def test_maps_of_whole_files(tmp_path, mask, name):
    path = tmp_path / name
    classes = ("background", "white", "red", "platelet")
    write_map(path, mask, dtype=np.uint8, pixel_sides=(0.2, 0.1), classes=classes)
    labels, properties, kind = only(path)
    assert kind == "labels"
    assert np.array_equal(labels, mask)
    assert properties["features"]["class"].tolist() == list(classes)
    assert {name: properties[name] for name in PLACE} == PLACE
    cells = tmp_path / f"cells.{name}"
    write_map(cells, mask, dtype=np.int32, pixel_sides=(0.2, 0.1))
    labels, properties, kind = only(cells)
    assert kind == "labels"
    assert np.array_equal(labels, mask)
    assert "features" not in properties
    assert {name: properties[name] for name in PLACE} == PLACE


def test_a_plain_tiff_of_32_bits_holds_cells(tmp_path, mask):
    write_map(tmp_path / "a.tif", mask, dtype=np.int32)
    labels, properties, kind = only(tmp_path / "a.tif")
    assert (kind, properties) == ("labels", {"name": "a"})
    assert np.array_equal(labels, mask)


@pytest.mark.parametrize("channels", [["Hoechst"], ["1 a, 2 b"], [""], []])
def test_other_ome_tiffs_are_pictures(tmp_path, mask, channels):
    metadata = {"axes": "YX", **({"Channel": {"Name": channels[0]}} if channels else {})}
    tifffile.imwrite(tmp_path / "a.ome.tif", mask, metadata=metadata)
    assert only(tmp_path / "a.ome.tif")[2] == "image"


def test_large_maps_are_pyramids_read_by_parts(tmp_path, rng, monkeypatch):
    monkeypatch.setattr(_reader, "_AT_ONCE", 0)
    expected = rng.integers(0, 10**6, (600, 1100)).astype(np.int32)
    write_map(tmp_path / "a.zarr", expected, dtype=np.int32)
    levels, _, kind = only(tmp_path / "a.zarr")
    assert kind == "labels"
    assert [level.shape for level in levels] == [(600, 1100), (300, 550), (150, 275)]
    for level, step in zip(levels, (1, 2, 4), strict=True):
        assert level.dtype == np.int32
        assert np.array_equal(level[5:100, 7:], expected[::step, ::step][5:100, 7:])


def test_maps_of_the_shell_know_their_classes(fitted, smears, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    Image.fromarray(smears.images[0]).save(tmp_path / "a.png")
    folder = tmp_path / "out"
    arguments = ["predict", tmp_path / "a.png", "-m", tmp_path / "model.safetensors", "-o", folder]
    assert cli.main(list(map(str, arguments))) == 0
    labels, properties, kind = only(folder / "a_mask.png")
    assert kind == "labels"
    assert np.array_equal(labels, fitted.predict(smears.images[:1])[0])
    assert properties["features"]["class"].tolist() == list(CLASSES)
    table = folder / "predictions.csv"
    table.write_text(table.read_text().replace("share_white", "share_blast"))
    assert only(folder / "a_mask.png")[1]["features"]["class"].tolist()[1] == "blast"
    for name in ("slide/b_mask.png", "-c_mask.png"):  # of --recursive; not to be a formula
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes((folder / "a_mask.png").read_bytes())
        row = table.read_text().splitlines()[1].replace("a_mask.png", f"./{name}")
        table.write_text(f"{table.read_text()}{row}\n")
        assert only(folder / name)[1]["features"]["class"].tolist()[1] == "blast"
    table.unlink()
    assert only(folder / "a_mask.png")[1]["features"]["class"].tolist() == list(CLASSES)


@pytest.mark.parametrize("pixel_size", [None, 0.5, 1.1])
def test_outlines_lie_on_their_cells(tmp_path, pixel_size):
    cells = find_cells(make_smears(1, image_size=96, random_state=0).masks[0])
    table = measure_cells(cells, pixel_size=pixel_size, outlines=True)
    file = tmp_path / "a.geojson"
    file.write_text(json.dumps(to_geojson(table)))
    outlines, properties, kind = only(file)
    assert (kind, properties["shape_type"]) == ("shapes", "polygon")
    assert len(outlines) == len(table) > 0
    assert outlines[0] == pytest.approx(table["outline"][0][:, ::-1] - 0.5)
    assert properties["features"]["class"].tolist() == table["class"].tolist()
    assert properties["features"]["diameter"].tolist() == table["diameter"].tolist()
    assert len(properties["edge_color"]) == len(table)
    scale = properties.get("scale")
    assert scale == (pixel_size and pytest.approx((pixel_size, pixel_size), rel=0.01))


def test_outlines_of_other_programs(tmp_path):
    ring = [[2, 1], [5, 1], [5, 3], [2, 3], [2, 1]]
    polygons = [[ring], [[[x + 10, y] for x, y in ring]]]
    feature = {
        "geometry": {"type": "MultiPolygon", "coordinates": polygons},
        "properties": {"classification": {"name": "Stroma"}, "measurements": []},
    }
    (tmp_path / "a.geojson").write_text(json.dumps([feature]))
    outlines, properties, _ = only(tmp_path / "a.geojson")
    assert outlines[1].tolist() == [[0.5, 11.5], [0.5, 14.5], [2.5, 14.5], [2.5, 11.5]]
    assert properties["features"].to_dict("list") == {"class": ["Stroma", "Stroma"]}
    (tmp_path / "a.geojson").write_text("[]")
    assert only(tmp_path / "a.geojson")[0] == []


def test_stacks_of_files_are_not_read(tmp_path):
    assert get_reader(["a.tif", "b.tif"]) is None
    assert get_reader(["a.tif"]) is read


def test_what_is_too_large_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(_reader, "MAX_PIXELS", 100)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((20, 30, 3), np.uint8))
    with raises("a.tif must have at most 100 pixels to be shown whole; got 20 x 30. Cut out"):
        read(str(tmp_path / "a.tif"))
