"""What a blood report needs, from tables of counts and of cells."""

import numpy as np
import pandas as pd
import pytest
from messages import raises

from bloodseg import summarize
from bloodseg.cells import find_cells, measure_cells
from bloodseg.datasets import make_smears

COUNTS = pd.DataFrame(
    {
        "image": ["a/1.png", "a/2.png", "b/1.png"],
        "white": [2, 1, 9],
        "red": [20, 30, 9],
        "platelet": [4, 2, 0],
        "white_in_frame": [1, 1, 8],
        "red_in_frame": [15, 25, 8],
        "platelet_in_frame": [3, 1, 0],
        "area_mm2": [0.002, 0.002, 0.002],
        "frame_mm2": [0.001, 0.001, 0.002],
        "white_per_mm2": [1e3, 1e3, 4e3],
        "red_per_mm2": [15e3, 25e3, 4e3],
        "platelet_per_mm2": [3e3, 1e3, 0.0],
        "confidence": [0.9, 0.9, 0.4],
        "doubts": ["", "", "it is grey"],
    }
)
CELLS = pd.DataFrame(
    [
        ("a/1.png", "red", 7.0, "um", False),
        ("a/1.png", "red", 8.0, "um", False),
        ("a/1.png", "red", 3.0, "um", True),
        ("a/2.png", "white", 15.0, "um", False),
        ("b/1.png", "red", 2.0, "um", False),
    ],
    columns=["image", "class", "diameter", "unit", "touches_border"],
)


def test_every_number():
    every, undoubted = summarize(COUNTS, CELLS).to_dict("records")
    assert undoubted == pytest.approx(
        {
            "doubted_images": "left out",
            "images": 2,
            "images_doubted": 0,
            "white": 3,
            "red": 50,
            "platelet": 6,
            "white_in_frame": 2,
            "red_in_frame": 40,
            "platelet_in_frame": 4,
            "frame_mm2": 0.002,
            "white_per_mm2": 1000,
            "red_per_mm2": 20_000,
            "platelet_per_mm2": 2000,
            "white_to_red_ratio": 0.05,
            "white_per_1000_red": 50,
            "platelets_per_white": 2,
            "red_diameter_median_um": 7.5,
            "red_diameter_cv_percent": 100 * np.sqrt(0.5) / 7.5,
            "touching_border_percent": 25,
        }
    )
    assert list(every) == list(undoubted)
    assert every["doubted_images"] == "counted"
    assert (every["images"], every["images_doubted"]) == (3, 1)
    assert (every["white"], every["red"]) == (12, 59)
    assert every["white_per_mm2"] == 10 / 0.004
    assert every["red_diameter_median_um"] == 7
    assert every["touching_border_percent"] == 20


def test_a_summary_for_each_folder_or_image():
    by_folder = summarize(COUNTS, CELLS, by="folder")
    assert by_folder["folder"].tolist() == ["a", "a", "b", "b"]
    assert by_folder["images"].tolist() == [2, 2, 1, 0]
    assert by_folder["images_doubted"].tolist() == [0, 0, 1, 0]
    assert by_folder["white_per_mm2"].tolist()[:3] == [1000, 1000, 4000]
    assert np.isnan(by_folder["white_per_mm2"][3])
    by_image = summarize(COUNTS, CELLS, by="image")
    assert by_image["image"].tolist() == COUNTS["image"].repeat(2).tolist()
    counted = by_image[by_image["doubted_images"] == "counted"]
    assert counted["red_per_mm2"].tolist() == COUNTS["red_per_mm2"].tolist()
    assert summarize(COUNTS.replace({"image": "a/1.png"}, "1.png"), by="folder")["folder"][0] == "."


def test_tables_from_csv_files_tell_the_same(tmp_path):
    expected = summarize(COUNTS, CELLS)
    tables = []
    for name, table in (("counts", COUNTS), ("cells", CELLS)):
        table.to_csv(tmp_path / name, index=False)
        tables.append(pd.read_csv(tmp_path / name))
    pd.testing.assert_frame_equal(summarize(*tables), expected)


def test_further_columns_are_passed_over():
    more = COUNTS.assign(patient=["p1", "p1", "p2"], age=[60, 60, 35])
    pd.testing.assert_frame_equal(summarize(more, CELLS), summarize(COUNTS, CELLS))
    bare = ["image", "white", "red"]
    pd.testing.assert_frame_equal(summarize(more[[*bare, "patient"]]), summarize(COUNTS[bare]))


def test_truth_values_that_were_read_as_text():
    read = CELLS.assign(touches_border=CELLS["touches_border"].map(str))
    pd.testing.assert_frame_equal(summarize(COUNTS, read), summarize(COUNTS, CELLS))
    as_numbers = CELLS.assign(touches_border=CELLS["touches_border"].map(int))
    pd.testing.assert_frame_equal(summarize(COUNTS, as_numbers), summarize(COUNTS, CELLS))
    with raises("cells must have True or False in the column touches_border; got nan."):
        summarize(COUNTS, CELLS.assign(touches_border=np.nan))


def test_cells_in_frames_that_are_known_of_some_images_only():
    cells = CELLS.assign(in_frame=True)
    (every, _) = summarize(cells).to_dict("records")
    assert every["red_in_frame"] == 4
    cells["in_frame"] = cells["in_frame"].astype(object)
    cells.loc[0, "in_frame"] = np.nan
    (every, _) = summarize(cells).to_dict("records")
    assert "red_in_frame" not in every
    assert every["white_to_red_ratio"] == 1 / 4


def test_what_no_table_tells_is_left_out():
    bare = COUNTS[["image", "white", "red", "confidence"]]
    (every, _) = summarize(bare).to_dict("records")
    assert list(every) == [
        *("doubted_images", "images", "images_doubted", "white", "red"),
        *("white_to_red_ratio", "white_per_1000_red"),
    ]
    assert np.isnan(every["images_doubted"])  # nobody looked for doubts
    assert every["white_to_red_ratio"] == 12 / 59
    # Of one image the size of a pixel is not known, so that it has no frame.
    some = COUNTS.copy()
    some.loc[1, [name for name in some if name.endswith(("_in_frame", "mm2"))]] = np.nan
    (every, _) = summarize(some).to_dict("records")
    assert every["white_to_red_ratio"] == 12 / 59
    assert "red_per_mm2" not in every


def test_there_is_no_density_where_the_area_of_a_frame_is_not_known():
    some = COUNTS.copy()
    some.loc[1, "frame_mm2"] = np.nan
    (every, _) = summarize(some).to_dict("records")
    assert every["red_in_frame"] == 48
    for name in ("frame_mm2", "white_per_mm2", "red_per_mm2"):
        assert np.isnan(every[name]), name


def test_nothing_to_divide_by():
    none = COUNTS.assign(red=0, red_in_frame=0, white_in_frame=0, frame_mm2=0.0)
    (every, _) = summarize(none, CELLS[:0]).to_dict("records")
    assert every["red"] == 0
    for name in ("white_per_mm2", "white_to_red_ratio", "platelets_per_white"):
        assert np.isnan(every[name]), name
    assert np.isnan(every["red_diameter_median_px"])
    assert np.isnan(every["touching_border_percent"])


def test_of_cells_that_were_found():
    masks = make_smears(3, 128, 2, red_cell_diameter=20, white_cells=(1, 2)).masks
    found = [find_cells(mask) for mask in masks]
    (every, _) = summarize(found, pixel_size=0.25).to_dict("records")
    counts = [each.counts for each in found]
    framed = [each.counts_in_frame for each in found]
    assert every["images"] == 3
    for name in ("white", "red"):
        assert every[name] == sum(each[name] for each in counts) > 0
        assert every[f"{name}_in_frame"] == sum(each[name] for each in framed)
    area = sum(each.frame.area for each in found) * 0.25**2 / 1e6
    assert every["red_per_mm2"] == pytest.approx(every["red_in_frame"] / area)
    tables = [measure_cells(each, pixel_size=0.25) for each in found]
    cells = pd.concat([table.assign(image=i) for i, table in enumerate(tables)])
    whole = cells["diameter"][cells["class"].eq("red") & ~cells["touches_border"]]
    assert every["red_diameter_median_um"] == whole.median()
    # A table of cells alone tells all but areas.
    (alone, _) = summarize(cells).to_dict("records")
    shared = [name for name in every if "mm2" not in name]
    assert list(alone) == shared
    assert {name: every[name] for name in shared} == pytest.approx(alone, nan_ok=True)
    assert summarize(found[0]).loc[0, "red"] == counts[0]["red"]


def test_of_a_segmenters_results(fitted, smears):
    tables = fitted.count(smears.images, excluded_sides=("bottom", "right"))
    expected = summarize(tables, fitted.measure(smears.images))
    pd.testing.assert_frame_equal(summarize(fitted.segment(smears.images)), expected)
    assert expected["images"][0] == len(smears.images)


def test_bad_arguments():
    with raises("by must be 'image', 'folder' or None; got 'day'."):
        summarize(COUNTS, by="day")
    with raises(
        "counts must be a table with the columns image, as BloodCellSegmenter.count gives it; got "
        "DataFrame without image."
    ):
        summarize(COUNTS.drop(columns="image"))
    with raises("counts must be a table with the columns image, as BloodCellSegmenter.count"):
        summarize(3)
    with raises(
        "cells must be a table with the columns image, class, diameter, unit, touches_border, as "
        "BloodCellSegmenter.measure gives it; got DataFrame without unit."
    ):
        summarize(COUNTS, CELLS.drop(columns="unit"))
    for nothing in (COUNTS[:0], CELLS[:0], []):
        with raises("counts must hold at least one image; got none."):
            summarize(nothing)
    with raises("counts must hold each image once; got a/1.png more than once."):
        summarize(pd.concat([COUNTS, COUNTS]))
    with raises(
        "cells must be those of the images in counts; got some of b/1.png, which is not among "
        "them. Measure the images that were counted."
    ):
        summarize(COUNTS[:2], CELLS)
    with raises("cells must all be in one unit; got um and px, since the size of a pixel is known"):
        summarize(COUNTS, CELLS.assign(unit=["um", "um", "px", "um", "um"]))
    with raises("pixel_size must be the side of a pixel in micrometres"):
        summarize(find_cells(np.zeros((9, 9), int)), pixel_size=-1)
