"""The space of frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from rightly.core import frequencies
from rightly.core.errors import ArgumentError
from rightly.core.registry import register
from rightly.core.types import Space
from rightly.spaces.input import Input
from rightly.spaces.transform import Transform, check_dims, check_transform


@register("space", citation="singh2022")
@dataclass(frozen=True)
class Fourier(Transform):
    """Real Fourier coordinates along the trailing dimensions, shaped like what is transformed.

    Along n steps: the constant, then cosine and sine of frequency k / n for k = 1, 2, ..., and for even n the
    alternating one. The basis is orthonormal, so that nothing is lost, sums of squares are kept and the gradient in
    this space is the transform of the gradient. Cosine and sine share a frequency: add their attributions, or take
    ``bands`` as regions.

    Args:
        dims: trailing dimensions: 1 for signals, 2 for images. Others (channels) are transformed one by one.
        of: the space that is transformed.
    """

    dims: int = 1
    of: Space = field(default_factory=Input)

    def __post_init__(self) -> None:
        check_transform(self.of, self.dims)

    def encode(self, x: Tensor) -> Tensor:
        """See ``Transform.encode``. Raises ``ShapeError`` for examples with fewer dimensions than ``dims``."""
        check_dims(x, self.dims)
        return frequencies.analyse(x, self.dims)

    def decode(self, coordinates: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See ``Transform.decode``."""
        return frequencies.synthesise(coordinates, self.dims)

    def frequencies(self, shape: tuple[int, ...]) -> Tensor:
        """Frequency of every coordinate of examples of this shape, in cycles a step (0 to 1/2 along one dimension)."""
        return frequencies.frequencies(shape, self.dims)

    def bands(self, shape: tuple[int, ...], edges: Sequence[float]) -> Tensor:
        """Bands (in two dimensions rings) as regions.

        Args:
            shape: (*F) of an example.
            edges: R + 1 increasing frequencies in cycles a step; band r is edges[r] <= frequency < edges[r + 1].
                The highest frequency is 1/2 in one dimension and sqrt(1/2) in two.

        Returns:
            (R, *F) boolean.
        """
        values = [float(edge) for edge in edges]
        if len(values) < 2 or any(low >= high for low, high in pairwise(values)):
            raise ArgumentError("bands lie between increasing edges", expected="such as (0, 0.1, 0.6)", got=edges)
        at = self.frequencies(shape)
        return torch.stack([(at >= low) & (at < high) for low, high in pairwise(values)])
