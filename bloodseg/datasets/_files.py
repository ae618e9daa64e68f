"""What the loaders share: finding files, decoding images safely, names of classes, tables.

Files may come from anywhere: sizes are read from headers and checked before pixels are decoded,
and only formats named here are opened.
"""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin

from .._images import CLASS_NAMES, check_images, to_rgb

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
MAX_PIXELS = 2**27  # 11,585 x 11,585; Pillow itself refuses images a third larger
MAX_IMAGE_BYTES = 2**31
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")

_ALIASES = {
    "background": ("background", "platelet", "platelets", "plt", "thrombocyte", "thrombocytes"),
    "white": (
        *("white", "wbc", "wbcs", "white cell", "white cells", "white blood cell"),
        *("white blood cells", "leukocyte", "leukocytes", "leucocyte", "leucocytes"),
    ),
    "red": (
        *("red", "rbc", "rbcs", "red cell", "red cells", "red blood cell"),
        *("red blood cells", "erythrocyte", "erythrocytes"),
    ),
}
_KNOWN_LABELS = {
    alias: CLASS_NAMES.index(name) for name, aliases in _ALIASES.items() for alias in aliases
}


def check_folder(path: str | os.PathLike, *, holds: str) -> Path:
    """Return ``path`` if it is a folder; ``holds`` says in words what should be in it."""
    folder = Path(path)
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


def list_images(path: str | os.PathLike) -> list[Path]:
    """List the image files of a folder, sorted by name.

    Parameters
    ----------
    path : str or path-like
        A folder; or one file, which is returned as it is.

    Returns
    -------
    list of Path
        PNG, JPEG, TIFF and BMP files, by their suffixes in any case. Hidden files and subfolders
        are left out.

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
    if Path(path).is_file():
        return [Path(path)]
    folder = check_folder(path, holds="images, or an image file")
    images = files_in(folder, IMAGE_SUFFIXES)
    if not images:
        raise FileNotFoundError(
            f"path must hold at least one image ({', '.join(IMAGE_SUFFIXES)}); {folder} has none."
        )
    return images


def read_bytes(path: Path, *, limit: int) -> bytes:
    """Read a file after checking that it is one and not larger than ``limit`` bytes."""
    if not path.is_file():
        state = "is not a file" if path.exists() else "does not exist"
        raise FileNotFoundError(f"{path} {state}.")
    size = path.stat().st_size
    if size > limit:
        raise ValueError(f"{path} must have at most {limit:,} bytes; got {size:,}. Split it up.")
    return path.read_bytes()


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as RGB.

    Grey is repeated, transparency laid over white, palettes are looked up. A rotation in the EXIF
    data is ignored: pixels come in the order in which they are stored, as masks and annotations
    expect.

    Parameters
    ----------
    path : str or path-like
        A PNG, JPEG, TIFF or BMP file of at most 2**27 pixels (11,585 x 11,585).

    Returns
    -------
    ndarray of shape (H, W, 3)
        uint8; or float32 in [0, 1] if the file holds 16 bits a channel or fractions.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not an image, cut off, too large, or holds several pages.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from skimage.io import imsave
    >>> from bloodseg.datasets import read_image
    >>> with tempfile.NamedTemporaryFile(suffix=".png") as file:
    ...     imsave(file.name, np.full((4, 6), 7, np.uint8), check_contrast=False)
    ...     read_image(file.name).shape
    (4, 6, 3)
    """
    return decode_rgb(read_bytes(Path(path), limit=MAX_IMAGE_BYTES), name=str(path))


def decode_rgb(data: bytes, *, name: str) -> np.ndarray:
    """Decode the bytes of an image file as RGB; ``name`` is what the error messages call it."""
    try:
        pixels = _decode(data)
        check_images([pixels], name="pixels")
        return np.ascontiguousarray(to_rgb(pixels))
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise ValueError(f"{name} cannot be read as an image: {error}") from error


def decode_labels(
    data: bytes, *, name: str, shape: tuple[int, int] | None = None, what: str = "a label map"
) -> np.ndarray:
    """Decode the bytes of a one-channel image file; of a paletted one, the palette's indices.

    ``shape`` is the size that the header must declare, checked before pixels are decoded.
    """
    try:
        with _open(data) as image:
            size, mode = (image.height, image.width), image.mode
            wrong = shape is not None and size != shape
            if not wrong and mode in ("1", "L", "P", "I", "I;16", "I;16B"):
                return np.array(image)
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"{name} cannot be read as {what}: it is no image, or its pixels are of an unusual "
            "type. Save labels as a PNG file, with .astype(np.uint8)."
        ) from error
    except Exception as error:  # as in decode_rgb
        raise ValueError(f"{name} cannot be read as {what}: {error}") from error
    if wrong:
        raise ValueError(f"{name} must have the size {shape}, height and width; got {size}.")
    if mode == "F":
        raise ValueError(
            f"{name} must hold whole numbers, one label a pixel; got floating point. "
            "Save the labels as integers, for instance with .astype(np.uint8)."
        )
    raise ValueError(
        f"{name} must have one channel with a label a pixel; got an image of mode {mode}. "
        "Save the labels themselves, not a coloured picture of them."
    )


def _open(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns from two thirds of our own limit on, and of damaged metadata, unused here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        # Named formats only: some of Pillow's others start programs (EPS) or are rarely tested.
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    _check_pixel_count(image.height, image.width)
    pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    _check_page_count(pages)
    return image


def _check_pixel_count(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise ValueError(
            f"it declares {height} x {width} pixels and at most {MAX_PIXELS:,} are read. "
            "Cut it into parts, or read it yourself and pass the array."
        )


def _check_page_count(pages: int) -> None:
    if pages > 1:
        raise ValueError(f"it holds {pages} pages. Save the page you want as a file of its own.")


def _decode(data: bytes) -> np.ndarray:
    """Return an image's pixels with the channels and depth of the file."""
    try:
        image = _open(data)
    except Image.UnidentifiedImageError:
        if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            raise ValueError("it is not a PNG, JPEG, TIFF or BMP file.") from None
        return _decode_deep_tiff(data)
    with image:
        image.load()  # before any other decoder: this one notices files that are cut off
        # Pillow keeps 8 of 16 bits a colour.
        if image.mode in ("RGB", "RGBA") and _depth(image, data) > 8:
            return _decode_with_opencv(data)
        return _pixels_of(image)


def _depth(image: Image.Image, data: bytes) -> int:
    """Return the bits a channel that a file declares, if it is of a format that can have many."""
    if image.format == "PNG":
        return data[24]
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (8,)))
    return 8


def _zero_is_white(image: Image.Image) -> bool:
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return False
    return image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0


def _pixels_of(image: Image.Image) -> np.ndarray:
    transparent = "transparency" in image.info or image.mode in ("PA", "LA", "La", "RGBa")
    if image.mode in ("1", "L", "RGB", "RGBA", "F") and not transparent:
        return np.array(image)
    if image.mode.startswith("I;16"):
        pixels = np.array(image).astype(np.uint16)
        return ~pixels if _zero_is_white(image) else pixels  # of 8 bits Pillow has seen to it
    if image.mode == "I":
        pixels = np.array(image)
        fits = pixels.min() >= 0 and pixels.max() <= np.iinfo(np.uint16).max
        return pixels.astype(np.uint16) if fits else pixels
    return np.array(image.convert("RGBA" if transparent else "RGB"))


def _decode_deep_tiff(data: bytes) -> np.ndarray:
    # Earlier Pillows know no TIFFs with 16 bits a colour. tifffile reads the header and OpenCV the
    # pixels: without further packages tifffile cannot unpack the usual compressions.
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        _check_page_count(len(file.pages))
        page = file.pages[0]
        _check_pixel_count(page.imagelength, page.imagewidth)
    return _decode_with_opencv(data)


def _decode_with_opencv(data: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("its pixels cannot be decoded.")
    if pixels.ndim == 3:
        order = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        pixels = cv2.cvtColor(pixels, order)
    return pixels


def check_class_map(mapping: Mapping | None, *, name: str) -> dict[str, int]:
    """Return a user's mapping from label texts to classes, laid over the known label texts."""
    known = dict(_KNOWN_LABELS)
    if mapping is None:
        return known
    if not isinstance(mapping, Mapping):
        raise ValueError(
            f"{name} must be a dict from label texts to classes, for instance "
            f'{{"Neutrophil": "white"}}; got {type(mapping).__name__}.'
        )
    for label, value in mapping.items():
        is_index = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if is_index and 0 <= value < len(CLASS_NAMES):
            known[_normalised(str(label))] = int(value)
        elif isinstance(value, str) and value in CLASS_NAMES:
            known[_normalised(str(label))] = CLASS_NAMES.index(value)
        else:
            raise ValueError(
                f"{name}[{label!r}] must be one of {', '.join(map(repr, CLASS_NAMES))} or their "
                f"numbers 0, 1, 2; got {value!r}."
            )
    return known


def class_of(label: str, classes: Mapping[str, int]) -> int | None:
    """Return the class of a label text, or None."""
    return classes.get(_normalised(label))


def check_labels_known(labels: Iterable[str], classes: Mapping[str, int], *, name: str) -> None:
    """Raise if a label text has no class, naming all that were found."""
    found = sorted(set(labels))
    unknown = [label for label in found if class_of(label, classes) is None]
    if unknown:
        shown = ", ".join(repr(label[:60]) for label in found[:30])
        raise ValueError(
            f"{name} must say what {', '.join(repr(label[:60]) for label in unknown[:30])} is; the "
            f'files hold the labels {shown}. Pass {name}={{{unknown[0][:60]!r}: "white"}}, with '
            '"background", "white" or "red" for each.'
        )


def _normalised(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split())


def read_table(path: Path, columns: Sequence[str], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read columns of a CSV file with a column ``image``, one entry an image in the order of names.

    Images are named with or without suffix. Rows about other images are ignored: the table may
    serve a larger set than the folder holds.
    """
    try:
        text = read_bytes(path, limit=2**26).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a CSV file in UTF-8: {error}") from error
    wanted = ("image", *columns)
    absent = [column for column in wanted if not rows or column not in rows[0]]
    if absent:
        header = ", ".join(map(str, rows[0])) if rows else "no rows"
        raise ValueError(f"{path} must have the columns {', '.join(wanted)}; got {header}.")
    known = set(names)
    entries: dict[str, list[str]] = {}
    for line, row in enumerate(rows, start=2):
        cells = [(row[column] or "").strip() for column in wanted]
        stem = cells[0]
        if stem not in known and Path(stem).suffix.lower() in IMAGE_SUFFIXES:
            stem = Path(stem).stem
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
