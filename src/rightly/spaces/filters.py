"""Filters of wavelets, and one level of a periodic wavelet transform with them, differentiable in the filters.

A bank is (low, high) for the analysis and (low, high) for the synthesis; an orthogonal wavelet uses one pair for both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.extras import require

#: up to this length a level is a product with a matrix, which every engine and every decomposition rule knows
MATRIX = 256
_OWN = 10


@dataclass(frozen=True, eq=False)
class Bank:
    """The filters of a wavelet: (2, L) each, low-pass first. Coefficient k is sum_i filter[i] x[2 k + i]."""

    analysis: Tensor
    synthesis: Tensor

    @classmethod
    def orthogonal(cls, low: Tensor) -> Bank:
        """From the low-pass filter h (L,) alone: g[i] = (-1)^i h[L - 1 - i] (Singh et al. 2022, after eq. 11)."""
        if low.ndim != 1 or len(low) < 2 or len(low) % 2 or not low.is_floating_point():
            raise ShapeError(
                "a low-pass filter is a row of numbers", expected="(L,) floats, L even", got=tuple(low.shape)
            )
        both = torch.stack([low, high_pass(low)])
        return cls(both, both)

    @property
    def low(self) -> Tensor:
        """(L,)."""
        return self.analysis[0]

    @property
    def high(self) -> Tensor:
        """(L,)."""
        return self.analysis[1]

    def to(self, like: Tensor) -> Bank:
        """In the precision and on the device of ``like``."""
        analysis = self.analysis.to(like)
        return Bank(analysis, analysis if self.synthesis is self.analysis else self.synthesis.to(like))


def high_pass(low: Tensor) -> Tensor:
    """g[i] = (-1)^i h[L - 1 - i]: (L,) -> (L,)."""
    signs = torch.ones_like(low)
    signs[1::2] = -1
    return low.flip(0) * signs


def bank(wavelet: str) -> Bank:
    """The filters of a wavelet by name, in float64: ``haar`` and ``db1`` to ``db10`` are our own, all others
    (symlets, coiflets, biorthogonal ones) are read from PyWavelets (extra ``wavelets``)."""
    name = {"haar": "db1"}.get(str(wavelet).lower(), str(wavelet).lower())
    if name.startswith("db") and name[2:].isdigit() and 1 <= int(name[2:]) <= _OWN:
        return Bank.orthogonal(torch.from_numpy(_daubechies(int(name[2:]))))
    pywt = require("pywt")
    if name not in pywt.wavelist(kind="discrete"):
        raise ArgumentError(
            "there is no such wavelet", expected="a discrete wavelet such as 'db5', 'sym4', 'coif1'", got=repr(wavelet)
        )
    found = pywt.Wavelet(name)
    synthesis = torch.tensor([found.rec_lo, found.rec_hi], dtype=torch.float64)
    analysis = torch.tensor([found.dec_lo[::-1], found.dec_hi[::-1]], dtype=torch.float64)
    return Bank(analysis, synthesis)


@cache
def _daubechies(moments: int) -> np.ndarray:
    """Daubechies' filter of extremal phase with so many vanishing moments: 2 ``moments`` numbers, their sum sqrt(2).

    |H|^2 is (1 + cos w)^N times a polynomial in y = (1 - cos w) / 2, y = (2 - z - 1 / z) / 4 (Daubechies 1992,
    section 6.1); of each pair of its roots the one inside the unit circle is taken.
    """
    polynomial = [math.comb(moments - 1 + k, k) for k in range(moments)]
    filtered = np.array([1.0 + 0j])
    for y in np.roots(polynomial[::-1]):
        pair = np.roots([1.0, 4 * y - 2, 1.0])
        filtered = np.convolve(filtered, [1.0, -pair[np.abs(pair).argmin()]])
    for _ in range(moments):
        filtered = np.convolve(filtered, [1.0, 1.0])
    taps = filtered.real
    return np.asarray(taps * math.sqrt(2) / taps.sum())


def split(x: Tensor, filters: Tensor) -> Tensor:
    """One level along the last dimension, of even length n: (..., n) -> (..., n), averages first, then details."""
    n = x.shape[-1]
    if n <= MATRIX:
        return x @ level(filters, n).T
    rows = x.reshape(-1, 1, n)
    taps = filters.shape[1]
    parts = F.conv1d(torch.cat([rows, rows[..., : taps - 2]], -1), filters[:, None], stride=2)
    return parts.reshape(*x.shape[:-1], n)


def join(parts: Tensor, filters: Tensor) -> Tensor:
    """The transpose of ``split`` with the same filters; with the synthesis filters its inverse."""
    n = parts.shape[-1]
    if n <= MATRIX:
        return parts @ level(filters, n)
    whole = F.conv_transpose1d(parts.reshape(-1, 2, n // 2), filters[:, None], stride=2)[:, 0]
    tail = F.pad(whole[:, n:], (0, 2 * n - whole.shape[1]))
    return (whole[:, :n] + tail).reshape(parts.shape)


def level(filters: Tensor, n: int) -> Tensor:
    """The matrix (n, n) of one level: row k holds the low-pass filter at 2 k, row n / 2 + k the high-pass filter.

    What reaches beyond the end goes on at the beginning, as often as it has to.
    """
    taps, half = filters.shape[1], n // 2
    device = filters.device
    columns = (2 * torch.arange(half, device=device)[:, None] + torch.arange(taps, device=device)) % n
    rows = torch.arange(half, device=device)[:, None].expand(-1, taps)
    places = torch.cat([rows * n + columns, (rows + half) * n + columns]).flatten()
    values = filters[:, None].expand(2, half, taps).flatten()
    return filters.new_zeros(n * n).index_add(0, places, values).reshape(n, n)
