"""The size of the attributions."""

from __future__ import annotations

from torch import Tensor

from rightly.core.annotation import Annotation
from rightly.core.registry import register
from rightly.priors.base import Prior


def l1(attributions: Tensor) -> Tensor:
    """Sum of absolute attributions, (B, *F) -> (B,)."""
    return attributions.abs().flatten(1).sum(1)


def l2(attributions: Tensor) -> Tensor:
    """Sum of squared attributions, (B, *F) -> (B,)."""
    return attributions.square().flatten(1).sum(1)


@register("prior", citation="erion2021")
class L1(Prior):
    """Few features should matter: sum of absolute attributions."""

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,)."""
        return l1(attributions)


@register("prior", citation="drucker1992")
class L2(Prior):
    """No feature should matter much: sum of squared attributions (double backpropagation on loss gradients)."""

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,)."""
        return l2(attributions)
