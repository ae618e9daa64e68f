"""Images that are no smears are doubted; smears are not."""

import warnings

import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from bloodseg import BloodCellSegmenter
from bloodseg.datasets import make_smears


@pytest.fixture(scope="module")
def pretrained():
    return BloodCellSegmenter.from_pretrained()


def doubts(segmenter, image):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        (segmented,) = segmenter.segment([image])
        return segmented.doubts()


@pytest.mark.parametrize("diameter", [30, 60])
def test_smears_are_not_doubted(pretrained, diameter):
    smears = make_smears(3, 6 * diameter, random_state=1, red_cell_diameter=diameter)
    for image in smears.images:
        assert doubts(pretrained, image) == []


@pytest.mark.parametrize(
    "name",
    [
        "astronaut",
        "camera",
        "cell",
        "chelsea",
        "clock",
        "coffee",
        "coins",
        "grass",
        "moon",
        "page",
        "rocket",
        "text",
    ],
)
def test_pictures_that_are_no_smears(pretrained, name):
    image = getattr(data, name)()
    step = max(1, max(image.shape[:2]) // 300)
    assert doubts(pretrained, image[::step, ::step])


@pytest.mark.parametrize("level", [0, 128, 255])
def test_nothing_to_be_seen(pretrained, level):
    assert doubts(pretrained, np.full((120, 120, 3), level, np.uint8))


def test_out_of_focus(pretrained):
    image = make_smears(1, 240, random_state=1, red_cell_diameter=40).images[0]
    assert doubts(pretrained, image) == []
    blurred = np.stack([ndimage.gaussian_filter(image[..., i], 5) for i in range(3)], axis=-1)
    assert doubts(pretrained, blurred)


def test_the_warning(pretrained):
    text = (
        r"images\[0\] looks unlike a stained smear in focus: .*\. Look at what was found in it "
        "before you use it"
    )
    with pytest.warns(UserWarning, match=text):
        pretrained.predict([data.coffee()[::3, ::3]])


def test_models_for_one_laboratory_are_silent(recwarn):
    smears = make_smears(2, 64, random_state=0, red_cell_diameter=16)
    segmenter = BloodCellSegmenter(width=2, max_epochs=1, crop_size=32, random_state=0)
    segmenter.fit(smears.images, smears.masks)
    recwarn.clear()
    segmenter.predict([data.coffee()[::6, ::6]])
    assert not [each for each in recwarn if "unlike a stained smear" in str(each.message)]


def test_mean_confidence(pretrained):
    image = make_smears(1, 150, random_state=1).images[0]
    (segmented,) = pretrained.segment([image])
    probabilities = pretrained.predict_proba([image])[0]
    assert segmented.mean_confidence == pytest.approx(probabilities.max(axis=-1).mean(), abs=0.005)
    assert pretrained.count([image])["confidence"][0] == segmented.mean_confidence
