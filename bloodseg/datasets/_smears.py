"""Drawn blood smears with known cells."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils import Bunch, check_random_state

from .._images import CLASS_NAMES, PLATELET
from ._drawing import (
    WHITE_KINDS,
    Optics,
    Outline,
    Patch,
    cut_patch,
    draw_habit,
    draw_outline,
)

_MIN_SIDE = 16
_MIN_DIAMETER, _MAX_DIAMETER = 8, 1000
_MAX_DENSITY = 4
_MAX_WHITE_CELLS = 1000
_MIN_VISIBLE_PIXELS = 12
_MIN_VISIBLE_SHARE = 0.08  # of the whole cell: less than this nobody would outline or count
_CLOSEST = 0.5  # least distance of two red cells, in diameters
_N_PROPOSALS = 10


def make_smears(
    n_samples: int = 20,
    image_size: int | tuple[int, int] = 256,
    random_state: int | np.random.RandomState | None = None,
    *,
    red_cell_diameter: float = 40,
    white_cells: tuple[int, int] = (0, 2),
    density: tuple[float, float] = (0.35, 1.0),
    platelets: str = "background",
) -> Bunch:
    """Draw blood smears together with their label maps and cells.

    Red cells overlap and are translucent, with a pale middle; white cells are neutrophils,
    lymphocytes, monocytes, eosinophils and basophils; there are platelets, too. Stain, lamp, focus
    and noise differ from image to image. Colour follows the Beer-Lambert law.

    Parameters
    ----------
    n_samples : int
        Number of images, at least 1. Image i does not depend on it.
    image_size : int or (int, int)
        Side of the square images, or their height and width, in pixels; at least 16.
    random_state : int, RandomState instance or None
        Pass an int for the same images, bit by bit, at every call. NumPy's global generator is
        used only with None.
    red_cell_diameter : float
        Mean diameter of red cells in pixels, from 8 to 1000. White cells are 1.4 to 2.2 times
        as wide.
    white_cells : (int, int)
        Least and greatest number of white cells in an image, each from 0 to 1000. Those
        that find no free place in a small image are left out.
    density : (float, float)
        Least and greatest total area of the red cells over the area of the image, each from 0 to 4.
        Overlap counts twice and crowded places refuse cells, so less than this is covered.
    platelets : {"background", "label"}
        Whether platelets count as background or have a class of their own, 3 ``"platelet"``. The
        images are the same.

    Returns
    -------
    Bunch
        images : ndarray of shape (n_samples, H, W, 3), uint8
            RGB.
        masks : ndarray of shape (n_samples, H, W), uint8
            0 background, 1 white cells, 2 red cells, and perhaps 3 platelets.
        instances : ndarray of shape (n_samples, H, W), int32
            0 background, 1 to k the cells of an image, white ones first, then red ones, then
            platelets; where cells overlap, the upper one.
        counts : ndarray of shape (n_samples, n_classes - 1), int
            White cells, red cells and perhaps platelets in ``instances``.
        feature_names, target_names, count_names : tuple of str
            Names of the channels, of the labels and of the columns of ``counts``.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> from bloodseg.datasets import make_smears
    >>> smears = make_smears(2, image_size=64, random_state=0)
    >>> smears.images.shape, smears.masks.shape
    ((2, 64, 64, 3), (2, 64, 64))
    >>> int(smears.instances[0].max()) == int(smears.counts[0].sum())
    True
    """
    if not _is_number(n_samples, Integral) or n_samples < 1:
        raise ValueError(f"n_samples must be an integer of at least 1; got {n_samples!r}.")
    shape = _check_size(image_size)
    if (
        not _is_number(red_cell_diameter, Real)
        or not _MIN_DIAMETER <= red_cell_diameter <= _MAX_DIAMETER
    ):
        raise ValueError(
            f"red_cell_diameter must be a number of pixels from {_MIN_DIAMETER} to "
            f"{_MAX_DIAMETER}; got {red_cell_diameter!r}."
        )
    fewest, most = _check_range(
        white_cells, name="white_cells", kind=Integral, limit=_MAX_WHITE_CELLS
    )
    loosest, tightest = _check_range(density, name="density", kind=Real, limit=_MAX_DENSITY)
    if platelets not in ("background", "label"):
        raise ValueError(f"platelets must be 'background' or 'label'; got {platelets!r}.")
    names = (*CLASS_NAMES, PLATELET) if platelets == "label" else CLASS_NAMES
    rng = check_random_state(random_state)
    images = np.empty((n_samples, *shape, 3), np.uint8)
    masks = np.empty((n_samples, *shape), np.uint8)
    instances = np.empty((n_samples, *shape), np.int32)
    counts = np.empty((n_samples, len(names) - 1), np.int64)
    for index in range(n_samples):
        # A generator of its own for each image: what one image draws does not move the next.
        own = np.random.RandomState(rng.randint(np.iinfo(np.int32).max))
        n_white, share = own.randint(fewest, most + 1), own.uniform(loosest, tightest)
        images[index], instances[index], counted = _draw_smear(
            own, shape, float(red_cell_diameter), n_white, share
        )
        counts[index] = counted[: len(names) - 1]
        instances[index][instances[index] > counts[index].sum()] = 0
        labels = np.repeat(range(len(names)), [1, *counts[index]])
        masks[index] = labels.astype(np.uint8)[instances[index]]
    return Bunch(
        images=images,
        masks=masks,
        instances=instances,
        counts=counts,
        feature_names=("red", "green", "blue"),
        target_names=names,
        count_names=names[1:],
    )


def _is_number(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _check_size(image_size: Any) -> tuple[int, int]:
    sides = (image_size, image_size) if _is_number(image_size, Integral) else image_size
    try:
        height, width = sides
    except (TypeError, ValueError):
        height = width = None
    if not all(_is_number(side, Integral) and side >= _MIN_SIDE for side in (height, width)):
        raise ValueError(
            f"image_size must be an integer or (height, width), each at least {_MIN_SIDE}; "
            f"got {image_size!r}."
        )
    return int(height), int(width)


def _check_range(value: Any, *, name: str, kind: type, limit: int) -> tuple[Any, Any]:
    try:
        low, high = value
    except (TypeError, ValueError):
        low = high = None
    if not (_is_number(low, kind) and _is_number(high, kind) and 0 <= low <= high <= limit):
        what = "integers" if kind is Integral else "numbers"
        raise ValueError(
            f"{name} must be two {what} (least, greatest) with 0 <= least <= greatest <= {limit}; "
            f"got {value!r}. Pass the same number twice to fix it."
        )
    return low, high


def _draw_smear(
    rng: np.random.RandomState, shape: tuple[int, int], diameter: float, n_white: int, share: float
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """Return an image, its cells and platelets, and how many white and red ones and platelets."""
    habit = draw_habit(rng)
    kinds, discs = _place_white(rng, shape, diameter, n_white)
    white = [
        draw_outline(rng, *disc, rough=rng.uniform(0.03, 0.09), crenation=0.01) for disc in discs
    ]
    rough = rng.uniform(0.03, 0.12)
    red = [
        draw_outline(rng, *disc, rough=rough, crenation=habit.crenation)
        for disc in _place_red(rng, shape, diameter, share, discs)
    ]
    # From the top down, so that what an upper cell hides is known when the lower one comes.
    instances = np.zeros(shape, np.int32)
    seen_white = _show(white, instances)
    seen_red = _show(red, instances)
    optics = Optics(shape)
    for _, outline, patch in reversed(seen_red):
        optics.add_red(rng, outline, patch, habit)
    for index, outline, patch in reversed(seen_white):
        optics.add_white(rng, outline, patch, kinds[index])
    platelets = _add_platelets(rng, optics, instances, diameter)
    image = optics.expose(rng, scale=diameter)
    seen_platelets = _show(platelets, instances, least=1)
    return image, instances, (len(seen_white), len(seen_red), len(seen_platelets))


def _show(
    outlines: list[Outline], instances: np.ndarray, *, least: int = _MIN_VISIBLE_PIXELS
) -> list[tuple[int, Outline, Patch]]:
    """Write the cells of which enough is seen into ``instances``, upper ones first."""
    seen = []
    number = int(instances.max())
    for index, outline in enumerate(outlines):
        patch = cut_patch(outline, instances.shape)
        if patch is None:
            continue
        free = (patch.depth > 0) & (instances[patch.window] == 0)
        whole = np.pi * outline.size**2
        if np.count_nonzero(free) < max(least, _MIN_VISIBLE_SHARE * whole):
            continue
        number += 1
        instances[patch.window][free] = number
        seen.append((index, outline, patch))
    return seen


def _place_white(
    rng: np.random.RandomState, shape: tuple[int, int], diameter: float, count: int
) -> tuple[list, np.ndarray]:
    """Draw kinds and discs (y, x, radius) of white cells that do not overlap."""
    frequencies = [kind.frequency for kind in WHITE_KINDS]
    kinds: list = []
    discs = np.empty((0, 3))
    for _ in range(count):
        kind = WHITE_KINDS[rng.choice(len(WHITE_KINDS), p=frequencies)]
        radius = diameter / 2 * rng.uniform(*kind.diameter)
        # At least a good part of the cell lies in the image.
        margin = min(0.4 * radius, 0.45 * min(shape))
        y, x = (rng.uniform(margin, side - margin, _N_PROPOSALS) for side in shape)
        fits = _gaps(y, x, radius, discs) > 0
        if fits.any():
            first = int(np.argmax(fits))
            kinds.append(kind)
            discs = np.vstack([discs, (y[first], x[first], radius)])
    return kinds, discs


def _place_red(
    rng: np.random.RandomState,
    shape: tuple[int, int],
    diameter: float,
    share: float,
    white: np.ndarray,
) -> np.ndarray:
    """Draw discs (y, x, radius) of red cells, some of them in clumps, beside the white cells."""
    margin = 0.35 * diameter
    area = (shape[0] + 2 * margin) * (shape[1] + 2 * margin)
    count = round(share * area / (np.pi * diameter**2 / 4))
    clumped = rng.uniform(0.1, 0.7)
    spread = rng.uniform(0.04, 0.1)
    discs = np.empty((count, 3))
    placed = 0
    for _ in range(count):
        radius = diameter / 2 * np.clip(rng.normal(1, spread), 0.7, 1.3)
        if placed and rng.uniform() < clumped:
            host = discs[rng.randint(placed)]
            angle = rng.uniform(0, 2 * np.pi, _N_PROPOSALS)
            distance = diameter * rng.uniform(0.6, 1.05, _N_PROPOSALS)
            y, x = host[0] + distance * np.sin(angle), host[1] + distance * np.cos(angle)
        else:
            y, x = (rng.uniform(-margin, side + margin, _N_PROPOSALS) for side in shape)
        # The roomiest of several proposals fills the field evenly (Mitchell's best candidate).
        room = np.minimum(_gaps(y, x, radius, discs[:placed]) / diameter, 0)
        room[_gaps(y, x, 0.9 * radius, white) < 0] = -np.inf
        best = int(np.argmax(room + rng.uniform(0, 0.1, _N_PROPOSALS)))
        if room[best] > _CLOSEST - 1:
            discs[placed] = y[best], x[best], radius
            placed += 1
    return discs[:placed]


def _gaps(y: np.ndarray, x: np.ndarray, radius: float, discs: np.ndarray) -> np.ndarray:
    """Return the gap between a disc at each (y, x) and the nearest of ``discs``; 0: they touch."""
    if len(discs) == 0:
        return np.full(y.shape, np.inf)
    distance = np.hypot(y[:, np.newaxis] - discs[:, 0], x[:, np.newaxis] - discs[:, 1])
    return (distance - discs[:, 2]).min(axis=1) - radius


def _add_platelets(
    rng: np.random.RandomState, optics: Optics, instances: np.ndarray, diameter: float
) -> list[Outline]:
    """Lay platelets over the field, and return their outlines."""
    added = []
    area_in_cells = instances.size / diameter**2
    for _ in range(rng.poisson(0.1 * area_in_cells)):
        y, x = rng.uniform(0, instances.shape[0]), rng.uniform(0, instances.shape[1])
        radius = diameter * rng.uniform(0.06, 0.17)
        outline = draw_outline(rng, y, x, radius, rough=0.15, crenation=0.0)
        patch = cut_patch(outline, instances.shape)
        # Platelets are background: one that lay on a cell would contradict the label map.
        if patch is not None and not instances[patch.window].any():
            optics.add_platelet(rng, outline, patch)
            added.append(outline)
    return added
