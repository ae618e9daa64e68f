"""How large the red cells of an image are, found from its colours alone: no network is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from skimage.filters import threshold_multiotsu, threshold_otsu

from .._images import check_images, middle, to_rgb
from ._outline import Outline
from ._scale import peak_shift
from ._shapes import without_holes

_STEP = 2 ** (1 / 4)  # from one radius tried to the next
_RADII = 4 * _STEP ** np.arange(-1, 23)  # pixels; the first and the last for comparison only
_WIDEST = 14  # pixels: the image is halved until the radius tried is no more than this
_BLUR, _WIDE_BLUR = 0.18, 0.5  # of a radius, of votes
_NUCLEUS = 0.3  # of a radius: the least half width of what is taken for a nucleus
_WINDOW, _N_WINDOWS = 1024, 3  # side in pixels; of a larger image, so many across and down
_MIDDLE = 512  # pixels: of a window, halved or not, the middle has enough cells of a size
_SOFTEN = 0.8  # pixels, against noise
_LARGEST_HOLE = 0.15  # in areas of a cell: pallor
_LEVEL = 0.4  # of the density of a red cell: where its outline is
_BLUISH = 0.15  # density for red less that for blue: above are white cells and platelets
_FAINTEST = 0.06  # density of a red cell over the field's
_AGREEMENT = 1.6  # of votes; those of straight outlines give 1.4
_SURE_AGREEMENT, _SURE_CIRCLES = 2.6, 3  # of votes, and circles they make: less may mislead
_SMALLER = 1.05  # true diameters over those found, for outlines are blurred

# The numbers above were chosen on smear256/train, leukocyte300/train and folds 1 to 4 of bccd.


def estimate_red_cell_diameter(image: Any) -> float | None:
    """Estimate the diameter of a typical red cell from the image alone.

    Red cells absorb green light, and blue more than red; that tells them from the field and from
    nuclei. Then each pixel of the outlines of what is red votes for what lies a radius inwards, and
    the radius at which most votes meet, in the middles of cells, is taken. Cells may touch, overlap
    and be pale in the middle.

    Parameters
    ----------
    image : array-like of shape (H, W[, C])
        An image as `bloodseg.BloodCellSegmenter` takes it, or what
        `bloodseg.datasets.open_slide` returns. Of images larger than 1024 pixels, up to nine
        windows of that side are looked at.

    Returns
    -------
    float or None
        Pixels, from about 8 to 300; None where no red cells are found.

    Raises
    ------
    ValueError
        If it is no image.

    Examples
    --------
    >>> from bloodseg.cells import estimate_red_cell_diameter
    >>> from bloodseg.datasets import make_smears
    >>> image = make_smears(1, image_size=200, red_cell_diameter=30, random_state=0).images[0]
    >>> 27 < estimate_red_cell_diameter(image) < 33
    True
    """
    return measured_diameter(image)[0]


def measured_diameter(image: Any) -> tuple[float | None, float]:
    """Return the estimate, and by how many octaves it may be off: 0 for one to rely on."""
    numbers, meeting = np.zeros(len(_RADII)), np.zeros(len(_RADII))
    for window in _windows(image):
        stained = _stained(window)
        if stained is not None:
            for index, votes in enumerate(_votes(*stained)):
                numbers[index] += votes[0]
                meeting[index] += votes[1]
    # How many votes meet where a vote falls, in shares of a circle's.
    agreement = meeting / np.maximum(numbers, 1)
    best = int(agreement.argmax())
    if agreement[best] < _AGREEMENT or not 0 < best < len(_RADII) - 1:
        return None, np.inf
    shift = peak_shift(*agreement[best - 1 : best + 2])
    diameter = float(2 * _SMALLER * _RADII[best] * _STEP**shift)
    if numbers[best] < _SURE_CIRCLES:
        return diameter, 1.0
    return diameter, 0.5 if agreement[best] < _SURE_AGREEMENT else 0.0


def _windows(image: Any) -> Iterator[np.ndarray]:
    """Yield an image as RGB, or windows spread over it."""
    if isinstance(image, np.ndarray) or not hasattr(image, "shape"):
        (image,) = check_images([image], name="image")
    tops, lefts = (
        np.linspace(0, max(length - _WINDOW, 0), min(_N_WINDOWS, -(-length // _WINDOW))).astype(int)
        for length in image.shape[:2]
    )
    for top in tops:
        strip = check_images([np.asarray(image[top : top + _WINDOW])], name="image")[0]
        for left in lefts:
            yield to_rgb(strip[:, left : left + _WINDOW])


def _stained(image: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return where an RGB image shows cells, and where what is stained blue, as nuclei are.

    None where nothing stands out from the field.
    """
    density = -np.log(np.maximum(image / np.float32(_white_of(image)), np.float32(1 / 255)))
    density = cv2.GaussianBlur(density, (0, 0), _SOFTEN)
    green = density[..., 1]
    counts, edges = np.histogram(green, 128)
    if np.count_nonzero(counts) < 3:
        return None
    # Three classes, for nuclei are so dark that of two the red cells would go with the field.
    field = green <= threshold_multiotsu(hist=(counts, edges[:-1]))[0]
    density -= np.median(density[field], axis=0)
    bluish = density[..., 0] - density[..., 2] > _BLUISH
    others = green[~bluish]
    if len(others) == 0 or others.min() == others.max():
        return None
    level = float(np.median(others[others > threshold_otsu(others)]))
    return (green > _LEVEL * level, bluish) if level > _FAINTEST else None


def _white_of(image: np.ndarray) -> float:
    """Return the level of white; where 16 bits are hardly used, that of what is bright."""
    if image.dtype == np.uint8:
        return 255.0
    bright = float(np.percentile(image[::4, ::4], 99.5))
    return 1.0 if 2 * bright >= 1 or bright <= 0 else bright


def _votes(cells: np.ndarray, bluish: np.ndarray) -> Iterator[tuple[float, float]]:
    """Yield for each radius how many circles its votes would make, and how well those meet.

    The second over the first is with how many others a vote meets.
    """
    shares, halved = cv2.merge([cells.astype(np.float32), bluish.astype(np.float32)]), 1
    for radius in _RADII[: np.searchsorted(2 * _RADII, min(cells.shape), "right")]:
        while radius / halved > _WIDEST:
            height, width = shares.shape[:2]
            shares = cv2.resize(shares, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
            halved *= 2
        reach = radius / halved
        cells, bluish = np.moveaxis(middle(shares, _MIDDLE) > 0.5, -1, 0)
        filled = without_holes(cells, _LARGEST_HOLE * np.pi * reach**2, pallor=False)
        outline = Outline.of(filled, reach)
        kept = ~_near_nuclei(bluish, reach)[outline.rows, outline.columns]
        # The outermost pixels of a cell have their middles half a pixel inside.
        votes = _chosen(outline, kept, 2 * _WIDEST).votes(reach - 0.5).astype(np.float32)
        circles = float(votes.sum()) / (2 * np.pi * reach)
        if circles < 1:
            yield 0.0, 0.0
            continue
        # Where all lies thick, votes meet by chance; the wide blur tells how many.
        narrow, wide = (
            np.square(cv2.GaussianBlur(votes, (0, 0), blur * reach), dtype=np.float64).sum()
            for blur in (_BLUR, _WIDE_BLUR)
        )
        yield circles, float(narrow - wide) / (2 * np.pi)


def _near_nuclei(bluish: np.ndarray, radius: float) -> np.ndarray:
    """Return what lies within a red cell's radius of a nucleus; platelets are smaller."""
    inside = cv2.distanceTransform(bluish.astype(np.uint8), cv2.DIST_L2, 3)
    nuclei = inside > _NUCLEUS * radius
    if not nuclei.any():
        return nuclei
    away = cv2.distanceTransform((~nuclei).astype(np.uint8), cv2.DIST_L2, 3)
    return away < (1 + _NUCLEUS) * radius


def _chosen(outline: Outline, kept: np.ndarray, margin: int) -> Outline:
    """Return the chosen pixels of an outline, which may vote for middles beyond the border."""
    height, width = outline.shape
    return Outline(
        (height + 2 * margin, width + 2 * margin),
        outline.rows[kept] + margin,
        outline.columns[kept] + margin,
        outline.down[kept],
        outline.right[kept],
    )
