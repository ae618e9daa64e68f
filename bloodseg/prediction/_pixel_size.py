"""Sizes of pixels that the cells found with them contradict."""

from __future__ import annotations

_RED_CELL = 7.5  # micrometres, on a dry smear
_RED_CELLS = 4.5, 11.5  # of small cells in severe anaemias, and of large ones
_SQUARE = 1.02  # by how much height and width of a pixel may differ


def list_pixel_size_doubts(diameter: float | None, sides: tuple[float, float] | None) -> list[str]:
    """Return why the size of an image's pixels is perhaps wrong, in words; nothing where it fits.

    Files often give the pixel of the camera, without its objective, or what a writer puts in where
    nobody said anything.

    Parameters
    ----------
    diameter : float or None
        Of a typical red cell of the image, in pixels, where there is one.
    sides : (float, float) or None
        Height and width of a pixel in micrometres, where they are known.
    """
    if sides is None:
        return []
    height, width = sides
    texts = []
    if max(sides) > _SQUARE * min(sides):
        texts.append(
            f"its pixels are {height:.3g} by {width:.3g} micrometres, so that areas are right, but "
            "not perimeters and shapes; make them square"
        )
    size = (height * width) ** 0.5
    if diameter is not None and not _RED_CELLS[0] <= diameter * size <= _RED_CELLS[1]:
        texts.append(
            f"with pixels of {size:.3g} micrometres its red cells are {diameter * size:.3g} "
            f"micrometres wide, not about {_RED_CELL}; give pixel_size if its file is wrong"
        )
    return texts
