"""Contrast enhancement before segmentation: YUV-CLAHE, the paper's preprocessing (Section 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import cv2
import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from scipy import ndimage
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils._param_validation import Interval, InvalidParameterError

from ._images import check_images, in_container_of
from ._typing import Images

_LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in cv2.COLOR_RGB2YUV
_N_LEVELS = 256  # bins of a tile's histogram, whatever the image's dtype
MAX_JOBS = 1024  # threads
_MAX_TILES = 256  # along one axis; a table of 256 levels is kept for every tile
_MIN_OPENCV_TILE = 64  # pixels; in smaller tiles a single one counts for over 4 levels of 255
_BRIGHT_SHARE = 0.1  # of the pixels, taken for empty glass
_BALANCED_LIGHT = np.float32(0.92)  # of white: room for what is brighter still
_N_SAMPLED = 2**18  # pixels that tell the light
_STRIP_PIXELS = 2**22  # of a large image, enhanced at a time, in about 40 bytes each
_BLOCK_PIXELS = 2**18  # looked up at a time, which bounds the memory for coordinates


class Preprocessor(  # type: ignore[call-arg]  # mypy does not see scikit-learn's class keyword
    TransformerMixin, BaseEstimator, auto_wrap_output_keys=None
):
    """Enhance local contrast by CLAHE on the brightness (Y of YUV), colours kept.

    Contrast-limited adaptive histogram equalisation spreads the brightness levels within each
    tile of the image and blends from tile to tile. U and V, the colour differences, stay as they
    are. The transformer learns nothing: ``transform`` works without ``fit``.

    Parameters
    ----------
    clip_limit : float, default=2.0
        Contrast limit, in units of a flat histogram's height as in OpenCV: contrast grows
        locally by about this factor at most. Greater than 0; values near 0 leave the image as
        it is, values of 256 and above limit nothing.
    tile_grid_size : (int, int), default=(8, 8)
        Rows and columns of tiles, each from 1 to 256. Never more than the image has pixels.
    white_balance : bool, default=False
        First divide by the colour of the light, measured in the empty parts of each image, so that
        they come out a bright grey whatever the lamp and camera.
    n_jobs : int, default=None
        Number of threads over the images of a batch; None is 1 unless a
        `joblib.parallel_config` context says otherwise, -1 uses every core.

    Notes
    -----
    The paper converts to YUV, equalises Y and converts back. Both conversions are linear, so with
    U and V kept this adds the change of Y to each of red, green and blue. Done that way nothing is
    lost to 8-bit U and V, where OpenCV's conversion saturates for strong reds.

    8-bit images go through `cv2.createCLAHE`. Its 16-bit version counts 65536 levels a tile, so
    that with tiles of ordinary size ``clip_limit`` takes on another meaning: the same picture came
    out hardly changed or over-enhanced, depending on its noise. uint16 and floating-point images
    therefore get the curves of OpenCV's 8-bit version, interpolated between levels: same limit
    and same picture for every dtype, and no loss of precision. Tiles of fewer than 64 pixels
    (8-bit ones, too) are clipped in fractions of a pixel, where OpenCV's whole pixels would turn
    tiny images white.

    References
    ----------
    .. [1] K. Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV,
       1994, pages 474-485.
    .. [2] The paper that this library implements, Section 2, "Image Preprocessing".

    Examples
    --------
    >>> import numpy as np
    >>> from bloodseg.preprocessing import Preprocessor
    >>> column = np.linspace(100, 150, 64).astype(np.uint8)
    >>> images = np.tile(column[:, np.newaxis, np.newaxis], (2, 1, 64, 3))
    >>> enhanced = Preprocessor(clip_limit=3.0).transform(images)
    >>> enhanced.shape, enhanced.dtype
    ((2, 64, 64, 3), dtype('uint8'))
    >>> bool(enhanced.std() > images.std())
    True
    """

    _parameter_constraints: ClassVar[dict[str, list]] = {
        "clip_limit": [Interval(Real, 0, None, closed="neither")],
        "tile_grid_size": [tuple, list],
        "white_balance": ["boolean"],
        "n_jobs": [
            Interval(Integral, None, -1, closed="right"),
            Interval(Integral, 1, MAX_JOBS, closed="both"),
            None,
        ],
    }

    def __init__(
        self,
        clip_limit: float = 2.0,
        tile_grid_size: tuple[int, int] = (8, 8),
        white_balance: bool = False,
        n_jobs: int | None = None,
    ):
        self.clip_limit = clip_limit
        self.tile_grid_size = tile_grid_size
        self.white_balance = white_balance
        self.n_jobs = n_jobs

    def fit(self, X: Images, y: object = None) -> Preprocessor:
        """Check parameters and images; nothing is learned.

        Parameters
        ----------
        X : ndarray of shape (n, H, W[, C]) or sequence of (H, W[, C]) ndarrays
            Grey, RGB or RGBA images. bool; uint8; uint16; or floating point in [0, 1].
        y : object, default=None
            Ignored; there for scikit-learn's pipelines.

        Returns
        -------
        Preprocessor
            Itself.

        Raises
        ------
        ValueError
            If a parameter or an image is outside its range.
        """
        self._check_parameters()
        check_images(X, name="X")
        return self

    def transform(self, X: Images) -> np.ndarray | list[np.ndarray]:
        """Return the images with their contrast enhanced.

        Parameters
        ----------
        X : ndarray of shape (n, H, W[, C]) or sequence of (H, W[, C]) ndarrays
            Grey, RGB or RGBA images of any sizes. bool; uint8; uint16; or floating point in
            [0, 1]. Never changed.

        Returns
        -------
        ndarray of shape (n, H, W[, C]) or list of (H, W[, C]) ndarrays
            New arrays of the same shapes and dtypes: one array for an array, else a list. Alpha
            is kept, and so are bool images, which have no contrast to enhance.

        Raises
        ------
        ValueError
            If a parameter or an image is outside its range.
        """
        self._check_parameters()
        images = check_images(X, name="X")
        # One call, one CLAHE object: OpenCV's are not safe to share between threads.

        def enhanced(image: np.ndarray) -> np.ndarray:
            balanced = _balanced(image, light_of(image)) if self.white_balance else image
            return _enhance(
                balanced,
                lambda brightness: _equalise(
                    brightness, float(self.clip_limit), self.tile_grid_size
                ),
            )

        n_jobs = min(effective_n_jobs(self.n_jobs), len(images))  # no threads without work
        changed = Parallel(n_jobs=n_jobs, prefer="threads")(
            delayed(enhanced)(image) for image in images
        )
        return in_container_of(list(changed), X)

    def _check_parameters(self) -> None:
        self._validate_params()
        grid = self.tile_grid_size
        if len(grid) != 2 or not all(_is_tile_count(count) for count in grid):
            raise InvalidParameterError(
                f"The 'tile_grid_size' parameter of Preprocessor must be two integers from 1 to "
                f"{_MAX_TILES}, rows and columns of tiles. Got {grid!r} instead. "
                "The default is (8, 8)."
            )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32", "float16"]
        return tags


def _is_tile_count(value: Any) -> bool:
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    return whole and 1 <= int(value) <= _MAX_TILES


class EnhancedRows:
    """An image of any size as `Preprocessor.transform` gives it, read by strips of rows.

    The histograms are counted in a first pass over the image, a strip at a time.

    Parameters
    ----------
    preprocessor : Preprocessor
        Says how.
    image : array-like of shape (H, W[, C])
        Anything with ``shape`` that slices of rows can be taken of; each slice is checked as
        images are.
    strip_height : int, optional
        Rows worked on at a time; by default as many as make up four megapixels.

    Notes
    -----
    8-bit brightness differs from OpenCV's by at most one level in 255, where it rounds a half.

    Examples
    --------
    >>> import numpy as np
    >>> from bloodseg.preprocessing import EnhancedRows, Preprocessor
    >>> image = np.random.default_rng(0).random((64, 64, 3))
    >>> whole = Preprocessor().transform([image])[0]
    >>> bool(np.allclose(EnhancedRows(Preprocessor(), image)[20:30], whole[20:30]))
    True
    """

    def __init__(self, preprocessor: Preprocessor, image: Any, *, strip_height: int | None = None):
        preprocessor._check_parameters()
        self.shape = image.shape
        self._image = image
        self._light = None
        if preprocessor.white_balance:
            self._light = light_of(image)
        height, width = image.shape[:2]
        self._strip_height = strip_height or max(1, _STRIP_PIXELS // width)
        grid = preprocessor.tile_grid_size
        rows, columns = min(int(grid[0]), height), min(int(grid[1]), width)
        margins = _margins((height, width), rows, columns)
        self._tile = ((height + margins[0]) // rows, (width + margins[1]) // columns)
        counts = np.zeros((rows, columns, _N_LEVELS), np.int64)
        mirrored = np.pad(np.arange(height), (0, margins[0]), "reflect")
        for row in range(rows):
            end = (row + 1) * self._tile[0]
            for top in range(row * self._tile[0], end, self._strip_height):
                wanted = mirrored[top : min(top + self._strip_height, end)]
                brightness = self._brightness(self._read(wanted.min(), wanted.max() + 1))
                padded = np.pad(
                    brightness[wanted - wanted.min()], ((0, 0), (0, margins[1])), "reflect"
                )
                counts[row] += _tile_histograms(padded, self._tile[1])
        self._curves = _clipped_curves(counts, self._tile, min(preprocessor.clip_limit, _N_LEVELS))

    def __getitem__(self, rows: slice) -> np.ndarray:
        """Return a strip, rows from ``start`` to ``stop``."""
        start, stop, _ = rows.indices(self.shape[0])
        tops = range(start, stop, self._strip_height)
        return np.concatenate(
            [self._strip(top, min(top + self._strip_height, stop)) for top in tops]
        )

    def _strip(self, start: int, stop: int) -> np.ndarray:
        strip = self._read(start, stop)
        return _enhance(strip, lambda brightness: self._equalise(brightness, start))

    def _read(self, start: int, stop: int) -> np.ndarray:
        strip = check_images([np.asarray(self._image[start:stop])], name="image")[0]
        return strip if self._light is None else _balanced(strip, self._light)

    @staticmethod
    def _brightness(strip: np.ndarray) -> np.ndarray:
        """Return brightness from 0 to 1."""
        if strip.dtype == bool:
            return np.zeros(strip.shape[:2], np.float32)
        brightness = _brightness_of(strip)[0]
        return brightness / np.float32(255) if brightness.dtype == np.uint8 else brightness

    def _equalise(self, brightness: np.ndarray, top: int) -> np.ndarray:
        if brightness.dtype != np.uint8:
            return _interpolate(brightness, self._curves, self._tile, top)
        curves = np.rint(255 * self._curves)  # as OpenCV's tables
        scaled = brightness / np.float32(255)
        return np.rint(_interpolate(scaled, curves, self._tile, top)).astype(np.uint8)


def light_of(image: Any, *, strip_height: int = 512) -> np.ndarray:
    """Return the colour of the light that comes through the empty parts of a smear.

    Parameters
    ----------
    image : array-like of shape (H, W[, C])
        Anything with ``shape`` that slices of rows can be taken of.
    strip_height : int
        Rows read at a time.

    Returns
    -------
    ndarray of shape (1,) or (3,), float32
        The median colour of the brightest pixels, in the image's units; above zero.
    """
    height, width = image.shape[:2]
    step = max(1, int(np.sqrt(height * width / _N_SAMPLED)))
    strip_height = -(-strip_height // step) * step
    # Copies: a view would keep its strip, and all strips are the whole slide.
    samples = [
        np.asarray(image[top : top + strip_height])[::step, ::step].copy()
        for top in range(0, height, strip_height)
    ]
    sample = np.concatenate(samples)
    colours = _colours(sample).astype(np.float32)
    luma = _luma(colours)
    bright = colours[luma >= np.quantile(luma, 1 - _BRIGHT_SHARE)]
    return np.maximum(np.median(bright, axis=0), _white_of(sample) / np.float32(255))


def transform_images(preprocessor: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Return checked images, preprocessed; their sizes stay, or there is a ValueError."""
    if preprocessor is None:
        return arrays
    changed = check_images(preprocessor.transform(arrays), name="the preprocessor's output")
    if [image.shape[:2] for image in changed] != [image.shape[:2] for image in arrays]:
        raise ValueError(
            "preprocessor must keep the number of images and their sizes, for the label maps have "
            f"the same; {type(preprocessor).__name__} does not."
        )
    return changed


def optical_density(image: np.ndarray) -> np.ndarray:
    """Return how much light each pixel takes away, as minus the base-10 logarithm of its share.

    Parameters
    ----------
    image : ndarray of shape (H, W, 3)
        RGB, uint8 or floating point in [0, 1].

    Returns
    -------
    ndarray of shape (H, W, 3), float32
        About 0 where the smear is empty, at most 2.4.
    """
    return -np.log10(np.clip(image / light_of(image), 1 / 255, 1)).astype(np.float32)


def _balanced(image: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Return a checked image as it would be under white light, as a new array."""
    balanced = image.copy()
    if image.dtype == bool:
        return balanced
    white = _white_of(image)
    colours = _colours(image) * (_BALANCED_LIGHT * white / light)
    colours = colours.clip(0, white)
    _colours(balanced)[...] = colours if image.dtype.kind == "f" else np.rint(colours)
    return balanced


def _white_of(image: np.ndarray) -> int:
    """Return the level of white in an image."""
    return np.iinfo(image.dtype).max if image.dtype.kind == "u" else 1


def _enhance(image: np.ndarray, equalise: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return a checked image with its brightness equalised, as a new array."""
    if image.dtype == bool:
        return image.copy()
    brightness, colours, white = _brightness_of(image)
    if image.dtype == np.uint8:
        change = equalise(brightness).astype(np.int16) - brightness
    else:
        change = (equalise(brightness) - brightness) * colours.dtype.type(white)
    colours += change[..., np.newaxis]
    colours.clip(0, white, out=colours)
    enhanced = image.copy()
    _colours(enhanced)[...] = np.rint(colours) if white > 255 else colours
    return enhanced


def _brightness_of(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Return an image's brightness, a copy of its colours to add to, and the level of white.

    Brightness is uint8 for 8-bit images and from 0 to 1 for others.
    """
    colours = _colours(image)
    if image.dtype == np.uint8:
        return _luma8(colours), colours.astype(np.int16), 255
    white = _white_of(image)
    colours = colours.astype(np.promote_types(image.dtype, np.float32))
    return _luma(colours) / colours.dtype.type(white), colours, white


def _colours(image: np.ndarray) -> np.ndarray:
    """Return a view (H, W, 1 or 3) of a checked image without its alpha channel."""
    return image[..., np.newaxis] if image.ndim == 2 else image[..., :3]


def _luma8(colours: np.ndarray) -> np.ndarray:
    if colours.shape[2] == 1:
        return colours[..., 0]
    return cv2.cvtColor(np.ascontiguousarray(colours), cv2.COLOR_RGB2GRAY)


def _luma(colours: np.ndarray) -> np.ndarray:
    if colours.shape[2] == 1:
        return colours[..., 0]
    return colours @ np.asarray(_LUMA_WEIGHTS, dtype=colours.dtype)


def _equalise(brightness: np.ndarray, clip_limit: float, grid: Sequence[int]) -> np.ndarray:
    """Apply CLAHE to brightness (H, W), uint8 or floating point in [0, 1]; dtype kept."""
    height, width = brightness.shape
    rows, columns = min(int(grid[0]), height), min(int(grid[1]), width)
    clip_limit = min(clip_limit, float(_N_LEVELS))  # above, it limits nothing and then overflows
    padded = _pad_to_tiles(brightness, rows, columns)
    tile = (padded.shape[0] // rows, padded.shape[1] // columns)
    if brightness.dtype != np.uint8:
        return _interpolate(brightness, _tone_curves(padded, tile, clip_limit), tile)
    if tile[0] * tile[1] >= _MIN_OPENCV_TILE:
        return cv2.createCLAHE(clip_limit, (columns, rows)).apply(np.ascontiguousarray(brightness))
    curves = _tone_curves(padded / np.float32(255), tile, clip_limit)
    return np.rint(255 * _interpolate(brightness / np.float32(255), curves, tile)).astype(np.uint8)


def _margins(shape: tuple[int, ...], rows: int, columns: int) -> tuple[int, int]:
    """Return by how much to pad below and to the right, so that tiles of one size fit."""
    height, width = shape
    if height % rows == 0 and width % columns == 0:
        return 0, 0
    # As OpenCV: where one side needs padding, the other gets it too, a pixel a tile if it fits.
    return rows - height % rows, columns - width % columns


def _pad_to_tiles(brightness: np.ndarray, rows: int, columns: int) -> np.ndarray:
    below, right = _margins(brightness.shape, rows, columns)
    return np.pad(brightness, ((0, below), (0, right)), mode="reflect")


def _tone_curves(padded: np.ndarray, tile: tuple[int, int], clip_limit: float) -> np.ndarray:
    """Return each tile's clipped cumulative histogram (rows, columns, 256), from 0 to 1."""
    strips = np.split(padded, padded.shape[0] // tile[0])
    counts = np.stack([_tile_histograms(strip, tile[1]) for strip in strips])
    return _clipped_curves(counts, tile, clip_limit)


def _clipped_curves(counts: np.ndarray, tile: tuple[int, int], clip_limit: float) -> np.ndarray:
    area = tile[0] * tile[1]
    clip = _clip_whole_pixels if area >= _MIN_OPENCV_TILE else _clip_fractions
    return np.cumsum(clip(counts, clip_limit * area / _N_LEVELS), axis=-1) / area


def _tile_histograms(strip: np.ndarray, tile_width: int) -> np.ndarray:
    columns = strip.shape[1] // tile_width
    levels = np.rint(strip * (_N_LEVELS - 1)).astype(np.intp)
    bins = np.arange(strip.shape[1]) // tile_width * _N_LEVELS + levels
    return np.bincount(bins.ravel(), minlength=columns * _N_LEVELS).reshape(columns, _N_LEVELS)


def _clip_whole_pixels(counts: np.ndarray, limit: float) -> np.ndarray:
    """Clip and spread the excess as OpenCV does, so that every dtype gives its picture."""
    clipped = np.minimum(counts, max(1, int(limit)))
    excess = (counts - clipped).sum(axis=-1, keepdims=True)
    share, rest = np.divmod(excess, _N_LEVELS)
    stride = _N_LEVELS // np.maximum(rest, 1)
    level = np.arange(_N_LEVELS)
    return clipped + share + ((level % stride == 0) & (level // stride < rest))


def _clip_fractions(counts: np.ndarray, limit: float) -> np.ndarray:
    """Clip and spread the excess in fractions of a pixel, so that tiny tiles change little."""
    clipped = np.minimum(counts, limit)
    return clipped + (counts - clipped).sum(axis=-1, keepdims=True) / _N_LEVELS


def _interpolate(
    brightness: np.ndarray, curves: np.ndarray, tile: tuple[int, int], first_row: int = 0
) -> np.ndarray:
    """Look up brightness in the curves of the four nearest tiles, linear in place and level.

    ``first_row`` is the place of a strip in the image.
    """
    height, width = brightness.shape
    result = np.empty_like(brightness)
    across = np.arange(width) / tile[1] - 0.5  # OpenCV's grid, so that both ways agree
    step = max(1, _BLOCK_PIXELS // width)
    for top in range(0, height, step):
        block = brightness[top : top + step]
        where = np.empty((3, *block.shape))
        rows = np.arange(first_row + top, first_row + top + len(block))
        where[0] = (rows / tile[0] - 0.5)[:, np.newaxis]
        where[1] = across
        where[2] = block * (_N_LEVELS - 1)
        result[top : top + step] = ndimage.map_coordinates(curves, where, order=1, mode="nearest")
    return result
