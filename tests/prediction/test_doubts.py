"""Images that are no smears are doubted; smears are not."""

import re
import warnings

import cv2
import numpy as np
import pytest
from scipy import ndimage
from skimage import data

from bloodseg import BloodCellSegmenter
from bloodseg.cells import find_cells, to_geojson
from bloodseg.cells._scale import Radii, typical_radii
from bloodseg.datasets import make_smears
from bloodseg.prediction import Segmented
from bloodseg.prediction._doubts import doubts as doubts_of_looks


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
    # Of small pictures, as sizes are tried up to three times theirs.
    step = max(image.shape[:2]) // (96 if name == "cell" else 64)
    assert doubts(pretrained, image[::step, ::step])


@pytest.mark.parametrize("level", [0, 128, 255])
def test_nothing_to_be_seen(pretrained, level):
    assert doubts(pretrained, np.full((40, 40, 3), level, np.uint8))


def test_out_of_focus(pretrained):
    image = make_smears(1, 120, random_state=1, red_cell_diameter=30).images[0]
    assert doubts(pretrained, image) == []
    blurred = np.stack([ndimage.gaussian_filter(image[..., i], 4) for i in range(3)], axis=-1)
    assert doubts(pretrained, blurred)


def test_the_warning(pretrained):
    text = (
        r"images\[0\] looks unlike a stained smear in focus: .*\. Look at what was found in it "
        "before you use it"
    )
    with pytest.warns(UserWarning, match=text):
        pretrained.predict([data.rocket()[::10, ::10]])


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


# With true label maps in place of a network's, so that what is tested is the judgement alone.


def find_doubts(image, class_map, sure, diameter, **other):
    known = {name: other[name] for name in other if name == "classes"}
    radii = typical_radii(class_map, diameter, **known)
    return doubts_of_looks(image, class_map, sure, radii, diameter, **other)


def judge(image, class_map, diameter=40, **other):
    sure = np.full(class_map.shape, 255, np.uint8)
    return find_doubts(image, class_map, sure, diameter, **other)


@pytest.fixture(scope="module")
def smears():
    return make_smears(8, 220, random_state=3, red_cell_diameter=40, white_cells=(1, 2))


def test_a_place_that_is_all_cells_tells_nothing_of_light(smears, monkeypatch):
    whole = (slice(0, 220),) * 2
    inside = ndimage.minimum_filter(smears.masks[0] == 2, 9, mode="constant")
    y, x = np.argwhere(inside)[0]
    places = [(slice(y - 4, y + 5), slice(x - 4, x + 5)), whole]
    monkeypatch.setattr("bloodseg.prediction._doubts.find_places", lambda *args: places)
    assert judge(smears.images[0], smears.masks[0]) == []
    swapped = judge(smears.images[0][..., ::-1], smears.masks[0])
    assert swapped
    assert all(text.endswith(" (in 1 of 2 places)") for text in swapped)


def test_no_drawn_smear_is_doubted(smears):
    for image, mask in zip(smears.images, smears.masks, strict=True):
        assert judge(image, mask) == []
        assert judge(np.clip(image * 0.6, 0, 255).astype(np.uint8), mask) == []
        assert judge((image / 255).astype(np.float32), mask) == []


def test_bright_red_cells_are_not_yet_over_exposed(smears):
    """Their red alone reaches white: what tells cells apart is in the other colours."""
    for image, mask in zip(smears.images, smears.masks, strict=True):
        bright = np.clip(image * np.array([1.6, 1.05, 1.05]), 0, 255).astype(np.uint8)
        assert np.mean(bright[mask == 2].max(axis=-1) == 255) > 0.12
        assert judge(bright, mask) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image: image[..., ::-1], "red and blue are swapped"),
        (lambda image: image.mean(axis=2).astype(np.uint8), "it is grey"),
        (lambda image: np.repeat(image[..., 1:2], 3, axis=2), "it is grey"),
        (lambda image: image[..., 1] / 255, "it is grey"),
        (lambda image: 255 - image, "colours are no blood stain's|not clear and bright"),
        (lambda image: np.clip(image * 2.0, 0, 255).astype(np.uint8), "over-exposed"),
        (lambda image: (image * 0.1).astype(np.uint8), "so dark"),
    ],
)
def test_colours_that_are_no_stains(smears, change, said):
    for image, mask in zip(smears.images, smears.masks, strict=True):
        assert re.search(said, "; ".join(judge(change(image), mask)))


def moved(image, length, turn):
    """Return an image as a camera sees it that moves so many pixels, in degrees to the right."""
    turn = np.deg2rad(turn)
    steps = np.linspace(-length / 2, length / 2, 2 * length + 1)
    shifted = [
        ndimage.shift(image, (step * np.sin(turn), step * np.cos(turn), 0), order=1, mode="mirror")
        for step in steps
    ]
    return np.mean(shifted, axis=0).astype(np.uint8)


@pytest.mark.parametrize("turn", [0, 30, 67, 90])
def test_a_camera_that_moved(smears, turn):
    for image, mask in zip(smears.images[:3], smears.masks, strict=False):
        assert judge(moved(image, 4, turn), mask) == []
        said = judge(moved(image, 24, turn), mask)
        assert said == ["it is blurred along one direction; perhaps stage or camera moved"]


def blurred_in_half(image):
    """Return an image whose right half is out of focus, as of a slide that lies aslant."""
    soft = ndimage.gaussian_filter(image, (10, 10, 0))
    share = np.clip((np.arange(220) - 100) / 20, 0, 1)[:, np.newaxis]
    return (image * (1 - share) + soft * share).astype(np.uint8)


def blurred_at_margins(image):
    """Return an image of which the middle alone is in focus, as phones blur what is around it."""
    soft = ndimage.gaussian_filter(image, (12, 12, 0))
    away = np.abs(np.arange(220) - 109.5)
    share = np.clip((np.maximum(away[:, np.newaxis], away) - 60) / 10, 0, 1)[..., np.newaxis]
    return (image * (1 - share) + soft * share).astype(np.uint8)


def test_parts_out_of_focus(smears):
    for image, mask, cells in zip(smears.images, smears.masks, smears.instances, strict=True):
        image = blurred_in_half(image)
        assert judge(image, mask) == ["part of it is out of focus"]
        found = np.where(np.isin(cells, cells[:, 110:]), 0, mask)  # what is blurred is lost
        assert "part of it is out of focus" in judge(image, found)


def test_margins_out_of_focus(smears):
    for image, mask in zip(smears.images, smears.masks, strict=True):
        (said,) = judge(blurred_at_margins(image), mask)
        assert re.search("part of it is out of focus|it is blurred along one direction", said)


def test_pictures_that_were_stretched(smears):
    columns = np.arange(396) * 220 // 396
    for image, mask in zip(smears.images, smears.masks, strict=True):
        image, mask = image[:, columns], mask[:, columns]
        for pixels, labels, shape in (
            (image, mask, "wide as high"),
            (image.transpose(1, 0, 2), mask.T, "high as wide"),
        ):
            said = "; ".join(judge(pixels, labels))
            assert re.search(rf"its cells are 1\.\d times as {shape}; perhaps it was str", said)


def test_a_strip_that_cuts_cells_stretches_none(smears):
    """Edges of the picture are no outlines: all strips of 60 rows show cells of a width alike."""
    for image, mask in zip(smears.images, smears.masks, strict=True):
        outside = np.arange(220)[:, np.newaxis] // 30 % 4 == np.zeros(220, int)
        labels = np.where(outside, 0, mask).astype(np.uint8)
        assert "times as" not in "; ".join(judge(image, labels, outside=outside))


def test_frames_of_interlaced_video(smears):
    for image, mask in zip(smears.images, smears.masks, strict=True):
        combed = image.copy()
        combed[1::2] = np.roll(image, 3, axis=1)[1::2]
        for pixels, labels in ((combed, mask), (combed.transpose(1, 0, 2), mask.T)):
            assert "interlaced video" in "; ".join(judge(pixels, labels))


def test_noise_is_no_interlaced_video(smears, rng):
    for image, mask in zip(smears.images, smears.masks, strict=True):
        noisy = np.clip(image + rng.normal(0, 60, image.shape), 0, 255).astype(np.uint8)
        assert "interlaced video" not in "; ".join(judge(noisy, mask))


def with_inset(image):
    """Return an image in whose corner a smaller one is shown in a frame."""
    shown = image.copy()
    shown[10:150, 10:150] = 255
    shown[12:148, 12:148] = image[:204, :204][::3, ::3].repeat(2, axis=0).repeat(2, axis=1)
    return shown


def stitched(image):
    """Return an image of two beside each other, taken in other light."""
    shown = image.copy()
    shown[:, 110:] = 0.85 * image[:, 110:]
    return shown


def in_bands(image):
    """Return an image with the dark bands of a lamp that flickers."""
    dark = np.arange(len(image)) // 30 % 2 == 1
    return np.where(dark[:, None, None], 0.75 * image, image).astype(np.uint8)


@pytest.mark.parametrize("change", [with_inset, stitched, in_bands])
def test_straight_lines(smears, change):
    for image, mask in zip(smears.images, smears.masks, strict=True):
        for turned, labels in ((image, mask), (image.transpose(1, 0, 2), mask.T)):
            assert "a straight line" in "; ".join(judge(change(turned), labels))


def test_no_straight_lines(smears, rng):
    for image, mask in zip(smears.images, smears.masks, strict=True):
        noisy = np.clip(image + rng.normal(0, 60, image.shape), 0, 255).astype(np.uint8)
        coarse = image[::2, ::2].repeat(2, axis=0).repeat(2, axis=1)
        outside = np.zeros(mask.shape, bool)
        outside[:60] = True  # a frame that is known to be none of the picture
        framed = np.where(outside[..., None], 255, image)
        for pixels, beyond in ((noisy, None), (coarse, None), (framed, outside)):
            assert "straight line" not in "; ".join(judge(pixels, mask, outside=beyond))
        # A picture that is narrower than a line is long has none.
        assert "straight line" not in "; ".join(
            judge(in_bands(image)[:100, :100], mask[:100, :100])
        )


def printed(image):
    """Return an image as a scanner sees it in print: each colour is dots of one ink."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    shown = np.empty(image.shape)
    for channel, turn in enumerate(np.deg2rad([15, 75, 45])):
        along = columns * np.cos(turn) + rows * np.sin(turn)
        across = rows * np.cos(turn) - columns * np.sin(turn)
        raster = 0.5 + 0.25 * (np.cos(2 * np.pi * along / 5) + np.cos(2 * np.pi * across / 5))
        shown[..., channel] = np.where(image[..., channel] / 255 > 1 - raster, 250, 40)
    return ndimage.gaussian_filter(shown, (1.5, 1.5, 0)).astype(np.uint8)


def on_a_screen(image):
    """Return an image with the moire that a camera sees on a screen."""
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    waves = 1 + 0.1 * np.cos(2 * np.pi * (0.9 * columns + 0.4 * rows) / 8)
    return (0.9 * image * waves[..., np.newaxis]).astype(np.uint8)


@pytest.mark.parametrize("change", [printed, on_a_screen])
def test_rasters_of_prints_and_screens(smears, change):
    for image, mask in zip(smears.images, smears.masks, strict=True):
        assert "a fine pattern covers it" in "; ".join(judge(change(image), mask))


def compressed(image):
    _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 10])
    return cv2.imdecode(code, cv2.IMREAD_COLOR)


def made_coarse(image):
    return image[::2, ::2].repeat(2, axis=0).repeat(2, axis=1)


@pytest.mark.parametrize("change", [compressed, made_coarse, in_bands, with_inset])
def test_no_rasters(smears, change):
    for image, mask in zip(smears.images, smears.masks, strict=True):
        assert "fine pattern" not in "; ".join(judge(change(image), mask))


def test_shadows_of_dust_that_are_taken_for_red_cells(smears):
    rows, columns = np.mgrid[:220, :220]
    for image, mask in zip(smears.images, smears.masks, strict=True):
        dust = np.zeros(mask.shape, bool)
        for row, column in ((40, 50), (110, 170), (180, 60)):
            dust |= np.hypot(rows - row, columns - column) < 20
        light = np.median(image[mask == 0], axis=0)
        shown = np.where(dust[..., None], 0.75 * light, image).astype(np.uint8)
        shown = ndimage.gaussian_filter(shown, (1, 1, 0))
        assert "are grey" in "; ".join(judge(shown, np.where(dust, 2, mask)))
        assert "are grey" not in "; ".join(judge(shown, np.where(dust, 0, mask)))


def test_too_few_outlines_tell_no_direction(smears):
    for number in (1, 5):
        image, mask = smears.images[number][:60, :20], smears.masks[number][:60, :20]
        assert not any("direction" in text for text in judge(image, mask))


def test_swapped_colours_are_seen_without_red_cells_or_nuclei(smears):
    for image, mask in zip(smears.images, smears.masks, strict=True):
        missed = np.where(mask == 1, 0, mask)  # as networks miss what is not blue
        assert any("swapped" in text for text in judge(image[..., ::-1], missed))
        only_white = np.where(mask == 2, 0, mask)
        assert any("swapped" in text for text in judge(image[..., ::-1], only_white, None))


def disc(class_map, row, column, radius, label):
    y, x = np.mgrid[: class_map.shape[0], : class_map.shape[1]]
    class_map[(y - row) ** 2 + (x - column) ** 2 < radius**2] = label


@pytest.fixture
def drawn():
    """Sixteen red cells, 40 pixels wide."""
    class_map = np.zeros((240, 240), np.uint8)
    for row in range(30, 240, 60):
        for column in range(30, 240, 60):
            disc(class_map, row, column, 20, 2)
    return class_map


INK = {"black": (10, 10, 10), "blue": (20, 30, 160), "red": (190, 20, 30), "green": (20, 120, 40)}


@pytest.mark.parametrize("colour", INK)
def test_ink_and_dirt_that_are_taken_for_cells(smears, colour):
    said = "some of its cells are too dark or blue for cells; perhaps ink, dirt or a pointer"
    place = slice(60, 110), slice(60, 90)
    for image, mask in zip(smears.images, smears.masks, strict=True):
        inked, found = image.copy(), mask.copy()
        inked[place] = INK[colour]
        found[place] = 1 if colour == "blue" else 2
        assert said in judge(inked, found)
        found[place] = 0  # no harm is done
        assert said not in judge(inked, found)
        small = image.copy()  # a quarter of a red cell
        small[60:76, 60:80] = INK[colour]
        assert said not in judge(small, mask)


def test_white_cells_of_a_platelets_size(drawn):
    grey = np.full((240, 240), 200, np.uint8)
    assert not any("platelets" in text for text in judge(grey, drawn))
    for column in (60, 120, 180):
        disc(drawn, 60, column, 9, 1)
    assert any("platelets" in text for text in judge(grey, drawn))
    for column in (60, 120, 180):
        disc(drawn, 60, column, 24, 1)
    assert not any("platelets" in text for text in judge(grey, drawn))


def test_more_white_cells_than_their_area_has_room_for(drawn):
    grey = np.full((240, 240), 200, np.uint8)
    drawn[100:200] = 0
    drawn[147:153, 30:190] = 1  # one strand with five lobes, which necks part
    for column in range(30, 200, 40):
        disc(drawn, 150, column, 14, 1)
    assert find_cells(drawn).counts["white"] == 5
    said = "its 5 white cells have no more room than 3: they are cut up"
    assert said in judge(grey, drawn)
    for column in range(30, 200, 40):
        disc(drawn, 150, column, 19, 1)
    assert not any("room" in text for text in judge(grey, drawn))


def test_white_cells_with_the_outlines_of_nuclei(drawn):
    grey = np.full((240, 240), 200, np.uint8)
    drawn[100:200] = 0
    whole = drawn.copy()
    for column in (60, 96, 170):  # two touch: each is convex by itself
        disc(whole, 150, column, 19, 1)
    assert judge(grey, whole) == judge(grey, drawn)
    for row, column in ((140, 90), (140, 120), (165, 105)):  # three lobes
        disc(drawn, row, column, 11, 1)
    drawn[139:141, 90:120] = 1
    drawn[140:165, 104:106] = 1
    assert find_cells(drawn).counts["white"] == 1
    said = "its white cells have outlines like those of nuclei; perhaps pale cytoplasm is left out"
    assert said in judge(grey, drawn)
    drawn[drawn == 1] = 0
    disc(drawn, 149, 105, 30, 1)
    assert said not in judge(grey, drawn)


def test_cells_inside_of_others(drawn):
    grey = np.full((240, 240), 200, np.uint8)
    assert not any("inside" in text for text in judge(grey, drawn))
    disc(drawn, 90, 90, 10, 1)
    assert any("inside" in text for text in judge(grey, drawn))


@pytest.mark.parametrize(
    ("pixel_size", "said"),
    [(0.17, False), (0.2, False), (None, False), (6.45, True), (1.0, True), (0.05, True)],
)
def test_pixel_sizes_that_cannot_be(drawn, pixel_size, said):
    sure = np.full(drawn.shape, 255, np.uint8)
    found = Segmented(0, np.full(drawn.shape, 200, np.uint8), drawn, sure, pixel_size)
    assert bool(found._doubts_of_pixel_size()) == said
    assert set(found._doubts_of_pixel_size()) <= set(found.doubts())
    if said:
        assert "micrometres wide, not 6 to 9" in found.count()["doubts"]


@pytest.mark.parametrize(("aspect", "said"), [(1, False), (1.01, False), (2, True), (0.5, True)])
def test_pixels_that_are_not_square(drawn, aspect, said):
    sure = np.full(drawn.shape, 255, np.uint8)
    found = Segmented(0, np.full(drawn.shape, 200, np.uint8), drawn, sure, 0.2, aspect)
    text = f"its pixels are {aspect:g} times as high as wide, so that areas and diameters are right"
    assert [each.startswith(text) for each in found._doubts_of_pixel_size()] == [True] * said


def test_a_pixel_size_is_doubted_for_any_model(monkeypatch):
    smears = make_smears(2, 64, random_state=0, red_cell_diameter=16)
    segmenter = BloodCellSegmenter(width=2, max_epochs=1, crop_size=32, random_state=0)
    segmenter.fit(smears.images, smears.masks).set_params(pixel_size=30)
    monkeypatch.setattr(Segmented, "radii", Radii(8.0, 13.0))  # so little training finds no cells
    with pytest.warns(UserWarning, match=r"pixels of 30 micrometres make its red cells 480 micro"):
        segmenter.predict(smears.images[:1])


def test_a_doubt_is_data(smears):
    sure = np.full(smears.masks[0].shape, 255, np.uint8)
    grey = smears.images[0][..., 1]
    for image, doubted in ((smears.images[0], False), (grey, True)):
        found = Segmented("a.png", image, smears.masks[0], sure, None, expected_diameter=40)
        assert bool(found.doubts()) == doubted
        text = "; ".join(found.doubts())
        assert found.count()["doubts"] == text
        table = found.measure(outlines=True)
        assert list(table.columns[-2:]) == ["doubts", "outline"]
        assert set(table["doubts"]) == {text}
        collection = to_geojson(table)
        assert collection.get("doubts", "") == text
        found.doubts().append("what a caller does to the list")
        assert "; ".join(found.doubts()) == text


@pytest.mark.parametrize("side", [36, 64, 100])
def test_a_picture_of_one_cell(pretrained, side):
    """Nothing in it tells its size, and what is found in it may be many cells."""
    y, x = np.mgrid[:side, :side]
    inside = np.hypot(y - side / 2, x - side / 2) < 0.44 * side
    image = np.where(inside[..., np.newaxis], (205, 120, 130), (235, 230, 235)).astype(np.uint8)
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    assert doubts(pretrained, np.clip(image + noise, 0, 255).astype(np.uint8)) != []


def test_a_picture_too_small_to_measure_cells_in(smears):
    image, labels = smears.images[0], smears.masks[0]
    sure = np.full(labels.shape, 255, np.uint8)
    side = min(labels.shape)
    text = (
        "it is no more than 2.0 red cells high or wide, too little to measure them; pass "
        "red_cell_diameter"
    )
    assert text in find_doubts(image, labels, sure, side / 2, measured=True)
    for found in (
        find_doubts(image, labels, sure, side / 2),
        find_doubts(image, labels, sure, side / 3, measured=True),
    ):
        assert text not in found
        assert not any("too little" in each for each in found)


def test_platelets_are_no_reason_to_doubt():
    smears = make_smears(2, image_size=256, platelets="label", random_state=0)
    sure = np.full((256, 256), 240, np.uint8)
    names = smears.target_names
    for image, mask in zip(smears.images, smears.masks, strict=True):
        assert find_doubts(image, mask, sure, 40, classes=names) == []
        # On red cells, within white ones: neither is a half of a cell of the other class.
        mask = mask.copy()
        y, x = np.nonzero(mask == 2)
        mask[y[::7], x[::7]] = 3
        assert not any(
            "inside of" in text for text in find_doubts(image, mask, sure, 40, classes=names)
        )


@pytest.mark.parametrize("place", [(0, 0), (1300, 1400)])
def test_a_large_image_whose_middle_is_empty_is_judged_by_its_cells(place):
    smears = make_smears(1, image_size=300, random_state=0)
    image, mask = np.full((1700, 1800, 3), 235, np.uint8), np.zeros((1700, 1800), np.uint8)
    where = tuple(slice(start, start + 300) for start in place)
    image[where], mask[where] = smears.images[0], smears.masks[0]
    sure = np.full(mask.shape, 250, np.uint8)
    (edge,) = find_doubts(image, mask, sure, 40)
    assert "a straight line" in edge
    assert find_doubts(image, mask * 0, sure, 40) == ["it has no cells"]


def test_an_image_of_platelets_alone_has_no_cells():
    image = make_smears(1, image_size=64, random_state=0).images[0]
    mask = np.zeros((64, 64), np.uint8)
    mask[10:20, 10:20] = 3
    sure = np.full(mask.shape, 250, np.uint8)
    names = ("background", "white", "red", "platelet")
    assert find_doubts(image, mask, sure, 40, classes=names) == ["it has no cells"]


def test_of_other_cells_only_sureness_is_known():
    image = np.zeros((64, 64, 3), np.uint8)
    mask = np.zeros((64, 64), np.uint8)
    names = ("background", "parasite")
    assert find_doubts(image, mask, np.full(mask.shape, 250, np.uint8), None, classes=names) == []
    unsure = find_doubts(image, mask, np.full(mask.shape, 150, np.uint8), None, classes=names)
    assert unsure == ["the network is unsure (mean confidence 0.59)"]
