"""Measurements of single cells, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from scipy import ndimage
from skimage.filters import threshold_otsu

from .._images import RED, WHITE, check_images, mask_of, to_rgb
from ._blocks import KeptBlocks
from ._frame import EXCLUDED_SIDES, SIDES
from ._instances import Cells, counted_in, mean_confidence, sides_touched
from ._shapes import CROSS, distance_inside

if TYPE_CHECKING:
    import pandas as pd

_Places = list[tuple[slice, slice]]

_LENGTHS = ("diameter", "perimeter")
_AREAS = ("area", "nucleus_area")
_PIXEL_SIZES = 1e-3, 1e3  # micrometres; of what is far beyond, areas are no numbers
_RIM, _CENTRE = (0.15, 0.5), 2 / 3  # depths in a red cell, of its deepest pixel's
_LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # brightness, as for the Preprocessor


def measure_cells(
    cells: Cells, image: Any = None, *, pixel_size: float | None = None, outlines: bool = False
) -> pd.DataFrame:
    """Measure the single cells of an image.

    Parameters
    ----------
    cells : Cells
        What `find_cells` or ``BloodCellSegmenter.predict_instances`` found.
    image : ndarray of shape (H, W, 3), optional
        The image, uint8 or floating point in [0, 1]; without it there are no colours, pallor and
        nuclei.
    pixel_size : float, optional
        Side of a pixel in micrometres. Sizes are in pixels without it.
    outlines : bool
        Add the column ``outline``, which `to_geojson` and `to_coco` need.

    Returns
    -------
    DataFrame
        One row a cell, in the order of its labels:

        label
            Of the cell in ``cells.labels``.
        class
            Its name, as "white" or "red".
        area, diameter, perimeter
            In square pixels and pixels, or square micrometres and micrometres. The diameter is
            that of a disc of the same area.
        circularity
            4 pi area / perimeter**2, cut off at 1: 1 for a disc, 0.785 for a square.
        eccentricity, orientation
            Of the ellipse of the same second moments. In [0, 1), 0 is a disc; and the angle in
            radians from the row axis to the major axis, in [-pi/2, pi/2], as in scikit-image.
        top, left, bottom, right
            Bounding box in pixels, bottom and right excluded.
        centroid_y, centroid_x
            In pixels.
        mean_red, mean_green, mean_blue
            Mean colour, each in [0, 1].
        pallor
            Of red cells: brightness of the middle third over that of the rim. About 1 without
            a central pallor, more with it.
        nucleus_area, nc_ratio
            Of white cells: area of the nucleus, where Otsu's threshold finds red light absorbed,
            and that over the area of the cytoplasm.
        confidence
            Mean probability of the cell's pixels for their class, in [0, 1].
        touches_border, touches_top, touches_left, touches_bottom, touches_right
            Whether the border of the picture cuts the cell, so that its sizes are too small; and at
            which sides.
        in_frame
            Whether the cell counts in the `CountingFrame`, in which densities and the ratios of
            classes do not depend on the size of the image.
        unit
            "px" or "um": what lengths are in.
        outline
            ndarray of shape (k, 2): corners (x, y) of the outline in pixels.

    Raises
    ------
    ValueError
        If an argument is not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from bloodseg.cells import find_cells, measure_cells
    >>> y, x = np.mgrid[:80, :80]
    >>> disc = (y - 40) ** 2 + (x - 40) ** 2 < 30**2
    >>> table = measure_cells(find_cells(2 * disc), pixel_size=0.1)
    >>> table[["class", "diameter", "unit"]].round(1).values.tolist()
    [['red', 6.0, 'um']]
    """
    check_pixel_size(pixel_size)
    pixels = None
    if image is not None:
        (pixels,) = check_images([np.asarray(image)], name="image")
        if pixels.shape[:2] != cells.labels.shape:
            raise ValueError(
                f"image must have the cells' size {cells.labels.shape}; got {pixels.shape[:2]}."
            )
    table = _measured(cells.labels, cells.classes, cells.class_names, pixels, outlines=outlines)
    _place(table, cells.scores, cells.sides, cells.in_frame)
    return _finished([table], cells.class_names, pixel_size)


def check_pixel_size(pixel_size: Any) -> None:
    """Raise where this is no side of a pixel in micrometres."""
    if pixel_size is None:
        return
    number = isinstance(pixel_size, Real) and not isinstance(pixel_size, bool)
    if not number or not _PIXEL_SIZES[0] <= pixel_size <= _PIXEL_SIZES[1]:
        raise ValueError(
            "pixel_size must be the side of a pixel in micrometres, from {:g} to {:g}, or None "
            "where it is not known; got {!r}.".format(*_PIXEL_SIZES, pixel_size)
        )


def measure_blocks(
    blocks: KeptBlocks,
    confidence: Any,
    image: Any,
    *,
    excluded_sides: Sequence[str] = EXCLUDED_SIDES,
    pixel_size: float | None = None,
    outlines: bool = False,
) -> pd.DataFrame:
    """Measure the cells of a class map of any size, reading it and the image block by block.

    The rows are in the order of `Cells.labels`.
    """
    frame = blocks.frame(excluded_sides)
    tables = []
    for block in blocks:
        if not block.owned.any():
            continue
        rows, columns = block.window
        table = _measured(
            block.owned_labels,
            block.split.classes[block.owned],
            blocks.classes,
            np.asarray(image[block.window]),
            origin=(rows.start, columns.start),
            outlines=outlines,
        )
        sides = sides_touched(block, blocks)
        _place(table, mean_confidence(block, confidence), sides, counted_in(frame, block))
        seeds = block.split.seeds[block.owned]
        table["seed_y"], table["seed_x"] = seeds.T
        tables.append(table)
    if not tables:  # the columns are there all the same
        no_cells, pixel = np.zeros((1, 1), np.int32), np.zeros((1, 1, 3), np.uint8)
        no_classes = np.empty(0, np.uint8)
        nothing = _measured(no_cells, no_classes, blocks.classes, pixel, outlines=outlines)
        _place(nothing, np.empty(0, np.float32), np.empty((0, 4), bool), np.empty(0, bool))
        tables = [nothing]
    return _finished(tables, blocks.classes, pixel_size)


def _place(
    table: pd.DataFrame, scores: np.ndarray, sides: np.ndarray, in_frame: np.ndarray
) -> None:
    """Add what is known of cells beside their shapes and colours, see `Cells`."""
    table["confidence"] = scores
    table["touches_border"] = sides.any(axis=1)
    for name, touched in zip(SIDES, sides.T, strict=True):
        table[f"touches_{name}"] = touched
    table["in_frame"] = in_frame


def _finished(
    tables: list[pd.DataFrame], names: Sequence[str], pixel_size: float | None
) -> pd.DataFrame:
    """Join the tables of blocks, number the cells and turn pixels into micrometres."""
    import pandas as pd

    table = pd.concat(tables, ignore_index=True)
    if "seed_y" in table:
        label = table["class"].map(names.index).to_numpy(int)
        order = np.lexsort([table["seed_x"], table["seed_y"], label])
        table = table.iloc[order].drop(columns=["seed_y", "seed_x"]).reset_index(drop=True)
    table["label"] = np.arange(1, len(table) + 1)
    scale = 1.0 if pixel_size is None else float(pixel_size)
    for columns, factor in ((_LENGTHS, scale), (_AREAS, scale**2)):
        for name in table.columns.intersection(columns):
            table[name] *= factor
    table["unit"] = "px" if pixel_size is None else "um"
    if "outline" in table:
        table["outline"] = table.pop("outline")  # last: it is the longest
    return table


def _measured(
    labels: np.ndarray,
    classes: np.ndarray,
    names: Sequence[str],
    image: np.ndarray | None,
    *,
    origin: tuple[int, int] = (0, 0),
    outlines: bool = False,
) -> pd.DataFrame:
    """Return a table of the cells 1 to n, in pixels."""
    import pandas as pd

    from ._export import outlines_of

    places = ndimage.find_objects(labels)
    insides = [labels[place] == number for number, place in enumerate(places, start=1)]
    geometry = _geometry(places, insides)
    columns: dict[str, Any] = {
        "label": np.arange(1, len(classes) + 1),
        "class": np.array(names, dtype=object)[classes],
    }
    columns |= geometry
    perimeter = np.maximum(geometry["perimeter"], 1e-6)
    circularity = np.minimum(4 * np.pi * geometry["area"] / perimeter**2, 1)
    for name in ("top", "bottom", "centroid_y"):
        columns[name] = columns[name] + origin[0]
    for name in ("left", "right", "centroid_x"):
        columns[name] = columns[name] + origin[1]
    if image is not None:
        columns |= _looks(labels, places, insides, classes, names, geometry["area"], image)
    table = pd.DataFrame(columns)
    table.insert(table.columns.get_loc("perimeter") + 1, "circularity", circularity)
    if outlines:
        table["outline"] = pd.Series(outlines_of(labels, len(classes), origin), dtype=object)
    return table


def _geometry(places: _Places, insides: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return size, shape and place of cells, as scikit-image's `regionprops` does.

    That takes several times as long, for it sums up moments by general means. ``insides`` says of
    each place which of its pixels are the cell's.
    """
    corners = np.array(
        [[rows.start, columns.start, rows.stop, columns.stop] for rows, columns in places], int
    ).reshape(-1, 4)
    perimeters, moments = [], []
    for inside in insides:
        pixels = inside.astype(np.uint8)
        perimeters.append(_perimeter(pixels))
        found = cv2.moments(pixels, binaryImage=True)
        moments.append([found[key] for key in ("m00", "m01", "m10", "mu02", "mu11", "mu20")])
    area, m01, m10, mu02, mu11, mu20 = np.reshape(moments, (-1, 6)).T
    longer = np.hypot(mu20 - mu02, 2 * mu11)
    axis = np.maximum(mu20 + mu02 + longer, np.finfo(float).tiny)  # 0 of a single pixel
    return {
        "area": area,
        "diameter": np.sqrt(4 * area / np.pi),
        "perimeter": np.array(perimeters, float),
        "eccentricity": np.sqrt(2 * longer / axis),
        "orientation": np.arctan2(2 * mu11, mu02 - mu20) / 2,
        "top": corners[:, 0],
        "left": corners[:, 1],
        "bottom": corners[:, 2],
        "right": corners[:, 3],
        "centroid_y": corners[:, 0] + m01 / area,
        "centroid_x": corners[:, 1] + m10 / area,
    }


def _perimeter(inside: np.ndarray) -> float:
    """Return Crofton's estimate: how often lines in four directions cross the outline."""
    framed = cv2.copyMakeBorder(inside, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    straight = np.count_nonzero(framed[1:] != framed[:-1])
    straight += np.count_nonzero(framed[:, 1:] != framed[:, :-1])
    diagonal = np.count_nonzero(framed[1:, 1:] != framed[:-1, :-1])
    diagonal += np.count_nonzero(framed[1:, :-1] != framed[:-1, 1:])
    return float(np.pi / 8 * (straight + diagonal / np.sqrt(2)))


def _looks(
    labels: np.ndarray,
    places: _Places,
    insides: Sequence[np.ndarray],
    classes: np.ndarray,
    names: Sequence[str],
    areas: np.ndarray,
    image: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return what the colours tell: mean colour, pallor of red cells, nucleus of white ones."""
    rgb = to_rgb(image)
    n_cells = len(classes)
    means = np.zeros((n_cells, 3))
    nucleus = np.full(n_cells, np.nan)
    red, white = (mask_of(classes, names, name) for name in (RED, WHITE))
    for index, (place, inside) in enumerate(zip(places, insides, strict=True)):
        pixels = rgb[place]
        means[index] = _mean_colour(pixels, inside)
        if white[index]:
            nucleus[index] = _nucleus_area(pixels[..., 0], inside)
    means /= 255 if rgb.dtype == np.uint8 else 1
    columns = dict(zip(("mean_red", "mean_green", "mean_blue"), means.T, strict=True))
    with np.errstate(divide="ignore"):
        nc_ratio = nucleus / (areas - nucleus)
    boxes = [place if is_red else None for place, is_red in zip(places, red, strict=True)]
    pallor = _pallor(labels, n_cells, rgb, boxes)
    return columns | {"pallor": pallor, "nucleus_area": nucleus, "nc_ratio": nc_ratio}


def _mean_colour(rgb: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    return np.array(cv2.mean(rgb, chosen.astype(np.uint8))[:3])


def _pallor(
    labels: np.ndarray,
    n_cells: int,
    rgb: np.ndarray,
    boxes: Sequence[tuple[slice, slice] | None] | None = None,
) -> np.ndarray:
    """Return brightness of the middle over that of the rim, for each cell; NaN without a box."""
    pallor = np.full(n_cells, np.nan)
    for index, box in enumerate(boxes or ndimage.find_objects(labels, n_cells)):
        if box is not None:
            around = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
            pallor[index] = _pallor_of(rgb[around], labels[around] == index + 1)
    return pallor


def _pallor_of(rgb: np.ndarray, inside: np.ndarray) -> float:
    """Return the same for one cell; NaN where it has no middle or no rim.

    What surrounds the cell is to be seen, but not beyond the border of the image.
    """
    inner = cv2.erode(inside.astype(np.uint8), CROSS, borderValue=1) > 0
    depth = distance_inside(inner, sum(inside.shape))
    relative = depth / max(depth.max(), np.float32(1))
    rim = (relative >= _RIM[0]) & (relative <= _RIM[1])
    if not rim.any():
        return np.nan
    middle, beside = (
        _mean_colour(rgb, part) @ _LUMA_WEIGHTS for part in (relative >= _CENTRE, rim)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(middle / beside)


def _nucleus_area(red_light: np.ndarray, inside: np.ndarray) -> float:
    """Return the pixels of a white cell that absorb red light, as its nucleus's stain does."""
    values = red_light[inside]
    if values.min() == values.max():
        return float(len(values))
    return float(np.count_nonzero(values <= threshold_otsu(values)))
