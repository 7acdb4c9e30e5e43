"""Lognormal maps: the spectrum that was asked for, their bounds, and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import rightly as rt
from rightly.core.errors import ArgumentError, ShapeError

SIDE, DEGREES, SHIFT = 64, 3.5, 0.04
ELL = np.arange(0, 6010, 10)
POWER = 2e-9 / (1 + (ELL / 400) ** 2)


def drawn(count=400, seed=0, **arguments):
    return rt.data.lognormal_maps(ELL, POWER, count, generator=torch.Generator().manual_seed(seed), **arguments)


def test_maps_have_the_spectrum_that_was_asked_for():
    maps = drawn().double()
    area = math.radians(DEGREES) ** 2
    found = (torch.fft.fft2(maps).abs().square().mean(0) * area / SIDE**4).numpy()
    way = 2 * math.pi * np.fft.fftfreq(SIDE, math.radians(DEGREES) / SIDE)
    ell = np.hypot(way[:, None], way[None])
    for low, high in ((200, 500), (500, 1000), (1000, 2000), (2000, 3000)):
        ring = (ell >= low) & (ell < high)
        assert found[ring].mean() == pytest.approx(np.interp(ell[ring], ELL, POWER).mean(), rel=0.05), low


def test_maps_are_lognormal():
    maps = drawn()
    assert maps.shape == (400, SIDE, SIDE)
    assert maps.dtype == torch.float32
    assert maps.min() > -SHIFT
    assert abs(float(maps.mean())) < 1e-4
    logs = (maps.double() / SHIFT + 1).log().flatten()
    assert abs(float(((logs - logs.mean()) / logs.std()).pow(3).mean())) < 0.05
    assert float(((maps - maps.mean()) / maps.std()).pow(3).mean()) > 0.3


def test_a_seed_gives_the_same_maps():
    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(3, seed=1))


def test_bad_spectra_are_refused():
    with pytest.raises(ShapeError, match="multipole"):
        rt.data.lognormal_maps(ELL, POWER[1:], 2)
    for bad in ({"side": 0}, {"degrees": 0.0}, {"shift": -1.0}):
        with pytest.raises(ArgumentError):
            drawn(2, **bad)
