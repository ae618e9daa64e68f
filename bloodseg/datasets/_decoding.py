"""Image files decoded whole: PNG, JPEG, BMP, HEIC, and the TIFFs whose colours only Pillow knows.

Files may come from anywhere: sizes are read from headers and checked before pixels are decoded,
and only formats named here are opened.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from .._extras import import_extra
from .._images import CLASS_NAMES, NOT_LABELLED, check_images, check_orientation, to_rgb
from ._bounds import check_whole_size, too_large
from ._pixel_size import in_micrometres, pixel_sides

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_ORIENTATION = int(ExifTags.Base.Orientation)
# What files of a format hold, and from which byte on.
_STARTS = {
    (0, _PNG): "PNG",
    (0, b"\xff\xd8\xff"): "JPEG",
    (0, b"II*\0"): "TIFF",
    (0, b"MM\0*"): "TIFF",
    (0, b"II+\0"): "TIFF",
    (0, b"MM\0+"): "TIFF",
    (0, b"BM"): "BMP",
    (4, b"ftypheic"): "HEIC",
    (4, b"ftypheix"): "HEIC",
    (4, b"ftypheim"): "HEIC",
    (4, b"ftypheis"): "HEIC",
    (4, b"ftypmif1"): "HEIC",
}
IMAGE_FORMATS = tuple(dict.fromkeys(_STARTS.values()))
_OF_PILLOW = tuple(name for name in IMAGE_FORMATS if name != "HEIC")
_FOREIGN_STARTS = {
    (0, b"GIF8"): "GIF",
    (8, b"WEBP"): "WebP",
    (4, b"ftypavif"): "AVIF",
    (4, b"ftyp"): "a video or a sequence of images",
    (4, b"jP  "): "JPEG 2000",
    (0, b"\xff\x4f\xff\x51"): "JPEG 2000",
    (4, b"JXL "): "JPEG XL",
    (0, b"\xff\x0a"): "JPEG XL",
    (0, b"ZISRAWFILE"): "Zeiss CZI",
    (0, b"\xda\xce\xbe\x0a"): "Nikon ND2",
    (0, b"8BPS"): "Photoshop",
    (0, b"%PDF"): "PDF",
    (128, b"DICM"): "DICOM",
}

START = 132
"""Bytes from which `format_of` and `foreign_format_of` tell what a file is."""

_MOST_PAGES = 100


def format_of(start: bytes) -> str | None:
    """Return which of the formats that are read a file's first bytes are of, if any."""
    return _find_format(start, _STARTS)


def formats_read_here() -> tuple[str, ...]:
    """Return those of `IMAGE_FORMATS` that are read with what is installed."""
    return tuple(name for name in IMAGE_FORMATS if not missing_package(name))


def missing_package(format_: str | None) -> str:
    """Return what is to be installed for files of a format, in words; "" if nothing."""
    if format_ == "HEIC":
        try:
            _import_heif()
        except ImportError as error:
            return str(error).rstrip(".")
    return ""


def _import_heif() -> Any:
    need = "photos in HEIC need the package pillow-heif"
    return import_extra("pillow_heif", extra="heic", need=need)


def foreign_format_of(start: bytes) -> str | None:
    """Return which format of pictures that is not read a file's first bytes are of, if any."""
    return _find_format(start, _FOREIGN_STARTS)


def _find_format(start: bytes, signs: Mapping[tuple[int, bytes], str]) -> str | None:
    return next((name for (at, sign), name in signs.items() if start.startswith(sign, at)), None)


def unread_format(start: bytes) -> ValueError:
    """Return the error for a file that is of no format that is read."""
    foreign = foreign_format_of(start)
    if foreign:
        what = f" but {foreign}. Save it as JPEG, PNG or TIFF."
    else:
        what = "." if start else ", but empty. Copy it again from where it came."
    known = f"{', '.join(IMAGE_FORMATS[:-1])} or {IMAGE_FORMATS[-1]}"
    return ValueError(f"it is not a {known} file{what}")


def decode_rgb(data: bytes, *, name: str) -> np.ndarray:
    """Decode the bytes of an image file as RGB; ``name`` is what the error messages call it."""
    try:
        pixels = decode(data).pixels
        check_images([pixels], name="pixels")
        return np.ascontiguousarray(to_rgb(pixels))
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise ValueError(f"{name} cannot be read as an image: {error}") from error


def decode_labels(
    data: bytes,
    *,
    name: str,
    shape: tuple[int, int] | None = None,
    what: str = "a label map",
    n_classes: int = len(CLASS_NAMES),
) -> np.ndarray:
    """Decode the bytes of a one-channel image file; of a paletted one, what its colours say.

    ``shape`` is the size that the header must declare, checked before pixels are decoded;
    ``n_classes`` says which greys of a palette are labels.
    """
    try:
        with _open(data) as image:
            size, mode = (image.height, image.width), image.mode
            wrong = shape is not None and size != shape
            if not wrong and mode in ("1", "L", "P", "I", "I;16", "I;16B"):
                _keep_as_stored(image)
                if mode == "P":
                    return _labels_of_palette(image, n_classes, name)
                return np.array(image)
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"{name} cannot be read as {what}: it is no image, or its pixels are of an unusual "
            "type. Save labels as a PNG file, with .astype(np.uint8)."
        ) from error
    except _PaletteError:
        raise
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


class _PaletteError(ValueError):
    """A palette that leaves open which label a pixel has."""


def _labels_of_palette(image: Image.Image, n_classes: int, name: str) -> np.ndarray:
    """Return the labels of a paletted image.

    Tools for labels keep them as indices, with black for 0 and colours as they like; tools that
    make files small sort the palette anew. So greys that are labels are what they say, and indices
    count where 0 is black.
    """
    indices, palette = np.array(image), _palette(image)
    used = np.unique(indices)
    if used[-1] >= len(palette):
        raise _PaletteError(f"{name} has pixels that its palette has no colour for.")
    if _is_of_labels(palette[used], n_classes):
        return palette[:, 0][indices]
    greys = palette[used, 0].astype(int)
    in_order = (palette[used] == greys[:, np.newaxis]).all() and (np.diff(greys) > 0).all()
    if in_order or not palette[0].any():
        return indices
    raise _PaletteError(
        f"{name} has a palette whose first colour is {tuple(palette[0].tolist())}, not black, so "
        "that its indices are perhaps no labels. Save the labels as a grey image (mode L)."
    )


def _palette(image: Image.Image) -> np.ndarray:
    return np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)


def _is_of_labels(colours: np.ndarray, n_classes: int) -> bool:
    """Return whether colours (n, 3) are greys that are labels."""
    grey = (colours == colours[:, :1]).all()
    return bool(grey and np.isin(colours[:, 0], (*range(n_classes), NOT_LABELLED)).all())


def label_colours(data: bytes, n_classes: int) -> dict[int, tuple[int, ...]]:
    """Return the colours that an image has for its labels, where these are a palette's indices."""
    with _open(data) as image:
        colours = _palette(image)[:n_classes] if image.mode == "P" else np.empty((0, 3), np.uint8)
    return (
        {} if _is_of_labels(colours, n_classes) else dict(enumerate(map(tuple, colours.tolist())))
    )


def _open(data: bytes) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow warns from two thirds of our own limit on, and of damaged metadata, unused here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        # Named formats only: some of Pillow's others start programs (EPS) or are rarely tested.
        try:
            image = Image.open(io.BytesIO(data), formats=_OF_PILLOW)
        except Image.DecompressionBombError as error:
            raise too_large("too many") from error
    check_whole_size(image.height, image.width)
    check_page_count(_count_pages(image))
    return image


def _count_pages(image: Image.Image) -> int:
    # The second image of a JPEG is what cameras add to a picture: a preview, a depth map.
    if image.format not in ("TIFF", "PNG"):
        return 1
    if image.format == "PNG":
        return getattr(image, "n_frames", 1)
    count = 1
    try:  # not n_frames, which reads them all
        while count < _MOST_PAGES:
            image.seek(count)
            count += 1
    except EOFError:
        pass
    image.seek(0)
    return count


def check_page_count(pages: int) -> None:
    """Raise where a file holds several images."""
    if pages > 1:
        more = " or more" if pages == _MOST_PAGES else ""
        raise ValueError(
            f"it holds {pages}{more} pages. Save the page you want as a file of its own."
        )


class Decoded(NamedTuple):
    """What a file holds of an image.

    Attributes
    ----------
    pixels : ndarray of shape (H, W[, C])
        As they are stored, with the channels and depth of the file.
    sides : (float, float) or None
        Height and width of a pixel in micrometres, as the header says. Not of a TIFF, whose tags
        are read elsewhere. What is for screens or printers says nothing.
    orientation : int
        How it is to be turned to be shown, from 1 (not at all) to 8.
    """

    pixels: np.ndarray
    sides: tuple[float, float] | None
    orientation: int


def decode(data: bytes) -> Decoded:
    """Decode the bytes of an image file."""
    format_ = format_of(data[:START])
    if format_ is None:
        raise unread_format(data[:START])
    if format_ == "HEIC":
        # Turned as it is shown: the format says so itself, and that EXIF data do not count.
        return Decoded(_decode_heic(data), None, 1)
    try:
        image = _open(data)
    except Image.UnidentifiedImageError:
        raise ValueError("it is damaged, or its pixels are of an unusual type.") from None
    with image:
        of_tiff = _orientation_of(image) if image.format == "TIFF" else None
        _keep_as_stored(image)
        image.load()  # before any other decoder: this one notices files that are cut off
        # Pillow keeps 8 of 16 bits a colour.
        deep = image.mode in ("RGB", "RGBA") and _depth(image, data) > 8
        pixels = _decode_with_opencv(data) if deep else _pixels_of(image)
        # Not before: a PNG file may say it behind its pixels, and would be decoded for it alone.
        return Decoded(pixels, _sides_of(image), of_tiff or _orientation_of(image))


def _decode_heic(data: bytes) -> np.ndarray:
    # Not through Pillow, which keeps 8 bits of the 10 or 12 that some cameras give.
    file = _import_heif().open_heif(data, convert_hdr_to_8bit=False)
    check_page_count(len(file))
    image = file[0]
    width, height = image.size
    check_whole_size(height, width)
    pixels = np.array(image)
    if pixels.dtype == np.uint8:
        return pixels
    return pixels | pixels >> image.info["bit_depth"]  # white is 65535, and not 65472


def _orientation_of(image: Image.Image) -> int:
    try:
        return check_orientation(image.getexif().get(_ORIENTATION))
    except Exception:  # damaged metadata says nothing
        return 1


def _sides_of(image: Image.Image) -> tuple[float, float] | None:
    if image.format == "TIFF":
        return None
    try:
        across, down = image.info["dpi"]
        return pixel_sides(*(in_micrometres(1 / float(each), "inch") for each in (down, across)))
    except Exception:  # damaged metadata says nothing
        return None


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


def _decode_with_opencv(data: bytes) -> np.ndarray:
    if data.startswith(_PNG):
        data = _strip_png(data)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError("its pixels cannot be decoded.")
    if pixels.ndim == 3:
        order = cv2.COLOR_BGR2RGB if pixels.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        pixels = cv2.cvtColor(pixels, order)
    return pixels


def _strip_png(data: bytes) -> bytes:
    """Return a PNG file with its pixels alone: of the rest, libpng prints notes on stderr."""
    parts, place = [_PNG], len(_PNG)
    while place < len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] in _PNG_PIXELS:
            parts.append(data[place:end])
        place = end
    return b"".join(parts)


def _keep_as_stored(image: Image.Image) -> None:
    if image.format == "TIFF":  # which Pillow turns as it loads them
        image.getexif()[_ORIENTATION] = 1
