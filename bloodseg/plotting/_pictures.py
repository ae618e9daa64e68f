"""Pictures of results: cells outlined on their image, and the sheet that `bloodseg demo` draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .._images import (
    CLASS_NAMES,
    NOT_LABELLED,
    colours_of,
    in_words,
    shades,
    to_bytes,
)

if TYPE_CHECKING:
    from ..prediction import Segmented

_COLOUR_NAMES = {
    (0, 114, 178): "blue",
    (230, 159, 0): "orange",
    (0, 158, 115): "green",
    (86, 180, 233): "sky blue",
    (213, 94, 0): "vermilion",
    (240, 228, 66): "yellow",
}

MISSED = (204, 121, 167)
"""Colour of what was taken for background, beside the cells' own (Okabe and Ito's purple)."""

_FILL = 0.22
_SINGLE_CELLS = 2**24  # pixels; in larger images cells that touch share an outline
_PAPER, _INK, _GREY = (255, 255, 255), (32, 32, 36), (110, 110, 116)
_BACKGROUND = (240, 240, 243)  # of label maps


def legend(classes: Sequence[str] = CLASS_NAMES) -> str:
    """Return in words which colour stands for which cells."""
    parts = []
    for name, rgb in colours_of(classes).items():
        colour = _COLOUR_NAMES.get(rgb) or "rgb({}, {}, {})".format(*rgb)
        parts.append(f"{colour}: {in_words(name)}")
    return ", ".join(parts)


def overlay(
    image: np.ndarray,
    mask: np.ndarray,
    cells: np.ndarray | None = None,
    *,
    classes: Sequence[str] = CLASS_NAMES,
) -> np.ndarray:
    """Return the image with its cells tinted and outlined, a dark line with a light edge inside.

    One of the two stands out from whatever the stain made of a cell: the dark line from red cells
    and glass, the light edge from nuclei, by a contrast [1]_ of more than 3 : 1. Both have the hue
    of the class.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3)
        uint8, or floating point in [0, 1].
    mask : ndarray of shape (H, W)
        Labels, places in ``classes``.
    cells : ndarray of shape (H, W), optional
        A number for each cell; without it, cells that touch share an outline.
    classes : sequence of str
        Names of the labels.

    Returns
    -------
    ndarray of shape (H, W, 3), uint8

    References
    ----------
    .. [1] W3C, Web Content Accessibility Guidelines 2.2, Success Criterion 1.4.11.
    """
    picture = to_bytes(image).astype(np.float32)
    thickness = -(-min(mask.shape) // 250)  # in large images one pixel would not be seen
    numbers = mask if cells is None else cells
    distance = _distance_to_others(numbers)
    for label, colour in enumerate(colours_of(classes).values(), start=1):
        found = mask == label
        dark, light = shades(colour)
        picture[found] += _FILL * (np.array(colour, np.float32) - picture[found])
        picture[found & (distance <= 2 * thickness)] = light
        picture[found & (distance <= thickness)] = dark
    return (picture + 0.5).astype(np.uint8)


def overlay_of(found: Segmented, image: np.ndarray) -> np.ndarray:
    """Return an image with the cells found in it, each outlined unless there are too many pixels.

    Parameters
    ----------
    found : Segmented
        What was found.
    image : ndarray of shape (H, W, 3)
        The same image as RGB, in memory.

    Returns
    -------
    ndarray of shape (H, W, 3), uint8
    """
    mask = found.class_map[:]
    cells = found.cells().labels if mask.size <= _SINGLE_CELLS else None
    return overlay(image, mask, cells, classes=found.classes)


def _distance_to_others(numbers: np.ndarray) -> np.ndarray:
    """Return in how many steps up, down and sideways a pixel of another number is reached."""
    edge = np.zeros(numbers.shape, bool)
    for before, after in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differ = numbers[before] != numbers[after]
        edge[before] |= differ
        edge[after] |= differ
    return cv2.distanceTransform((~edge).astype(np.uint8), cv2.DIST_L1, 3) + 1


def coloured(mask: np.ndarray, *, classes: Sequence[str] = CLASS_NAMES) -> np.ndarray:
    """Return a label map as a picture (H, W, 3), uint8."""
    palette = np.full((NOT_LABELLED + 1, 3), _GREY, np.uint8)
    palette[: len(classes)] = [_BACKGROUND, *colours_of(classes).values()]
    return palette[mask]


def difference(
    image: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    *,
    classes: Sequence[str] = CLASS_NAMES,
) -> np.ndarray:
    """Return the image in pale grey, wrong pixels in the colour of what they were taken for.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3)
        uint8, or floating point in [0, 1].
    truth, predicted : ndarray of shape (H, W)
        Labels, places in ``classes``; 255 in the truth is not known.
    classes : sequence of str
        Names of the labels.

    Returns
    -------
    ndarray of shape (H, W, 3), uint8
    """
    grey = to_bytes(image).mean(axis=2, keepdims=True)
    picture = np.repeat(128 + grey / 2, 3, axis=2).astype(np.uint8)
    palette = np.array([MISSED, *colours_of(classes).values()], np.uint8)
    wrong = (truth != predicted) & (truth != NOT_LABELLED)
    picture[wrong] = palette[predicted[wrong]]
    return picture


def sheet(
    rows: Sequence[Sequence[np.ndarray]],
    *,
    titles: Sequence[str],
    captions: Sequence[str],
    heading: str,
    subheading: str,
) -> np.ndarray:
    """Draw rows of pictures of one size, with titles above the columns and a legend.

    Parameters
    ----------
    rows : sequence of sequences of ndarray of shape (H, W, 3)
        The pictures, uint8 or floating point in [0, 1].
    titles : sequence of str
        One a column.
    captions : sequence of str
        One a row, below its last picture.
    heading, subheading : str
        Lines above everything.

    Returns
    -------
    ndarray of shape (height, width, 3), uint8
    """
    height, width = rows[0][0].shape[:2]
    unit = max(width // 16, 4)  # type and gaps grow with the pictures
    gap, line, margin = unit, 2 * unit, 2 * unit
    top = margin + 5 * unit + 2 * unit
    size = (
        2 * margin + len(titles) * (width + gap) - gap,
        top + len(rows) * (height + line) + 3 * unit,
    )
    paper = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(paper)
    large, medium, small = (ImageFont.load_default(unit * k / 8) for k in (14, 9, 8))
    draw.text((margin, margin), heading, _INK, large)
    draw.text((margin, margin + 2.4 * unit), subheading, _GREY, medium)
    lefts = [margin + column * (width + gap) for column in range(len(titles))]
    for left, title in zip(lefts, titles, strict=True):
        draw.text((left, top - 0.6 * unit), title, _INK, medium, anchor="ls")
    for index, (pictures, caption) in enumerate(zip(rows, captions, strict=True)):
        y = top + index * (height + line)
        for left, picture in zip(lefts, pictures, strict=True):
            paper.paste(Image.fromarray(to_bytes(picture)), (left, y))
        right = (lefts[-1] + width, y + height + 0.5 * unit)
        draw.text(right, caption, _GREY, small, anchor="rt")
    _draw_legend(draw, (margin, size[1] - 3 * unit), unit, medium)
    return np.asarray(paper)


def _draw_legend(draw: ImageDraw.ImageDraw, at: tuple[int, int], unit: int, font: Any) -> None:
    left, top = at
    for name, colour in colours_of(CLASS_NAMES).items():
        draw.rectangle((left, top, left + unit, top + unit), colour)
        label = in_words(name)
        draw.text((left + 1.6 * unit, top + unit / 2), label, _INK, font, anchor="lm")
        left += round(1.6 * unit + draw.textlength(label, font) + 2 * unit)
