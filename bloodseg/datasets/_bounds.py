"""How much work a file may ask for: bounded by its size, and known before anything is decoded."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any

MAX_PIXELS = 2**27  # of images read whole: 11,585 x 11,585; Pillow refuses images a third larger
MAX_SIDE = 2**19  # pixels; slides are read by rows
MAX_WHOLE_SIDE = 2**16  # of images read whole; more than JPEG can have
MAX_IMAGE_BYTES = 2**31
MAX_PART_BYTES = 2**30  # of a tile, strip or chunk, unpacked

_PIXELS_A_BYTE = 4096  # far more than compression leaves of a picture

# What a byte can unpack to at most is asked only where that could be much.
_MUCH = 2**28
_MOST_OF_ZLIB = 1032
_MOST_OF_ZSTD = 2**15
_OVERHEAD = 4096  # bytes by which what does not compress may grow
_STEP = 2**20


def check_size(height: int, width: int, n_bytes: int) -> None:
    """Raise where an image of this size cannot be read by rows.

    ``n_bytes`` are those that the file has for it.
    """
    if max(height, width) > MAX_SIDE:
        raise ValueError(
            f"it declares {height} x {width} pixels and at most {MAX_SIDE:,} a side are read. "
            "Cut it into parts."
        )
    if n_bytes >= least_bytes(height * width):
        return
    raise ValueError(
        f"it declares {height} x {width} pixels, but has only {n_bytes:,} bytes. It is perhaps "
        "damaged, or empty for the most part; cut out what you need."
    )


def least_bytes(n_pixels: int) -> int:
    """Return how many bytes a file must have for so many pixels."""
    return 0 if n_pixels <= MAX_PIXELS else -(-n_pixels // _PIXELS_A_BYTE)


def check_whole_size(height: int, width: int) -> None:
    """Raise where an image of this size cannot be read whole."""
    if height * width > MAX_PIXELS or max(height, width) > MAX_WHOLE_SIDE:
        raise too_large(f"{height} x {width}")


def too_large(declared: str) -> ValueError:
    """Return the error for an image of so many pixels that it cannot be read whole."""
    return ValueError(
        f"it declares {declared} pixels and at most {MAX_PIXELS:,} are read, {MAX_WHOLE_SIDE:,} a "
        "side. Cut it into parts, or save it as a TIFF in tiles."
    )


def check_part(n_bytes: int, what: str) -> None:
    """Raise where a tile, strip or chunk is too large to be unpacked."""
    if n_bytes > MAX_PART_BYTES:
        raise ValueError(
            f"its {what} have {n_bytes:,} bytes unpacked, and at most {MAX_PART_BYTES:,} are read. "
            f"Save it with smaller {what}."
        )


HEADER = 64
"""Bytes from which `check_unpacked` tells the length of what says it."""

SAY_THEIR_LENGTH = ("blosc", "lz4", "zstd")
PACKINGS = ("gzip", "zlib", "bz2", "lzma", *SAY_THEIR_LENGTH)
"""What `check_unpacked` knows: the names that numcodecs has for them."""


def check_unpacked(packing: str | None, data: bytes, n_packed: int, expected: int) -> None:
    """Raise where packed bytes unpack to more than is expected of them.

    Parameters
    ----------
    packing : str or None
        One of `PACKINGS`; None where the bytes are as they are.
    data : bytes
        All of them; of `SAY_THEIR_LENGTH` the first `HEADER` will do.
    n_packed : int
        How many there are.
    expected : int
        How many bytes there may be, unpacked.
    """
    enough = expected + expected // 16 + _OVERHEAD  # a writer may pad, and checksums are small
    if n_packed > enough or _length(packing, data, n_packed, enough) > enough:
        raise ValueError(
            f"it has more bytes than the {expected:,} that its size and type make, packed or "
            "unpacked."
        )


def _length(packing: str | None, data: bytes, n_packed: int, enough: int) -> int:
    """Return how many bytes there are unpacked, or any number above what is enough."""
    if packing is None:
        return n_packed
    if packing == "blosc":
        return int.from_bytes(data[4:8], "little")
    if packing == "lz4":
        return int.from_bytes(data[:4], "little")
    if packing == "zstd":
        return _length_of_zstd(data, n_packed)
    if packing in ("gzip", "zlib") and n_packed * _MOST_OF_ZLIB <= _MUCH:
        return 0
    return _counted(_UNPACKERS[packing], data, enough)


def _length_of_zstd(data: bytes, n_packed: int) -> int:
    """Return what a frame says of itself (RFC 8878, 3.1.1.1)."""
    if data[:4] != b"\x28\xb5\x2f\xfd" or len(data) < 5:
        return 0  # no frame: its decoder will say so
    descriptor = data[4]
    single_segment = descriptor >> 5 & 1
    n_bytes = (single_segment, 2, 4, 8)[descriptor >> 6]
    if not n_bytes:
        if n_packed * _MOST_OF_ZSTD <= _MUCH:
            return 0
        raise ValueError("it is packed by zstd without saying how long it is. Save it anew.")
    start = 5 + (not single_segment) + (0, 1, 2, 4)[descriptor & 3]
    return int.from_bytes(data[start : start + n_bytes], "little") + (256 if n_bytes == 2 else 0)


_UNPACKERS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(31),
    "zlib": zlib.decompressobj,
    "bz2": bz2.BZ2Decompressor,
    "lzma": lambda: lzma.LZMADecompressor(memlimit=2**28),
}


def _counted(make: Callable[[], Any], data: bytes, enough: int) -> int:
    """Count the bytes of one or more streams without keeping them."""
    total, unpacker = 0, make()
    while total <= enough:
        piece = unpacker.decompress(data, _STEP)
        total += len(piece)
        if unpacker.eof:
            data, unpacker = unpacker.unused_data.lstrip(b"\0"), make()
            if not data:
                break
        elif piece:
            data = getattr(unpacker, "unconsumed_tail", b"")  # bz2 and lzma keep theirs
        else:
            break
    return total
