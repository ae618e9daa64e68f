"""Slides segmented from file to file, by strips and in tiles; the memory that takes."""

import copy
import gc
import os
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import tifffile
import zarr
from messages import raises
from PIL import Image
from slides import PER_CM, write_tiff

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import Slide, make_smears, open_slide
from bloodseg.prediction import _sources
from bloodseg.prediction._map_files import write_map


@pytest.fixture(scope="module")
def field():
    return make_smears(1, image_size=(300, 190), random_state=2, red_cell_diameter=12).images[0]


@pytest.fixture(scope="module")
def trained():
    """A model that tells red cells from the background, as the session's does not."""
    smears = make_smears(3, image_size=96, random_state=0, red_cell_diameter=14)
    segmenter = BloodCellSegmenter(
        width=4, max_epochs=6, crop_size=64, batch_size=2, random_state=0, learning_rate=1e-2
    )
    return segmenter.fit(smears.images, smears.masks)


@pytest.fixture
def fitted(trained):
    return copy.deepcopy(trained)


@pytest.fixture
def slide(tmp_path, field):
    write_tiff(tmp_path / "slide.tif", field, tile=(64, 64), compression="zlib", **PER_CM)
    return tmp_path / "slide.tif"


def test_tiles_agree_with_the_whole(fitted, field):
    whole, certain = fitted.predict([field])[0], fitted.predict_proba([field])[0]
    fitted.set_params(tile_size=128)
    tiled, in_tiles = fitted.predict([field])[0], fitted.predict_proba([field])[0]
    inner = slice(64, -64), slice(64, -64)
    assert (whole[inner] == tiled[inner]).mean() >= 0.999
    assert np.abs(certain - in_tiles)[inner].max() < 0.02
    assert np.allclose(in_tiles.sum(axis=-1), 1, atol=1e-5)
    assert np.array_equal(in_tiles.argmax(axis=-1), tiled)


def test_small_images_go_through_whole(fitted, smears):
    expected = fitted.predict_proba(smears.images)
    for tile_size in (None, 64, 512):
        fitted.set_params(tile_size=tile_size)
        assert np.array_equal(fitted.predict_proba(smears.images), expected)


def test_evaluations_of_an_image_in_tiles(fitted, field, smears):
    fitted.set_params(tile_size=64).predict([field, smears.images[0]])
    for counts in fitted.n_function_evaluations_.values():
        assert counts.shape == (2,)
        assert (counts > 0).all()


def test_a_file_is_segmented_as_its_array(fitted, field, slide):
    fitted.preprocessor_ = None
    fitted.set_params(tile_size=128, pixel_size=0.1)
    assert np.array_equal(fitted.predict([slide])[0], fitted.predict([field])[0])
    array, file = fitted.count([field]), fitted.count([str(slide)])
    assert file["image"].tolist() == [str(slide)]
    pd.testing.assert_frame_equal(array.drop(columns="image"), file.drop(columns="image"))
    array, file = fitted.measure([field]), fitted.measure(slide)
    assert len(array) == len(file) > 0
    pd.testing.assert_frame_equal(array.drop(columns="image"), file.drop(columns="image"))
    cells = fitted.predict_instances([field, slide])
    assert np.array_equal(cells[0].labels, cells[1].labels)


def test_a_file_is_preprocessed_as_its_array(fitted, field, slide):
    fitted.set_params(tile_size=128)
    array, file = fitted.predict_proba([field, slide])
    # OpenCV rounds a few pixels another way, by a level of 255.
    assert np.abs(array - file).max() < 0.03
    assert (array.argmax(axis=-1) == file.argmax(axis=-1)).mean() > 0.999


def test_tables_of_a_batch(fitted, smears):
    counts = fitted.count(smears.images)
    assert list(counts) == ["image", "white", "red", "confidence", "doubts"]
    assert counts["image"].tolist() == list(range(6))
    cells = fitted.predict_instances(smears.images)
    assert [each.counts["red"] for each in cells] == counts["red"].tolist()
    table = fitted.measure(list(smears.images), outlines=True)
    assert table.groupby("image").size().reindex(range(6), fill_value=0).tolist() == [
        len(each) for each in cells
    ]
    assert list(table)[:3] == ["image", "label", "class"]
    assert (table["confidence"].between(1 / 3 - 0.01, 1)).all()
    for index, each in enumerate(cells):
        scores = table.loc[table["image"] == index, "confidence"]
        assert scores.to_numpy() == pytest.approx(each.scores)


def test_the_pixel_size_is_the_parameter_or_the_files(fitted, slide, field):
    height, width = field.shape[:2]
    for given, expected in ((None, 0.1), (0.5, 0.5)):
        (row,) = fitted.set_params(pixel_size=given).count(slide).to_dict("records")
        area = height * width * expected**2 / 1e6
        assert row["area_mm2"] == pytest.approx(area)
        frame = fitted.predict_instances([field])[0].frame
        assert row["frame_mm2"] == pytest.approx(frame.area * expected**2 / 1e6)
        assert 0 < row["red_in_frame"] < row["red"]
        assert row["red_per_mm2"] == pytest.approx(row["red_in_frame"] / row["frame_mm2"])
        assert set(fitted.measure(slide)["unit"]) == {"um"}
    fitted.set_params(pixel_size=None)
    assert "area_mm2" not in fitted.count([field])
    assert set(fitted.measure([field])["unit"]) == {"px"}


def test_cells_at_two_sides_do_not_count_in_the_frame(fitted, field):
    fitted.set_params(pixel_size=0.1)
    table = fitted.measure([field])
    whole = ~(table["touches_bottom"] | table["touches_right"])
    assert not table["in_frame"][~whole].any()
    assert 0 < table["in_frame"].sum() <= whole.sum() < len(table)
    (row,) = fitted.count([field]).to_dict("records")
    assert row["red_in_frame"] == (table["in_frame"] & table["class"].eq("red")).sum()
    for sides in (("top", "left"), ("right", "top")):
        (other,) = fitted.count([field], excluded_sides=sides).to_dict("records")
        (cells,) = fitted.predict_instances([field], excluded_sides=sides)
        assert other["red_in_frame"] == cells.counts_in_frame["red"]
        measured = fitted.measure([field], excluded_sides=sides)
        assert measured["in_frame"].tolist() == cells.in_frame.tolist()
        assert cells.in_frame.tolist() != table["in_frame"].tolist()
        assert other["red"] == row["red"]
    (every,) = fitted.count([field], excluded_sides=()).to_dict("records")
    assert every["red_in_frame"] == row["red"]
    assert every["frame_mm2"] == every["area_mm2"]
    fitted.set_params(pixel_size=None)
    assert "red_in_frame" not in fitted.count([field])
    (row,) = fitted.count([field], excluded_sides=("bottom", "right")).to_dict("records")
    assert row["red_in_frame"] == (table["in_frame"] & table["class"].eq("red")).sum()


def test_height_and_width_of_a_pixel(fitted, field, tmp_path):
    write_tiff(tmp_path / "a.tif", field, resolution=(1e5, 5e4), resolutionunit="CENTIMETER")
    with pytest.warns(UserWarning, match=r"a\.tif .* its pixels are 2 times as high as wide"):
        (row,) = fitted.count(tmp_path / "a.tif").to_dict("records")
    height, width = field.shape[:2]
    assert row["area_mm2"] == pytest.approx(height * 0.2 * width * 0.1 / 1e6)
    area = fitted.measure(tmp_path / "a.tif")["area"] / fitted.measure([field])["area"]
    assert area.to_numpy() == pytest.approx(0.02)
    (row,) = fitted.set_params(pixel_size=0.5).count(tmp_path / "a.tif").to_dict("records")
    assert "times as high" not in row["doubts"]


@pytest.mark.parametrize("suffix", ["tif", "zarr"])
def test_from_file_to_file(fitted, slide, tmp_path, suffix):
    fitted.set_params(tile_size=128)
    for kind, expected, dtype in (
        ("classes", fitted.predict([slide])[0], np.uint8),
        ("instances", fitted.predict_instances([slide])[0].labels, np.int32),
    ):
        output = tmp_path / f"{kind}.{suffix}"
        fitted.predict_file(slide, output, kind=kind)
        read = open_slide(output)
        assert read.dtype == dtype
        assert np.array_equal(read[:][..., 0], expected)
        assert read.pixel_size == pytest.approx(0.1)
        with raises(f"{output} exists. Choose another name, or remove it first.", FileExistsError):
            fitted.predict_file(slide, output, kind=kind)


@pytest.mark.parametrize("sides", [None, (0.1, 0.1), (0.2, 0.1)])
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.zarr"])
def test_maps_know_the_height_and_width_of_a_pixel(rng, tmp_path, name, sides):
    expected = rng.integers(0, 3, (60, 513)).astype(np.uint8)
    write_map(tmp_path / name, expected, dtype=np.uint8, pixel_sides=sides)
    slide = open_slide(tmp_path / name)
    assert slide.pixel_sides == (sides and pytest.approx(sides))
    assert np.array_equal(slide[:][..., 0], expected)


def test_maps_say_what_their_labels_are(tmp_path):
    mask = np.ones((20, 30), np.uint8)
    for name in ("a.ome.tif", "a.zarr"):
        classes = ("background", "white", "red")
        write_map(tmp_path / name, mask, dtype=np.uint8, classes=classes)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as file:
        assert file.is_ome
        assert 'Name="0 background, 1 white, 2 red"' in file.ome_metadata
    attributes = dict(zarr.open_group(str(tmp_path / "a.zarr"), mode="r").attrs)
    ome = attributes.get("ome", attributes)  # in version 0.4 without this level
    assert ome["image-label"]["properties"] == [
        {"label-value": 1, "class": "white"},
        {"label-value": 2, "class": "red"},
    ]
    assert [each["label-value"] for each in ome["image-label"]["colors"]] == [1, 2]
    (multiscale,) = ome["multiscales"]
    assert [axis["name"] for axis in multiscale["axes"]] == ["y", "x"]
    assert multiscale["datasets"][0]["path"] == "0"


@pytest.mark.parametrize("shape", [(512, 512), (1030, 2500), (1, 1025)])
def test_zarr_maps_are_pyramids_of_every_second_pixel(rng, tmp_path, shape):
    expected = rng.integers(0, 10**6, shape).astype(np.int32)
    path = tmp_path / "a.zarr"
    write_map(path, expected, dtype=np.int32, pixel_sides=(0.2, 0.1))
    group = zarr.open_group(str(path), mode="r")
    attributes = dict(group.attrs)
    (multiscale,) = attributes.get("ome", attributes)["multiscales"]
    paths = [each["path"] for each in multiscale["datasets"]]
    assert paths == sorted(group.array_keys())
    assert len(paths) == {512: 1, 2500: 4, 1025: 3}[shape[1]]
    for level, each in enumerate(multiscale["datasets"]):
        step = 2**level
        assert np.array_equal(group[each["path"]][:], expected[::step, ::step])
        (transformation,) = each["coordinateTransformations"]
        assert transformation == {"type": "scale", "scale": [0.2 * step, 0.1 * step]}
    assert max(group[paths[-1]].shape) <= 512
    slide = open_slide(path)
    assert slide.shape == (*shape, 1)
    assert slide.pixel_sides == pytest.approx((0.2, 0.1))
    assert np.array_equal(slide[:][..., 0], expected)


@pytest.mark.parametrize("suffix", ["tif", "zarr"])
def test_a_map_that_breaks_off_leaves_nothing(tmp_path, suffix):
    class Rows:
        shape = 1100, 70

        def __getitem__(self, rows):
            if rows.start:
                raise OSError("disk full")
            return np.ones((rows.stop, 70))

    path = tmp_path / f"a.{suffix}"
    with raises("disk full", OSError):
        write_map(path, Rows(), dtype=np.uint8)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", ["tif", "zarr"])
@pytest.mark.parametrize("shape", [(1100, 70), (512, 513), (3, 1025)])
def test_maps_of_several_strips(rng, tmp_path, suffix, shape):
    expected = rng.integers(0, 10**6, shape).astype(np.int32)
    write_map(tmp_path / f"a.{suffix}", expected, dtype=np.int32)
    slide = open_slide(tmp_path / f"a.{suffix}")
    assert slide.dtype == np.int32
    assert np.array_equal(slide[:][..., 0], expected)


@pytest.fixture
def by_strips(monkeypatch):
    """Let files of any size be read by strips, as large ones are."""
    monkeypatch.setattr(_sources, "_READ_WHOLE", 0)


@pytest.mark.usefixtures("by_strips")
def test_other_transformers_see_strips_and_say_so(fitted, slide):
    class Halved:
        def transform(self, images):
            return [image // 2 for image in images]

    fitted.preprocessor_ = Halved()
    fitted.set_params(tile_size=128)
    with pytest.warns(UserWarning, match=r"Halved sees .*slide.tif strip by strip"):
        from_file = fitted.predict([slide])[0]
    assert np.array_equal(from_file, fitted.predict([open_slide(slide)[:300]])[0])
    fitted.preprocessor_ = None
    assert fitted.predict([slide])[0].shape == (300, 190)


@pytest.mark.parametrize("tile_size", [0, 63, 100, True, 64.0, "big"])
def test_bad_tile_sizes(fitted, smears, tile_size):
    text = "tile_size must be 'auto', None, or a multiple of 16 of at least 64; got"
    with raises(f"{text} {tile_size!r}."):
        fitted.set_params(tile_size=tile_size).predict(smears.images)


def test_bad_arguments(fitted, smears, tmp_path, slide):
    for wrong in (-1, 0, 1e-200, 1e9, float("nan"), True):
        with raises("pixel_size must be the side of a pixel in micrometres, from 0.001 to 1000"):
            fitted.set_params(pixel_size=wrong).count(smears.images)
    fitted.set_params(pixel_size=None)
    for output, text, error in (
        ("out.png", "output must end in .tif, .tiff or .zarr; got", ValueError),
        ("none/out.tif", "to write out.tif into", FileNotFoundError),
        ("n" * 300 + ".zarr", "File name too long", OSError),
    ):
        with raises(text, error):
            fitted.predict_file(slide, tmp_path / output)
    with raises("kind must be 'classes' or 'instances'; got 'masks'."):
        fitted.predict_file(slide, tmp_path / "out.tif", kind="masks")


# ---------------------------------------------------------------- memory


def test_a_long_slide_is_streamed(tmp_path):
    """10,000 rows in a process whose peak memory is watched; mapped files would count, too."""
    strip = make_smears(1, image_size=(500, 300), random_state=0, red_cell_diameter=20).images[0]
    write_tiff(tmp_path / "long.tif", np.tile(strip, (20, 1, 1)))
    program = f"""
import resource, torch
torch.set_num_threads(1)
from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears
from bloodseg.prediction import _sources
_sources._READ_WHOLE = 0
smears = make_smears(3, image_size=96, random_state=0, red_cell_diameter=20)
model = BloodCellSegmenter(
    network="unet", width=4, max_epochs=8, crop_size=64, batch_size=2, random_state=0,
    learning_rate=1e-2, tile_size=256,
)
model.fit(smears.images, smears.masks)
model.count([smears.images[0]])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
table = model.count([{str(tmp_path / "long.tif")!r}])
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(after - before, *table[["white", "red"]].iloc[0])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    grown, *counts = map(int, result.stdout.split())
    assert sum(counts) > 0
    # A whole prediction would hold 200 MB a feature map; the slide itself has 9 MB.
    assert grown < 150 * 1024


@pytest.mark.usefixtures("by_strips")
def test_memory_does_not_grow_with_the_length(fitted):
    peaks = []
    for length in (600, 2400):
        image = np.zeros((length, 128, 3), np.uint8)
        slide = Slide(lambda *place, image=image: image[place], image.shape, "u1", None, "a")
        results = fitted.set_params(tile_size=128).segment([slide])
        tracemalloc.start()
        next(results)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


def test_a_file_is_read_at_once_where_it_is_not_large(fitted, field, tmp_path):
    """It then gives what the same image gives as an array, to the bit."""
    write_tiff(tmp_path / "a.tif", field)
    (of_file,), (of_array,) = (fitted.predict_proba([each]) for each in (tmp_path / "a.tif", field))
    assert np.array_equal(of_file, of_array)


def test_tiles_on_another_backend(fitted, field):
    from joblib import parallel_config

    fitted.set_params(tile_size=128)
    expected = fitted.predict_proba([field])[0]
    with parallel_config("threading", n_jobs=2):
        assert np.array_equal(fitted.predict_proba([field])[0], expected)


@pytest.mark.usefixtures("by_strips")
def test_a_strip_is_read_while_another_is_predicted(fitted):
    image = np.zeros((600, 128, 3), np.uint8)
    threads, read = set(), []

    def read_rows(rows, columns):
        threads.add(threading.get_ident())
        read.append(rows.start)
        if len(read) > failing:
            raise OSError("the disk went")
        return image[rows, columns]

    failing = np.inf
    slide = Slide(read_rows, image.shape, "u1", None, "a")
    fitted.preprocessor_ = None
    fitted.set_params(tile_size=128)
    (expected,) = fitted.predict([image])
    assert np.array_equal(fitted.predict([slide])[0], expected)
    assert len(threads) == 2
    failing = 2 * len(read) - 2
    with pytest.raises(ValueError, match="the disk went"):
        fitted.predict([slide])


def test_tiles_on_a_dask_cluster(fitted, field):
    distributed = pytest.importorskip("distributed")
    from joblib import parallel_config

    fitted.set_params(tile_size=128)
    expected = fitted.predict_proba([field])[0]
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None
    )
    with cluster, distributed.Client(cluster), parallel_config("dask"):
        assert np.array_equal(fitted.predict_proba([field])[0], expected)


def test_paths_in_any_sequence(fitted, field, tmp_path):
    for name in ("a", "b"):
        Image.fromarray(field).save(tmp_path / f"{name}.png")
    files = sorted(tmp_path.glob("*.png"))
    expected = fitted.count(files)
    names = [str(file) for file in files]
    for paths in (np.array(names), pd.Series(names), tuple(files), iter(files)):
        pd.testing.assert_frame_equal(fitted.count(paths), expected)
    assert isinstance(fitted.predict(np.array(names)), list)
    with raises("c.png does not exist.", FileNotFoundError):
        fitted.count([*files, tmp_path / "c.png"])


def test_a_name_with_a_tilde(fitted, field, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(field[:64, :64]).save("~x.png")
    assert fitted.count("~x.png")["image"].tolist() == ["~x.png"]
    with raises("~y.png does not exist.", FileNotFoundError):
        fitted.count("~y.png")


def test_files_are_read_as_their_turn_comes(fitted, field, tmp_path):
    files = [tmp_path / f"{name}.png" for name in "abc"]
    for file in files:
        Image.fromarray(field[:64, :64]).save(file)
    files[2].write_bytes(b"junk")
    found = fitted.segment(files)
    assert [next(found).name for _ in range(2)] == [str(file) for file in files[:2]]
    with raises("c.png cannot be read as an image"):
        next(found)


@pytest.mark.filterwarnings(
    "error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning"
)
def test_no_file_is_left_open(fitted, field, tmp_path):
    write_tiff(tmp_path / "a.tif", field)
    fitted.count([tmp_path / "a.tif"])
    fitted.predict([tmp_path / "a.tif"])
    gc.collect()
