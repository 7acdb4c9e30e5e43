"""One picture: its header, its pixels, and one clear error when it cannot be read. Needs Pillow."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rightly.core.errors import DataError
from rightly.core.extras import require

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")

#: the EXIF field that tells how the camera was held, and its values for a quarter turn
_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)


@dataclass(frozen=True)
class Header:
    """What a picture says of itself: ``size`` (height, width) as it is shown, and whether it is ``grey``."""

    size: tuple[int, int]
    grey: bool


def read_header(path: Path) -> Header:
    """Read size and colours without decoding the pixels."""
    with _opened(path) as picture:
        width, height = picture.size
        if picture.getexif().get(_ORIENTATION) in _QUARTER_TURNS:
            width, height = height, width
        grey = picture.mode in ("1", "L", "LA") or picture.mode.startswith("I")
        return Header((height, width), grey)


def read_pixels(path: Path, *, grey: bool, size: tuple[int, int], nearest: bool = False) -> np.ndarray:
    """Decode a picture as (C, H, W) uint8, one channel if ``grey``, else three; turned upright; the first frame.

    Args:
        path: an existing picture.
        grey: whether to make it grey.
        size: (height, width) to bring it to.
        nearest: resize without mixing pixels, as a region needs; otherwise bilinear.
    """
    resampling = require("PIL.Image").Resampling
    with _opened(path) as picture:
        upright = require("PIL.ImageOps").exif_transpose(picture)
        if upright.mode.startswith("I"):  # 16 bits a pixel: Pillow would cut, not scale, them to 8
            deep = np.asarray(upright, dtype=np.float64) / 257
            upright = require("PIL.Image").fromarray(np.clip(np.rint(deep), 0, 255).astype(np.uint8))
        if upright.mode == "P":  # a palette may hold transparency, which only RGBA can
            upright = upright.convert("RGBA")
        plain = upright.convert("L" if grey else "RGB")
        if plain.size != (size[1], size[0]):
            plain = plain.resize((size[1], size[0]), resampling.NEAREST if nearest else resampling.BILINEAR)
        pixels = np.asarray(plain)
    return pixels[None] if grey else np.moveaxis(pixels, -1, 0)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    image = require("PIL.Image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", image.DecompressionBombWarning)
            with image.open(path) as picture:
                yield picture
    except DataError:
        raise
    # Pillow's decoders raise nearly anything on damaged files
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        IndexError,
        struct.error,
        image.DecompressionBombError,
        image.DecompressionBombWarning,
    ) as error:
        raise DataError(
            f"the picture {path} cannot be read",
            expected="an undamaged picture",
            got=str(error) or type(error).__name__,
            mend="replace it or take it out of the folder",
        ) from error
