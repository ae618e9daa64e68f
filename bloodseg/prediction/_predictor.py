"""From images to class maps: whole or in tiles, in memory or by strips on disk."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from scipy.special import softmax

from .._files import ArrayFile
from .._images import STRIDE, ScaledRows, blend_tiles, restore_size
from .._progress import Progress
from ..cells import check_pixel_size
from ..datasets import Slide
from ..ode import WarningOnce
from ..preprocessing import transform_images
from ._agreement import SHOWN, STEADY, View, is_sure, measure_agreement
from ._magnification import Ruler, Scaling
from ._network import TileNetwork, check_tile_size, explain_memory_errors, tile_side
from ._noise import SmoothedRows, is_noisy
from ._picture import Picture, find_picture
from ._places import find_places
from ._segmented import Segmented
from ._sources import OpenImage, Source, Sources, check_sources, preprocess_rows

_LOGGER = logging.getLogger("bloodseg")

# Shares of an image in the statistics of a network that is adapted to it, tried in turn. Of 0.05,
# 0.1, 0.2 and 0.4 these help laboratories that training has not seen, and cost fields little.
_SHARES = 0.1, 0.2

_UNKNOWN = 0.5  # taken for the scaling of a noisy image before its cells are measured

_OVERLAPS = (96, 128)  # pixels: a quarter of a tile's side within these, if it has room

_T = TypeVar("_T")

Block = tuple[slice, slice, np.ndarray]
"""Rows, columns, and values of shape (n, h, w) there."""


@dataclass(frozen=True)
class PreparedImage:
    """An image on its way to the network.

    Attributes
    ----------
    opened : OpenImage
        As the caller gave it.
    picture : Picture
        The same without what is no picture.
    enhanced : array-like of shape (H, W[, C])
        As the preprocessor gives that; of a large file, read by strips of rows.
    scaling : Scaling
        By how much to scale it for the network.
    smoothed : bool
        Whether it is so noisy that it was smoothed before.
    """

    opened: OpenImage
    picture: Picture
    enhanced: Any
    scaling: Scaling
    smoothed: bool = False

    @property
    def label(self) -> str:
        """What messages call the image."""
        return self.opened.source.label


class Predictor:
    """What one call of a predicting method needs: a network of its own, images, a ruler.

    Nothing that was fitted is written to, and parameters that change while images are still being
    predicted do not reach it.

    Parameters
    ----------
    network : TileNetwork
        A copy that belongs to this predictor.
    preprocessor : transformer or None
        What images go through first.
    ruler : Ruler
        Tells by how much to scale an image.
    tile_size : int, "auto" or None
        Largest side of the tiles in pixels.
    compile : bool or "auto"
        Whether the ODE-blocks compile their sums.
    pixel_size : float, optional
        Side of a pixel in micrometres, in place of what files say.
    verbose : int
        1 shows how far images, and the tiles of an image, are.

    Attributes
    ----------
    evaluations : list of dict of int to int
        Evaluations of f at each position for each image so far; of an image in tiles, the most of
        any tile.
    """

    def __init__(
        self,
        network: TileNetwork,
        preprocessor: Any,
        *,
        ruler: Ruler,
        tile_size: int | str | None = "auto",
        compile: bool | str = "auto",
        pixel_size: float | None = None,
        verbose: int = 0,
    ):
        check_pixel_size(pixel_size)
        check_tile_size(tile_size)
        self.network = network
        self.evaluations: list[dict[int, int]] = []
        self._preprocessor = preprocessor
        self._ruler = ruler
        self._tile_size = tile_size
        self._compile = compile
        self._pixel_size = pixel_size
        self._verbose = verbose

    @property
    def n_function_evaluations(self) -> dict[int, np.ndarray]:
        """Evaluations of f at each position, one number an image."""
        positions = self.evaluations[0] if self.evaluations else ()
        return {key: np.array([image[key] for image in self.evaluations]) for key in positions}

    def segmented(self, images: Sources) -> Iterator[Segmented]:
        """Check images, and return an iterator over what the network says of each.

        Raises
        ------
        FileNotFoundError, ValueError
            As `check_sources`.
        """
        return self._each(self._segment, check_sources(images))

    def probabilities(self, images: Sources) -> Iterator[np.ndarray]:
        """Check images, and return an iterator over the probabilities (H, W, n) of each.

        Raises
        ------
        FileNotFoundError, ValueError
            As `check_sources`.
        """
        return self._each(self._probabilities, check_sources(images))

    def _each(self, work: Callable[[PreparedImage], _T], sources: list[Source]) -> Iterator[_T]:
        once = WarningOnce()
        shown = bool(self._verbose) and len(sources) > 1
        with Progress(len(sources), label="predicting", unit="image", shown=shown) as progress:
            for image in self._prepare(sources, once):
                with once.watch():
                    result = work(image)
                yield result
                progress.advance()
        once.summarize()

    def _prepare(self, sources: list[Source], once: WarningOnce) -> Iterator[PreparedImage]:
        """Yield the images, opened and enhanced, with the scaling that the network wants."""
        arrays = [source.given for source in sources if isinstance(source.given, np.ndarray)]
        pictures = [find_picture(array) for array in arrays]
        looked_at = [picture.pixels for picture in pictures]
        enhanced = transform_images(self._preprocessor, looked_at) if looked_at else []
        of_arrays = zip(pictures, enhanced, strict=True)
        for place, source in enumerate(sources):
            opened = source.open()  # only now: a list may have more files than fit into memory
            if place == 0:
                self._decide_compilation(opened, len(sources))
            if isinstance(source.given, np.ndarray):
                picture, ready = next(of_arrays)
            else:
                picture = find_picture(opened.pixels)
                ready = self._enhance(picture.pixels)
            if picture.share_left_out > 0:
                _LOGGER.info(
                    "%.1f %% of %s is no picture.", 100 * picture.share_left_out, source.label
                )
            with once.watch():
                yield self._measure(opened, picture, ready)

    def _measure(self, opened: OpenImage, picture: Picture, enhanced: Any) -> PreparedImage:
        """Return an image with the scaling that the network wants, smoothed where it is noisy."""
        pixels, measured = picture.pixels, enhanced
        if self._ruler.given == "auto" and is_noisy(pixels, 1.0):
            # Noise has outlines of its own, and how wide a smoothing suits the cells is not known.
            # A network that is asked about sizes needs a wider one than what measures outlines.
            measured = self._enhance(self._smooth(pixels, _UNKNOWN))
            pixels = self._smooth(pixels, 1.0)
        scaling = self._ruler.measure(pixels, measured, self.network, label=opened.source.label)
        image = PreparedImage(opened, picture, enhanced, scaling)
        # Where the ruler is none, images are of the laboratory that the network knows.
        if self._ruler.given is None or not is_noisy(picture.pixels, scaling.factor):
            return image
        _LOGGER.info("%s is noisy: smoothed.", image.label)
        return self._with_smoothing(image)

    def _with_smoothing(self, image: PreparedImage) -> PreparedImage:
        """Return an image smoothed as suits its scaling, and then enhanced."""
        smoothed = self._smooth(image.picture.pixels, image.scaling.factor)
        return replace(image, enhanced=self._enhance(smoothed), smoothed=True)

    @staticmethod
    def _smooth(pixels: Any, factor: float) -> Any:
        rows = SmoothedRows(pixels, factor)
        return rows[:] if isinstance(pixels, np.ndarray) else rows

    def _enhance(self, pixels: Any) -> Any:
        """Return a picture as the preprocessor gives it; one that is read by rows likewise."""
        if isinstance(pixels, np.ndarray):
            return transform_images(self._preprocessor, [pixels])[0]
        return preprocess_rows(self._preprocessor, pixels)

    def _decide_compilation(self, first: OpenImage, n_images: int) -> None:
        """Let the first image stand for all: whether to compile depends on sizes."""
        height, width = first.pixels.shape[:2]
        side = tile_side(self._tile_size, (height, width), self.network.device)
        n_pixels = height * width if side is None else side**2
        n_tiles = n_images * height * width // n_pixels
        self.network.decide_compilation(self._compile, n_pixels, n_tiles)

    def _segment(self, image: PreparedImage) -> Segmented:
        """Return the class map of an image, and the probability of each pixel's class in 255ths."""
        opened = image.opened
        height, width = opened.pixels.shape[:2]
        make = ArrayFile if isinstance(opened.pixels, Slide) else np.zeros
        class_map, confidence = (make((height, width), np.uint8) for _ in range(2))
        outside = image.picture.outside

        def fill(image: PreparedImage, network: TileNetwork) -> Segmented:
            for rows, strips in _join_strips(self._logits(image, network), width):
                if outside is not None:
                    strips[:, outside[rows]] = 0
                for array, strip in zip((class_map, confidence), strips, strict=True):
                    array[rows, slice(0, width)] = strip
            return self._describe(image, class_map, confidence)

        return self._answer(image, fill)

    def _answer(
        self,
        image: PreparedImage,
        fill: Callable[[PreparedImage, TileNetwork], Segmented],
        *,
        may_rescale: bool = True,
    ) -> Segmented:
        """Let an image be segmented, and once more in another size or by an adapted network.

        ``fill`` segments it, in the place of what it returned before.
        """
        found = fill(image, self.network)
        rescaled = self._measure_again(image, found) if may_rescale else None
        if rescaled is None:
            agreement, adapted = self._look_again(image, found)
            if agreement is None:
                return found
            if adapted is not None:
                self.evaluations.pop()  # only the answer that is given counts
                found = fill(image, adapted)
                # In a wrong size a network may see cells of that size, until it is adapted.
                rescaled = self._measure_again(image, found) if may_rescale else None
            if rescaled is None:
                return found._mirrored(agreement, adapted=adapted is not None)
        self.evaluations.pop()
        return self._answer(rescaled, fill, may_rescale=False)

    def _describe(self, image: PreparedImage, class_map: Any, confidence: Any) -> Segmented:
        """Return what the network says of an image, before it is asked again."""
        opened = image.opened
        return Segmented(
            opened.source.name,
            opened.pixels,
            class_map,
            confidence,
            opened.pixel_size if self._pixel_size is None else self._pixel_size,
            opened.pixel_aspect if self._pixel_size is None else 1.0,
            image.picture,
            label=image.label,
            evaluations=self.evaluations[-1],
            expected_diameter=self._ruler.expected_diameter(image.scaling),
            guessed_diameter=image.scaling.guessed,
            measured_diameter=self._ruler.given == "auto",
            classes=self.network.classes,
            smoothed=image.smoothed,
            orientation=opened.orientation,
        )

    def _probabilities(self, image: PreparedImage) -> np.ndarray:
        shape = (*image.opened.pixels.shape[:2], len(self.network.classes))
        probabilities = np.empty(shape, np.float32)
        outside = None if image.picture.outside is None else image.picture.outside[:]

        def fill(image: PreparedImage, network: TileNetwork) -> Segmented:
            for rows, columns, logits in self._logits(image, network):
                probabilities[rows, columns] = np.moveaxis(softmax(logits, axis=0), 0, -1)
            if outside is not None:
                probabilities[outside] = np.eye(shape[2])[0]
            # As `_segment` has them, so that both come to the same answer.
            class_map = probabilities.argmax(axis=2).astype(np.uint8)
            confidence = np.rint(255 * probabilities.max(axis=2)).astype(np.uint8)
            if outside is not None:
                confidence[outside] = 0
            return self._describe(image, class_map, confidence)

        self._answer(image, fill)
        return probabilities

    def _measure_again(self, image: PreparedImage, found: Segmented) -> PreparedImage | None:
        """Return an image scaled otherwise, where the cells found in it are of another size."""
        # Another size is a reason for doubt, and those are known by now or wanted next.
        if self._ruler.given != "auto" or not found._doubts_of_looks:
            return None
        if found.radii is None or found.radii.red is None:
            return None
        scaling = self._ruler.measure_again(
            2 * found.radii.red, image.scaling, image.enhanced, self.network
        )
        if scaling is None:
            return None
        _LOGGER.info("%s: measured again, by the cells found in it.", image.label)
        image = replace(image, scaling=scaling)
        return self._with_smoothing(image) if image.smoothed else image

    def _look_again(
        self, image: PreparedImage, found: Segmented
    ) -> tuple[float | None, TileNetwork | None]:
        """Ask about the mirrored image where the network or the image is in doubt; adapt to it.

        Returns
        -------
        agreement : float or None
            Of the answer with that for the mirrored image; None where nobody has asked.
        adapted : TileNetwork or None
            One that agrees with itself better, which the image is to be given to again.
        """
        # Where the ruler is none, images may look like no smear, and no such doubt is told.
        if self._ruler.given is None:
            return None, None
        factor = image.scaling.factor
        places = find_places(found.class_map, int(SHOWN / factor), found.classes, factor)
        if is_sure(found, places) and not found._doubts_of_looks:
            return None, None
        views = [View.of(image.enhanced, place, factor) for place in places]
        shown = views, found.outside
        pixels = [view.pixels for view in views]
        best, steadiest = measure_agreement(self.network, *shown, found.class_map), None
        if best >= STEADY:
            return best, None
        for share in _SHARES:
            if best >= STEADY or (adapted := self.network.adapted_to(pixels, share)) is None:
                break
            agreement = measure_agreement(adapted, *shown)
            if agreement > best:
                best, steadiest = agreement, adapted
        if steadiest is not None:
            _LOGGER.info("%s: normalised by its own statistics, too.", image.label)
        return best, steadiest

    def _logits(self, image: PreparedImage, network: TileNetwork) -> Iterator[Block]:
        """Yield the logits (n, h, w) of an image block by block, in its own pixels."""
        factor = image.scaling.factor
        if factor == 1:
            return self._run(network, image.enhanced, image.label)
        scaled = ScaledRows(image.enhanced, factor)
        blocks = self._run(network, scaled, image.label)
        return restore_size(blocks, scaled.shape, image.enhanced.shape)

    def _run(self, network: TileNetwork, pixels: Any, label: str) -> Iterator[Block]:
        """Run a network on an image, whole or in tiles, and keep the evaluations of f."""
        height, width = pixels.shape[:2]
        side = tile_side(self._tile_size, pixels.shape, network.device)
        most: dict[int, int] = {}
        with explain_memory_errors(label, pixels.shape):
            if side is None:
                logits, most = network(np.asarray(pixels[:height]))
                yield slice(0, height), slice(0, width), logits
            else:
                overlap = min(max(side // 4, _OVERLAPS[0]), _OVERLAPS[1], side // 2)
                overlap = overlap // STRIDE * STRIDE
                blocks = blend_tiles(pixels, network, side=side, overlap=overlap)
                for rows, columns, logits, counts in self._show_progress(blocks, height):
                    most = {key: max(n, most.get(key, 0)) for key, n in counts.items()}
                    yield rows, columns, logits
        self.evaluations.append(most)

    def _show_progress(self, blocks: Iterable[Any], height: int) -> Iterator[Any]:
        done = 0
        with Progress(height, label="tiles", unit="row", shown=bool(self._verbose)) as progress:
            for block in blocks:
                yield block
                progress.advance(block[0].stop - done)
                done = block[0].stop


def _join_strips(blocks: Iterable[Block], width: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Turn logits block by block into classes and confidences by whole strips (2, h, W)."""
    strip = None
    for rows, columns, logits in blocks:
        if strip is None:
            strip = np.empty((2, rows.stop - rows.start, width), np.uint8)
        best = logits.max(axis=0)
        strip[0, :, columns] = logits.argmax(axis=0)
        strip[1, :, columns] = np.rint(255 / np.exp(logits - best).sum(axis=0))
        if columns.stop == width:
            yield rows, strip
            strip = None
