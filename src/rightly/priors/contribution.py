"""What a region contributes should not decide, beside what everything else does."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core.annotation import Annotation, needed
from rightly.core.checks import check_number
from rightly.core.errors import ArgumentError
from rightly.core.registry import register
from rightly.priors.base import Prior

GroupLoss = Literal["softmax", "log_softmax", "l1"]


def group_contribution(
    attributions: Tensor,
    loss: GroupLoss = "softmax",
    targets: Tensor | float = 0.0,
    known: Tensor | None = None,
) -> Tensor:
    """How much the first part of each output decides, a mean over outputs and regions: (B, ..., P) -> (B,).

    Args:
        attributions: parts that add up to an output, in the last dimension: the first is that of the region, the sum
            of the others, which usually is one, that of everything else. With dimensions of regions or of classes
            between, (B, R, P) or (B, C, R, P), the mean over them is taken.
        loss: ``"softmax"`` is the share of exp(relevant) among exp(relevant) and exp(irrelevant), as in the published
            code for images, ``"log_softmax"`` minus the logarithm of the other share, as in that for text; both ask the
            region to vote against, however strongly the rest votes for. ``"l1"`` is |relevant - target|, as printed
            (Singh et al. 2022, eq. 10).
        targets: of ``"l1"``, broadcastable to (B, ...).
        known: boolean, broadcastable to (B, ...); what is not known stays out of the mean.
    """
    relevant, irrelevant = attributions[..., 0], attributions[..., 1:].sum(-1)
    if loss == "l1":
        value = (relevant - targets).abs()
    elif loss == "softmax":
        value = torch.sigmoid(relevant - irrelevant)
    else:
        value = F.softplus(relevant - irrelevant)
    flat = value.reshape(len(value), -1)
    if known is None:
        return flat.mean(1)
    there = known.expand(value.shape).reshape(flat.shape)
    return torch.where(there, flat, 0).sum(1) / there.sum(1).clamp_min(1)


@register("prior", citation="rieger2020")
class GroupContribution(Prior):
    """Contextual decomposition explanation penalisation (CDEP): what a region contributes should not decide.

    Of attributions (B, ..., P) that are parts of outputs: the last dimension starts with the region's part, and goes on
    with that of everything else. ``rt.ContributionTerm`` makes them.

    Args:
        loss: ``"softmax"``, ``"log_softmax"`` or ``"l1"``: see ``rt.functional.group_contribution``. A mean over
            regions and outputs, as published.
        target: what ``"l1"`` wants the region's part to be; ``"annotation"`` reads ``annotation.targets``, shaped like
            the attributions without the last dimension, where it is known (not NaN).
    """

    def __init__(self, loss: GroupLoss = "softmax", *, target: float | Literal["annotation"] = 0.0) -> None:
        if loss not in get_args(GroupLoss):
            raise ArgumentError("unknown loss", expected=", ".join(get_args(GroupLoss)), got=repr(loss))
        if target != "annotation":
            check_number(
                "the target's size", abs(target) if isinstance(target, int | float) else target, positive=False
            )
        if target != 0 and loss != "l1":
            raise ArgumentError(f"the loss {loss!r} has no target", expected="loss='l1'", got=f"target={target!r}")
        self.loss: GroupLoss = loss
        self.target = target
        if target == "annotation":
            self.needs: ClassVar[tuple[str, ...]] = ("targets",)  # type: ignore[misc]

    def penalty(
        self,
        attributions: Tensor,
        annotation: Annotation | None,
        target: Tensor | None,
        known: Tensor | None = None,
    ) -> Tensor:
        """(B,). Only entries that are ``known``, boolean and broadcastable to (B, ...), count."""
        if self.target != "annotation":
            return group_contribution(attributions, self.loss, self.target, known)
        wanted, there = needed(annotation, "targets", attributions[..., 0], target)
        return group_contribution(attributions, self.loss, wanted, there if known is None else there & known)
