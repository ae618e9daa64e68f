"""What is no picture changes no count, is no cell, and is said."""

import logging
import warnings

import cv2
import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from bloodseg import BloodCellSegmenter
from bloodseg.cells import estimate_red_cell_diameter
from bloodseg.datasets import make_smears, open_slide
from bloodseg.prediction import _picture, _sources
from bloodseg.prediction._picture import find_picture

SIDE = 320
Y, X = np.mgrid[:SIDE, :SIDE]
DISC = (Y - 160) ** 2 + (X - 160) ** 2 > 150**2


@pytest.fixture(scope="module")
def pretrained():
    return BloodCellSegmenter.from_pretrained()


@pytest.fixture(scope="module")
def smears_in_view():
    return make_smears(
        2, SIDE, random_state=5, red_cell_diameter=44, white_cells=(1, 1), density=(0.4, 0.7)
    )


@pytest.fixture(scope="module")
def round_field(smears_in_view):
    image = smears_in_view.images[0].copy()
    image[DISC] = 0
    return image


def segment(segmenter, image):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        (found,) = segmenter.segment([image])
    return found


@pytest.mark.parametrize("colour", [0, 255, (30, 60, 120)])
def test_a_surround_is_no_cell(pretrained, smears_in_view, colour):
    image, truth = smears_in_view.images[0].copy(), smears_in_view.instances[0]
    image[DISC] = colour
    found = segment(pretrained, image)
    in_view = len(np.unique(truth[~DISC])) - 1
    row = found.count()
    assert abs(row["white"] + row["red"] - in_view) <= 0.15 * in_view
    assert not found.class_map[DISC].any()
    assert found.share_left_out == pytest.approx(DISC.mean(), abs=0.04)
    assert found.doubts() == []
    cells = found.cells()
    assert cells.touches_border.tolist() == found.measure()["touches_border"].tolist()
    assert cells.touches_border.mean() > 0.2


def test_a_scale_bar_changes_nothing(pretrained, smears_in_view):
    clean = smears_in_view.images[1]
    barred = clean.copy()
    cv2.putText(barred, "10 um", (245, 302), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1)
    barred[308:313, 240:310] = 0
    before, after = (segment(pretrained, image).count() for image in (clean, barred))
    assert abs(after["red"] - before["red"]) <= 1
    assert after["white"] == before["white"]


def test_the_diameter_is_that_without_the_bar(smears_in_view):
    clean = smears_in_view.images[1]
    barred = clean.copy()
    barred[300:316, 200:310] = 0
    sizes = [estimate_red_cell_diameter(find_picture(each).pixels) for each in (clean, barred)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.03)


def test_histograms_and_light_are_those_of_the_picture(smears_in_view, round_field):
    filled = find_picture(round_field).pixels
    assert np.array_equal(
        filled[160 - 90 : 160 + 90, 160 - 90 : 160 + 90], round_field[70:250, 70:250]
    )
    whole = np.percentile(smears_in_view.images[0], 95, axis=(0, 1))
    assert np.abs(np.percentile(filled, 95, axis=(0, 1)) - whole).max() < 12


def test_a_picture_alone_goes_through_as_it_is(fitted, smears_in_view):
    for image in (*smears_in_view.images, smears_in_view.images[0] / 255):
        picture = find_picture(image)
        assert picture.pixels is image
        assert picture.outside is None
        assert picture.share_left_out == 0


def test_area_confidence_and_probabilities_are_those_of_the_picture(fitted, round_field, caplog):
    fitted.set_params(pixel_size=0.2)
    with caplog.at_level(logging.INFO, "bloodseg"):
        found = segment(fitted, round_field)
    assert any("% of images[0] is no picture" in each.getMessage() for each in caplog.records)
    inside = ~found.outside
    assert found.share_left_out == pytest.approx(1 - inside.mean())
    assert found.mean_confidence == pytest.approx(found.confidence[inside].mean() / 255)
    assert not found.confidence[found.outside].any()
    area = SIDE**2 * 0.2**2 / 1e6
    assert found.count()["area_mm2"] == pytest.approx(area * inside.mean())
    probabilities = fitted.predict_proba([round_field])[0]
    assert (probabilities[found.outside] == (1, 0, 0)).all()
    assert (probabilities.argmax(axis=-1) == found.class_map).all()
    assert np.array_equal(found.image, round_field)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_transparent_pixels_in_arrays_and_files(fitted, smears_in_view, tmp_path, suffix):
    alpha = np.where(DISC, 0, 255).astype(np.uint8)
    image = np.dstack([smears_in_view.images[0], alpha])
    file = tmp_path / f"field{suffix}"
    if suffix == ".png":
        imsave(file, image, check_contrast=False)
    else:
        tifffile.imwrite(file, image, photometric="rgb", extrasamples=["unassalpha"])
    array, read = segment(fitted, image), segment(fitted, str(file))
    assert np.array_equal(array.class_map, read.class_map)
    assert array.count() == read.count() | {"image": 0}
    assert array.share_left_out == DISC.mean()
    opaque = np.dstack([smears_in_view.images[0], np.full_like(alpha, 255)])
    plain, covered = (
        segment(fitted, each).class_map for each in (smears_in_view.images[0], opaque)
    )
    assert np.array_equal(plain, covered)


def test_a_large_file_gives_what_its_array_gives(fitted, round_field, tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "field.tif", round_field, photometric="rgb", rowsperstrip=32)
    array = segment(fitted.set_params(preprocessor=None, tile_size=128), round_field)
    monkeypatch.setattr(_sources, "_READ_WHOLE", 1000)
    found = segment(fitted, str(tmp_path / "field.tif"))
    assert np.array_equal(found.outside[:], array.outside)
    assert found.share_left_out == array.share_left_out
    assert np.abs(found.mean_confidence - array.mean_confidence) < 0.01
    assert (np.asarray(found.class_map[:SIDE]) == array.class_map).mean() > 0.98
    monkeypatch.setattr(_picture, "_VIEW", 80)  # looked at in one pixel of four
    coarse = find_picture(open_slide(tmp_path / "field.tif"))
    assert coarse.outside[:].shape == (SIDE, SIDE)
    assert coarse.outside[40:80][:, ::3].shape == (40, 107)
    assert np.array_equal(coarse.outside[40:80, 50:131], coarse.outside[:][40:80, 50:131])
    assert np.array_equal(coarse.pixels[40:80, 50:131], coarse.pixels[40:80][:, 50:131])
    assert (coarse.outside[:] & DISC).sum() > 0.98 * DISC.sum()
    assert np.array_equal(coarse.pixels[100:120][:, 100:220], round_field[100:120, 100:220])


def test_a_surround_is_shown_to_the_network_as_the_mirrored_picture():
    smear = make_smears(1, (400, 480), random_state=2).images[0]
    image = smear.copy()
    image[:, 400:] = 0  # a strip
    picture = find_picture(image)
    edge = int(np.argmax(picture.outside[200]))  # where what is left out begins
    assert 396 <= edge <= 400
    mirrored = picture.pixels[:, edge : edge + 30]
    assert np.array_equal(mirrored, image[:, edge - 31 : edge - 1][:, ::-1])
    assert np.array_equal(picture.pixels[:, :edge], image[:, :edge])

    y, x = np.mgrid[:400, :480]
    distance = np.hypot(y - 200, x - 240)
    image = smear.copy()
    image[distance > 105] = 0
    picture = find_picture(image)
    ring = picture.outside & (distance < 135)
    near = ~picture.outside & (distance > 70)
    means = (picture.pixels[which].mean(axis=0) for which in (ring, near))
    assert next(means) == pytest.approx(next(means), rel=0.05)
    far = picture.pixels[distance > 105 + 140]
    assert len(np.unique(far, axis=0)) == 1  # the colour of the light


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_alpha_that_is_nowhere_says_nothing(smears_in_view, dtype):
    """Some writers leave it at 0; laid over white, nothing would be seen."""
    white = {np.uint8: 1, np.uint16: 257, np.float32: 1 / 255}[dtype]
    image = smears_in_view.images[0].astype(dtype) * dtype(white)
    hidden = np.dstack([image, np.zeros((SIDE, SIDE), dtype)])
    assert np.array_equal(find_picture(hidden).pixels, image)
    assert find_picture(hidden).outside is None
    hidden[:200, :, 3] = {np.uint8: 255, np.uint16: 65535, np.float32: 1}[dtype]
    assert find_picture(hidden).outside[200:].all()
