"""Scale bars and writing that a program has burnt into an image.

They are of one pure colour (black, white, or full red, green, blue and their pairs), of the
amber in which cameras stamp dates, or of a green that JPEG has made dull, stand out sharply from
what is around them, and are straight bars, or glyphs in a row. Nothing in a stained smear is all of
that: glass that is burnt out ends softly, nuclei are blue, and nothing takes away all blue light
but hardly any red, or both far more than green.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

_LOW, _HIGH = 40, 225  # levels of 255, in each channel, that count as none and as all
_AMBER = 200, 80  # least of red and most of blue in it; smears have no such pixels (180, 100)
_GREENER = 60  # levels by which green is more than red and blue in it; of no smear by 60
_SHARP, _SHARP_SHARE = 45, 0.75  # levels by which surroundings differ, at this share of them
_BAR, _ASPECT, _STRAIGHT = 16, 4, 0.6  # pixels; long for wide; share of it that is full rows
_FULL = 0.95  # of its length that a full row has
_GLYPH = 5, 80  # pixels that writing is high
_LINE, _ALIKE, _GAP = 3, 0.35, 1.6  # glyphs in a row; by how much they differ; heights apart
_MOST = 0.05  # share of the image: more of a pure colour is glass or a picture that is clipped
_MIXED, _MOSTLY = 90, 0.5  # levels, and share of the way to what is behind: edges are mixed
_GREY = 45  # levels between the channels of what black and white are mixed with
_EDGE = 2  # pixels around a mark that its colour runs into


def find_marks(view: np.ndarray, seen: np.ndarray | None = None) -> np.ndarray | None:
    """Return which pixels are marks or their blurred edges, (H, W) bool; None where none are.

    Parameters
    ----------
    view : ndarray of shape (H, W, 3), uint8
        As `levels` gives it.
    seen : ndarray of shape (H, W), bool, optional
        What is picture; marks elsewhere are not looked for.
    """
    marks = np.zeros(view.shape[:2], bool)
    for of_colour, colour in _pure_colours(view, seen):
        if of_colour.mean() <= _MOST:
            _add_marks(marks, view, of_colour, colour)
    if not marks.any():
        return None
    return cv2.dilate(marks.astype(np.uint8), np.ones((2 * _EDGE + 1,) * 2, np.uint8)) > 0


def _pure_colours(
    view: np.ndarray, seen: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield where an image has each pure colour that is in it, and that colour."""
    low, high = view <= _LOW, view >= _HIGH
    pure = (low | high).all(axis=2)
    amber = (view[..., 0] >= _AMBER[0]) & (view[..., 2] <= _AMBER[1]) & ~pure
    # The difference is taken without signs, and is 0 where green is less.
    green = cv2.subtract(view[..., 1], view[..., ::2].max(axis=2)) >= _GREENER
    green &= ~pure
    if seen is not None:
        pure, amber, green = pure & seen, amber & seen, green & seen
    bits = np.zeros(pure.shape, np.uint8)
    bits[pure] = high[pure] @ np.array([1, 2, 4], np.uint8)
    for code in np.unique(bits[pure]):
        yield pure & (bits == code), np.array([255 if code & bit else 0 for bit in (1, 2, 4)])
    for dull in (amber, green):
        if dull.any():
            yield dull, np.median(view[dull], axis=0)


def paint_over(image: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Return an RGB image, uint8 or float32, whose marks are filled from what is around them."""
    is_8_bit = image.dtype == np.uint8
    colours = np.ascontiguousarray(image if is_8_bit else np.rint(255 * image).astype(np.uint8))
    colours = cv2.inpaint(colours, marks.astype(np.uint8), 3, cv2.INPAINT_TELEA)
    if is_8_bit:
        return colours
    painted = image.copy()  # OpenCV would need 8 bits; only what it fills has no more
    painted[marks] = colours[marks] / np.float32(255)
    return painted


def _add_marks(marks: np.ndarray, view: np.ndarray, pure: np.ndarray, colour: np.ndarray) -> None:
    """Add the bars and rows of glyphs of one colour, and what of it stands beside them."""
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(pure.astype(np.uint8), connectivity=8)
    left, top, width, height, area = stats.T
    possible = (area >= 4) & (np.minimum(width, height) <= _GLYPH[1])
    possible[0] = False
    glyphs = []
    for index in np.flatnonzero(possible):
        place = (
            slice(top[index], top[index] + height[index]),
            slice(left[index], left[index] + width[index]),
        )
        is_bar = _is_bar(numbers[place] == index)
        if not is_bar and not _GLYPH[0] <= height[index] <= _GLYPH[1]:
            continue
        if not _is_sharp(view, numbers, int(index), place, colour):
            continue
        if is_bar:
            marks[place] |= numbers[place] == index
            reach = int(max(0.6 * max(width[index], height[index]), 12))
            _add_beside(marks, view, place, (min(reach, _GLYPH[1]), reach // 2), colour)
        else:
            glyphs.append(index)
    for line in _lines(stats[glyphs]):
        place = (
            slice(line[:, 1].min(), (line[:, 1] + line[:, 3]).max()),
            slice(line[:, 0].min(), (line[:, 0] + line[:, 2]).max()),
        )
        high = int(np.median(line[:, 3]))
        _add_beside(marks, view, place, (high // 2, 2 * high), colour)


def _is_bar(mask: np.ndarray) -> bool:
    """Tell whether a part is a bar, perhaps with ticks at its ends."""
    for turned in (mask, mask.T):
        length = turned.shape[1]
        full = turned[turned.mean(axis=1) >= _FULL]
        is_long = length >= _BAR and 0 < _ASPECT * len(full) <= length
        if is_long and full.sum() >= _STRAIGHT * turned.sum():
            return True
    return False


def _is_sharp(
    view: np.ndarray,
    numbers: np.ndarray,
    index: int,
    place: tuple[slice, slice],
    colour: np.ndarray,
) -> bool:
    """Tell whether what is three pixels away from a part is clearly of another colour."""
    around = _grown(place, (4, 4), numbers.shape)
    mask = (numbers[around] == index).astype(np.uint8)
    near, far = (cv2.dilate(mask, np.ones((side, side), np.uint8)) for side in (5, 7))
    others = (far > near) & (numbers[around] == 0)
    if not others.any():
        return False
    distance = np.abs(view[around][others] - colour).max(axis=1)
    return bool((distance >= _SHARP).mean() >= _SHARP_SHARE)


def _grown(
    place: tuple[slice, slice], by: tuple[int, int], shape: tuple[int, ...]
) -> tuple[slice, slice]:
    rows, columns = (
        slice(max(each.start - more, 0), min(each.stop + more, length))
        for each, more, length in zip(place, by, shape, strict=False)
    )
    return rows, columns


def _add_beside(
    marks: np.ndarray,
    view: np.ndarray,
    place: tuple[slice, slice],
    by: tuple[int, int],
    colour: np.ndarray,
) -> None:
    """Add what is of about the same colour beside a mark and no larger than writing."""
    around = _grown(place, by, marks.shape)
    pixels = view[around].astype(np.int16)
    distance = np.abs(pixels - colour).max(axis=2)
    behind = np.abs(np.median(pixels, axis=(0, 1)) - colour).max()
    alike = distance <= min(_MIXED, _MOSTLY * behind)
    if np.ptp(colour) == 0:  # black and white mix to greys, which nuclei are not
        alike &= np.ptp(pixels, axis=2) <= _GREY
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(alike.astype(np.uint8), connectivity=8)
    small = (stats[:, cv2.CC_STAT_HEIGHT] <= _GLYPH[1]) | (stats[:, cv2.CC_STAT_WIDTH] <= _GLYPH[1])
    small[0] = False
    marks[around] |= small[numbers]


def _lines(stats: np.ndarray) -> list[np.ndarray]:
    """Return the glyphs (left, top, width, height, area) of each row of writing."""
    lines: list[list[np.ndarray]] = []
    for glyph in stats[np.argsort(stats[:, 0], kind="stable")]:
        for line in lines:
            left, top, width, height, _ = line[-1]
            high = max(height, glyph[3])  # capitals follow small letters, too
            level = abs(glyph[1] + glyph[3] - top - height) <= _ALIKE * high
            apart = glyph[0] - (left + width)
            if level and abs(glyph[3] - height) <= _ALIKE * high and apart <= _GAP * high:
                line.append(glyph)
                break
        else:
            lines.append([glyph])
    return [np.array(line) for line in lines if len(line) >= _LINE]
