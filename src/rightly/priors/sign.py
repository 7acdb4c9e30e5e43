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
        try:
            signs = torch.as_tensor(signs)
        except (TypeError, ValueError, RuntimeError):
            raise ArgumentError("signs are numbers", expected="(*F) of 1, -1 and 0", got=repr(signs)) from None
        if per_class and signs.ndim == 0:
            raise ShapeError("signs per class need classes", expected="(classes, *F)", got=())
        if not bool(((signs == 0) | (signs.abs() == 1)).all()):
            raise ArgumentError("unknown sign", expected="1, -1 or 0", got=signs.unique().tolist()[:6])
        self.signs, self.per_class = signs, per_class

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,)."""
        signs = self._fitted(attributions)
        if self.per_class:
            if target is None:
                raise ArgumentError(
                    "signs per class need to know the class explained",
                    expected="an attribution of one class of several",
                    got="an output that is not of one class",
                )
            if int(target.max()) >= len(signs):
                raise ShapeError(
                    "there are not signs for every class",
                    expected=f"at least {int(target.max()) + 1} classes",
                    got=len(signs),
                )
            signs = signs[target]
        return sign(attributions, signs)

    def _fitted(self, attributions: Tensor) -> Tensor:
        """The signs as (1 or classes, *F)."""
        features = attributions.shape[1:]
        own = self.signs.shape[1:] if self.per_class else self.signs.shape
        missing = len(features) - len(own)
        if missing < 0 or any(o not in (1, f) for o, f in zip(own, features[missing:], strict=True)):
            raise ShapeError("the signs do not fit the features", expected=tuple(features), got=tuple(own))
        classes = len(self.signs) if self.per_class else 1
        return self.signs.to(attributions).reshape(classes, *(1,) * missing, *own)
