"""The space of wavelet coefficients."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError
from rightly.core.frequencies import along
from rightly.core.registry import register
from rightly.core.types import Space
from rightly.spaces.filters import Bank, bank, join, split
from rightly.spaces.input import Input
from rightly.spaces.transform import Transform, check_dims, check_transform


@register(
    "space",
    citation="singh2022",
    example=lambda shape: {"wavelet": "db2", "dims": len(shape[-2:]), "levels": 3 - len(shape[-2:])},
)
@dataclass(frozen=True, eq=False)
class Wavelet(Transform):
    """Coefficients of a periodic discrete wavelet transform along the trailing dimensions.

    Along n steps with J levels: n / 2^J averages, then the details from the coarsest level to the finest, each twice
    as many as the ones before. In two dimensions the same filters act on rows and columns, and the averages stay in
    the top left corner (the usual pyramid). A length that J halvings do not divide is filled up with zeros at the end,
    so that the space is a little larger than the example. Reconstruction is exact; for an orthogonal wavelet the
    gradient in this space is the transform of the gradient.

    Args:
        wavelet: ``"haar"``, ``"db2"`` ... ``"db10"``, any other discrete wavelet's name in PyWavelets (extra
            ``wavelets``); or a low-pass filter (L,) of an orthogonal wavelet, which may be trained: attributions
            carry their graph to it.
        levels: J; by default as many as leave at least as many averages as the filter is long, and one at least.
        dims: trailing dimensions: 1 for signals, 2 for images. Others (channels) are transformed one by one.
        of: the space that is transformed.
    """

    wavelet: str | Tensor = "db2"
    levels: int | None = None
    dims: int = 1
    of: Space = field(default_factory=Input)
    bank: Bank = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_transform(self.of, self.dims)
        if self.levels is not None:
            check_count("levels", self.levels)
        if not isinstance(self.wavelet, str | Tensor):
            raise ArgumentError("a wavelet is a name or a filter", expected="'db2' or a tensor", got=repr(self.wavelet))
        found = bank(self.wavelet) if isinstance(self.wavelet, str) else Bank.orthogonal(self.wavelet)
        object.__setattr__(self, "bank", found)

    def encode(self, x: Tensor) -> Tensor:
        """See ``Transform.encode``. Raises ``ShapeError`` for examples with fewer dimensions than ``dims``."""
        check_dims(x, self.dims)
        return analyse(x, self.bank, self.depth(tuple(x.shape[1:])), self.dims)

    def decode(self, coordinates: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See ``Transform.decode``."""
        whole = synthesise(coordinates, self.bank, self.depth(shape), self.dims)
        for dim in range(-self.dims, 0):
            whole = whole.narrow(dim, 0, shape[dim])
        return whole

    def depth(self, shape: tuple[int, ...]) -> int:
        """Levels of the transform of examples of this shape."""
        return self.levels or depth(min(shape[-self.dims :]), len(self.bank.low))

    def scales(self, shape: tuple[int, ...]) -> Tensor:
        """Scales as regions: (J + 1, *F) boolean, averages first, then details from the coarsest to the finest."""
        levels = self.depth(shape)
        sides = [padded(n, levels) for n in shape[-self.dims :]]
        number = torch.zeros(sides, dtype=torch.long)
        for scale in range(1, levels + 1):
            inner = torch.zeros(sides, dtype=torch.bool)
            inner[tuple(slice(0, n >> (levels - scale + 1)) for n in sides)] = True
            outer = torch.zeros(sides, dtype=torch.bool)
            outer[tuple(slice(0, n >> (levels - scale)) for n in sides)] = True
            number[outer & ~inner] = scale
        number = number.expand(*shape[: -self.dims], *sides)
        return torch.stack([number == scale for scale in range(levels + 1)])


def depth(n: int, taps: int) -> int:
    """As many levels as leave at least ``taps`` averages of ``n`` steps, and one at least."""
    levels = 1
    while n >> (levels + 1) >= taps:
        levels += 1
    return levels


def padded(n: int, levels: int) -> int:
    """The next length that ``levels`` halvings divide."""
    step = 1 << levels
    return -(-n // step) * step


def analyse(x: Tensor, filters: Bank, levels: int, dims: int) -> Tensor:
    """Coefficients of ``x`` (..., *N), filled up with zeros: (..., *N')."""
    fill = [side for n in reversed(x.shape[-dims:]) for side in (0, padded(n, levels) - n)]
    x = F.pad(x, fill) if any(fill) else x
    return _analyse(x, filters.to(x).analysis, levels, dims)


def _analyse(x: Tensor, filters: Tensor, levels: int, dims: int) -> Tensor:
    for dim in range(-dims, 0):
        x = along(x, dim, lambda t: split(t, filters))
    if levels == 1:
        return x
    return _with_corner(x, _analyse(_corner(x, dims), filters, levels - 1, dims), dims)


def synthesise(coefficients: Tensor, filters: Bank, levels: int, dims: int) -> Tensor:
    """The inverse of ``analyse``, still filled up."""
    return _synthesise(coefficients, filters.to(coefficients).synthesis, levels, dims)


def _synthesise(parts: Tensor, filters: Tensor, levels: int, dims: int) -> Tensor:
    if levels > 1:
        parts = _with_corner(parts, _synthesise(_corner(parts, dims), filters, levels - 1, dims), dims)
    for dim in range(-dims, 0):
        parts = along(parts, dim, lambda t: join(t, filters))
    return parts


def _corner(x: Tensor, dims: int) -> Tensor:
    for dim in range(-dims, 0):
        x = x.narrow(dim, 0, x.shape[dim] // 2)
    return x


def _with_corner(x: Tensor, corner: Tensor, dims: int) -> Tensor:
    half = x.shape[-1] // 2
    if dims == 1:
        return torch.cat([corner, x[..., half:]], -1)
    top = torch.cat([corner, x[..., : x.shape[-2] // 2, half:]], -1)
    return torch.cat([top, x[..., x.shape[-2] // 2 :, :]], -2)
