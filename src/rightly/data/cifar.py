"""The catalogue's CIFAR-10 copies are JPEG scans that share one header: back to pixels. Needs Pillow."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, DataError
from rightly.core.extras import require


def cifar10_images(
    arrays: Mapping[str, np.ndarray],
    part: Literal["train", "test"],
    *,
    classes: Sequence[int] | None = None,
    most: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Decode one part of ``load("cifar10_full_jpeg")`` or ``load("cifar10_10k_2k_jpeg")``.

    Picture i is the shared ``header`` followed by bytes a_i to b_i of the part's ``scan``; the bounds are the running
    sum of its ``len``.

    Args:
        arrays: header, scans, lengths and labels.
        part: which pictures.
        classes: of these alone, by their numbers; by default of all ten.
        most: of each class the first so many; by default all.

    Returns:
        (N, 3, 32, 32) uint8 pictures, ordered by class, and (N,) int64 labels.

    Errors:
        ArgumentError: ``part`` is neither "train" nor "test"; a class that no picture has, or no class; ``most`` is
            not at least 1.
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
    labels = arrays[f"y_{part}"].astype(np.int64)
    asked, known = np.unique(labels) if classes is None else np.unique(classes), set(labels.tolist())
    if not known.issuperset(asked.tolist()) or not len(asked):
        raise ArgumentError(
            "no picture is of such a class",
            expected=f"some of {sorted(known)}",
            got=classes,
            mend="leave out classes= to take all",
        )
    if most is not None:
        check_count("most", most)
    rows = np.sort(np.concatenate([np.flatnonzero(labels == name)[:most] for name in asked]))
    pictures = np.empty((len(rows), 3, 32, 32), dtype=np.uint8)
    for place, row in enumerate(rows):
        with image.open(io.BytesIO(header + scan[bounds[row] : bounds[row + 1]])) as picture:
            pictures[place] = np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0)
    return pictures, labels[rows]
