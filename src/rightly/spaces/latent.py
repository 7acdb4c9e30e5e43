"""The space of a learned code: an encoder and a decoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rightly.core import autodiff
from rightly.core.batch import outputs_of
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.registry import register
from rightly.core.types import Space
from rightly.spaces.input import Input
from rightly.spaces.transform import Transform, check_transform

Coder = nn.Module | Callable[[Tensor], Tensor]


@register(
    "space",
    citation="singh2022",
    example=lambda shape: {"encoder": torch.asinh, "decoder": lambda code: 0.9 * torch.sinh(code)},
)
@dataclass(frozen=True, eq=False)
class Latent(Transform):
    """The code of an autoencoder: coordinates encoder(x), read back by the decoder.

    What the decoder loses, x - decoder(encoder(x)), stays with its example, so that the model's output is unchanged.
    Both are read with dropout off and batch norm frozen, and are left as they were.

    Args:
        encoder: examples (M, *X) -> codes (M, *F); of a variational autoencoder the part that gives the mean.
        decoder: codes (M, *F) -> examples (M, *X).
        of: the space that is transformed.
    """

    encoder: Coder
    decoder: Coder
    of: Space = field(default_factory=Input)

    def __post_init__(self) -> None:
        check_transform(self.of, 1)
        for name, coder in (("encoder", self.encoder), ("decoder", self.decoder)):
            if not callable(coder) or isinstance(coder, type):
                raise ArgumentError(f"the {name} is called", expected="a module or a function", got=repr(coder))

    def encode(self, x: Tensor) -> Tensor:
        """See ``Transform.encode``. Raises ``ShapeError`` unless there is a code for every example."""
        with autodiff.evaluating(autodiff.modules_of(self.encoder)):
            code = outputs_of(self.encoder(x))
        if code.ndim < 2 or len(code) != len(x):
            raise ShapeError("the encoder gives a code for every example", expected=(len(x), "..."), got=code.shape)
        return code

    def decode(self, coordinates: Tensor, shape: tuple[int, ...]) -> Tensor:
        """See ``Transform.decode``. Raises ``ShapeError`` where the decoder does not give back the example's shape."""
        with autodiff.evaluating(autodiff.modules_of(self.decoder)):
            found = outputs_of(self.decoder(coordinates))
        if found.shape != (len(coordinates), *shape):
            raise ShapeError(
                "the decoder does not give back the example's shape",
                expected=(len(coordinates), *shape),
                got=tuple(found.shape),
            )
        return found
