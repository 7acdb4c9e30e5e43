"""The catalogue's CIFAR-10 copies are JPEG scans that share one header: back to pixels. Needs Pillow."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from typing import Literal

import numpy as np

from rightly.core.errors import ArgumentError, DataError
from rightly.core.extras import require


def cifar10_images(arrays: Mapping[str, np.ndarray], part: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """Decode one part of ``load("cifar10_full_jpeg")`` or ``load("cifar10_10k_2k_jpeg")``.

    Picture i is the shared ``header`` followed by bytes a_i to b_i of the part's ``scan``; the bounds are the running
    sum of its ``len``.

    Returns:
        (N, 3, 32, 32) uint8 pictures, ordered by class, and (N,) int64 labels.

    Errors:
        ArgumentError: ``part`` is neither "train" nor "test".
        DataError: an array is absent.
        MissingExtraError: Pillow is not installed.
    """
    if part not in ("train", "test"):
        raise ArgumentError("unknown part", expected="'train' or 'test'", got=repr(part), mend="choose one")
    needed = ["header", f"{part}_scan", f"{part}_len", f"y_{part}"]
    absent = [key for key in needed if key not in arrays]
    if absent:
        raise DataError(
            "these are not JPEG scans of CIFAR-10",
            expected=", ".join(absent),
            got=", ".join(arrays) or "no arrays",
            mend="pass load_arrays('cifar10_full_jpeg') or load_arrays('cifar10_10k_2k_jpeg')",
        )
    image = require("PIL.Image")
    header, scan = arrays["header"].tobytes(), arrays[f"{part}_scan"].tobytes()
    # the lengths are stored in 16 bits, their sum needs more
    bounds = np.concatenate([[0], np.cumsum(arrays[f"{part}_len"], dtype=np.int64)])
    pictures = np.empty((len(bounds) - 1, 3, 32, 32), dtype=np.uint8)
    for row, (start, stop) in enumerate(itertools.pairwise(bounds)):
        with image.open(io.BytesIO(header + scan[start:stop])) as picture:
            pictures[row] = np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0)
    return pictures, arrays[f"y_{part}"].astype(np.int64)
