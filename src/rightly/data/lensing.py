"""Maps of weak gravitational lensing, drawn from a spectrum: lognormal fields in place of ray-traced simulations."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from rightly.core.checks import check_count, check_number
from rightly.core.errors import ShapeError


def lognormal_maps(
    multipoles: np.ndarray,
    power: np.ndarray,
    count: int,
    *,
    side: int = 64,
    degrees: float = 3.5,
    shift: float = 0.04,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Shifted lognormal fields whose own spectrum, not that of their logarithm, is the one given.

    Args:
        multipoles: (L,) rising; there is no power beyond the last.
        power: (L,), C_l.
        count: maps.
        side: pixels.
        degrees: length of a side.
        shift: no pixel is below minus this (lambda); the larger, the nearer to a Gaussian field.
        generator: of the white noise.

    Returns:
        (count, side, side) float32, of mean 0 but for the draw's chance.

    Source: Coles and Jones (1991); Xavier, Abdalla and Joachimi (2016) for the shift.
    """
    check_count("count", count)
    check_count("side", side)
    check_number("degrees", degrees, positive=True)
    check_number("shift", shift, positive=True)
    ell, spectrum = np.asarray(multipoles, dtype=np.float64), np.asarray(power, dtype=np.float64)
    if ell.ndim != 1 or spectrum.shape != ell.shape:
        raise ShapeError(
            "a power for every multipole",
            expected="(L,) twice",
            got=(ell.shape, spectrum.shape),
            mend="lognormal_maps(ell, c_ell, ...), both one-dimensional",
        )
    step = math.radians(degrees) / side
    way = 2 * math.pi * np.fft.fftfreq(side, step)
    modes = np.interp(np.hypot(way[:, None], way[None]), ell, spectrum, right=0.0)
    modes[0, 0] = 0.0
    # the correlation of the Gaussian field whose exponential has the wanted one
    gaussian = np.log1p(np.fft.ifft2(modes).real / step**2 / shift**2)
    own = np.clip(np.fft.fft2(gaussian).real, 0, None)
    white = torch.randn(count, side, side, generator=generator, dtype=torch.float64)
    field = torch.fft.ifft2(torch.fft.fft2(white) * torch.from_numpy(np.sqrt(own))).real
    maps: Tensor = (shift * (torch.exp(field - own.mean() / 2) - 1)).float()
    return maps
