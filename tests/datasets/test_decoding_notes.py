"""What decoders written in C would print of a file does not reach the user."""

import struct
import zlib

import numpy as np

from bloodseg.datasets import read_image


def chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def test_a_deep_png_with_a_broken_profile_is_read_in_silence(tmp_path, capfd):
    pixels = np.random.default_rng(0).integers(0, 2**16, (8, 8, 3), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
        + chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile"))
        + chunk(b"gAMA", bytes(4))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )
    image = read_image(tmp_path / "a.png")
    np.testing.assert_allclose(image, pixels / (2**16 - 1), atol=1e-6)
    assert capfd.readouterr().err == ""
