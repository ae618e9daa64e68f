"""A network that changes its mind when an image is mirrored is doubted."""

import copy
import warnings
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage import data

from bloodseg import BloodCellSegmenter
from bloodseg._images import CLASS_NAMES
from bloodseg.datasets import make_smears
from bloodseg.metrics import mean_iou
from bloodseg.prediction import TileNetwork, _segmented
from bloodseg.prediction._agreement import SHOWN, SURE, View, measure_agreement
from bloodseg.prediction._doubts import doubts_of_agreement
from bloodseg.prediction._magnification import Scaling
from bloodseg.prediction._places import find_places
from bloodseg.prediction._predictor import Predictor
from bloodseg.prediction._segmented import Segmented

SMEARS = make_smears(2, 160, random_state=3, red_cell_diameter=40, white_cells=(1, 1))


@pytest.fixture(scope="module")
def published():
    return BloodCellSegmenter.from_pretrained(red_cell_diameter=40)


def see(pixels):
    """Take what is dark in green for cells: what an honest network would do, mirrored or not."""
    dark = pixels[..., 1] < 200
    return np.stack([~dark, np.zeros_like(dark), dark]).astype(np.float32), {}


def see_one_side(pixels):
    """Take what is dark at the left for red cells, and at the right for white ones."""
    logits, _ = see(pixels)
    half = pixels.shape[1] // 2
    logits[1, :, half:], logits[2, :, half:] = logits[2, :, half:].copy(), 0
    return logits, {}


def class_map_of(network, image):
    return network(image)[0].argmax(axis=0).astype(np.uint8)


def agreement_of(network, image, class_map, *, factor=1.0, outside=None):
    places = find_places(class_map, int(SHOWN / factor), CLASS_NAMES, factor)
    views = [View.of(image, place, factor) for place in places]
    return measure_agreement(network, views, outside, class_map)


@pytest.mark.parametrize("width", [160, 159])
def test_what_has_no_left_and_right_agrees(width):
    image = SMEARS.images[0][:, :width]
    assert agreement_of(see, image, class_map_of(see, image)) == 1.0


def test_what_depends_on_the_side_does_not():
    image = SMEARS.images[0]
    found = agreement_of(see_one_side, image, class_map_of(see_one_side, image))
    assert found == pytest.approx(1 / 3)  # the background alone


def test_in_another_size_it_is_nearly_the_same():
    image = SMEARS.images[0].repeat(2, axis=0).repeat(2, axis=1)
    assert agreement_of(see, image, class_map_of(see, image), factor=0.5) > 0.97


def test_what_is_no_picture_is_not_compared():
    image = SMEARS.images[0]
    outside = np.zeros(image.shape[:2], bool)
    outside[:, :80] = True
    class_map = np.where(outside, 0, class_map_of(see, image))
    assert agreement_of(see, image, class_map, outside=outside) == 1.0
    assert agreement_of(see, image, class_map) < 0.9


def test_a_class_of_few_pixels_is_none_to_agree_about():
    class_map = np.zeros((100, 100), np.uint8)
    class_map[5:10, 5:10] = 1  # 0.25 % of the pixels

    def see_nothing(pixels):
        return np.eye(3, dtype=np.float32)[0][:, None, None] * np.ones((3, *pixels.shape[:2])), {}

    image = np.full((100, 100, 3), 200, np.uint8)
    assert agreement_of(see_nothing, image, class_map) > 0.99


def test_the_doubt():
    assert doubts_of_agreement(0.72, adapted=False) == [
        "mirrored, it shows the network other cells: the two answers overlap by 0.72, where 0.94 "
        "and more is usual"
    ]
    assert doubts_of_agreement(0.95, adapted=False) == []
    assert doubts_of_agreement(None, adapted=False) == []
    assert doubts_of_agreement(0.95, adapted=True) == [
        "mirrored, it showed the network other cells; after adapting to it the two answers "
        "overlap by 0.95, where 0.94 and more is usual"
    ]


def test_what_mirroring_tells_is_added_to_what_is_known(monkeypatch):
    image, mask = SMEARS.images[0], SMEARS.masks[0]
    found = Segmented("a", image, mask, np.full(mask.shape, 255, np.uint8), 1.0)
    before, radii = found.doubts(), found.radii
    assert "micrometres" in before[-1]

    def forbid(*args, **kwargs):
        raise AssertionError("found out twice")

    monkeypatch.setattr(_segmented, "doubts", forbid)
    monkeypatch.setattr(_segmented, "typical_radii", forbid)
    after = found._mirrored(0.7, adapted=True)
    assert (after.agreement, after.adapted, after.radii) == (0.7, True, radii)
    assert after.doubts() == [*before[:-1], *doubts_of_agreement(0.7, adapted=True), before[-1]]
    assert (found.agreement, found.doubts()) == (None, before)


def test_the_network_is_asked_where_it_is_not_sure(monkeypatch):
    segmenter = BloodCellSegmenter.from_pretrained()
    n_calls = []
    call = TileNetwork.__call__

    def counted(self, pixels):
        n_calls.append(pixels.shape)
        return call(self, pixels)

    monkeypatch.setattr(TileNetwork, "__call__", counted)
    monkeypatch.setattr(TileNetwork, "adapted_to", lambda self, pixels, share: None)
    strange = data.coffee()[::4, ::4]
    segmenter.set_params(red_cell_diameter=40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        sure, unsure = segmenter.segment([SMEARS.images[0], strange])
    assert sure.mean_confidence >= SURE > unsure.mean_confidence
    assert sure.agreement is None
    assert 0 < unsure.agreement < 1
    assert len(n_calls) == 3
    # Second looks are no part of what the prediction has cost.
    assert all(len(each) == 2 for each in segmenter.n_function_evaluations_.values())
    (own,) = segmenter.set_params(red_cell_diameter=None).segment([strange])
    assert own.agreement is None  # images of one laboratory: nobody has doubts to tell


def test_the_network_is_asked_where_the_image_is_in_doubt(published):
    swapped = SMEARS.images[0][..., ::-1]
    with pytest.warns(UserWarning, match="red and blue"):
        (found,) = published.segment([swapped])
    assert found.mean_confidence >= SURE
    assert found.agreement is not None


@pytest.fixture(scope="module")
def noisy():
    """Return an image of a camera that training has not seen, and its label map.

    Its noise is of too coarse a grain to be smoothed.
    """
    noise = np.random.default_rng(0).normal(size=SMEARS.images[1].shape)
    noise = cv2.GaussianBlur(noise, (0, 0), 2)
    image = SMEARS.images[1] + 15 * noise / noise.std()
    return image.clip(0, 255).astype(np.uint8), SMEARS.masks[1]


@pytest.fixture(scope="module")
def found(noisy, published):
    """Return what is found in that image, which a network adapts to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return next(published.segment([noisy[0]]))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_network_that_is_unsteady_adapts(noisy, published, found, monkeypatch):
    image, mask = noisy
    monkeypatch.setattr(TileNetwork, "adapted_to", lambda self, pixels, share: None)
    (plain,) = published.segment([image])
    assert found.adapted
    assert not found.smoothed
    assert not plain.adapted
    assert found.agreement > plain.agreement + 0.1
    assert mean_iou([mask], [found.class_map]) > mean_iou([mask], [plain.class_map]) + 0.3
    assert any("after adapting to it" in doubt for doubt in found.doubts())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_all_methods_adapt_alike(noisy, published, found):
    image, _ = noisy
    before = {key: value.clone() for key, value in published.network_.state_dict().items()}
    (probabilities,) = published.predict_proba([image])
    np.testing.assert_array_equal(probabilities.argmax(axis=-1), found.class_map)
    assert len(next(iter(published.n_function_evaluations_.values()))) == 1
    sure, beside = published.predict([SMEARS.images[0], image])
    np.testing.assert_array_equal(beside, found.class_map)
    np.testing.assert_array_equal(sure, published.predict([SMEARS.images[0]])[0])
    # And the network is left as it was.
    for key, value in published.network_.state_dict().items():
        assert value.equal(before[key]), key


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_surround_of_a_picture_changes_nothing_of_that(noisy, published):
    image = noisy[0].copy()
    rows, columns = np.mgrid[:160, :160] - 79.5
    image[np.hypot(rows, columns) > 76] = 0
    (found,) = published.segment([image])
    assert found.share_left_out > 0.2
    assert found.adapted
    np.testing.assert_array_equal(published.predict_proba([image])[0].argmax(-1), found.class_map)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_files_and_tiles_adapt_as_well(noisy, published, found, tmp_path):
    image, mask = noisy
    Image.fromarray(image).save(tmp_path / "noisy.png")
    (of_file,) = published.segment([tmp_path / "noisy.png"])
    np.testing.assert_array_equal(of_file.class_map, found.class_map)
    (in_tiles,) = copy.copy(published).set_params(tile_size=128).segment([image])
    assert in_tiles.adapted
    assert mean_iou([mask], [in_tiles.class_map]) > 0.8


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_an_adapted_network_finds_tells_the_size_too(noisy, published, monkeypatch):
    asked = []

    def measure_again(self, image, found):
        asked.append(found)
        if len(asked) == 1:  # of the network as it is, which sees cells of any size
            return None
        return replace(image, scaling=Scaling(2 * image.scaling.factor, guessed=True))

    monkeypatch.setattr(Predictor, "_measure_again", measure_again)
    probabilities = published.predict_proba([noisy[0]])[0]
    assert len(asked) == 2
    assert all(len(each) == 1 for each in published.n_function_evaluations_.values())
    asked.clear()
    (found,) = published.segment([noisy[0]])
    assert len(asked) == 2
    assert found.expected_diameter == pytest.approx(asked[0].expected_diameter / 2)
    np.testing.assert_array_equal(probabilities.argmax(axis=-1), found.class_map)
