"""The orthonormal real Fourier transform: as many coordinates as numbers, cosine and sine of each frequency in turn."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: up to this length a transform is a product with a matrix, which every engine and every decomposition rule knows
MATRIX = 256


def analyse(x: Tensor, dims: int) -> Tensor:
    """Coordinates of ``x`` (..., *N) along its ``dims`` trailing dimensions, shaped like ``x``.

    Along one dimension of n: the mean times sqrt(n), then for each frequency k / n the cosine and the sine part, and
    for even n the alternating one at 1 / 2. The basis is orthonormal: sums of squares are kept (Parseval).
    """
    for dim in range(-dims, 0):
        x = along(x, dim, _forward if x.shape[dim] > MATRIX else lambda t: t @ basis(t).T)
    return x


def synthesise(coordinates: Tensor, dims: int) -> Tensor:
    """The inverse of ``analyse``, which is its transpose."""
    for dim in range(-dims, 0):
        coordinates = along(coordinates, dim, _backward if coordinates.shape[dim] > MATRIX else lambda t: t @ basis(t))
    return coordinates


def basis(like: Tensor) -> Tensor:
    """(n, n) for the last dimension of ``like``, a coordinate a row, in its precision."""
    n = like.shape[-1]
    rows = _forward(torch.eye(n, dtype=torch.float64)).T
    return rows.to(like)


def frequencies(shape: tuple[int, ...], dims: int) -> Tensor:
    """Frequency of every coordinate of a space of this shape, in cycles a step: (*shape), float64.

    In two dimensions the length of the frequency vector: from 0 to 1/2 along an axis, up to sqrt(1/2) in the corners.
    """
    square = torch.zeros(shape, dtype=torch.float64)
    for dim in range(-dims, 0):
        n = shape[dim]
        single = (torch.arange(n, dtype=torch.float64) + 1).div(2, rounding_mode="floor") / n
        square = square + (single**2).reshape(n, *[1] * (-dim - 1))
    return square.sqrt()


def along(x: Tensor, dim: int, transform: Callable[[Tensor], Tensor]) -> Tensor:
    """``transform``, which works along the last dimension, along dimension ``dim`` instead."""
    return transform(x) if dim in (-1, x.ndim - 1) else transform(x.transpose(dim, -1)).transpose(dim, -1)


def _forward(x: Tensor) -> Tensor:
    n = x.shape[-1]
    parts = torch.fft.rfft(x, norm="ortho")
    pairs = torch.stack([parts.real, -parts.imag], -1) * math.sqrt(2)
    inner = pairs[..., 1 : (n + 1) // 2, :].flatten(-2)
    ends = [parts.real[..., -1:]] if n % 2 == 0 else []
    return torch.cat([parts.real[..., :1], inner, *ends], -1)


def _backward(coordinates: Tensor) -> Tensor:
    n = coordinates.shape[-1]
    zero = torch.zeros_like(coordinates[..., :1])
    inner = coordinates[..., 1 : n - 1 + n % 2].unflatten(-1, (-1, 2)) / math.sqrt(2)
    real = [coordinates[..., :1], inner[..., 0]] + ([coordinates[..., -1:]] if n % 2 == 0 else [])
    imag = [zero, -inner[..., 1]] + ([zero] if n % 2 == 0 else [])
    signal: Tensor = torch.fft.irfft(torch.complex(torch.cat(real, -1), torch.cat(imag, -1)), n, norm="ortho")
    return signal
