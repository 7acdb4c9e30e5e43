"""A concept that should raise a prediction, or lower it."""

from __future__ import annotations

import torch
from torch import Tensor

from rightly.core.annotation import Annotation
from rightly.core.errors import ShapeError
from rightly.priors import Prior


def slope(attributions: Tensor, direction: Tensor) -> Tensor:
    """How a gradient rises along a direction made a unit vector: (B, *F) -> (B,).

    Args:
        attributions: (B, *F).
        direction: (*F), or its first dimensions: the same at every place, as in ``ConceptDirection``.
    """
    missing = attributions.ndim - 1 - direction.ndim
    if missing < 0 or direction.shape != attributions.shape[1 : 1 + direction.ndim]:
        raise ShapeError(
            "the concept's direction does not fit the space",
            expected=f"{tuple(attributions.shape[1:])}, or its first dimensions",
            got=tuple(direction.shape),
        )
    way = direction.to(attributions).reshape(*direction.shape, *(1,) * missing)
    way = way.expand(attributions.shape[1:]).flatten()
    way = way / torch.linalg.vector_norm(way)
    return attributions.flatten(1).matmul(way)


class Slope(Prior):
    """The gradient should rise (sign 1) or fall (-1) along a direction: what points the wrong way is penalised."""

    def __init__(self, direction: Tensor, sign: int) -> None:
        self.direction, self.sign = direction, sign

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,)."""
        return torch.relu(-self.sign * slope(attributions, self.direction))
