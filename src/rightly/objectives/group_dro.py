"""The loss of the group that is worst off, where groups are known: what priors on explanations are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rightly.core import distributed
from rightly.core.checks import check_count, check_number
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.groups import group_sums

Losses = Callable[[Tensor, Tensor], Tensor]


def each_cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """The cross-entropy of every example: (B, C) and class numbers (B,) -> (B,)."""
    return F.cross_entropy(outputs, labels, reduction="none")


class GroupDRO(nn.Module):
    """Group distributionally robust optimisation (Sagawa, Koh, Hashimoto, Liang 2020, algorithm 1), as a task loss.

    ``rt.Objective(model, rt.GroupDRO(4), terms)``: groups come with the labels, ``rt.with_groups(labels, groups)``,
    which is (B, 2): the class first, the group second. Terms that read labels cannot read these; those that need none
    (``output="log_prob_sum"``, ``target="predicted"``) may be added.

    At a training step every group g that is in the batch has the mean loss l_g, its weight is multiplied by
    exp(step l_g), the weights are made to sum to 1, and the loss is sum_g weight_g l_g; a group that is not in the
    batch counts as l_g = 0. The paper's algorithm draws a group at a time; this is its published code's step on a
    batch. Without a gradient (validation) the loss is what is minimised, the largest l_g, and nothing moves.

    Small groups are learned by heart: with ``adjustment`` C every l_g stands for l_g + C / sqrt(n_g), where n_g is the
    group's number of training examples (the paper's section 3.3). That moves the weights and the choice of an epoch,
    and adds nothing to a gradient.

    Args:
        groups: how many there are, G; numbers from 0 to G - 1.
        step: of the weights, the paper's eta_q. 0 leaves them even: every group counts the same, whatever its size.
        losses: (outputs, labels) -> (B,), the loss of every example.
        adjustment: the paper's C; it tries 0 to 5.
        sizes: (G,) the groups' numbers of training examples, n_g, for the adjustment.

    Attributes:
        weights: (G,) buffer, the paper's q: in ``state_dict``, so that a resumed training goes on with it. Never in
            half precision, whatever the model is moved to.

    Raises:
        ArgumentError, ShapeError: labels without groups, groups that do not exist, or losses that are not (B,).
    """

    weights: Tensor
    added: Tensor

    def __init__(
        self,
        groups: int,
        *,
        step: float = 0.01,
        losses: Losses = each_cross_entropy,
        adjustment: float = 0.0,
        sizes: Sequence[int] | Tensor | None = None,
    ) -> None:
        super().__init__()
        self.groups = check_count("groups", groups, least=2)
        self.step = check_number("step", step, positive=False)
        self.losses = losses
        self.register_buffer("weights", torch.full((groups,), 1 / groups, dtype=torch.float64))
        self.adjustment = check_number("adjustment", adjustment, positive=False)
        # an argument and no state: it is not saved
        self.register_buffer("added", _added(groups, self.adjustment, sizes), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """As for any module, but half precision, in which small steps are rounded away, is not for the weights."""
        kept = self.weights
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.weights.dtype in (torch.float16, torch.bfloat16):
            self.weights = kept.to(self.weights.device)
        return self

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss (), see the class."""
        if labels.ndim != 2 or labels.shape[1] != 2 or labels.is_floating_point():
            raise ShapeError(
                "the labels carry no groups",
                expected="whole numbers (B, 2): class, group",
                got=f"{labels.dtype} {tuple(labels.shape)}",
                mend="pass rt.with_groups(labels, groups)",
            )
        classes, numbers = labels.unbind(1)
        if bool(((numbers < 0) | (numbers >= self.groups)).any()):
            got = f"{int(numbers.min())} to {int(numbers.max())}"
            raise ArgumentError("a group does not exist", expected=f"0 to {self.groups - 1}", got=got)
        losses = self.losses(outputs, classes)
        if losses.shape != classes.shape:
            raise ShapeError("losses come one an example", expected=tuple(classes.shape), got=tuple(losses.shape))
        sums, counts = (distributed.global_sum(part) for part in group_sums(losses, numbers, self.groups))
        means = sums / counts.clamp(min=1) + self.added.to(sums)
        if not losses.requires_grad:
            return means[counts > 0].max()
        if self.training:
            with torch.no_grad():
                self.weights.copy_(torch.softmax(self.weights.log() + self.step * means.to(self.weights), 0))
        return (self.weights.to(means) * means).sum()


def _added(groups: int, adjustment: float, sizes: Sequence[int] | Tensor | None) -> Tensor:
    """C / sqrt(n_g) of every group (G,)."""
    if adjustment == 0:
        return torch.zeros(groups, dtype=torch.float64)
    counts = torch.as_tensor([] if sizes is None else sizes, dtype=torch.float64)
    if counts.shape != (groups,) or not bool((counts >= 1).all()):
        raise ArgumentError(
            "the adjustment goes by the groups' sizes",
            expected=f"sizes=({groups},), the number of training examples of every group, at least 1",
            got=sizes if sizes is None else counts.tolist()[:10],
            mend="torch.bincount(groups)",
        )
    return adjustment / counts.sqrt()


def with_groups(labels: Tensor, groups: Tensor) -> Tensor:
    """Labels that carry groups, as ``GroupDRO`` reads them: class numbers (N,) and group numbers (N,) -> (N, 2)."""
    for name, numbers in (("labels", labels), ("groups", groups)):
        if numbers.ndim != 1 or numbers.is_floating_point() or len(numbers) != len(labels):
            raise ShapeError(
                f"{name} cannot be put side by side",
                expected=f"whole numbers ({len(labels)},)",
                got=f"{numbers.dtype} {tuple(numbers.shape)}",
            )
    return torch.stack([labels.long(), groups.long()], 1)
