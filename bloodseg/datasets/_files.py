"""What the loaders share: finding files, names of classes, tables."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._files import expanded
from .._images import PLATELET, RED, WHITE
from ._decoding import START, foreign_format_of, format_of, missing_package

_HEIC_SUFFIXES = (".heic", ".heif")
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", *_HEIC_SUFFIXES),
    *(".svs", ".ndpi", ".scn", ".bif", ".btf", ".qptiff"),  # of slide scanners: TIFFs
)
_MAX_JSON_BYTES = 2**28
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
_ZARR = ("zarr.json", ".zarray", ".zgroup")  # one of them lies in the folder of an array or group

_ALIASES = {
    PLATELET: ("platelet", "platelets", "plt", "thrombocyte", "thrombocytes"),
    WHITE: (
        *("white", "wbc", "wbcs", "white cell", "white cells", "white blood cell"),
        *("white blood cells", "leukocyte", "leukocytes", "leucocyte", "leucocytes"),
    ),
    RED: (
        *("red", "rbc", "rbcs", "red cell", "red cells", "red blood cell"),
        *("red blood cells", "erythrocyte", "erythrocytes"),
    ),
}


def check_folder(path: str | os.PathLike, *, holds: str) -> Path:
    """Return ``path`` if it is a folder; ``holds`` says in words what should be in it."""
    folder = expanded(path)
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"path must be a folder with {holds}; {folder} {state}.")
    return folder


def files_in(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """Return the visible files with these suffixes, in any case, sorted by name."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in suffixes and not entry.name.startswith(".") and entry.is_file()
    )


def files_by_stem(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Return the files of ``files_in`` by their names without suffix, which must be unique."""
    return {stem: only_file(files) for stem, files in group_by_stem(folder, suffixes).items()}


def group_by_stem(folder: Path, suffixes: Iterable[str]) -> dict[str, list[Path]]:
    """Return the files of ``files_in``, those of one name without suffix together."""
    found: dict[str, list[Path]] = {}
    for file in files_in(folder, suffixes):
        found.setdefault(file.stem, []).append(file)
    return found


def only_file(files: Sequence[Path]) -> Path:
    """Return the one file of a name, or raise where there are several."""
    if len(files) > 1:
        raise ValueError(
            f"{files[0].parent} must hold one file a name; got {files[0].name} and "
            f"{files[1].name}. Rename or remove one."
        )
    return files[0]


def list_images(path: str | os.PathLike, *, recursive: bool = False) -> list[Path]:
    """List the images in a folder, sorted by name.

    Parameters
    ----------
    path : str or path-like
        A folder; or one image (a file or a Zarr folder), which is returned as it is.
    recursive : bool, default=False
        Search subfolders, too, but for hidden ones and links to folders.

    Returns
    -------
    list of Path
        PNG, JPEG, TIFF, BMP and (with the extra ``heic``) HEIC files, by their suffixes in any
        case or by how they begin, slides of scanners that are TIFFs among them; and Zarr folders.
        Hidden files are left out; see `list_passed_over`.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder, or the folder holds no image.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from bloodseg.datasets import list_images
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("b.png", "a.JPG", "notes.txt"):
    ...         (Path(folder) / name).touch()
    ...     [file.name for file in list_images(folder)]
    ['a.JPG', 'b.png']
    """
    path = expanded(path)
    if path.is_file() or is_zarr(path):
        return [path]
    folder = check_folder(path, holds="images, or an image file")
    entries = _entries(folder, recursive)
    images = [entry for entry, why in entries if not why]
    if not images:
        named = ", ".join(f"{entry.name} ({why})" for entry, why in entries[:8])
        raise FileNotFoundError(
            f"path must hold at least one image ({', '.join(IMAGE_SUFFIXES)}); {folder} has none"
            + (f", but {named}{', ...' if len(entries) > 8 else ''}." if entries else ".")
        )
    return images


def list_passed_over(path: str | os.PathLike, *, recursive: bool = False) -> list[tuple[Path, str]]:
    """List what `list_images` leaves out of a folder, hidden files apart, and why.

    Parameters
    ----------
    path : str or path-like
        A folder; or one image, for which nothing is left out.
    recursive : bool, default=False
        As for `list_images`.

    Returns
    -------
    list of (Path, str)
        Files and subfolders, sorted by name, each with the reason in a few words.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from bloodseg.datasets import list_passed_over
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = (Path(folder) / "a.gif").write_bytes(b"GIF89a")
    ...     (Path(folder) / "old").mkdir()
    ...     [(left_out.name, why) for left_out, why in list_passed_over(folder)]
    [('a.gif', 'GIF is not read'), ('old', 'subfolders are not searched')]
    """
    path = expanded(path)
    if path.is_file() or is_zarr(path):
        return []
    folder = check_folder(path, holds="images, or an image file")
    return [(entry, why) for entry, why in _entries(folder, recursive) if why]


def _entries(folder: Path, recursive: bool) -> list[tuple[Path, str]]:
    """Return what is in a folder, sorted, and why it is no image, "" for one.

    Links to folders are not followed, which may lead in a circle.
    """
    found, waiting = [], [folder]
    while waiting:
        here = waiting.pop()
        try:
            entries = _visible(here)
        except OSError as error:
            if here == folder:
                raise
            found.append((here, f"it cannot be read: {error.strerror}"))
            continue
        for entry in entries:
            if recursive and entry.is_dir() and not entry.is_symlink() and not is_zarr(entry):
                waiting.append(entry)
            else:
                found.append((entry, _why_passed_over(entry)))
    return sorted(found)


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _why_passed_over(entry: Path) -> str:
    """Return why an entry of a folder is no image, in words; "" if it is one."""
    if entry.is_dir():
        if is_zarr(entry):
            return ""
        kind = "links to folders" if entry.is_symlink() else "subfolders"
        return f"{kind} are not searched"
    if not entry.is_file():
        return "it is no file, or a link to none"
    suffix = entry.suffix.lower()
    if suffix in IMAGE_SUFFIXES and suffix not in _HEIC_SUFFIXES:
        return ""  # damaged ones, too: reading them says what is wrong
    try:
        start = read_start(entry)
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    format_ = format_of(start)
    if format_ or suffix in _HEIC_SUFFIXES:
        return missing_package(format_)
    foreign = foreign_format_of(start)
    return f"{foreign} is not read" if foreign else "it is no image"


def is_zarr(path: Path) -> bool:
    """Return whether a folder is Zarr, by its name or by what lies in it."""
    return path.is_dir() and (
        path.suffix.lower() == ".zarr" or any((path / name).exists() for name in _ZARR)
    )


def is_image(path: Path) -> bool:
    """Return whether a file begins as those do that are read as images."""
    return path.is_file() and format_of(read_start(path)) is not None


def read_start(path: Path) -> bytes:
    """Return the first bytes of a file, which tell its format."""
    check_file(path)
    with path.open("rb") as file:
        return file.read(START)


def check_file(path: Path) -> None:
    """Raise where this is no file: of pipes and devices, reading may never end."""
    if not path.is_file():
        state = "is not a file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {state}.")


def read_bytes(path: Path, *, limit: int) -> bytes:
    """Read a file after checking that it is one and not larger than ``limit`` bytes."""
    check_file(path)
    size = path.stat().st_size
    if size > limit:
        raise ValueError(f"{path} must have at most {limit:,} bytes; got {size:,}. Split it up.")
    return path.read_bytes()


def read_json(path: Path, tool: str) -> Any:
    """Read a JSON file of a tool for annotations."""
    try:
        return json.loads(read_bytes(path, limit=_MAX_JSON_BYTES))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply to be a file of {tool}.") from None
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error


def find_pictures(folder: Path, images: str | os.PathLike | None = None) -> dict[str, Path]:
    """Return the images that annotations in a folder may be of, by their names without suffix.

    They lie in ``images``, or else in its subfolder images or JPEGImages, or beside them.
    """
    places = [folder / "images", folder / "JPEGImages", folder]
    for place in places if images is None else [expanded(images)]:
        if place.is_dir():
            return files_by_stem(place, IMAGE_SUFFIXES)
    raise FileNotFoundError(
        f"images must be a folder with the images that the annotations are of; {images} is not a "
        "folder."
    )


def find_annotations(path: Path, suffix: str, *, holds: str, kind: str) -> dict[str, Path]:
    """Return the files of annotations in a folder by their names without suffix, sorted; or one.

    ``holds`` is what messages say that the folder holds, ``kind`` what they call one of the files.
    """
    if path.is_file():
        return {path.stem: path}
    files = files_by_stem(check_folder(path, holds=holds), (suffix,))
    if not files:
        raise FileNotFoundError(f"path must hold at least one {kind}; {path} has none.")
    return dict(sorted(files.items()))


def _known_labels(classes: Sequence[str]) -> dict[str, int]:
    """Return the labels of texts that need no mapping; platelets are background if no class."""
    known = dict.fromkeys(_ALIASES[PLATELET], 0)
    for name, aliases in _ALIASES.items():
        if name in classes:
            known |= dict.fromkeys(aliases, classes.index(name))
    return known | {_normalised(name): label for label, name in enumerate(classes)}


def check_class_map(
    mapping: Mapping | None, classes: Sequence[str], *, name: str
) -> dict[str, int]:
    """Return a user's mapping from label texts to classes, laid over the known label texts."""
    known = _known_labels(classes)
    if mapping is None:
        return known
    if not isinstance(mapping, Mapping):
        raise ValueError(
            f"{name} must be a dict from label texts to classes, for instance "
            f'{{"Neutrophil": "white"}}; got {type(mapping).__name__}.'
        )
    for label, value in mapping.items():
        is_index = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if is_index and 0 <= value < len(classes):
            known[_normalised(str(label))] = int(value)
        elif isinstance(value, str) and value in classes:
            known[_normalised(str(label))] = classes.index(value)
        else:
            raise ValueError(
                f"{name}[{label!r}] must be one of {', '.join(map(repr, classes))} or their "
                f"numbers {', '.join(map(str, range(len(classes))))}; got {value!r}."
            )
    return known


def class_of(label: str, known: Mapping[str, int]) -> int | None:
    """Return the class of a label text, or None."""
    return known.get(_normalised(label))


class UnknownLabelError(ValueError):
    """Annotations hold a label text that has no class.

    Attributes
    ----------
    unknown : str
        The first of such texts.
    """

    def __init__(self, message: str, unknown: str):
        super().__init__(message, unknown)
        self.unknown = unknown

    def __str__(self) -> str:
        return str(self.args[0])


def check_labels_known(
    labels: Iterable[str], known: Mapping[str, int], classes: Sequence[str], *, name: str
) -> None:
    """Raise an `UnknownLabelError` if a label text has no class, naming all that were found."""
    found = sorted(set(labels))
    unknown = [label for label in found if class_of(label, known) is None]
    if unknown:
        shown = ", ".join(repr(label[:60]) for label in found[:30])
        raise UnknownLabelError(
            f"{name} must say what {', '.join(repr(label[:60]) for label in unknown[:30])} is; the "
            f'files hold the labels {shown}. Pass {name}={{{unknown[0][:60]!r}: "{classes[1]}"}}, '
            f"with {', '.join(map(repr, classes))} for each, or name it in classes.",
            unknown[0],
        )


def _normalised(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split())


def read_rows(path: Path, *, limit: int = 2**26) -> list[dict[str, Any]]:
    """Read the rows of a CSV file of at most ``limit`` bytes, each by the names of its columns.

    Between columns are commas; or semicolons or tabs, which spreadsheets put there where the comma
    is the decimal sign. The header says which.
    """
    try:
        text = read_bytes(path, limit=limit).decode("utf-8-sig")
        header = text.partition("\n")[0]
        delimiter = max(",;\t", key=header.count)  # of none, the comma
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(
            f"{path} cannot be read as a CSV file in UTF-8: {error}. Save it as such; spreadsheets "
            "call it CSV UTF-8."
        ) from error


def named_in(names: Collection[str], image: str) -> str:
    """Return what a table calls an image, without its suffix if only so it is among the names."""
    named = image not in names and Path(image).suffix.lower() in IMAGE_SUFFIXES
    return Path(image).stem if named else image


def read_table(path: Path, columns: Sequence[str], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read columns of a CSV file with a column ``image``, one entry an image in the order of names.

    Images are named with or without suffix. Rows about other images are ignored: the table may
    serve a larger set than the folder holds.
    """
    rows = read_rows(path)
    wanted = ("image", *columns)
    absent = [column for column in wanted if not rows or column not in rows[0]]
    if absent:
        header = ", ".join(map(str, rows[0])) if rows else "no rows"
        raise ValueError(f"{path} must have the columns {', '.join(wanted)}; got {header}.")
    known = set(names)
    entries: dict[str, list[str]] = {}
    for line, row in enumerate(rows, start=2):
        cells = [(row[column] or "").strip() for column in wanted]
        stem = named_in(known, cells[0])
        if not all(cells):
            raise ValueError(f"{path}, row {line} must fill the columns {', '.join(wanted)}.")
        if entries.setdefault(stem, cells[1:]) != cells[1:]:
            raise ValueError(
                f"{path} must say one thing about each image; row {line} says another about {stem}."
            )
    missing = [name for name in names if name not in entries]
    if missing:
        raise ValueError(
            f"{path} must have a row for every image; "
            f"got none for {', '.join(missing[:8])}{', ...' if len(missing) > 8 else ''}."
        )
    return {
        column: np.array([entries[name][position] for name in names])
        for position, column in enumerate(columns)
    }
