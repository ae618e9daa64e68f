"""Shapes and optics of a drawn blood smear.

Every stained thing absorbs light: it adds to one of four layers of "how much of this stain lies
here", and the Beer-Lambert law turns the layers into colour. Overlapping cells darken by
themselves that way, as they do under the microscope.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_N_ANGLES = 512  # a power of two, so that angles wrap round with a bit mask
_EDGE = 1.3  # pixels over which an edge fades, in place of supersampling
_LAYERS = ("red", "cytoplasm", "nucleus", "granules")

# Colours of the empty field and of a typical spot of each layer, 8-bit RGB, one stain a row: what
# Wright, Giemsa and Wright-Giemsa look like through different cameras and lamps.
_STAINS = np.array(
    [
        # field            red cell         cytoplasm        nucleus         eosin granules
        [(184, 214, 190), (181, 114, 144), (172, 160, 192), (60, 50, 116), (176, 96, 130)],
        [(253, 235, 214), (226, 164, 150), (176, 166, 206), (64, 28, 108), (214, 110, 130)],
        [(248, 234, 220), (150, 104, 104), (172, 148, 184), (50, 26, 90), (170, 80, 100)],
        [(207, 210, 200), (184, 142, 134), (188, 168, 206), (86, 70, 214), (176, 96, 140)],
        [(122, 172, 188), (130, 62, 120), (118, 130, 168), (44, 36, 104), (120, 60, 110)],
        [(228, 220, 234), (208, 150, 172), (192, 176, 216), (84, 48, 140), (200, 100, 140)],
        [(250, 240, 240), (236, 166, 166), (212, 190, 216), (90, 48, 130), (230, 110, 120)],
    ],
    dtype=np.float64,
)


@dataclass(frozen=True)
class WhiteKind:
    """How one kind of white cell looks; lengths are in units of the cell's radius."""

    frequency: float
    diameter: tuple[float, float]  # in red cell diameters
    n_lobes: tuple[int, int]
    lobe_radius: tuple[float, float]
    spread: float  # distance of the lobes from the centre of the cell
    step: float  # angle between neighbouring lobes, radians
    link: float  # half-width of the strand between neighbouring lobes
    cytoplasm: float
    granules: float  # of the eosin stain
    dark_granules: float  # of the nuclear stain


WHITE_KINDS = (
    # Neutrophil, lymphocyte, monocyte, eosinophil, basophil; real ones are rarer than drawn ones.
    WhiteKind(0.46, (1.45, 1.90), (2, 5), (0.20, 0.28), 0.50, 1.20, 0.05, 0.55, 0.08, 0.05),
    WhiteKind(0.26, (1.38, 1.65), (1, 1), (0.68, 0.84), 0.08, 0.00, 0.00, 1.15, 0.00, 0.00),
    WhiteKind(0.15, (1.70, 2.20), (3, 3), (0.36, 0.44), 0.36, 0.85, 0.30, 0.85, 0.04, 0.04),
    WhiteKind(0.09, (1.50, 1.90), (2, 3), (0.27, 0.34), 0.48, 1.40, 0.07, 0.45, 0.55, 0.00),
    WhiteKind(0.04, (1.40, 1.70), (2, 3), (0.32, 0.40), 0.30, 1.30, 0.20, 0.60, 0.00, 0.45),
)


@dataclass(frozen=True)
class Outline:
    """A closed outline, star-shaped about its centre."""

    y: float
    x: float
    radii: np.ndarray  # float32, radius towards each of _N_ANGLES directions

    @property
    def size(self) -> float:
        """Mean radius."""
        return float(self.radii.mean())


@dataclass(frozen=True)
class Patch:
    """The pixels of an image near one outline."""

    window: tuple[slice, slice]
    dy: np.ndarray
    dx: np.ndarray
    depth: np.ndarray  # pixels inside the outline, along the radius; negative outside
    relative: np.ndarray  # distance from the centre over the radius in that direction

    @property
    def coverage(self) -> np.ndarray:
        """Share of each pixel that the outline covers, antialiased."""
        return soft_step(self.depth)


@dataclass(frozen=True)
class Habit:
    """What the cells of one image have in common."""

    pallor: float
    pallor_radius: float
    pallor_edge: float
    overlap: float  # share of the thinner cell that shows where two overlap
    rim: float  # refraction at the edge of a red cell: darker above 0, brighter below
    crenation: float


def draw_habit(rng: np.random.RandomState) -> Habit:
    """Draw what the cells of one image have in common."""
    return Habit(
        pallor=rng.uniform(0.05, 0.85),
        pallor_radius=rng.uniform(0.22, 0.5),
        pallor_edge=rng.uniform(0.06, 0.16),
        overlap=rng.uniform(0.1, 0.5),
        rim=rng.uniform(-0.3, 0.3),
        crenation=0.12 * max(0.0, rng.uniform() - 0.75),
    )


def soft_step(depth: np.ndarray) -> np.ndarray:
    """Return 0 outside, 1 inside and an antialiased edge between, from a depth in pixels."""
    return np.clip(depth / _EDGE + 0.5, 0, 1)


def smooth_noise(rng: np.random.RandomState, shape: tuple[int, ...], scale: float) -> np.ndarray:
    """Draw float32 noise of mean 0 and standard deviation about 1, smooth over ``scale`` pixels."""
    shrink = max(1, int(scale))  # drawn small and enlarged: a wide Gaussian filter is slow
    small = tuple(-(-length // shrink) + 2 for length in shape[:2]) + shape[2:]
    noise: np.ndarray = rng.standard_normal(small).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), max(scale / shrink, 0.3))
    noise = noise / np.float32(max(float(noise.std()), 1e-6))
    if shrink == 1:
        return noise[: shape[0], : shape[1]]
    width, height = small[1] * shrink, small[0] * shrink
    noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return noise[: shape[0], : shape[1]]


def draw_outline(
    rng: np.random.RandomState, y: float, x: float, radius: float, *, rough: float, crenation: float
) -> Outline:
    """Draw an outline: an ellipse bent by low harmonics, with ``crenation`` of high ones."""
    angle = np.arange(_N_ANGLES) * (2 * np.pi / _N_ANGLES)
    order = np.arange(2, 8)
    amplitude = rough * rng.standard_normal(order.size) / (order - 1.0) ** 1.3
    order = np.append(order, rng.randint(8, 16, 3))
    amplitude = np.append(amplitude, crenation * rng.uniform(0, 0.7, 3))
    waves = np.cos(order[:, np.newaxis] * angle + rng.uniform(0, 2 * np.pi, (order.size, 1)))
    bend = amplitude @ waves
    return Outline(y, x, (radius * np.clip(1 + bend, 0.5, 1.5)).astype(np.float32))


def cut_patch(outline: Outline, shape: tuple[int, int]) -> Patch | None:
    """Return the pixels of an image near the outline; None if all of it lies outside."""
    reach = float(outline.radii.max()) + 2
    top, bottom = max(0, int(outline.y - reach)), min(shape[0], int(outline.y + reach) + 1)
    left, right = max(0, int(outline.x - reach)), min(shape[1], int(outline.x + reach) + 1)
    if top >= bottom or left >= right:
        return None
    dy, dx = np.meshgrid(
        np.arange(top, bottom, dtype=np.float32) - np.float32(outline.y),
        np.arange(left, right, dtype=np.float32) - np.float32(outline.x),
        indexing="ij",
    )
    distance, angle = cv2.cartToPolar(dx, dy)
    radius = outline.radii[(angle * (_N_ANGLES / (2 * np.pi))).astype(np.intp) & (_N_ANGLES - 1)]
    window = slice(top, bottom), slice(left, right)
    return Patch(window, dy, dx, radius - distance, distance / radius)


class Optics:
    """Amounts of stain in an image, and the light that passes them."""

    def __init__(self, shape: tuple[int, int]):
        self.shape = shape
        self.layers = {name: np.zeros(shape, np.float32) for name in _LAYERS}

    def add_red(
        self, rng: np.random.RandomState, outline: Outline, patch: Patch, habit: Habit
    ) -> None:
        """Lay a red cell over what is there: a disc, thinner in its middle."""
        size = outline.size
        off_y, off_x = rng.normal(0, 0.08 * size, 2).astype(np.float32)
        inner = patch.relative if habit.pallor < 0.1 else _shifted(patch, off_y, off_x, size)
        width = np.float32(habit.pallor_radius * rng.uniform(0.75, 1.25))
        edge = np.float32(habit.pallor_edge)
        pale = np.float32(habit.pallor * rng.uniform(0.5, 1.2)) / (
            1 + np.exp((inner - width) / edge)
        )
        tilt = (rng.normal(0, 0.05) * patch.dy + rng.normal(0, 0.05) * patch.dx) / size
        thickness = np.float32(rng.normal(0.96, 0.06)) * (1 - pale + tilt.astype(np.float32))
        thickness *= patch.coverage
        layer = self.layers["red"][patch.window]
        below = layer.copy()
        np.maximum(below, thickness, out=layer)
        layer += np.float32(habit.overlap) * np.minimum(below, thickness)
        ring = np.exp(-(((patch.depth - 1) / np.float32(0.06 * size + 0.4)) ** 2))
        layer *= 1 + np.float32(habit.rim) * ring

    def add_white(
        self, rng: np.random.RandomState, outline: Outline, patch: Patch, kind: WhiteKind
    ) -> None:
        """Lay a white cell over what is there: cytoplasm, nucleus and granules."""
        size, shape = outline.size, patch.depth.shape
        cover = patch.coverage
        self.layers["red"][patch.window] *= 1 - np.float32(0.9) * cover  # red cells are pushed away
        for name in ("cytoplasm", "nucleus", "granules"):
            self.layers[name][patch.window] *= 1 - cover
        inside = _nucleus_depth(rng, patch, kind, size)
        nucleus = soft_step(inside) * soft_step(patch.depth - 1)
        chromatin = 0.11 * smooth_noise(rng, shape, 0.05 * size) + 0.11 * smooth_noise(
            rng, shape, 0.12 * size
        )
        border = np.exp(-((inside / (0.07 * size)) ** 2))
        self.layers["nucleus"][patch.window] += nucleus * (0.9 + chromatin + 0.15 * border)
        clear = cover * (1 - nucleus)
        grain = smooth_noise(rng, shape, 0.05 * size)
        vacuoles = soft_step(4 * (smooth_noise(rng, shape, 0.09 * size) - 1.7))
        rim = np.exp(-((patch.depth / (0.06 * size)) ** 2))
        body = kind.cytoplasm * rng.uniform(0.8, 1.2) * (0.85 + 0.13 * grain + 0.4 * rim)
        self.layers["cytoplasm"][patch.window] += clear * np.maximum(body, 0) * (1 - 0.6 * vacuoles)
        for name, amount in (("granules", kind.granules), ("nucleus", kind.dark_granules)):
            if amount > 0:
                dots = smooth_noise(rng, shape, max(0.035 * size, 0.6))
                self.layers[name][patch.window] += clear * amount * np.clip(dots + 0.7, 0, 2)

    def add_platelet(self, rng: np.random.RandomState, outline: Outline, patch: Patch) -> None:
        """Lay a platelet over what is there: a pale body with purple granules."""
        dots = smooth_noise(rng, patch.depth.shape, max(0.2 * outline.size, 0.6))
        core = np.clip(1.25 - patch.relative, 0, 1) * np.clip(0.75 + 0.35 * dots, 0, 1.5)
        cover = patch.coverage
        self.layers["nucleus"][patch.window] += cover * core * np.float32(rng.uniform(0.3, 0.65))
        self.layers["cytoplasm"][patch.window] += cover * np.float32(rng.uniform(0.4, 0.9))

    def expose(self, rng: np.random.RandomState, *, scale: float) -> np.ndarray:
        """Draw a stain, a lamp and a camera and return the image, uint8 (H, W, 3).

        ``scale`` is the red cells' diameter in pixels: the lens blurs in proportion.
        """
        field, absorbance = _draw_stain(rng)
        layers = np.stack([self.layers[name] for name in _LAYERS], axis=-1)
        layers[..., 0] *= 1 + 0.02 * smooth_noise(rng, self.shape, 0.1 * scale)
        image = np.exp(-(layers @ absorbance))
        image *= field * _draw_illumination(rng, self.shape)[..., np.newaxis]
        blur = scale * rng.uniform(0.010, 0.034)
        image = cv2.GaussianBlur(image, (0, 0), max(blur, 0.3))
        noise = smooth_noise(rng, (*self.shape, 3), rng.uniform(0.35, 0.8))
        image += np.float32(rng.uniform(0.004, 0.018)) * noise
        return np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)


def _shifted(patch: Patch, off_y: np.float32, off_x: np.float32, size: float) -> np.ndarray:
    return np.sqrt((patch.dy - off_y) ** 2 + (patch.dx - off_x) ** 2) / np.float32(size)


def _nucleus_depth(
    rng: np.random.RandomState, patch: Patch, kind: WhiteKind, size: float
) -> np.ndarray:
    """Return the depth in pixels inside a nucleus: lobes on an arc, joined by strands."""
    count = rng.randint(kind.n_lobes[0], kind.n_lobes[1] + 1)
    angle = rng.uniform(0, 2 * np.pi) + kind.step * np.cumsum(rng.uniform(0.8, 1.2, count))
    away = kind.spread * size * rng.uniform(0.75, 1.1, count)
    if count == 1:
        away *= rng.uniform()
    lobe_y, lobe_x = away * np.sin(angle), away * np.cos(angle)
    radius = size * rng.uniform(*kind.lobe_radius, size=count)
    wobble = 0.045 * size * smooth_noise(rng, patch.depth.shape, 0.22 * size)
    blend = 0.035 * size
    total = np.zeros_like(patch.depth)
    for index in range(count):
        stretch = rng.uniform(0.82, 1.2)
        turn = rng.uniform(0, np.pi)
        dy, dx = patch.dy - lobe_y[index], patch.dx - lobe_x[index]
        along = (dx * np.cos(turn) + dy * np.sin(turn)) * stretch
        across = (dy * np.cos(turn) - dx * np.sin(turn)) / stretch
        total += _soft_weight(radius[index] - np.hypot(along, across), blend)
        if index:
            ends = lobe_y[index - 1], lobe_x[index - 1], lobe_y[index], lobe_x[index]
            total += _soft_weight(kind.link * size - _segment_distance(patch, *ends), blend)
    # The logarithm of a sum of exponentials is a smooth maximum: neighbouring lobes melt together.
    return blend * np.log(np.maximum(total, 1e-12)) + wobble


def _soft_weight(depth: np.ndarray, blend: float) -> np.ndarray:
    return np.exp(np.clip(depth / blend, -30, 30))


def _segment_distance(patch: Patch, y0: float, x0: float, y1: float, x1: float) -> np.ndarray:
    length_squared = max((y1 - y0) ** 2 + (x1 - x0) ** 2, 1e-6)
    along = ((patch.dy - y0) * (y1 - y0) + (patch.dx - x0) * (x1 - x0)) / length_squared
    along = np.clip(along, 0, 1)
    return np.hypot(patch.dy - y0 - along * (y1 - y0), patch.dx - x0 - along * (x1 - x0))


def _draw_stain(rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
    """Return the field's colour (3,) and the layers' absorbances (4, 3), float32."""
    # A small concentration: mostly one stain of the table, at times a mixture of two or three.
    mixture = rng.dirichlet(np.full(len(_STAINS), 0.25))
    colours = np.tensordot(mixture, _STAINS, axes=1) / 255
    colours = np.clip(colours + rng.normal(0, 0.012, colours.shape), 0.03, 0.99)
    field = np.clip(colours[0] * rng.uniform(0.94, 1.04), 0.05, 1.0)
    absorbance = np.maximum(np.log(colours[0] / colours[1:]), -0.05)
    absorbance *= rng.uniform(0.85, 1.2, (4, 1))
    return field.astype(np.float32), absorbance.astype(np.float32)


def _draw_illumination(rng: np.random.RandomState, shape: tuple[int, int]) -> np.ndarray:
    """Return relative brightness: a slope, a vignette and slow blotches."""
    y, x = (np.linspace(-1, 1, length, dtype=np.float32) for length in shape)
    slope = rng.uniform(-0.05, 0.05, 2).astype(np.float32)
    vignette = np.float32(rng.uniform(0, 0.06))
    light = 1 + slope[0] * y[:, np.newaxis] + slope[1] * x
    light -= vignette * (y[:, np.newaxis] ** 2 + x**2)
    light += np.float32(0.008) * smooth_noise(rng, shape, max(shape) / 6)
    return light
