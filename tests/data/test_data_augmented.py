"""Noise, small movements and folders of pictures: each against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import rightly as rt
from rightly.core.errors import ArgumentError, DataError, ShapeError
from rightly.data import NOISES, moved


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- noise


@pytest.mark.parametrize("name", NOISES)
def test_noise_is_the_callers_and_leaves_the_pictures_alone(name):
    images = torch.rand(4, 3, 8, 8, generator=draws(1))
    kept = images.clone()
    first, again, other = (NOISES[name](images, 0.3, draws(seed), 0.0, 1.0) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, images)
    assert torch.equal(images, kept)
    assert torch.equal(NOISES[name](images, 0.0, draws(), 0.0, 1.0), images)


@pytest.mark.parametrize("name", NOISES)
def test_a_level_means_the_same_in_any_units(name):
    images = torch.rand(4, 1, 8, 8, generator=draws(1), dtype=torch.float64)
    low, high = -0.5, 3.0
    there = NOISES[name](images * (high - low) + low, 0.3, draws(), low, high)
    assert torch.allclose(there, NOISES[name](images, 0.3, draws(), 0.0, 1.0) * (high - low) + low)


def test_gaussian_noise_has_the_deviation_asked_for_and_is_not_clipped():
    images = torch.full((50, 1, 20, 20), 0.5)
    found = rt.data.gaussian_noise(images, 0.4, draws(), -1.0, 1.0)
    assert found.std() == pytest.approx(0.8, rel=0.02)
    assert found.mean() == pytest.approx(0.5, abs=0.02)
    assert found.max() > 1.5


def test_salt_and_pepper_replaces_a_share_of_the_pixels_in_all_channels():
    images = torch.full((50, 3, 20, 20), 0.3)
    found = rt.data.salt_and_pepper_noise(images, 0.2, draws())
    assert torch.equal(found[:, 0], found[:, 2])
    shares = {value: float((found == value).double().mean()) for value in (0.0, 1.0)}
    assert shares == {0.0: pytest.approx(0.1, abs=0.01), 1.0: pytest.approx(0.1, abs=0.01)}
    assert found.unique().tolist() == pytest.approx([0.0, 0.3, 1.0])
    assert set(rt.data.salt_and_pepper_noise(images, 1.0, draws()).unique().tolist()) == {0.0, 1.0}


def test_moving_pixels_by_the_whole_span_is_salt_and_pepper():
    """What the authors' code for MNIST does."""
    images = torch.rand(20, 1, 8, 8, generator=draws(1))
    share = torch.rand(20, 1, 8, 8, generator=draws())
    moved = images + (share < 0.1).float() - ((share >= 0.1) & (share < 0.2)).float()
    assert torch.equal(rt.data.salt_and_pepper_noise(images, 0.2, draws()), moved.clamp(0, 1))


@pytest.mark.parametrize("name", NOISES)
def test_impossible_noise_is_refused(name):
    images = torch.zeros(1, 1, 2, 2)
    for level, low, high in ((-0.1, 0.0, 1.0), (float("nan"), 0.0, 1.0), (0.1, 1.0, 1.0)):
        with pytest.raises(ArgumentError):
            NOISES[name](images, level, draws(), low, high)
    if name != "gaussian":
        with pytest.raises(ArgumentError, match="share"):
            NOISES[name](images, 1.1, draws(), 0.0, 1.0)


# ---- movements


def turned(images, degrees=0.0, right=0.0, down=0.0):
    return moved(images, *(torch.full((len(images),), value) for value in (degrees, right, down)))


@pytest.mark.parametrize("shape", [(8, 8), (6, 10)])
def test_whole_pixels_shift_and_the_edge_is_repeated(shape):
    images = torch.rand(3, 2, *shape, generator=draws(), dtype=torch.float64)
    assert torch.allclose(turned(images), images)
    found = turned(images, right=2, down=-1)
    assert torch.allclose(found[:, :, :-1, 2:], images[:, :, 1:, :-2])
    assert torch.allclose(found[:, :, :-1, 0], images[:, :, 1:, 0])


def test_a_quarter_turn_is_numpys_and_comes_before_the_shift():
    images = torch.rand(2, 1, 9, 9, generator=draws(), dtype=torch.float64)
    quarter = torch.rot90(images, 1, (2, 3))
    assert torch.allclose(turned(images, degrees=90), quarter, atol=1e-6)
    found = turned(images, degrees=90, right=1, down=2)
    assert torch.allclose(found[:, :, 2:, 1:], quarter[:, :, :-2, :-1], atol=1e-6)


def test_turning_keeps_the_shape_of_a_wide_picture():
    """A round spot stays round: places are turned in pixels, not in shares of the sides."""
    rows, columns = torch.meshgrid(torch.arange(31.0) - 15, torch.arange(61.0) - 30, indexing="ij")
    spot = torch.exp(-(rows**2 + columns**2) / 50).double()[None, None]
    assert float((turned(spot, degrees=30) - spot).abs().max()) < 0.01


def test_moved_pictures_differ_every_time_but_not_for_the_same_seed():
    images, labels = torch.rand(20, 1, 8, 8, generator=draws()), torch.arange(20)
    data = rt.data.Moved(images, labels, shift=2, rotation=10)

    def read(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            batches = list(DataLoader(data, batch_size=8))
        assert torch.equal(torch.cat([part for _, part in batches]), labels)
        return torch.cat([part for part, _ in batches])

    assert torch.equal(read(0), read(0))
    assert not torch.equal(read(0), read(1))
    assert not torch.equal(read(0), images)
    still = rt.data.Moved(images, labels, shift=0, rotation=0)
    assert torch.allclose(torch.stack([image for image, _ in still.__getitems__(range(20))]), images, atol=1e-5)
    assert torch.allclose(still[3][0], images[3], atol=1e-5)
    assert len(still) == 20


@pytest.mark.parametrize(("shift", "rotation", "start", "reach"), [(3, 0, 10, 3), (0, 15, 18, 3)])
def test_movements_stay_within_their_bounds(shift, rotation, start, reach):
    """A bright pixel, in the middle or eight to the right of it, moves up and down by at most so much."""
    images = torch.zeros(300, 1, 21, 21)
    images[:, :, 10, start] = 1
    data = rt.data.Moved(images, torch.zeros(300), shift=shift, rotation=rotation)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = torch.stack([image for image, _ in data.__getitems__(range(300))])
    rows = (found[:, 0] > 0).any(0).any(1).nonzero()
    assert (rows.min(), rows.max()) == (10 - reach, 10 + reach)


def test_what_is_no_labelled_picture_is_refused():
    with pytest.raises(ShapeError):
        rt.data.Moved(torch.zeros(3, 8, 8), torch.zeros(3))
    with pytest.raises(ShapeError):
        rt.data.Moved(torch.zeros(3, 1, 8, 8), torch.zeros(2))
    with pytest.raises(ArgumentError):
        rt.data.Moved(torch.zeros(3, 1, 8, 8), torch.zeros(3), shift=-1)


# ---- folders


@pytest.fixture
def imagenet(tmp_path):
    """Five pictures of two classes in train and val; picture i of class c is grey 40 i + c, its left column white."""
    image = pytest.importorskip("PIL.Image")
    for part in ("train", "val"):
        for c, name in enumerate(("n01", "n02")):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(5):
                pixels = np.full((12, 20, 3), 40 * i + c, np.uint8)
                pixels[:, 0] = 255
                image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    return tmp_path


def test_a_folder_is_read_picture_by_picture(imagenet):
    train, plain, validation = rt.data.picture_folders(imagenet, size=8, resize=12)
    assert train.classes == validation.classes == ("n01", "n02")
    assert len(train) == len(plain) == 10
    assert plain.labels.tolist() == [0] * 5 + [1] * 5
    image, label = plain[7]
    assert image.shape == (3, 8, 8)
    assert label == 1
    assert torch.allclose(image, torch.full_like(image, 81 / 255))  # the middle, without the white column
    images, labels = plain.tensors([1, 6])
    assert torch.equal(images[1], plain[6][0])
    assert labels.tolist() == [0, 1]


def test_augmented_pictures_are_cut_anywhere_and_mirrored(imagenet):
    train, *_ = rt.data.picture_folders(imagenet, size=12)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        found = torch.stack([train[3][0][0] for _ in range(200)])
    left, right = (float((found[:, 0, side] > 0.9).double().mean()) for side in (0, -1))
    # cut at one of nine places, half of them mirrored
    assert left == pytest.approx(1 / 18, abs=0.05)
    assert right == pytest.approx(1 / 18, abs=0.05)
    assert left > 0
    assert right > 0


def test_small_pictures_are_made_large_enough(imagenet):
    image, _ = rt.data.PictureFolder(imagenet / "train", size=30)[0]
    assert image.shape == (3, 30, 30)


def test_another_layout_is_named(imagenet):
    with pytest.raises(DataError, match="'train' and 'val'"):
        rt.data.picture_folders(imagenet / "train")
    (imagenet / "val" / "n02").rename(imagenet / "val" / "n03")
    with pytest.raises(DataError, match="n02"):
        rt.data.picture_folders(imagenet)
    with pytest.raises(ArgumentError, match="resize"):
        rt.data.PictureFolder(imagenet / "train", size=30, resize=20)
    (imagenet / "train" / "n01" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"0\.png"):
        rt.data.PictureFolder(imagenet / "train", size=8)[0]


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_bytes_are_refused(noise):
    with pytest.raises(ArgumentError, match="whole number"):
        noise(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), 0.1, torch.Generator(), 0, 255)
