"""The space of wavelet coefficients."""

import math

import numpy as np
import pytest
import torch

import rightly as rt
from contracts.problems import normal
from rightly.core.errors import ArgumentError
from rightly.spaces import filters
from rightly.spaces.filters import Bank, bank

OWN = ["haar", *(f"db{k}" for k in range(2, 11))]


def slow_level(x, low, high):
    """One level from the definition, in loops: averages, then details."""
    n = len(x)
    parts = []
    for taps in (low, high):
        parts += [sum(tap * x[(2 * k + i) % n] for i, tap in enumerate(taps)) for k in range(n // 2)]
    return parts


def slow(x, low, high, levels):
    n, found = len(x), list(x)
    for level in range(levels):
        m = n >> level
        found[:m] = slow_level(found[:m], low, high)
    return found


def test_closed_forms():
    root = math.sqrt(3)
    expected = torch.tensor([1 + root, 3 + root, 3 - root, 1 - root], dtype=torch.float64) / (4 * math.sqrt(2))
    assert torch.allclose(bank("db2").low, expected, rtol=0, atol=1e-15)
    assert torch.allclose(bank("db2").high, expected.flip(0) * torch.tensor([1, -1, 1, -1]), rtol=0, atol=1e-15)
    x = torch.tensor([[1.0, 5, 2, 2]], dtype=torch.float64)
    found = rt.spaces.Wavelet("haar", 2).encode(x)
    assert torch.allclose(found, torch.tensor([[5, 1, -4 / math.sqrt(2), 0]], dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", OWN)
def test_own_filters_are_orthogonal_and_blind_to_polynomials(name):
    low, high = bank(name).low, bank(name).high
    taps = len(low)
    assert low.sum() == pytest.approx(math.sqrt(2), abs=1e-12)
    for k in range(taps // 2):
        assert float((low[2 * k :] * low[: taps - 2 * k]).sum()) == pytest.approx(float(k == 0), abs=1e-12)
    place = torch.arange(taps, dtype=torch.float64) - taps / 2
    for power in range(taps // 2):
        moment = (high * (place / taps) ** power).sum()
        assert abs(float(moment)) < 1e-9


@pytest.mark.parametrize("name", ["haar", "db2", "db5"])
@pytest.mark.parametrize(("n", "levels"), [(4, 1), (8, 3), (64, 4), (260, 2), (512, 1)])
def test_coefficients_are_those_of_the_definition(name, n, levels):
    x = normal(2, n, seed=n)
    found = rt.spaces.Wavelet(name, levels).encode(x)
    low, high = bank(name).low.tolist(), bank(name).high.tolist()
    expected = torch.tensor([slow(row.tolist(), low, high, levels) for row in x], dtype=torch.float64)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_images_are_transformed_along_both_sides():
    x = normal(1, 8, 12, seed=1)
    low, high = bank("db2").low.tolist(), bank("db2").high.tolist()
    expected = x[0].clone()
    for level in range(2):
        h, w = 8 >> level, 12 >> level
        block = torch.tensor([slow_level(c.tolist(), low, high) for c in expected[:h, :w].T], dtype=torch.float64).T
        expected[:h, :w] = torch.tensor([slow_level(r.tolist(), low, high) for r in block], dtype=torch.float64)
    found = rt.spaces.Wavelet("db2", 2, dims=2).encode(x)
    assert torch.allclose(found[0], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(1,), (6,), (47,), (140,), (300,), (2, 20), (3, 7, 30), (1, 260, 5)])
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("name", ["haar", "db2", "db10"])
def test_reconstruction_is_exact(name, levels, shape):
    x = normal(2, *shape, seed=1)
    space = rt.spaces.Wavelet(name, levels, dims=1 if len(shape) < 3 else 2)
    coefficients = space.encode(x)
    assert torch.allclose(space.decode(coefficients, shape), x, rtol=0, atol=1e-12)
    assert torch.allclose(coefficients.square().sum(), x.square().sum(), rtol=1e-12, atol=0)
    assert space.scales(shape).shape == (levels + 1, *coefficients.shape[1:])


def test_both_ways_through_a_level_agree(monkeypatch):
    x, taps = normal(3, 2, 64, seed=1), bank("db7").analysis
    small = filters.split(x, taps), filters.join(x, taps)
    monkeypatch.setattr(filters, "MATRIX", 0)
    assert torch.allclose(filters.split(x, taps), small[0], rtol=0, atol=1e-13)
    assert torch.allclose(filters.join(x, taps), small[1], rtol=0, atol=1e-13)


def test_scales_part_the_space():
    scales = rt.spaces.Wavelet("haar", 3).scales((16,))
    assert scales.long().argmax(0).tolist() == [0, 0, 1, 1, 2, 2, 2, 2, *[3] * 8]
    assert torch.equal(scales.sum(0), torch.ones(16, dtype=torch.long))
    image = rt.spaces.Wavelet("haar", 2, dims=2).scales((3, 4, 7)).long()
    assert image.shape == (3, 3, 4, 8)
    assert torch.equal(image.sum(0), torch.ones(3, 4, 8, dtype=torch.long))
    expected = [[0, 0, 2, 2, 2, 2, 2, 2]] * 2 + [[2] * 8] * 2
    assert image[:, 0].argmax(0).tolist() == [[0, 0, 1, 1, *[2] * 4], [1] * 4 + [2] * 4, *expected[2:]]


def test_levels_by_default():
    assert rt.spaces.Wavelet("db5").depth((64,)) == 2
    assert rt.spaces.Wavelet("db5").depth((640,)) == 6
    assert rt.spaces.Wavelet("db5").depth((4,)) == 1
    assert rt.spaces.Wavelet("haar", dims=2).depth((3, 16, 64)) == 3


def test_a_filter_of_ones_own():
    low = bank("db3").low
    x = normal(2, 16, seed=1)
    assert torch.equal(rt.spaces.Wavelet(low).encode(x), rt.spaces.Wavelet("db3").encode(x))
    assert len(Bank.orthogonal(low).high) == 6


# --- agreement with PyWavelets


def pywavelets():
    return pytest.importorskip("pywt", reason="needs the extra wavelets (PyWavelets)")


@pytest.mark.parametrize("name", OWN)
def test_own_filters_are_those_of_pywavelets(name):
    assert np.allclose(bank(name).low.numpy(), pywavelets().Wavelet(name).rec_lo, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["haar", "db2", "db3", "db5", "sym4", "coif2"])
@pytest.mark.parametrize("levels", [1, 3])
def test_coefficients_are_those_of_pywavelets(name, levels):
    """Theirs begin elsewhere: they are ours of the signal moved round, in another order, up to signs."""
    pywt = pywavelets()
    x = normal(1, 256, seed=1)
    space = rt.spaces.Wavelet(name, levels)
    theirs = [np.sort(np.abs(part)) for part in pywt.wavedec(x[0].numpy(), name, "periodization", levels)]

    def farthest(moved):
        own = space.encode(x.roll(moved, 1))[0]
        pairs = zip(space.scales((256,)), theirs, strict=True)
        return max(np.abs(np.sort(own[scale].abs().numpy()) - part).max() for scale, part in pairs)

    assert min(farthest(moved) for moved in range(2**levels)) < 1e-10


@pytest.mark.parametrize("name", ["bior2.2", "bior4.4", "rbio3.1"])
def test_biorthogonal_wavelets_reconstruct(name):
    pywavelets()
    x = normal(2, 47, seed=1)
    space = rt.spaces.Wavelet(name, 2)
    assert torch.allclose(space.decode(space.encode(x), (47,)), x, rtol=0, atol=1e-10)
    problem = lambda x: x[:, :2] ** 2  # noqa: E731
    found = rt.IntegratedGradients(n_steps=5, space=space)(problem, x, torch.tensor([0, 1]))
    assert found.completeness_gap.abs().max() < 1e-10


def test_unknown_wavelets_are_named():
    pywavelets()
    with pytest.raises(ArgumentError, match="no such wavelet"):
        rt.spaces.Wavelet("db99")
