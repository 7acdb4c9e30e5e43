"""Features should speak for or against, as is known of them."""

from __future__ import annotations

import torch
from torch import Tensor

from rightly.core.annotation import Annotation
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.registry import register
from rightly.priors.base import Prior


def sign(attributions: Tensor, signs: Tensor) -> Tensor:
    """Sum of the attributions that point the wrong way, relu(-s phi), (B, *F) -> (B,).

    Args:
        attributions: (B, *F).
        signs: broadcastable: 1 positively predictive, -1 negatively, 0 not known.
    """
    return torch.relu(-signs * attributions).flatten(1).sum(1)


def _example(shape: tuple[int, ...]) -> dict[str, Tensor]:
    signs = torch.ones(shape)
    signs.flatten()[::2] = -1
    return {"signs": signs}


@register("prior", citation="ross2018", example=_example)
class Sign(Prior):
    """Features should be positively (1) or negatively (-1) predictive; 0 leaves a feature free.

    With ``Gradient`` this asks for a monotone effect; with path attributions the sign is that of the contribution.

    Args:
        signs: (*F), or (classes, *F) when the expectation differs by the class explained.
        per_class: whether the first dimension counts classes.
    """

    def __init__(self, signs: Tensor, *, per_class: bool = False) -> None:
        signs = torch.as_tensor(signs)
        if not bool(((signs == 0) | (signs.abs() == 1)).all()):
            raise ArgumentError("unknown sign", expected="1, -1 or 0", got=signs.unique().tolist()[:6])
        self.signs, self.per_class = signs, per_class

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,)."""
        signs = self.signs.to(attributions)
        if self.per_class:
            if target is None:
                raise ArgumentError(
                    "signs per class need to know the class explained",
                    expected="an attribution of one class of several",
                    got="an output that is not of one class",
                )
            signs = signs[target]
        try:
            torch.broadcast_shapes(signs.shape, attributions.shape)
        except RuntimeError:
            raise ShapeError(
                "the signs do not fit the features",
                expected=tuple(attributions.shape[1:]),
                got=tuple(signs.shape[1:] if self.per_class else signs.shape),
            ) from None
        return sign(attributions, signs)
