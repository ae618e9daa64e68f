"""The panel in napari that counts and measures the cells of an image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..models import list_models
from ._layers import LayerData, in_text, layers_of, place_of, slide_of

if TYPE_CHECKING:
    from ..datasets import Slide

_LINE = 250  # outlines are one pixel wide for each of so many of an image's shorter side


def make_widget() -> Any:
    """Return the panel: an image and a model to choose, a button, and what was found in words.

    The work is done in a thread of its own, so that the window stays alive; its layers come when it
    is done.

    Returns
    -------
    magicgui.widgets.Container
    """
    from magicgui.widgets import (
        Container,
        FileEdit,
        FloatSpinBox,
        PushButton,
        TextEdit,
        create_widget,
    )
    from napari import current_viewer
    from napari.qt.threading import create_worker

    viewer = current_viewer()
    image = create_widget(
        name="image", annotation="napari.layers.Image", options={"tooltip": "A picture of a smear."}
    )
    model = FileEdit(
        name="model",
        value=list_models()[0],
        filter="*.safetensors",
        tooltip="A published model, a model file, or OWNER/NAME on the Hugging Face hub.",
    )
    diameter = FloatSpinBox(
        name="red_cell_diameter",
        label="red cell diameter",
        max=1000,
        tooltip="In pixels; 0: as the model takes it. The published ones measure it in each image.",
    )
    size = FloatSpinBox(
        name="pixel_size",
        label="pixel size (µm)",
        max=1000,
        step=0.0001,
        tooltip="Side of a pixel in micrometres; 0: as the layer's scale and unit say.",
    )
    button = PushButton(name="count", text="Count and measure")
    answer = TextEdit(name="answer", label=" ", value="")
    answer.read_only = True

    def start() -> None:
        layer = image.value
        if layer is None:
            answer.value = "Open an image first, and choose it above."
            return
        try:
            slide = slide_of(layer)
        except ValueError as error:
            answer.value = str(error)
            return
        parameters = {each.name: each.value for each in (diameter, size) if each.value}
        button.enabled = False
        answer.value = f"Looking at {layer.name} ..."

        def show(found: tuple[str, list[LayerData]]) -> None:
            text, layers = found
            for labels, properties, _ in layers:
                shown = viewer.add_labels(labels, **properties)
            shown.contour = math.ceil(min(labels.shape) / _LINE)  # of the cells, which come last
            answer.value = f"{layer.name}\n{text}"

        def fail(error: Exception) -> None:
            answer.value = f"{layer.name} could not be counted: {error}"

        worker = create_worker(
            count_and_measure,
            *(slide, str(model.value), place_of(layer)),
            _ignore_errors=True,  # they are shown
            _progress=True,
            **parameters,
        )
        worker.returned.connect(show)
        worker.errored.connect(fail)
        worker.finished.connect(lambda: setattr(button, "enabled", True))
        worker.start()

    button.changed.connect(start)
    return Container(widgets=[image, model, diameter, size, button, answer])


def count_and_measure(
    slide: Slide, model: str, place: Mapping[str, Any], **parameters: Any
) -> tuple[str, list[LayerData]]:
    """Return what is found in an image, in words and as layers.

    Parameters
    ----------
    slide : Slide
        The image.
    model : str
        What `BloodCellSegmenter.from_pretrained` takes.
    place : mapping
        Where the image lies in the window.
    **parameters
        Parameters of prediction to set.
    """
    from ..estimators import BloodCellSegmenter  # here, in the thread: torch takes seconds

    segmenter = BloodCellSegmenter.from_pretrained(model, **parameters)
    (found,) = segmenter.segment([slide])
    return in_text(found.count(), found.classes), layers_of(found, place)
