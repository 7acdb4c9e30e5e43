"""An explanation should be another one than those that are known."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from rightly.core.annotation import Annotation, needed
from rightly.core.checks import check_number
from rightly.core.registry import register
from rightly.priors.base import Prior

#: added to the product of squared lengths, as published: attributions much shorter than its fourth root are let alone
EPS = 1e-6


def independence(attributions: Tensor, others: Tensor, eps: float = EPS) -> Tensor:
    """(v'w)^2 / ((v'v)(w'w) + eps), the squared cosine, (B, *F) twice -> (B,): 0 orthogonal, nearly 1 parallel.

    Source: Ross (2018), appendix 2.C.
    """
    v, w = attributions.flatten(1), others.flatten(1)
    inner, v_size, w_size = ((a * b).sum(1) for a, b in ((v, w), (v, v), (w, w)))
    return inner.square() / (v_size * w_size + eps)


@register("prior", citation="ross2018")
class Independence(Prior):
    """Attributions should point elsewhere than ``annotation.targets``, another model's: their squared cosine.

    Attributions that are not known count as zero. For models that are trained at the same time see
    ``rt.IndependenceTerm``.

    Args:
        eps: added to the product of squared lengths. Below its fourth root attributions are too short to be told
            anything: choose it by their size.
    """

    needs: ClassVar[tuple[str, ...]] = ("targets",)

    def __init__(self, eps: float = EPS) -> None:
        self.eps = check_number("eps", eps, positive=True)

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,)."""
        targets, known = needed(annotation, "targets", attributions)
        return independence(torch.where(known, attributions, torch.zeros_like(attributions)), targets, self.eps)
