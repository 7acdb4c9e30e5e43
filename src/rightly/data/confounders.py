"""Planted confounders: pictures with a decoy that tells the label in training and lies in the test.

Source: Ross, "Training Machine Learning Models by Regularizing their Explanations", 2018 (decoy MNIST), after Ross,
Hughes and Doshi-Velez, IJCAI 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rightly.core.errors import ArgumentError, DataError, ShapeError
from rightly.data.splits import split_indices

Rule = Literal["label", "random"]
Corners = Literal["one", "all"]

#: the swatch of class y has the grey value 255 - 25 y, of 255
_FULL, _STEP = 255, 25


@dataclass(frozen=True)
class DecoyPart:
    """One part (training, validation or test) of a decoy data set.

    Attributes:
        inputs: (N, 1, H, W) float32 in [0, 1], each with a swatch in one corner.
        clean: the same pictures without the swatch, for the no-decoy baseline.
        irrelevant: (N, 1, H, W) bool, true on that picture's own swatch.
        labels: (N,) int64.
    """

    inputs: np.ndarray
    clean: np.ndarray
    irrelevant: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class DecoyDigits:
    """Digits with decoys: shaded by the label in ``train`` and ``validation``, at random in ``test``."""

    train: DecoyPart
    validation: DecoyPart
    test: DecoyPart
    classes: int = 10


def plant_decoy(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    classes: int,
    rule: Rule = "label",
    corners: Corners = "one",
    patch: int,
    generator: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw a grey square into one corner of each picture, the corner chosen by two fair coins, or into all four.

    Args:
        images: (N, H, W) or (N, 1, H, W) in [0, 1]; left as they are.
        labels: (N,) ints in [0, classes).
        classes: number of classes, at most 11 (the shade of class y is (255 - 25 y) / 255).
        rule: ``label``: the shade tells the label; ``random``: it tells a class drawn uniformly.
        corners: ``one``: a random corner (Ross 2018); ``all``: the same shade in all four, a stronger confounder.
        patch: side of the square in pixels.
        generator: source of all draws.

    Returns:
        New pictures (float32) and ``irrelevant`` (bool), both shaped like ``images``: where the square was drawn.

    Errors:
        ShapeError: pictures with channels or other dimensions, or labels of another length.
        ArgumentError: an unknown rule, too many classes, labels outside of them, or a patch that does not fit.
    """
    planted, flat = _checked(images, labels, classes, rule, patch)
    if corners not in ("one", "all"):
        raise ArgumentError(
            "unknown corners", expected="'one' or 'all'", got=repr(corners), mend="'one' is the thesis' decoy"
        )
    count, height, width = flat.shape
    down, right = generator.integers(0, 2, size=(2, count)).astype(bool)
    shown = np.asarray(labels) if rule == "label" else generator.integers(0, classes, size=count)
    rows = _span(down, height, patch)[:, :, None]
    columns = _span(right, width, patch)[:, None, :]
    irrelevant = rows & columns
    if corners == "all":
        edges = (_span(down, height, patch) | _span(~down, height, patch))[:, :, None]
        irrelevant = edges & (_span(right, width, patch) | _span(~right, width, patch))[:, None, :]
    shades = np.asarray((_FULL - _STEP * shown) / _FULL, dtype=np.float32)
    flat[...] = np.where(irrelevant, shades[:, None, None], flat)
    return planted, irrelevant.reshape(planted.shape)


def _span(at_end: np.ndarray, length: int, patch: int) -> np.ndarray:
    """(N, length) bool: the first or, ``at_end``, the last ``patch`` positions."""
    start = np.where(at_end, length - patch, 0)[:, None]
    position = np.arange(length)[None]
    span: np.ndarray = (position >= start) & (position < start + patch)
    return span


def _checked(
    images: np.ndarray, labels: np.ndarray, classes: int, rule: str, patch: int
) -> tuple[np.ndarray, np.ndarray]:
    """A float32 copy of the pictures and its (N, H, W) view."""
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[1] != 1):
        raise ShapeError(
            "images must be grey pictures",
            expected="(N, H, W) or (N, 1, H, W)",
            got=images.shape,
            mend="plant the decoy before adding channels",
        )
    if np.shape(labels) != (len(images),):
        raise ShapeError(
            "labels must have one entry a picture",
            expected=(len(images),),
            got=np.shape(labels),
            mend="pass the labels of these pictures, in their order",
        )
    if rule not in ("label", "random"):
        raise ArgumentError(
            "unknown rule", expected="'label' or 'random'", got=repr(rule), mend="'random' is for test data"
        )
    most = 1 + _FULL // _STEP
    if not 2 <= classes <= most:
        raise ArgumentError(
            "there is no shade for each of so many classes",
            expected=f"2 to {most}",
            got=classes,
            mend="use fewer classes",
        )
    if len(images) and not 0 <= np.min(labels) <= np.max(labels) < classes:
        raise ArgumentError(
            "labels outside the classes",
            expected=f"ints from 0 to {classes - 1}",
            got=f"{np.min(labels)} to {np.max(labels)}",
            mend="number the classes from 0, and set classes to their number",
        )
    side = min(images.shape[-2:])
    if not 1 <= patch <= side:
        raise ArgumentError(
            "the patch does not fit into the pictures",
            expected=f"1 to {side} pixels",
            got=patch,
            mend="choose a smaller patch" if patch > side else "choose a positive patch",
        )
    copy = np.array(images, dtype=np.float32, order="C")
    return copy, copy.reshape(len(copy), *copy.shape[-2:])


def decoy_digits(seed: int, *, corners: Corners = "one") -> DecoyDigits:
    """Scikit-learn's 1,797 digits of 8 x 8 pixels with a 2 x 2 decoy, split 60/15/25 by ``seed``, by class.

    Args:
        seed: of the split, the corners and the random shades.
        corners: see ``plant_decoy``. With one corner plain training still reaches about 85 % on the test part, since
            these small digits are easy; with all four it is misled (about 55 %).

    Errors:
        MissingExtraError: scikit-learn is not installed.
    """
    from rightly.data.catalogue import load_arrays

    arrays = load_arrays("digits")
    images, labels = arrays["x"][:, None] / np.float32(16), arrays["y"].astype(np.int64)
    parts = split_indices(len(labels), fractions=(0.6, 0.15, 0.25), seed=seed, labels=labels)
    return _decoys([(images[rows], labels[rows]) for rows in parts], patch=2, corners=corners, seed=seed)


def decoy_mnist(mnist: Mapping[str, np.ndarray], seed: int) -> DecoyDigits:
    """Decoy MNIST with a 4 x 4 decoy; the test part is MNIST's own, validation is a random 1/15 of its training part.

    Args:
        mnist: ``load("mnist")``: ``x_train``, ``x_test`` (N, 28, 28) uint8 and ``y_train``, ``y_test``.
        seed: for the validation rows and the decoys.

    Errors:
        DataError: an array is absent.
    """
    absent = [key for key in ("x_train", "y_train", "x_test", "y_test") if key not in mnist]
    if absent:
        raise DataError(
            "these are not the arrays of MNIST",
            expected=", ".join(absent),
            got=", ".join(mnist) or "no arrays",
            mend="pass load_arrays('mnist')",
        )
    generator = np.random.Generator(np.random.PCG64(seed))
    order = generator.permutation(len(mnist["y_train"]))
    held = len(order) // 15
    rows = [np.sort(order[held:]), np.sort(order[:held]), np.arange(len(mnist["y_test"]))]
    pairs = [
        (mnist[f"x_{part}"][chosen][:, None] / np.float32(255), mnist[f"y_{part}"][chosen].astype(np.int64))
        for part, chosen in zip(("train", "train", "test"), rows, strict=True)
    ]
    return _decoys(pairs, patch=4, corners="one", seed=seed)


def _decoys(pairs: list[tuple[np.ndarray, np.ndarray]], *, patch: int, corners: Corners, seed: int) -> DecoyDigits:
    """Training, validation and test part of these pictures and labels; each part draws from its own stream."""

    def part(index: int, rule: Rule) -> DecoyPart:
        clean, labels = pairs[index]
        generator = np.random.Generator(np.random.PCG64([seed, index]))
        inputs, irrelevant = plant_decoy(
            clean, labels, classes=10, rule=rule, corners=corners, patch=patch, generator=generator
        )
        return DecoyPart(inputs, clean, irrelevant, labels)

    return DecoyDigits(train=part(0, "label"), validation=part(1, "label"), test=part(2, "random"))
