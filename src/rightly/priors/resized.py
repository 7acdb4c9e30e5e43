"""Annotations drawn on the input, for attributions that live on a coarser grid."""

from __future__ import annotations

from typing import get_args

from torch import Tensor

from rightly.core.annotation import Annotation, Resize
from rightly.core.errors import ArgumentError
from rightly.core.registry import register
from rightly.priors.base import Prior
from rightly.priors.irrelevant import Irrelevant


@register("prior", citation="schramowski2020", example=lambda shape: {"prior": Irrelevant()})
class Resized(Prior):
    """Another prior on feature maps (B, C, *spatial), its annotation brought from the input's size to theirs.

    With it one annotation serves terms at the input and at any layer. An annotation of another number of channels
    than the maps' needs 1. Attributions without a layout (B, p) are handed on as they are.

    Args:
        prior: of the attributions; it reads ``annotation.relevant``, ``irrelevant`` or another field.
        rule: ``"any"`` marks a cell if anything under it is marked, ``"area"`` by the share that is; see
            ``rt.Annotation.resized``.
    """

    def __init__(self, prior: Prior, rule: Resize = "any") -> None:
        if not isinstance(prior, Prior) or not prior.needs:
            raise ArgumentError("this resizes what a prior reads", expected="such as rt.priors.Irrelevant()", got=prior)
        if rule not in get_args(Resize):
            raise ArgumentError("unknown rule", expected=", ".join(get_args(Resize)), got=repr(rule))
        self.prior, self.rule = prior, rule
        self.level = prior.level
        self.module = prior.module
        self.needs = prior.needs  # type: ignore[misc]

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,) or (), as the other prior has it."""
        spatial = attributions.shape[2:]
        if annotation is not None and spatial:
            annotation = annotation.resized(self.needs, spatial, self.rule)
        return self.prior.penalty(attributions, annotation, target)
