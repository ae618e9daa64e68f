"""The classes of pixels and cells: names, labels and colours, in one place.

Classes are a plain tuple of names, handed down to what needs it; a label is a place in it. Rules of
white and red cells, and of platelets, belong to these names, whatever their labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

CLASS_NAMES = ("background", "white", "red")
"""Names of the labels 0, 1 and 2, in the paper's order (Section 2): what is taken by default."""

BACKGROUND, WHITE, RED, PLATELET = "background", "white", "red", "platelet"
"""The names that mean something to this package; all others are just names."""

NOT_LABELLED = 255
"""Label of pixels whose class is not known: they teach nothing and are not scored."""

# RGB in 255ths, of Okabe and Ito, which colour-blind people tell apart. Blue and orange are no
# colours of the usual stains. https://jfly.uni-koeln.de/color/
_COLOURS = {WHITE: (0, 114, 178), RED: (230, 159, 0), PLATELET: (0, 158, 115)}
_FURTHER = ((86, 180, 233), (213, 94, 0), (240, 228, 66))
_DARKER = 0.6  # of a colour that comes again
_DARK, _LIGHT = 0.2, 0.6  # of the colour; of the way from it to white

_NOUNS = {WHITE: "white cells", RED: "red cells", PLATELET: "platelets"}

# Tables have columns of these names beside those of the classes, and more for each class.
_COLUMNS = ("image", "images", "folder", "area_mm2", "frame_mm2", "confidence", "doubts", "all")
_ENDINGS = ("_in_frame", "_per_mm2")


def check_classes(classes: Any, *, name: str = "classes") -> tuple[str, ...]:
    """Return names of classes as a tuple.

    Raises
    ------
    ValueError
        If there are not 2 to 255 different names that tables and command lines can hold, the first
        of them "background".
    """
    listed = not isinstance(classes, str) and hasattr(classes, "__iter__")
    names = tuple(classes) if listed else ()
    fits = 2 <= len(names) <= NOT_LABELLED and all(map(_is_name, names))
    if not fits or names[0] != BACKGROUND or len(set(names)) < len(names):
        raise ValueError(
            f"{name} must hold 2 to {NOT_LABELLED} different names, 'background' first, each a "
            "text on one line that begins with a letter or digit, without commas, and none of "
            f"{', '.join(_COLUMNS)} or with {' or '.join(_ENDINGS)} at its end, which are columns "
            f"of tables; got {_shown(classes)}. The default is {CLASS_NAMES}."
        )
    return tuple(map(str, names))


def _is_name(name: Any) -> bool:
    if not isinstance(name, str) or not name or name in _COLUMNS or name.endswith(_ENDINGS):
        return False
    # In the head of a table, a spreadsheet takes what begins with other signs for a formula.
    return name[0].isalnum() and not name[-1].isspace() and name.isprintable() and "," not in name


def _shown(classes: Any) -> str:
    text = repr(classes)
    return text if len(text) <= 200 else f"{text[:200]}..."


def numbered(n_classes: int) -> tuple[str, ...]:
    """Return names for so many classes: the default ones for three, else their numbers."""
    if n_classes == len(CLASS_NAMES):
        return CLASS_NAMES
    return tuple(map(str, range(n_classes)))


def label_of(classes: Sequence[str], name: str) -> int | None:
    """Return the label of a class, or None where there is no such class."""
    return classes.index(name) if name in classes else None


def mask_of(class_map: np.ndarray, classes: Sequence[str], name: str) -> np.ndarray:
    """Return where a class map has a class; nowhere, if there is no such class."""
    label = label_of(classes, name)
    return np.zeros(class_map.shape, bool) if label is None else np.asarray(class_map == label)


def cell_labels(classes: Sequence[str]) -> dict[str, int]:
    """Return the labels of all classes but the background, by name, in their order."""
    return {name: label for label, name in enumerate(classes) if label}


def with_labels(classes: Sequence[str], *, first: int = 0) -> str:
    """Return classes and their labels in words: ``0 (background), 1 (white) and 2 (red)``."""
    parts = [f"{label} ({name})" for label, name in enumerate(classes) if label >= first]
    return " and ".join([", ".join(parts[:-1])] * (len(parts) > 1) + parts[-1:])


def in_words(name: str, number: int = 2) -> str:
    """Return what a text calls so many cells of a class."""
    noun = _NOUNS.get(name, name)
    return noun[:-1] if number == 1 and name in _NOUNS else noun


def counted(number: int, noun: str) -> str:
    """Return "1 image", "2 images"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def counted_cells(number: int, name: str) -> str:
    """Return "1 white cell", "2 white cells"; "parasite: 2", for who knows its plural."""
    return f"{number} {in_words(name, number)}" if name in _NOUNS else f"{name}: {number}"


def colours_of(classes: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Return the colour of each class of cells, RGB in 255ths, by name.

    White and red cells and platelets have their own; others get theirs in the order of the classes.
    """
    colours = {}
    n_further = 0
    for name in classes[1:]:
        if name in _COLOURS:
            colours[name] = _COLOURS[name]
            continue
        again, place = divmod(n_further, len(_FURTHER))
        red, green, blue = (round(value * _DARKER**again) for value in _FURTHER[place])
        colours[name] = (red, green, blue)
        n_further += 1
    return colours


def shades(colour: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the dark and the light shade of a colour that outlines have, RGB in 255ths."""
    rgb = np.array(colour, np.float32)
    return np.rint(_DARK * rgb), np.rint(rgb + _LIGHT * (255 - rgb))


def in_css(rgb: Iterable[float]) -> str:
    """Return a colour in 255ths as style sheets have it."""
    return "rgb({:.0f}, {:.0f}, {:.0f})".format(*rgb)
