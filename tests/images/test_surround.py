"""What is no picture is found, and nothing is found in what is one."""

import cv2
import numpy as np
import pytest

from bloodseg._images import find_marks, find_surround, levels, paint_over
from bloodseg.datasets import make_smears

SIDE = 320
Y, X = np.mgrid[:SIDE, :SIDE]


@pytest.fixture(scope="module")
def smears():
    return make_smears(4, SIDE, random_state=5, red_cell_diameter=44, density=(0.4, 0.7)).images


def as_jpeg(image, quality=85):
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


DISC = (Y - 160) ** 2 + (X - 160) ** 2 > 150**2
SURROUNDS = {
    "black around a disc": (DISC, 0),
    "white around a disc": (DISC, 255),
    "grey around a disc that the border cuts": ((Y - 140) ** 2 + (X - 190) ** 2 > 165**2, 90),
    "a small disc": ((Y - 160) ** 2 + (X - 160) ** 2 > 90**2, 0),
    "a black strip": (Y > 285, 0),
    "a white strip": (Y > 285, 255),
    "a blue strip": (X < 40, (10, 40, 90)),
    "a frame": (np.maximum(abs(Y - 159.5), abs(X - 159.5)) > 148, 0),
    "a corner": (X + Y < 120, 0),
    "turned": (abs(X - 159.5) + abs(Y - 159.5) > 200, 255),
}


@pytest.mark.parametrize("name", SURROUNDS)
def test_surrounds_are_found(smears, name):
    where, colour = SURROUNDS[name]
    for smear in smears:
        image = smear.copy()
        image[where] = colour
        for pixels in (image, (image / 255).astype(np.float32), image.astype(np.uint16) * 257):
            found = find_surround(pixels)
            assert found[where].all()
            assert found[~where].mean() < 0.05  # a margin at the edge


@pytest.mark.parametrize("name", ["black around a disc", "a black strip", "a frame"])
def test_compressed_and_blurred_ones_too(smears, name):
    where, colour = SURROUNDS[name]
    for smear in smears:
        image = smear.copy()
        image[where] = colour
        for pixels in (as_jpeg(image), cv2.GaussianBlur(image, (0, 0), 3)):
            found = find_surround(pixels)
            assert found[where].mean() > 0.99
            assert found[~where].mean() < 0.06


@pytest.mark.parametrize(("lit", "wide"), [(150, 20), (125, 45)])
def test_the_shade_at_the_edge_of_an_eyepiece_is_no_picture(smears, lit, wide):
    away = np.hypot(Y - 160, X - 160)  # in the middle of the sides, the edge lies beyond the image
    light = np.clip((lit + wide - away) / wide, 0, 1)
    for smear in smears:
        found = find_surround(np.rint(smear * light[..., np.newaxis]).astype(np.uint8))
        assert found[light < 0.8].all()
        assert not found[away < lit - 10].any()


def test_writing_in_a_strip_is_no_picture_either(smears):
    image = smears[0].copy()
    image[286:] = 0
    cv2.putText(image, "10 um  x100", (30, 311), 0, 0.6, (255, 255, 255), 1, cv2.LINE_AA)
    found = find_surround(image)
    assert found[286:].all()
    assert not found[:282].any()


def test_strips_around_each_other(smears):
    image = smears[0].copy()
    image[DISC] = 0
    image = np.pad(image, ((30, 30), (30, 30), (0, 0)), constant_values=255)
    found = find_surround(image)
    assert found[np.pad(DISC, 30, constant_values=True)].all()
    assert found.mean() < 0.55


def test_pictures_have_no_surround(smears):
    for smear in smears:
        glass = smear.min(axis=2) > np.percentile(smear.min(axis=2), 60)
        burnt = smear.copy()
        burnt[glass] = 255
        bright = np.clip(smear * 1.5, 0, 255).astype(np.uint8)
        shade = 1 - 0.4 * ((X / SIDE - 0.5) ** 2 + (Y / SIDE - 0.5) ** 2)
        shaded = (cv2.GaussianBlur(smear, (0, 0), 2) * shade[..., np.newaxis]).astype(np.uint8)
        dark = (smear * 0.2).astype(np.uint8)
        for pixels in (smear, burnt, bright, shaded, dark, smear[..., 1], as_jpeg(bright)):
            assert find_surround(pixels) is None


@pytest.mark.parametrize("level", [0, 128, 240, 255])
def test_an_even_image_has_no_surround(level):
    assert find_surround(np.full((100, 120, 3), level, np.uint8)) is None


def test_one_cell_on_burnt_out_glass_is_no_picture_in_a_surround():
    image = np.full((200, 200, 3), 255, np.uint8)
    cv2.circle(image, (100, 100), 70, (200, 140, 150), -1)
    assert find_surround(image) is None


def test_transparent_pixels(smears):
    alpha = np.where(DISC, 0, 255).astype(np.uint8)
    assert np.array_equal(find_surround(np.dstack([smears[0], alpha])), DISC)
    assert find_surround(np.dstack([smears[0], np.full_like(alpha, 255)])) is None
    assert find_surround(np.dstack([smears[0], np.zeros_like(alpha)])) is None  # a broken writer


def test_large_images_are_looked_at_in_fewer_pixels(smears):
    image = np.kron(smears[0], np.ones((8, 8, 1), np.uint8))
    image[np.kron(DISC, np.ones((8, 8), bool))] = 0
    found = find_surround(image)
    assert found.shape == image.shape[:2]
    assert found[np.kron(DISC, np.ones((8, 8), bool))].mean() > 0.99
    assert found.mean() < DISC.mean() + 0.03


def marked(smear, colour, kind):
    image = smear.copy()
    if kind in ("bar and text", "smooth text"):
        smooth = cv2.LINE_AA if kind == "smooth text" else cv2.LINE_8
        cv2.putText(image, "10 um", (241, 302), 0, 0.5, colour, 1, smooth)
        image[308:313, 236:306] = colour
    elif kind == "bar with ticks":
        image[300:302, 200:280] = image[294:308, 200:202] = image[294:308, 278:280] = colour
    elif kind == "upright bar":
        image[100:190, 20:24] = colour
    else:
        cv2.putText(image, "Slide 12 x100", (20, 30), 0, 0.6, colour, 2, cv2.LINE_AA)
    return image


@pytest.mark.parametrize(
    "colour", [(0, 0, 0), (255, 255, 255), (255, 255, 0), (255, 0, 0), (255, 160, 0)]
)
@pytest.mark.parametrize(
    "kind", ["bar and text", "smooth text", "bar with ticks", "upright bar", "text"]
)
def test_marks_are_found_and_painted_over(smears, colour, kind):
    for smear in (smears * 0.8).astype(np.uint8):  # white is to be seen on it
        image = marked(smear, colour, kind)
        marks = find_marks(levels(image))
        changed = np.abs(image.astype(int) - smear).max(axis=2)
        assert marks[changed > 60].mean() > 0.97
        near = cv2.dilate((changed > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
        assert marks[~near].mean() < 0.06
        painted = paint_over(image, marks)
        error = np.abs(painted.astype(int) - smear).mean()
        assert error < np.abs(image.astype(int) - smear).mean() or error < 0.6
        floats = paint_over((image / 255).astype(np.float32), marks)
        assert np.abs(floats - painted / 255).mean() < 0.01


def test_capitals_after_a_small_letter_are_of_its_row(smears):
    image = (smears[0] * 0.8).astype(np.uint8)
    left = 20
    for high in (16, 16, 16, 11, 16, 16, 16):  # crosses, whatever font OpenCV has
        for ends in ((left, left + 11), (left + 11, left)):
            cv2.line(image, (ends[0], 60 - high), (ends[1], 60), (0, 0, 0), 2)
        left += 24
    marks = find_marks(levels(image))
    assert marks[(image == 0).all(axis=2)].mean() > 0.99


def test_compressed_marks(smears):
    for smear in smears:
        for quality in (60, 85):
            image = marked(smear, (0, 0, 0), "smooth text")
            marks = find_marks(levels(as_jpeg(image, quality)))
            assert marks[np.abs(image.astype(int) - smear).max(axis=2) > 60].mean() > 0.95


@pytest.mark.parametrize(
    ("colour", "kind"),
    [
        ((255, 160, 0), "smooth text"),
        ((255, 100, 10), "smooth text"),
        ((240, 150, 30), "smooth text"),
        ((70, 220, 80), "bar with ticks"),
        ((0, 200, 60), "smooth text"),
    ],
)
def test_marks_of_dull_colours(smears, colour, kind):
    for smear in smears:
        image = marked(smear, colour, kind)
        pixels = as_jpeg(image[..., ::-1])[..., ::-1]
        marks = find_marks(levels(pixels))
        assert marks[np.abs(image.astype(int) - smear).max(axis=2) > 60].mean() > 0.95


def test_pictures_have_no_marks(smears):
    for smear in smears:
        bright = np.clip(smear * 1.5, 0, 255).astype(np.uint8)
        dark = (smear * 0.3).astype(np.uint8)
        for pixels in (smear, bright, dark, as_jpeg(smear), as_jpeg(bright), smear[..., 1]):
            assert find_marks(levels(pixels)) is None
