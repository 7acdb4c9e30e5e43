"""What is marked as irrelevant should not matter."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from rightly.core.annotation import Annotation, needed
from rightly.core.errors import ArgumentError
from rightly.core.registry import register
from rightly.priors.base import Prior
from rightly.priors.norms import l1, l2


def irrelevant(attributions: Tensor, marked: Tensor, norm: Literal["l1", "l2"] = "l2") -> Tensor:
    """Sum over features of (A phi)^2, or of |A phi|: (B, *F) -> (B,).

    Args:
        attributions: (B, *F).
        marked: A, 1 where the model must not look (Ross et al. 2017, eq. 1).
        norm: ``"l2"`` as published, or ``"l1"``.
    """
    return (l2 if norm == "l2" else l1)(attributions * marked)


@register("prior", citation="ross2017")
class Irrelevant(Prior):
    """Right for the right reasons: attributions inside ``annotation.irrelevant`` should be zero.

    Summed over features (an average over all of them makes the published strengths hundreds of times too weak),
    zero for an example without annotation.

    Args:
        norm: ``"l2"`` or ``"l1"``.
    """

    needs: ClassVar[tuple[str, ...]] = ("irrelevant",)

    def __init__(self, norm: Literal["l1", "l2"] = "l2") -> None:
        if norm not in ("l1", "l2"):
            raise ArgumentError("unknown norm", expected="'l1' or 'l2'", got=repr(norm))
        self.norm: Literal["l1", "l2"] = norm

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,)."""
        marked, _ = needed(annotation, "irrelevant", attributions, target)
        return irrelevant(attributions, marked, self.norm)
