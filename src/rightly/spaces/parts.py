"""The space of an example's own parts: its colour and its grey, its front and its background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rightly.core.batch import Inputs, Model
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.registry import register
from rightly.core.types import Space, View
from rightly.spaces.input import Input


def grey_and_colour(x: Tensor) -> Tensor:
    """An image as its grey part, the mean over channels in each of them, and its colour, the rest.

    Args:
        x: (B, C, H, W).

    Returns:
        (B, 2, C, H, W), which adds up to the image.
    """
    if x.ndim != 4:
        raise ShapeError("colours are those of images", expected="(B, C, H, W)", got=tuple(x.shape))
    grey = x.mean(1, keepdim=True).expand_as(x)
    return torch.stack([grey, x - grey], 1)


def _halves(x: Tensor) -> Tensor:
    return torch.stack([0.25 * x, 0.75 * x.tanh()], 1)


@register("space", citation="singh2022", traits=("relative", "vectors"), example=lambda shape: {"parts": _halves})
@dataclass(frozen=True, eq=False)
class Parts:
    """How much of each of its own parts an example shows: coordinates (B, P), which are 1 at the example itself.

    The gradient in this space is the derivative along a part, contextual decomposition gives each part its share, and
    occlusion takes it away (reference zero): what a prior on single features cannot forbid, since colour is in every
    pixel, a prior here can. All examples have the coordinates 1, so that references drawn from examples tell nothing;
    ``rt.references.Constant(0.0)`` stands for "no part".

    Args:
        parts: points (M, *X) of the space underneath -> their parts (M, P, *X), such as ``grey_and_colour``. What they
            do not add up to stays with the example.
        of: the space that is divided: the input, or a layer's output.
    """

    parts: Callable[[Tensor], Tensor]
    of: Space = field(default_factory=Input)

    def __post_init__(self) -> None:
        if not callable(self.parts) or isinstance(self.parts, type):
            raise ArgumentError(
                "the parts are made by a function", expected="such as rt.spaces.grey_and_colour", got=repr(self.parts)
            )
        if not callable(getattr(self.of, "open", None)) or isinstance(self.of, type):
            raise ArgumentError("only a space can be divided", expected="Input() or Layer(...)", got=repr(self.of))

    def open(self, model: Model, inputs: Inputs) -> View:
        """See ``Space.open``. Raises ``ShapeError`` unless every example has parts of its own shape."""
        view = self.of.open(model, inputs)
        x = view.coordinates
        parts = self.parts(x)
        if parts.ndim != x.ndim + 1 or parts.shape[:1] != x.shape[:1] or parts.shape[2:] != x.shape[1:]:
            raise ShapeError(
                "the parts do not fit the examples",
                expected=f"({len(x)}, P, {', '.join(map(str, x.shape[1:]))})",
                got=tuple(parts.shape),
            )
        residual = x - parts.sum(1)
        count = parts.shape[1]

        def encode(inputs: Inputs) -> Tensor:
            return x.new_ones(len(view.encode(inputs)), count)

        def rest(points: Tensor, index: Tensor) -> Tensor:
            shown = points.reshape(*points.shape, *(1,) * (x.ndim - 1)) * parts[index]
            return view.rest(shown.sum(1) + residual[index], index)

        return View(inputs, x.new_ones(len(x), count), encode, rest)
