"""What a notebook shows of cells: their outlines, over the photo where it is known, and counts."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from itertools import compress

import cv2
import numpy as np

from .._images import colours_of, in_css, in_words, shades
from ._export import svg_path

SHOWN_SIDE = 360
"""Longest side of the picture in pixels."""

MOST_OUTLINED = 3000  # cells: more would make notebooks slow to open, and not be told apart


def to_html(
    heading: str,
    outlines: Sequence[np.ndarray],
    names: Sequence[str],
    *,
    shape: tuple[int, int],
    counts: Mapping[str, int],
    classes: Sequence[str],
    photo: np.ndarray | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return cells as HTML that needs nothing else; all texts are escaped.

    Parameters
    ----------
    heading : str
        What the image is.
    outlines : sequence of ndarray of shape (k, 2)
        Corners (x, y) of each cell, in pixels of the image; of more than `MOST_OUTLINED` cells
        none are looked at.
    names : sequence of str
        Class of each cell.
    shape : (int, int)
        Height and width of the image.
    counts : mapping of str to int
        Number of cells of each class.
    classes : sequence of str
        Names of the labels.
    photo : ndarray of shape (h, w, 3), uint8, optional
        The image, or a smaller copy.
    notes : sequence of str
        Lines below, such as doubts.
    """
    height, width = shape
    scale = min(SHOWN_SIDE / max(height, width), 4)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width * scale:.0f}" '
        f'height="{height * scale:.0f}" style="background: #f0f0f3">'
    ]
    if photo is not None:
        parts.append(f'<image href="{embed(_to_jpeg(photo))}" width="{width}" height="{height}"/>')
    if len(names) <= MOST_OUTLINED:
        opacity = 0 if photo is not None else 0.5
        for name, colour in colours_of(classes).items():
            chosen = compress(outlines, (each == name for each in names))
            path = "".join(map(svg_path, chosen))
            dark, light = map(in_css, shades(colour))
            style = f'fill="{in_css(colour)}" vector-effect="non-scaling-stroke"'
            parts += [
                f'<path d="{path}" {style} fill-opacity="0" stroke="{light}" stroke-width="2.5"/>',
                f'<path d="{path}" {style} fill-opacity="{opacity}" stroke="{dark}" '
                'stroke-width="1"/>',
            ]
    else:
        notes = [*notes, f"Too many cells to outline here: {len(names)}."]
    numbers = ", ".join(f"{in_words(name)}: {count}" for name, count in counts.items())
    lines = [
        f"<b>{html.escape(heading)}</b>",
        f"{height} &times; {width} pixels",
        html.escape(numbers),
    ]
    lines += map(html.escape, notes)
    return f"<div>{''.join(parts)}</svg><div>{'<br>'.join(filter(None, lines))}</div></div>"


def embed(picture: bytes | None) -> str:
    """Return a JPEG file as the address that it has in the page."""
    return "data:image/jpeg;base64," + base64.b64encode(picture or b"").decode()


def _to_jpeg(photo: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", cv2.cvtColor(photo, cv2.COLOR_RGB2BGR))[1].tobytes()
