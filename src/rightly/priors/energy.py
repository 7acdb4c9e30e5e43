"""The explanation should lie inside the relevant region."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from rightly.core.annotation import Annotation, needed
from rightly.core.registry import register
from rightly.priors.base import Prior


def energy(attributions: Tensor, relevant: Tensor, positive: bool = True) -> Tensor:
    """1 - share of the attribution inside the region, (B, *F) -> (B,): 0 all inside, 1 all outside.

    An example with no attribution at all has nothing outside: 0, with zero gradient.

    Args:
        attributions: (B, *F).
        relevant: 1 inside the region.
        positive: count what speaks for the class only (the energy pointing game); False counts absolute values.
    """
    sizes = (torch.relu(attributions) if positive else attributions.abs()).flatten(1)
    total = sizes.sum(1, keepdim=True)
    nothing = total <= torch.finfo(sizes.dtype).tiny * sizes.shape[1]
    shares = torch.where(nothing, torch.zeros_like(sizes), sizes / torch.where(nothing, torch.ones_like(total), total))
    return (shares * (1 - relevant.flatten(1))).sum(1)


@register("prior", citation="rao2023", example=lambda shape: {"positive": False})
class Energy(Prior):
    """The explanation should lie inside ``annotation.relevant``: the share of attribution outside is the penalty.

    Indifferent to scale, and tolerant of generous regions (boxes): nothing is asked of the inside, nor of what is
    not known.

    Args:
        positive: count positive attributions only, as the energy pointing game does; False counts absolute values.
    """

    needs: ClassVar[tuple[str, ...]] = ("relevant",)

    def __init__(self, *, positive: bool = True) -> None:
        self.positive = positive

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,)."""
        relevant, known = needed(annotation, "relevant", attributions, target)
        return energy(attributions, torch.where(known, relevant, torch.ones_like(relevant)), self.positive)
