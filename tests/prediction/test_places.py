"""Large images are judged by several places in them, not by their middle alone."""

import warnings

import numpy as np
import pytest
from scipy import ndimage

from bloodseg import BloodCellSegmenter
from bloodseg._images import CLASS_NAMES
from bloodseg.cells._scale import typical_radii
from bloodseg.datasets import make_smears
from bloodseg.prediction import TileNetwork, _predictor
from bloodseg.prediction._agreement import STEADY
from bloodseg.prediction._doubts import doubts
from bloodseg.prediction._places import find_places

DIAMETER = 40
SMEARS = make_smears(1, 420, random_state=0, red_cell_diameter=DIAMETER, white_cells=(1, 1))


def tiled(side):
    """Return a smear of this side, mirrored time and again, and its label map."""
    pad = ((0, side - 420), (0, side - 420))
    image = np.pad(SMEARS.images[0], (*pad, (0, 0)), mode="symmetric")
    return image, np.pad(SMEARS.masks[0], pad, mode="symmetric")


def middles(places):
    return [tuple((each.start + each.stop) // 2 for each in place) for place in places]


def test_a_small_image_is_judged_by_its_middle():
    assert find_places(np.ones((900, 1300), np.uint8), 512, CLASS_NAMES) == [
        (slice(194, 706), slice(394, 906))
    ]
    assert find_places(np.ones((90, 130), np.uint8), 512, CLASS_NAMES) == [
        (slice(0, 512), slice(0, 512))
    ]


@pytest.mark.parametrize(("side", "across"), [(3600, 2), (6000, 3)])
def test_a_large_image_is_judged_by_places_all_over_it(side, across):
    places = find_places(np.ones((side, side), np.uint8), 512, CLASS_NAMES)
    assert len(places) == across**2
    parts = {(row * across // side, column * across // side) for row, column in middles(places)}
    assert len(parts) == across**2  # one in each part of the image
    assert len(find_places(np.ones((side, side), np.uint8), 512, CLASS_NAMES, 0.25)) == 1


def test_empty_glass_is_no_place_to_look_at():
    class_map = np.zeros((6000, 6000), np.uint8)
    class_map[:, 4000:] = 2
    places = find_places(class_map, 512, CLASS_NAMES)
    assert len(places) == 9
    assert all(columns.stop > 4000 for _, columns in places)
    class_map[:] = 0
    class_map[100:110, 5000:5600] = 2  # one window has cells
    assert len(find_places(class_map, 512, CLASS_NAMES)) == 1
    assert find_places(class_map * 0, 512, CLASS_NAMES) == [(slice(2744, 3256),) * 2]


def test_a_photo_whose_middle_alone_is_in_focus_is_doubted():
    image, mask = tiled(3600)
    sure = np.full(mask.shape, 250, np.uint8)
    radii = typical_radii(SMEARS.masks[0])
    assert doubts(image, mask, sure, radii, DIAMETER) == []
    blurred = ndimage.uniform_filter(image, (25, 25, 1))
    middle = (slice(1200, 2400),) * 2
    blurred[middle] = image[middle]
    # Where it is cut, a straight line may be seen, too.
    assert "it is out of focus (in 4 of 4 places)" in doubts(blurred, mask, sure, radii, DIAMETER)
    one = image.copy()
    one[:1800, :1800] = blurred[:1800, :1800]
    assert "it is out of focus (in 1 of 4 places)" in doubts(one, mask, sure, radii, DIAMETER)


def test_a_network_that_guesses_at_the_edges_of_a_photo_alone_is_doubted(monkeypatch):
    image, _ = tiled(4000)
    shown = image.copy()
    shown[:, :1700, 0] = 255  # where the network below has no idea

    def see(self, pixels):
        dark = pixels[..., 1] < 200
        logits = 20 * np.stack([~dark, np.zeros_like(dark), dark]).astype(np.float32)
        lost = pixels[..., 0] >= 254
        left = np.arange(dark.shape[1]) < dark.shape[1] // 2
        logits[2, lost & dark & left] = 0
        logits[1, lost & dark & left] = 1.5  # and is not sure of it
        return logits, {0: 1}

    monkeypatch.setattr(_predictor, "transform_images", lambda preprocessor, images: images)
    monkeypatch.setattr(TileNetwork, "__call__", see)
    monkeypatch.setattr(TileNetwork, "adapted_to", lambda self, views, share: None)
    segmenter = BloodCellSegmenter.from_pretrained(red_cell_diameter=DIAMETER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        (found,) = segmenter.segment([shown])
    assert found.agreement < STEADY
    assert any("mirrored" in doubt for doubt in found.doubts())
