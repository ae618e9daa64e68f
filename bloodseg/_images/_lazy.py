"""Images that are opened, and prepared, when their pixels are asked for, or just before that."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

_T = TypeVar("_T")


class LazyImage:
    """An image that is made anew each time that its pixels are asked for.

    Parameters
    ----------
    read : callable
        Returns the pixels (H, W[, C]).
    shape : tuple of int
        Of the pixels; height and width at least.
    """

    def __init__(self, read: Callable[[], np.ndarray], shape: tuple[int, ...]):
        self.read = read
        self.shape = shape

    def __getitem__(self, where: Any) -> np.ndarray:
        return self.read()[where]


class LazyImages(Sequence[np.ndarray]):
    """Lazy images as a sequence of arrays, each opened as it is taken."""

    def __init__(self, images: Sequence[LazyImage]):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        chosen = self._images[index]
        return LazyImages(chosen) if isinstance(index, slice) else chosen[...]


class RecentImages:
    """The pixels that were last asked for, as many as the memory set aside for them holds."""

    def __init__(self, n_bytes: int):
        self._n_bytes = n_bytes
        self._held = 0
        self._pixels: OrderedDict[LazyImage, np.ndarray] = OrderedDict()

    def keep(self, image: LazyImage) -> LazyImage:
        """Return the image, read again only where there was no room for it."""
        return LazyImage(lambda: self._read(image), image.shape)

    def _read(self, image: LazyImage) -> np.ndarray:
        if image in self._pixels:
            self._pixels.move_to_end(image)
            return self._pixels[image]
        pixels = image.read()
        self._pixels[image] = pixels
        self._held += pixels.nbytes
        while self._held > self._n_bytes:
            _, oldest = self._pixels.popitem(last=False)
            self._held -= oldest.nbytes
        return pixels


def change_image(
    image: Any, change: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...] | None = None
) -> Any:
    """Return a changed image: an array at once, a lazy image whenever it is opened.

    ``shape`` is that of the change, where it is another.
    """
    if isinstance(image, LazyImage):
        return LazyImage(lambda: change(image.read()), shape or image.shape)
    return change(image)


def made_ahead(items: Iterable[_T]) -> Iterator[_T]:
    """Yield items, of which the next is made in a thread while the caller works on one.

    Examples
    --------
    >>> from bloodseg._images import made_ahead
    >>> list(made_ahead(number**2 for number in range(4)))
    [0, 1, 4, 9]
    """
    rest, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        ahead = thread.submit(next, rest, end)
        while (item := ahead.result()) is not end:
            ahead = thread.submit(next, rest, end)
            yield item  # type: ignore[misc]
