"""Shapes in masks: how deep inside, which holes, how dented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

_DENT, _ROUGH = 0.07, 0.75  # of the half width, and pixels: dents that a convex shape may have
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
_SPREADS = np.linspace(0.2, 0.75, 12)  # tried: halves of the way between two discs, in radii
_AS_WELL = 1.05  # pixels that two discs may miss or add, for one of an ellipse
_ROUND = 0.65  # least share that what is round has of its box, and its largest circle of it
_SHAPELESS = 0.1  # share of the largest hole: less has no shape to speak of
_DENTED = 0.15  # share of a small hole's area that its dents may have: gaps have more
_RING = 0.2  # least share that a ring has of its box, if there is anything in it


def distance_inside(
    mask: np.ndarray, limit: float, outside: np.ndarray | None = None
) -> np.ndarray:
    """Return each pixel's distance to the nearest one that is not in the mask, at most ``limit``.

    Beyond the image's border, and ``outside`` of the picture, there may be more of the mask: a cell
    that is cut there keeps its size.
    """
    inside = (mask if outside is None else mask | outside).astype(np.uint8)
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    np.minimum(distance, np.float32(limit + 1), out=distance)
    # Squares of distances between pixels are whole numbers; OpenCV may miss them by a last bit that
    # depends on where in memory the mask lies.
    np.rint(np.square(distance, out=distance), out=distance)
    np.minimum(np.sqrt(distance, out=distance), np.float32(limit), out=distance)
    if outside is not None:
        distance[outside] = 0
    return distance


@dataclass(frozen=True)
class Regions:
    """What hangs together in a mask, side by side.

    Attributes
    ----------
    labels : ndarray of shape (h, w), int32
        0 outside the mask, 1 to n the regions.
    boxes : ndarray of shape (n + 1, 4), int32
        Left, top, width and height of each; of 0, nothing of use.
    areas : ndarray of shape (n + 1,), int32
        Pixels of each; of 0, none.
    whole : ndarray of shape (n + 1,), bool
        Which reach neither the border nor what is no picture, where more of them may be.
    """

    labels: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    whole: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray, outside: np.ndarray | None = None) -> Regions:
        _, labels, stats, _ = cv2.connectedComponentsWithStats(
            mask.astype(np.uint8), connectivity=4
        )
        left, top, width, height, areas = stats.T
        areas[0] = 0
        whole = (left > 0) & (top > 0) & (areas > 0)
        whole &= (left + width < mask.shape[1]) & (top + height < mask.shape[0])
        if outside is not None:
            whole[labels[cv2.dilate(outside.astype(np.uint8), CROSS) > 0]] = False
        return cls(labels, stats[:, :4], areas, whole)

    @property
    def sides(self) -> np.ndarray:
        """The longer side of the box around each, in pixels."""
        return np.asarray(self.boxes[:, 2:].max(axis=1))

    def cut_out(self, region: Any) -> tuple[tuple[slice, slice], np.ndarray]:
        """Return the box around a region, and the mask of the region in it."""
        left, top, width, height = self.boxes[region]
        place = slice(top, top + height), slice(left, left + width)
        return place, self.labels[place] == region


def without_holes(
    mask: np.ndarray, largest: float, outside: np.ndarray | None = None, *, pallor: bool = True
) -> np.ndarray:
    """Fill the convex holes of at most this many pixels, and round ones: pallor that is missing.

    Round with what lies in it, as in target cells. A gap between cells has corners where they meet,
    and is dented between them. What touches the border of the window or of the picture is no hole.
    Without ``pallor`` all that is small is filled, and nothing else.
    """
    holes = Regions.of(~mask if outside is None else ~(mask | outside), outside)
    filled = holes.whole & (holes.areas <= largest)
    if pallor:
        for number in np.flatnonzero(filled & (holes.areas > _SHAPELESS * largest)):
            hole = holes.cut_out(number)[1]
            filled[number] = area_of_dents(hole) <= _DENTED * holes.areas[number]
        wide = holes.areas > _RING * holes.boxes[:, 2] * holes.boxes[:, 3]
        for number in np.flatnonzero(holes.whole & wide & ~filled):
            filled[number] = _is_round(_with_islands(holes.cut_out(number)[1]))
    return mask | filled[holes.labels] if filled.any() else mask


def _with_islands(shape: np.ndarray) -> np.ndarray:
    solid = np.zeros(shape.shape, np.uint8)
    return cv2.drawContours(solid, trace_outlines(shape), -1, 1, cv2.FILLED) > 0


def _is_round(shape: np.ndarray) -> bool:
    if np.count_nonzero(shape) <= _ROUND * shape.size:
        return False
    circle = np.pi * half_width(shape) ** 2
    return bool(circle > _ROUND * np.count_nonzero(shape)) and is_convex(shape)


def labels_at_edge(labels: np.ndarray) -> np.ndarray:
    """Return the labels (h, w) of the pixels along the window's four sides, each once."""
    return np.unique(np.concatenate([labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel()]))


def trace_outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Return the outer outline of each piece of a mask: x and y of its outermost pixels, (k, 2)."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [outline[:, 0] for outline in outlines]


def is_convex(shape: np.ndarray, hidden: np.ndarray | None = None) -> bool:
    """Return whether the one shape in a mask has no dents but those of rough outlines.

    Parameters
    ----------
    shape : ndarray of shape (h, w), bool
        Whole; it may reach to the border of the mask.
    hidden : ndarray of shape (h, w), bool, optional
        Where the shape may go on behind something. A dent there is none.
    """
    points = np.concatenate(trace_outlines(shape))
    start = cv2.convexHull(points)[:, 0]
    side = np.roll(start, -1, axis=0) - start
    length = np.maximum(np.hypot(*side.T), 1)
    if hidden is not None:
        beside = cv2.dilate((hidden & ~shape).astype(np.uint8), np.ones((3, 3), np.uint8))
        points = points[beside[points[:, 1], points[:, 0]] == 0]
    across = points[:, np.newaxis] - start
    depths = np.abs(across[..., 0] * side[:, 1] - across[..., 1] * side[:, 0]) / length
    deepest = float(depths.min(axis=1).max(initial=0))
    if deepest <= _ROUGH:
        return True
    widest = np.sqrt(np.count_nonzero(shape) / np.pi)  # no circle in it is larger
    return bool(
        deepest <= _ROUGH + _DENT * widest and deepest <= _ROUGH + _DENT * half_width(shape)
    )


def area_of_dents(shape: np.ndarray) -> float:
    """Return how much smaller, in pixels, the one shape in a mask is than its convex hull.

    Holes are no dents. Both are taken through the middles of the outermost pixels, for the steps
    along their corners would add to the dents.
    """
    outline = max(trace_outlines(shape), key=len)
    return cv2.contourArea(cv2.convexHull(outline)) - cv2.contourArea(outline)


def radius_of_discs(shape: np.ndarray) -> float | None:
    """Return the radius of equal discs in a row that are the shape; None if an ellipse is nearer.

    Discs that overlap by half are convex together, but for what rough outlines have, too.
    """
    moments = cv2.moments(shape.astype(np.uint8), binaryImage=True)
    area = moments["m00"]
    down, right, both = (moments[key] / area for key in ("mu02", "mu20", "mu11"))
    turn = np.arctan2(2 * both, right - down) / 2
    longer = np.hypot(right - down, 2 * both)
    ratio = np.sqrt((down + right + longer) / (down + right - longer))
    margin = 2 + int(0.1 * max(shape.shape))
    shape = np.pad(shape, margin)
    y, x = (
        np.arange(side) - margin - moments[key] / area
        for side, key in zip(shape.shape, ("m01", "m10"), strict=True)
    )
    along = x * np.cos(turn) + y[:, np.newaxis] * np.sin(turn)
    across = y[:, np.newaxis] * np.cos(turn) - x * np.sin(turn)
    of_ellipse = int(
        np.count_nonzero(shape ^ (along**2 / ratio + across**2 * ratio < area / np.pi))
    )
    best: float = _AS_WELL * of_ellipse
    radius = None
    for spread in _SPREADS:
        together = np.pi + 2 * (spread * np.sqrt(1 - spread**2) + np.arcsin(spread))
        tried = np.sqrt(area / together)
        discs = np.hypot(np.abs(along) - spread * tried, across) < tried
        if (missed := int(np.count_nonzero(shape ^ discs))) <= best:
            best, radius = missed, float(tried)
    # More than two overlap to a band with round ends.
    tried = half_width(shape)
    spread = (area - np.pi * tried**2) / (4 * tried)
    if spread > _SPREADS[-1] * tried:
        band = np.hypot(np.maximum(np.abs(along) - spread, 0), across) < tried
        if np.count_nonzero(shape ^ band) <= best:
            radius = float(tried)
    return radius


def half_width(shape: np.ndarray) -> float:
    """Return the radius of the largest circle in a shape, in pixels."""
    framed = np.zeros((shape.shape[0] + 2, shape.shape[1] + 2), bool)
    framed[1:-1, 1:-1] = shape
    return float(distance_inside(framed, np.inf).max()) - 0.5
