"""Planted decoys: where they lie, what they tell, and that they tell nothing in the test part."""

from __future__ import annotations

import numpy as np
import pytest

from rightly.core.errors import ArgumentError, DataError, ShapeError
from rightly.data import decoy_digits, decoy_mnist, plant_decoy


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


@pytest.mark.parametrize("shape", [(400, 9, 7), (400, 1, 9, 7)])
def test_each_picture_gets_one_swatch_in_one_corner(shape):
    images, labels = rng().random(shape, dtype=np.float32), np.arange(400) % 10
    before = images.copy()
    planted, irrelevant = plant_decoy(images, labels, classes=10, patch=3, generator=rng())
    assert planted.shape == irrelevant.shape == shape
    assert (planted.dtype, irrelevant.dtype) == (np.float32, bool)
    assert (images == before).all()
    assert (planted[~irrelevant] == images[~irrelevant]).all()
    flat, where = planted.reshape(400, 9, 7), irrelevant.reshape(400, 9, 7)
    assert (where.sum(axis=(1, 2)) == 9).all()
    corners = np.stack([where[:, :3, :3], where[:, :3, -3:], where[:, -3:, :3], where[:, -3:, -3:]], axis=1)
    filled = corners.all(axis=(2, 3))
    assert (filled.sum(axis=1) == 1).all()
    assert (filled.sum(axis=0) > 70).all()  # two fair coins: 100 each expected, standard deviation 8.7
    for row in range(400):
        assert (flat[row][where[row]] == np.float32((255 - 25 * labels[row]) / 255)).all()


def test_at_random_the_shade_says_nothing_about_the_label():
    labels = np.repeat(np.arange(10), 200)
    planted, irrelevant = plant_decoy(
        np.zeros((2000, 8, 8)), labels, classes=10, rule="random", patch=2, generator=rng()
    )
    shades = planted[irrelevant].reshape(2000, 4)[:, 0]
    shown = np.rint((255 - 255 * shades) / 25).astype(int)
    table = np.histogram2d(labels, shown, bins=[np.arange(11), np.arange(11)])[0]
    assert table.sum(axis=0).min() > 150  # uniform: 200 each expected
    expected = 20.0
    assert ((table - expected) ** 2 / expected).sum() < 150  # chi-square, 81 degrees of freedom


def test_the_generator_and_nothing_else_decides():
    images, labels = np.zeros((50, 8, 8)), np.arange(50) % 10
    one, again, other = (plant_decoy(images, labels, classes=10, patch=2, generator=rng(seed))[0] for seed in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"images": np.zeros((3, 3, 8, 8))}, ShapeError, "grey"),
        ({"images": np.zeros((3, 64))}, ShapeError, "grey"),
        ({"labels": np.zeros(4, int)}, ShapeError, "one entry a picture"),
        ({"labels": np.array([0, 1, 10])}, ArgumentError, "0 to 10"),
        ({"labels": np.array([0, -1, 1])}, ArgumentError, "-1 to 1"),
        ({"classes": 12}, ArgumentError, "2 to 11"),
        ({"rule": "colour"}, ArgumentError, "'label' or 'random'"),
        ({"patch": 9}, ArgumentError, "1 to 8"),
        ({"patch": 0}, ArgumentError, "1 to 8"),
    ],
)
def test_bad_arguments_are_told(changes, error, said):
    arguments = {"images": np.zeros((3, 8, 8)), "labels": np.zeros(3, int), "classes": 10, "patch": 2}
    with pytest.raises(error, match=said) as caught:
        plant_decoy(**{**arguments, "generator": rng(), **changes})
    assert caught.value.mend


def accuracy_of_shade(part) -> float:
    """How well the swatch's grey value alone tells the label."""
    size = len(part.labels)
    shades = part.inputs[part.irrelevant].reshape(size, -1)[:, 0]
    return float((np.rint((255 - 255 * shades) / 25).astype(int) == part.labels).mean())


def check_parts(data, shape: tuple[int, int], patch: int) -> None:
    for part in (data.train, data.validation, data.test):
        assert part.inputs.shape == part.clean.shape == part.irrelevant.shape == (len(part.labels), 1, *shape)
        assert part.inputs.dtype == part.clean.dtype == np.float32
        assert 0 <= part.clean.min() <= part.clean.max() == 1
        assert (part.inputs[~part.irrelevant] == part.clean[~part.irrelevant]).all()
        assert (part.irrelevant.sum(axis=(1, 2, 3)) == patch**2).all()
        assert set(part.labels.tolist()) == set(range(data.classes))
    assert accuracy_of_shade(data.train) == accuracy_of_shade(data.validation) == 1


def test_decoy_digits():
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    data = decoy_digits(seed=0)
    check_parts(data, (8, 8), 2)
    sizes = [len(part.labels) for part in (data.train, data.validation, data.test)]
    assert sum(sizes) == 1797
    np.testing.assert_allclose(np.array(sizes) / 1797, [0.6, 0.15, 0.25], atol=0.005)
    assert accuracy_of_shade(data.test) < 0.2
    again, other = decoy_digits(seed=0), decoy_digits(seed=1)
    assert again.train.inputs.tobytes() == data.train.inputs.tobytes()
    assert other.train.inputs.tobytes() != data.train.inputs.tobytes()


def small_mnist(train: int = 300, test: int = 100) -> dict[str, np.ndarray]:
    generator = rng()
    return {
        "x_train": generator.integers(0, 256, (train, 28, 28), dtype=np.uint8),
        "y_train": (np.arange(train) % 10).astype(np.uint8),
        "x_test": generator.integers(0, 256, (test, 28, 28), dtype=np.uint8),
        "y_test": (np.arange(test) % 10).astype(np.uint8),
    }


def test_decoy_mnist_keeps_the_official_test_part():
    arrays = small_mnist(900)
    data = decoy_mnist(arrays, seed=0)
    check_parts(data, (28, 28), 4)
    assert [len(part.labels) for part in (data.train, data.validation, data.test)] == [840, 60, 100]
    assert (data.test.clean[:, 0] * 255 == arrays["x_test"]).all()
    rows = {picture.tobytes() for picture in data.train.clean}
    assert not any(picture.tobytes() in rows for picture in data.validation.clean)


def test_other_arrays_are_not_mnist():
    with pytest.raises(DataError, match="x_test, y_test"):
        decoy_mnist({"x_train": np.zeros(1), "y_train": np.zeros(1)}, seed=0)


def test_all_corners_carry_the_same_shade() -> None:
    generator = np.random.Generator(np.random.PCG64(0))
    images, marked = plant_decoy(
        np.zeros((3, 8, 8)), np.array([0, 4, 9]), classes=10, corners="all", patch=2, generator=generator
    )
    assert marked.sum(axis=(1, 2)).tolist() == [16, 16, 16]
    for image, label in zip(images, (0, 4, 9), strict=True):
        for corner in (image[:2, :2], image[:2, -2:], image[-2:, :2], image[-2:, -2:]):
            np.testing.assert_allclose(corner, (255 - 25 * label) / 255, rtol=1e-6)


def test_unknown_corners_are_refused() -> None:
    generator = np.random.Generator(np.random.PCG64(0))
    with pytest.raises(ArgumentError, match="corners"):
        plant_decoy(np.zeros((1, 8, 8)), np.array([0]), classes=10, corners="two", patch=2, generator=generator)  # type: ignore[arg-type]
