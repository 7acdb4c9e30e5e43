"""One fixed reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.registry import register
from rightly.core.types import Draw, View


@register("reference", citation="sundararajan2017")
@dataclass(frozen=True)
class Constant:
    """The same reference for every example: a number, or a tensor that broadcasts to the space's (*F).

    With expected gradients this is the papers' single-reference variant.

    Args:
        value: in the units of the space's coordinates.
    """

    value: float | Tensor = 0.0

    def __post_init__(self) -> None:
        try:
            torch.as_tensor(self.value)
        except (TypeError, ValueError, RuntimeError):
            raise ArgumentError(
                "a reference is made of numbers", expected="a number or a tensor", got=repr(self.value)
            ) from None

    def draw(self, view: View, n_samples: int, generator: torch.Generator) -> Draw:
        """See ``Reference.draw``; nothing is random here."""
        like = view.coordinates
        shape = like.shape[1:]
        try:
            value = torch.as_tensor(self.value, dtype=like.dtype, device=like.device).expand(shape)
        except RuntimeError:
            got = tuple(torch.as_tensor(self.value).shape)
            raise ShapeError(
                "the reference does not fit the space",
                expected=f"a number, or a shape that broadcasts to {tuple(shape)}",
                got=got,
                mend="leave out the example dimension",
            ) from None
        return Draw(n_samples, lambda rows, samples: value.expand(len(rows), *shape))
