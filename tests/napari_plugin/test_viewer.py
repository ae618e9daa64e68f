"""The plugin in a viewer without a window: run by `.ci/napari`, skipped where napari is missing."""

import threading

import numpy as np
import pytest
import tifffile

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears
from bloodseg.napari import _widget
from bloodseg.prediction import write_map

pytest.importorskip("napari")

PLACE = {"scale": (0.5, 0.5), "units": ("um", "um")}


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def panel(viewer):
    _, panel = viewer.window.add_plugin_dock_widget("bloodseg", "Count blood cells")
    return panel


@pytest.fixture
def model(fitted, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


@pytest.fixture
def count(panel, qtbot):
    """Return a function that presses the button, waits, and returns what is said then."""

    def press():
        panel["count"].changed.emit(True)
        qtbot.waitUntil(lambda: panel["count"].enabled, timeout=60_000)
        return panel["answer"].value

    return press


def test_counted_cells_become_layers(viewer, panel, count, monkeypatch):
    threads = []

    def watched(*arguments, **parameters):
        threads.append(threading.current_thread())
        return count_and_measure(*arguments, **parameters)

    count_and_measure = _widget.count_and_measure
    monkeypatch.setattr(_widget, "count_and_measure", watched)
    image = make_smears(1, image_size=128, random_state=0).images[0]
    viewer.add_image(image, rgb=True, name="a", translate=(3, 4), **PLACE)
    assert panel["image"].value.name == "a"
    text = count()
    assert threads
    assert threads[0] is not threading.main_thread()  # else the window would hang
    assert [layer.name for layer in viewer.layers] == ["a", "a: classes", "a: cells"]
    _, classes, cells = viewer.layers
    published = BloodCellSegmenter.from_pretrained(pixel_size=0.5)
    (found,) = published.segment([image])
    assert np.array_equal(classes.data, found.class_map)
    table = found.measure()
    assert len(table) > 5
    assert cells.data.max() == len(table)
    assert cells.features["diameter"].tolist() == table["diameter"].tolist()
    for layer in (classes, cells):
        assert layer.scale.tolist() == [0.5, 0.5]
        assert layer.translate.tolist() == [3, 4]
        assert list(map(str, layer.units)) == ["micrometer", "micrometer"]
    number, *_ = cells.features["index"]
    y, x = np.argwhere(cells.data == number)[0]
    assert "class: " in cells.get_status((3 + y / 2, 4 + x / 2), world=True)["coordinates"]
    blue = [0, 114 / 255, 178 / 255, 1]
    assert classes.get_color(1) == pytest.approx(blue, abs=1e-6)
    assert text.startswith("a\n")
    assert f"{found.count()['red']} red cells, " in text
    assert cells.contour == 1


def test_what_is_typed_is_taken(viewer, panel, count, model, smears):
    viewer.add_image(smears.images[0], rgb=True, name="a")
    panel["model"].value = model
    assert "per mm²" not in count()
    panel["pixel_size"].value = 0.0645
    assert "per mm²" in count()
    panel["red_cell_diameter"].value = 2
    assert "red_cell_diameter" in count()


def test_what_cannot_be_counted_is_said(viewer, panel, count, model):
    assert count() == "Open an image first, and choose it above."
    viewer.add_image(np.zeros((3, 40, 50)), name="stack")
    panel["model"].value = model
    assert count().startswith("the layer 'stack' must be one picture")
    viewer.layers.clear()
    viewer.add_image(np.full((40, 50), 7.0), name="a")
    assert count().startswith("a could not be counted: a has dtype float64, so its")
    panel["model"].value = "nothing"
    assert count().startswith("a could not be counted: name must be that of a published model")
    assert len(viewer.layers) == 1


def test_files_open_as_layers(viewer, tmp_path, rng):
    tifffile.imwrite(
        tmp_path / "a.tif",
        rng.integers(0, 256, (40, 60, 3)).astype(np.uint8),
        **{"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"},
    )
    mask = np.ones((600, 700), np.uint8)
    classes = ("background", "white", "red")
    write_map(tmp_path / "b.zarr", mask, dtype=np.uint8, pixel_sides=(0.5, 0.5), classes=classes)
    (tmp_path / "c.geojson").write_text(
        '[{"geometry": {"type": "Polygon", "coordinates": [[[2, 1], [5, 1], [5, 3], [2, 1]]]},'
        '"properties": {"classification": {"name": "red"}}}]'
    )
    for name in ("a.tif", "b.zarr", "c.geojson"):
        viewer.open(tmp_path / name, plugin="bloodseg")
    kinds = [type(layer).__name__ for layer in viewer.layers]
    assert kinds == ["Image", "Labels", "Shapes"]
    for layer in list(viewer.layers)[:2]:
        assert layer.scale == pytest.approx([0.5, 0.5])
        assert list(map(str, layer.units)) == ["micrometer", "micrometer"]
    assert viewer.layers[2].nshapes == 1


def test_large_maps_open_as_pyramids(viewer, tmp_path, monkeypatch):
    from bloodseg.napari import _reader

    monkeypatch.setattr(_reader, "_AT_ONCE", 0)
    write_map(tmp_path / "a.zarr", np.ones((600, 1100), np.int32), dtype=np.int32)
    (layer,) = viewer.open(tmp_path / "a.zarr", plugin="bloodseg")
    assert layer.multiscale
    assert len(layer.data) == 3


def test_the_sample_opens(viewer):
    (layer,) = viewer.open_sample("bloodseg", "drawn_smear")
    assert layer.rgb
