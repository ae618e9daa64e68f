"""Pixels that are no picture: transparent ones, and what surrounds a round or framed picture.

A surround has one colour, reaches the border, and what it leaves over is convex, with a step of
colour at its edge: a disc, a rectangle, a square with its corners cut off. Glass between cells may
be burnt out to one colour, too; but it leaves over cells, which are not convex together.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from ._checks import to_rgb

_VIEW = 1024  # pixels a side, of which surrounds are found
_ALIKE, _ALIKE_DARK, _DARK = 6, 16, 40  # levels of 255 that one colour varies by; dark ones more
_BIN = 8  # levels
_CANDIDATES, _LEAST_BORDER = 3, 0.03  # colours tried, and the share of the border that they have
_LEAST = 0.004  # share of the image: a smaller surround is left as it is
_LEAST_PICTURE = 0.15  # share of the image
_SPANNED, _SPANNED_BRIGHT = 0.4, 0.75  # sides that the picture spans; cells on burnt-out glass less
_CONVEX = 0.9  # share of the picture's edge that lies on its convex hull
_ROUGH = 4  # pixels that it may lie inside of it: compression frays edges
_PURE = 0.6  # share of the surround that has its colour: the rest is writing
_STEP, _STEPS = 10, 0.8  # levels between surround and picture, at this share of the edge
_SOFT = 0.05  # of a side: the widest edge of a surround that is out of focus
_SETTLED = 0.75  # of the way from a surround's colour to the picture's
_SHADED = 0.2  # of a side: the widest shade that a dark surround casts, as an eyepiece does
_LIT, _GLASS = 0.92, 0.8  # share of the light where a shade ends; share of pixels below the light
_SOME_GLASS = 0.05  # share of the pixels beside a surround, if cells lie there, too
_DEEPEST = 3  # surrounds around each other


def find_surround(image: np.ndarray) -> np.ndarray | None:
    """Return which pixels of a checked image are no picture, (H, W) bool; None where all are.

    Large images are looked at in one pixel of several, so that edges are so many pixels rough.
    """
    step = -(-max(image.shape[:2]) // _VIEW)
    seen = image[::step, ::step]
    outside = _transparent(seen)
    if outside.all():  # as broken writers leave it; there is nothing else to look at
        outside[:] = False
    view = levels(seen)
    for _ in range(_DEEPEST):
        found = next(_surrounds(view, outside), None)
        if found is None:
            break
        outside |= found
    if not outside.any():
        return None
    height, width = image.shape[:2]
    return outside.repeat(step, axis=0).repeat(step, axis=1)[:height, :width]


def levels(image: np.ndarray) -> np.ndarray:
    """Return a checked image as RGB, uint8, alpha left out; dark ones brightened to be alike."""
    if image.ndim == 3 and image.shape[2] == 4:
        image = image[..., :3]
    rgb = to_rgb(image)
    white = 255 if rgb.dtype == np.uint8 else 1
    bright = max(float(np.percentile(rgb[::4, ::4], 99.5)), white / 255)
    if rgb.dtype == np.uint8 and 2 * bright >= white:
        return np.ascontiguousarray(rgb)
    scale = np.float32(255 / (white if 2 * bright >= white else bright))
    return np.rint(rgb * scale).clip(0, 255).astype(np.uint8)


def _transparent(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2 or image.shape[2] != 4 or image.dtype == bool:
        return np.zeros(image.shape[:2], bool)
    opaque = np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1
    return image[..., 3] < opaque / 2


def _surrounds(view: np.ndarray, outside: np.ndarray) -> Iterator[np.ndarray]:
    """Yield what lies around the picture, for each colour at its border that proves to."""
    border = np.zeros(outside.shape, bool)
    border[[0, -1]] = border[:, [0, -1]] = True
    if outside.any():
        border |= cv2.dilate(outside.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    pixels = view[border & ~outside]
    bins = pixels.astype(np.intp) // _BIN @ (1, 32, 1024)
    counts = np.bincount(bins)
    for most in np.argsort(-counts, kind="stable")[:_CANDIDATES]:
        if counts[most] <= _LEAST_BORDER * len(pixels):
            return
        found = _beyond(view, np.median(pixels[bins == most], axis=0), outside)
        if found is not None:
            yield found


def _beyond(view: np.ndarray, colour: np.ndarray, outside: np.ndarray) -> np.ndarray | None:
    """Return what lies around the picture if the colour is a surround's."""
    alike = _ALIKE_DARK if colour.max() < _DARK else _ALIKE
    distance = np.abs(view - colour.astype(np.int16)).max(axis=2)
    around = _reaching_border((distance <= alike) | outside)
    if around.mean() - outside.mean() < _LEAST:
        return None
    picture = _largest(~around)
    if picture is None:
        return None
    contours, _ = cv2.findContours(
        picture.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
    )
    contour = max(contours, key=len)
    hull = np.zeros(picture.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(contour), 1)
    beyond = hull == 0
    if beyond.mean() - outside.mean() < _LEAST or not _spans(hull, colour):
        return None
    depth = cv2.distanceTransform(hull, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    columns, rows = contour[:, 0].T
    inner = (rows > 1) & (columns > 1)
    inner &= (rows < picture.shape[0] - 2) & (columns < picture.shape[1] - 2)
    side = min(view.shape[:2])
    if not inner.any() or (depth[rows, columns] <= _ROUGH + side / 400)[inner].mean() < _CONVEX:
        return None
    if around[beyond].mean() < _PURE:
        return None
    margin = _margin(distance, depth, max(int(_SOFT * side), 6))
    if colour.max() < _DARK:
        in_disc = _depth_in_disc(rows[inner], columns[inner], depth)
        shade = _shade(view.max(axis=2), in_disc, int(_SHADED * side))
        if shade > margin:
            depth, margin = in_disc, shade
    ring = (depth > margin) & (depth <= margin + 2)
    if not ring.any() or (distance[ring] >= max(_STEP, alike + 4)).mean() < _STEPS:
        return None
    return depth <= margin


def _reaching_border(mask: np.ndarray) -> np.ndarray:
    _, numbers = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    edges = np.concatenate([numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1]])
    at_border = np.zeros(numbers.max() + 1, bool)
    at_border[edges] = True
    at_border[0] = False
    return at_border[numbers]


def _largest(mask: np.ndarray) -> np.ndarray | None:
    """Return the largest part, unless it is too small for a picture."""
    _, numbers, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA]
    if len(areas) == 0 or areas.max() < _LEAST_PICTURE * mask.size:
        return None
    return numbers == 1 + areas.argmax()


def _spans(hull: np.ndarray, colour: np.ndarray) -> bool:
    least = _SPANNED_BRIGHT if colour.mean() >= 128 else _SPANNED
    return max(hull.any(axis=0).mean(), hull.any(axis=1).mean()) >= least


def _margin(distance: np.ndarray, depth: np.ndarray, most: int) -> int:
    """Return how far inside of the edge the picture has its colours: farther where it is blurred.

    ``distance`` is that of each pixel's colour from the surround's.
    """
    rings = [distance[(depth > inside) & (depth <= inside + 1)] for inside in range(most)]
    steps = np.array([np.median(ring) if len(ring) else 0.0 for ring in rings])
    settled = steps >= _SETTLED * np.median(steps)
    return 1 + int(settled.argmax())


def _depth_in_disc(rows: np.ndarray, columns: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return how deep inside of a disc each pixel lies, if points of its edge are on a circle.

    Where the disc reaches beyond the image, its edge is not to be seen, but casts its shade.
    Otherwise the depth that was known.
    """
    equations = np.column_stack([rows, columns, np.ones(len(rows))]).astype(float)
    (down, right, rest), *_ = np.linalg.lstsq(equations, rows**2.0 + columns**2.0, rcond=None)
    y, x = down / 2, right / 2
    radius = np.sqrt(max(rest + y**2 + x**2, 0))
    off = np.abs(np.hypot(rows - y, columns - x) - radius)
    if np.quantile(off, _CONVEX) > _ROUGH + min(depth.shape) / 400:
        return depth
    away = np.hypot(*np.ogrid[-y : depth.shape[0] - y, -x : depth.shape[1] - x])
    return np.maximum(radius - away, 0).astype(np.float32)


def _shade(brightness: np.ndarray, depth: np.ndarray, most: int) -> int:
    """Return how far inside of a dark surround's edge the glass is as bright as farther in."""
    most = min(most, int(depth.max() / 2))
    light = _LIT * np.quantile(brightness[depth > most], _GLASS)
    rings = np.bincount(depth.astype(np.intp).ravel(), minlength=most + 1)
    lit = np.bincount(depth[brightness >= light].astype(np.intp), minlength=most + 1)
    is_lit = lit[1 : most + 1] >= _SOME_GLASS * rings[1 : most + 1]
    return int(is_lit.argmax()) if is_lit.any() else 0
