"""From a layer of napari to an image that can be predicted, and from what was found to layers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .._images import CLASS_NAMES, colours_of, counted_cells
from ..datasets import Slide, in_micrometres, make_smears, pixel_sides

if TYPE_CHECKING:
    import pandas as pd

    from ..prediction import Segmented

LayerData: TypeAlias = tuple[Any, dict[str, Any], str]
"""What napari makes a layer of: data, the layer's properties, its kind."""

_PLACE = ("scale", "translate", "rotate", "shear", "affine", "units")  # of a layer in the window
_TINT = 0.25  # opacity of class maps


def slide_of(layer: Any) -> Slide:
    """Return the image of a layer, whose rows are read when they are wanted.

    Parameters
    ----------
    layer : napari.layers.Image
        One picture: grey, RGB or RGBA. Of a pyramid the finest level is taken.

    Raises
    ------
    ValueError
        If it is a stack.
    """
    data = layer.data[0] if layer.multiscale else layer.data
    shape = tuple(data.shape)
    if len(shape) != 2 + layer.rgb:
        raise ValueError(
            f"the layer {layer.name!r} must be one picture, grey or in colour; its shape is "
            f"{shape}. Split the stack and choose one of its layers, or open a stack of three "
            "channels as RGB."
        )

    def read(rows: slice, columns: slice) -> np.ndarray:
        pixels = np.asarray(data[rows, columns])
        return pixels if layer.rgb else pixels[..., np.newaxis]

    n_channels = shape[2] if layer.rgb else 1
    return Slide(read, (*shape[:2], n_channels), data.dtype, _sides_of(layer), layer.name)


def _sides_of(layer: Any) -> tuple[float, float] | None:
    """Return height and width of a layer's pixels in micrometres; None where its unit is none."""
    sides = zip(layer.scale[-2:], layer.units[-2:], strict=True)
    return pixel_sides(*(in_micrometres(abs(scale), str(unit)) for scale, unit in sides))


def place_of(layer: Any) -> dict[str, Any]:
    """Return where a layer lies in the window, for layers of what was found in it."""
    return {name: getattr(layer, name) for name in _PLACE}


def place_at(sides: tuple[float, float] | None) -> dict[str, Any]:
    """Return where pixels of this height and width, in micrometres, lie in the window."""
    return {} if sides is None else {"scale": sides, "units": ("micrometer", "micrometer")}


def layers_of(found: Segmented, place: Mapping[str, Any]) -> list[LayerData]:
    """Return what was found in an image as layers: a tint for classes, and its cells.

    Parameters
    ----------
    found : Segmented
        What was found.
    place : mapping
        As `place_of` or `place_at` gives it.

    Returns
    -------
    list of LayerData
        The class map, and the single cells with a row of measurements each.
    """
    name, classes = found.name, found.classes
    cells = found.cells().labels
    return [
        class_layer(f"{name}: classes", found.class_map[:], classes, place),
        cell_layer(f"{name}: cells", cells, place, classes=classes, table=found.measure()),
    ]


def class_layer(
    name: str, class_map: Any, classes: Sequence[str], place: Mapping[str, Any]
) -> LayerData:
    """Return a class map as a layer, tinted in the colours of its classes."""
    import pandas as pd

    features = pd.DataFrame({"index": range(len(classes)), "class": classes})
    colours: dict[int | None, Any] = dict(enumerate(rgba_of(classes).values(), start=1))
    properties = {
        "name": name,
        "colormap": {**colours, None: "transparent"},
        "features": features,
        "opacity": _TINT,
        **place,
    }
    return class_map, properties, "labels"


def cell_layer(
    name: str,
    labels: Any,
    place: Mapping[str, Any],
    *,
    classes: Sequence[str] = CLASS_NAMES,
    table: pd.DataFrame | None = None,
) -> LayerData:
    """Return single cells as a layer; with a table, in the colours of their classes."""
    properties: dict[str, Any] = {"name": name, **place}
    if table is not None:
        colours = rgba_of(classes)
        of_cells = {
            int(label): colours[of]
            for label, of in zip(table["label"], table["class"], strict=True)
        }
        features = table.drop(columns=["image", "doubts"], errors="ignore")
        properties["colormap"] = {None: "transparent", **of_cells}
        properties["features"] = features.rename(columns={"label": "index"})
    return labels, properties, "labels"


def rgba_of(classes: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Return the colour of each class of cells in [0, 1], by name."""
    colours = colours_of(classes)
    return {name: (*(value / 255 for value in rgb), 1.0) for name, rgb in colours.items()}


def in_text(row: Mapping[str, Any], classes: Sequence[str]) -> str:
    """Return a row of the table of counts in words, a line for each thing.

    Examples
    --------
    >>> from bloodseg.napari._layers import in_text
    >>> row = {"white": 2, "red": 118, "confidence": 0.961, "doubts": "out of focus"}
    >>> print(in_text(row, ("background", "white", "red")))
    2 white cells
    118 red cells
    Mean confidence: 0.961
    In doubt: out of focus
    """
    lines = []
    for name in classes[1:]:
        density = row.get(f"{name}_per_mm2", math.nan)
        per_area = "" if math.isnan(density) else f", {density:,.0f} per mm²"
        lines.append(f"{counted_cells(row[name], name)}{per_area}")
    lines.append(f"Mean confidence: {row['confidence']:.3f}")
    if row["doubts"]:
        lines.append(f"In doubt: {row['doubts']}")
    return "\n".join(lines)


def draw_smear() -> list[LayerData]:
    """Return a drawn smear, to try the plugin on."""
    smears = make_smears(1, image_size=512, white_cells=(2, 3), random_state=0)
    return [(smears.images[0], {"name": "drawn smear", "rgb": True}, "image")]
