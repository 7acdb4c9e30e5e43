"""The space of frequencies."""

import math

import numpy as np
import pytest
import torch

import rightly as rt
from contracts.problems import normal
from rightly.core import frequencies

LENGTHS = [1, 2, 3, 5, 6, 16, 255, 256, 257, 300]


def slow(x):
    """The coordinates of a signal (n,) from the definition, one sum each."""
    n = len(x)
    found = [sum(x) / math.sqrt(n)]
    for k in range(1, (n + 1) // 2):
        for wave in (math.cos, math.sin):
            found.append(math.sqrt(2 / n) * sum(x[t] * wave(2 * math.pi * k * t / n) for t in range(n)))
    if n % 2 == 0:
        found.append(sum(x[t] * (-1) ** t for t in range(n)) / math.sqrt(n))
    return found


@pytest.mark.parametrize("n", LENGTHS)
def test_coordinates_are_those_of_the_definition(n):
    x = normal(2, n, seed=n)
    found = rt.spaces.Fourier().encode(x)
    expected = torch.tensor([slow(row.tolist()) for row in x], dtype=torch.float64)
    assert torch.allclose(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("n", LENGTHS)
def test_sums_of_squares_are_kept_and_nothing_is_lost(n):
    x = normal(3, 2, n, seed=n)
    coordinates = rt.spaces.Fourier().encode(x)
    assert coordinates.shape == x.shape
    assert torch.allclose(coordinates.square().sum(), x.square().sum(), rtol=1e-12, atol=0)
    assert torch.allclose(rt.spaces.Fourier().decode(coordinates, (2, n)), x, rtol=0, atol=1e-13)


def test_power_is_that_of_the_fft():
    x = normal(1, 12, seed=1)
    squared = rt.spaces.Fourier().encode(x)[0].square()
    power = np.abs(np.fft.rfft(x[0].numpy(), norm="ortho")) ** 2
    pairs = [squared[0], *(squared[2 * k - 1] + squared[2 * k] for k in range(1, 6)), squared[11]]
    assert np.allclose(pairs, power * np.array([1, 2, 2, 2, 2, 2, 1]), rtol=0, atol=1e-12)


def test_images_are_transformed_along_both_sides():
    x = normal(2, 3, 6, 300, seed=1)
    found = rt.spaces.Fourier(2).encode(x)
    columns = torch.stack([torch.tensor(slow(c.tolist())) for c in x[0, 1].T], 1)
    rows = torch.stack([torch.tensor(slow(r.tolist())) for r in columns])
    assert torch.allclose(found[0, 1], rows.double(), rtol=0, atol=1e-4)
    assert torch.allclose(rt.spaces.Fourier(2).decode(found, (3, 6, 300)), x, rtol=0, atol=1e-13)


def test_a_wave_lies_at_its_frequency():
    t = torch.arange(32, dtype=torch.float64)
    wave = torch.sin(2 * math.pi * 5 * t / 32)[None]
    coordinates = rt.spaces.Fourier().encode(wave)[0]
    place = int(coordinates.abs().argmax())
    assert frequencies.frequencies((32,), 1)[place] == pytest.approx(5 / 32)
    assert coordinates[place] == pytest.approx(4.0)
    plane = torch.cos(2 * math.pi * (2 * t[:16, None] / 16 + 3 * t[None] / 32))[None]
    there = rt.spaces.Fourier(2).encode(plane)[0].abs() > 1e-9
    at = rt.spaces.Fourier(2).frequencies((16, 32))[there]
    assert torch.allclose(at, torch.full_like(at, math.hypot(2 / 16, 3 / 32)))


def test_bands_part_the_space():
    space = rt.spaces.Fourier(2)
    rings = space.bands((3, 6, 7), (0.0, 0.1, 0.3, 0.8))
    assert rings.shape == (3, 3, 6, 7)
    assert torch.equal(rings.sum(0), torch.ones(3, 6, 7, dtype=torch.long))
    assert rings[0, :, 0, 0].all()
    assert rings[2, :, 5, 6].all()
    line = rt.spaces.Fourier().bands((6,), (0.0, 1 / 6, 0.5))
    assert line.tolist() == [[True, False, False, False, False, False], [False, True, True, True, True, False]]


def test_band_penalties_are_those_outside():
    phi = normal(2, 6, seed=1)
    at = torch.tensor([0, 1, 1, 2, 2, 3]) / 6
    outside = phi[:, (at < 0.1) | (at >= 0.4)]
    assert torch.allclose(rt.priors.FrequencyBand(0.1, 0.4)(phi), outside.square().sum(1))
    assert torch.allclose(rt.priors.FrequencyBand(0.1, 0.4, norm="l1")(phi), outside.abs().sum(1))
    assert not rt.priors.FrequencyBand()(phi).any()
    image = normal(2, 4, 5, seed=2)
    ring = rt.spaces.Fourier(2).bands((4, 5), (0.2, 0.4))[0]
    assert torch.allclose(rt.priors.FrequencyBand(0.2, 0.4, dims=2)(image), (image[:, ~ring] ** 2).sum(1))


def test_sums_over_regions():
    phi = normal(3, 2, 4, seed=1)
    regions = normal(5, 2, 4, seed=2) > 0
    expected = torch.stack([(phi * region).flatten(1).sum(1) for region in regions], 1)
    assert torch.allclose(rt.functional.over_regions(phi, regions), expected, rtol=0, atol=1e-14)
    penalty = rt.priors.OverRegions(rt.priors.L1(), regions)
    assert torch.allclose(penalty(phi), expected.abs().sum(1))
    batch = rt.priors.OverRegions(rt.priors.Sparsity(), regions)
    assert batch.level == "batch"
    assert torch.allclose(batch(phi), rt.priors.Sparsity()(expected))
    noted = rt.priors.OverRegions(rt.priors.Irrelevant(), regions)
    mask = torch.tensor([[1.0, 0, 0, 1, 0]]).expand(3, 5)
    assert torch.allclose(noted(phi, rt.Annotation(irrelevant=mask)), (expected * mask).square().sum(1))
