"""A PNG encoder of a dozen lines, so that images and maps travel inside the page without an imaging library."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import numpy.typing as npt


def encode(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode 8-bit pixels, grey (H, W) or colour (H, W, 3), as a PNG file."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels, dtype=np.uint8).reshape(height, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)  # the 0 before each row: stored as it is, no filter
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """Encode pixels as a ``data:`` address that an ``<image>`` can show."""
    return "data:image/png;base64," + base64.b64encode(encode(pixels)).decode("ascii")
