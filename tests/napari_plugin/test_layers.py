"""Between layers of napari and images, without napari."""

from types import SimpleNamespace

import numpy as np
import pytest
from messages import raises

from bloodseg import Segmented
from bloodseg.datasets import make_smears
from bloodseg.napari._layers import draw_smear, in_text, layers_of, place_of, slide_of
from bloodseg.napari._widget import count_and_measure

PIXEL = ("pixel", "pixel")
MICROMETRE = ("micrometer", "micrometer")


def layer(data, *, units=PIXEL, scale=(1.0, 1.0), multiscale=False, rgb=True):
    """What the plugin asks of a layer."""
    return SimpleNamespace(
        **{"data": data, "units": units, "scale": np.array(scale), "name": "smear"},
        **{"multiscale": multiscale, "rgb": rgb, "translate": np.array([3.0, 4.0])},
        **{"rotate": np.eye(2), "shear": np.zeros(1), "affine": np.eye(3)},
    )


def test_rows_of_layers(rng):
    pixels = rng.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    for given in (layer(pixels), layer([pixels, pixels[::2, ::2]], multiscale=True)):
        slide = slide_of(given)
        assert (slide.shape, slide.dtype, slide.name) == ((40, 60, 3), np.uint8, "smear")
        assert np.array_equal(slide[10:20], pixels[10:20])
    grey = slide_of(layer(pixels[..., 0], rgb=False))
    assert grey.shape == (40, 60, 1)
    assert np.array_equal(grey[:], pixels[..., :1])


@pytest.mark.parametrize(
    ("units", "scale", "sides"),
    [
        (PIXEL, (1, 1), None),
        (PIXEL, (0.1, 0.1), None),  # 0.1 of what?
        (MICROMETRE, (0.1, 0.2), (0.1, 0.2)),
        (MICROMETRE, (-0.1, 0.2), (0.1, 0.2)),  # mirrored
        (("nanometer", "nanometer"), (65, 65), (0.065, 0.065)),
        (MICROMETRE, (50, 50), None),  # no microscope
    ],
)
def test_sizes_of_pixels(units, scale, sides):
    slide = slide_of(layer(np.zeros((4, 5, 3), np.uint8), units=units, scale=scale))
    assert slide.pixel_sides == (sides and pytest.approx(sides))


@pytest.mark.parametrize(("shape", "rgb"), [((5, 40, 60, 3), True), ((5, 40, 60), False)])
def test_stacks_are_refused(shape, rgb):
    with raises(f"'smear' must be one picture, grey or in colour; its shape is {shape}. Split"):
        slide_of(layer(np.zeros(shape, np.uint8), rgb=rgb))


@pytest.fixture
def found():
    """What a network that makes no mistakes finds in a smear."""
    sizes = {"image_size": 96, "red_cell_diameter": 16, "white_cells": (1, 2)}
    smears = make_smears(1, **sizes, random_state=0)
    confidence = np.full((96, 96), 255, np.uint8)
    return Segmented("smear", smears.images[0], smears.masks[0], confidence, pixel_size=0.5)


def test_what_was_found_lies_where_the_image_lies(found):
    place = place_of(layer(found.image, units=MICROMETRE, scale=(0.5, 0.5)))
    assert set(place) == {"scale", "translate", "rotate", "shear", "affine", "units"}
    (class_map, of_classes, kind), (cells, of_cells, also) = layers_of(found, place)
    assert kind == also == "labels"
    assert np.array_equal(class_map, found.class_map)
    assert np.array_equal(cells, found.cells().labels)
    assert (of_classes["name"], of_cells["name"]) == ("smear: classes", "smear: cells")
    for properties in (of_classes, of_cells):
        assert {name: properties[name] for name in place} == place


def test_cells_have_their_measurements_and_the_colour_of_their_class(found):
    (_, of_classes, _), (labels, of_cells, _) = layers_of(found, {})
    features = of_cells["features"]
    assert features["index"].tolist() == list(range(1, labels.max() + 1))
    assert features["diameter"].tolist() == found.measure()["diameter"].tolist()
    assert not {"image", "doubts", "label"} & set(features)
    orange, blue = (230 / 255, 159 / 255, 0, 1), (0, 114 / 255, 178 / 255, 1)
    assert of_classes["colormap"] == {None: "transparent", 1: blue, 2: orange}
    assert of_classes["features"].to_numpy().tolist() == [
        [0, "background"],
        [1, "white"],
        [2, "red"],
    ]
    named = features.set_index("index")["class"].map({"white": blue, "red": orange})
    assert len(set(named)) == 2
    assert of_cells["colormap"] == {None: "transparent", **named.to_dict()}


def test_counts_in_words():
    row = {"white": 1, "red": 0, "confidence": 0.5, "doubts": ""}
    assert in_text(row, ("background", "white", "red")) == (
        "1 white cell\n0 red cells\nMean confidence: 0.500"
    )
    row |= {"red_per_mm2": 4321.7, "white_per_mm2": float("nan"), "doubts": "dark; grey"}
    assert in_text(row, ("background", "white", "red")).splitlines() == [
        *("1 white cell", "0 red cells, 4,322 per mm²"),
        *("Mean confidence: 0.500", "In doubt: dark; grey"),
    ]


def test_a_model_file_and_its_parameters(fitted, smears, tmp_path):
    file = tmp_path / "mine.safetensors"
    fitted.save(file)
    slide = slide_of(layer(smears.images[0]))
    text, layers = count_and_measure(slide, str(file), {"opacity": 0.5}, pixel_size=0.5)
    (row,) = fitted.set_params(pixel_size=0.5).count(smears.images[:1]).to_dict("records")
    assert text == in_text(row, fitted.class_names_)
    assert "per mm²" in text
    assert np.array_equal(layers[0][0], fitted.predict(smears.images[:1])[0])
    assert layers[1][1]["opacity"] == 0.5
    with raises("name must be that of a published model, one of smears-5, a model file, or"):
        count_and_measure(slide, "nothing", {})


def test_there_is_a_smear_to_try_it_on():
    ((image, properties, kind),) = draw_smear()
    assert (image.shape, image.dtype, kind) == ((512, 512, 3), np.uint8, "image")
    assert properties["rgb"]
