"""Attributions should be what a person says they are."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from rightly.core.annotation import Annotation, needed
from rightly.core.errors import ArgumentError
from rightly.core.registry import register
from rightly.priors.base import Prior
from rightly.priors.norms import l1, l2


def match_targets(attributions: Tensor, targets: Tensor, known: Tensor, norm: Literal["l1", "l2"] = "l2") -> Tensor:
    """Distance to the targets over the entries that are known, (B, *F) -> (B,)."""
    difference = torch.where(known, attributions - targets, torch.zeros_like(attributions))
    return (l2 if norm == "l2" else l1)(difference)


@register("prior", citation="erion2021")
class MatchTargets(Prior):
    """Attributions should equal ``annotation.targets`` wherever those are known (not NaN).

    Args:
        norm: ``"l2"`` (squared distance) or ``"l1"``.
    """

    needs: ClassVar[tuple[str, ...]] = ("targets",)

    def __init__(self, norm: Literal["l1", "l2"] = "l2") -> None:
        if norm not in ("l1", "l2"):
            raise ArgumentError("unknown norm", expected="'l1' or 'l2'", got=repr(norm))
        self.norm: Literal["l1", "l2"] = norm

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,)."""
        targets, known = needed(annotation, "targets", attributions, target)
        return match_targets(attributions, targets, known, self.norm)
