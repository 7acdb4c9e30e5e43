"""What is relevant should matter more than what is not."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from rightly.core.annotation import Annotation, needed
from rightly.core.registry import register
from rightly.priors.base import Prior


def ranking(attributions: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """Sum over pairs (i inside, j outside) of relu(phi_j - phi_i), in O(p log p): (B, *F) -> (B,).

    Every pair in the wrong order costs what would put it right (Selvaraju et al. 2019).

    Args:
        attributions: (B, *F).
        inside, outside: (B, *F), how much each feature belongs there: pair (i, j) counts inside_i * outside_j.
    """
    phi, inside, outside = attributions.flatten(1), inside.flatten(1), outside.flatten(1)
    values, order = phi.sort(1)
    inside, outside = inside.gather(1, order), outside.gather(1, order)
    # of the inside, what lies below each feature; of the outside, what lies above it. Ties cost nothing either way
    below = inside.cumsum(1) - inside
    above = outside.sum(1, keepdim=True) - outside.cumsum(1)
    return (values * (outside * below - inside * above)).sum(1)


@register("prior", citation="selvaraju2019")
class Ranking(Prior):
    """What lies inside ``annotation.relevant`` should rank above what lies outside: a reward for human importance.

    Where right-reasons forbids and energy shares out, this asks only for the order: pairs in the right order cost
    nothing. Attributions count with their sign, so that the inside should speak *for* the class explained: gradient
    times input (the paper's), Grad-CAM. Sums over pairs, of which pictures have many: strengths are small.
    """

    needs: ClassVar[tuple[str, ...]] = ("relevant",)

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,)."""
        relevant, known = needed(annotation, "relevant", attributions, target)
        outside = torch.where(known, 1 - relevant, torch.zeros_like(relevant))
        return ranking(attributions, relevant, outside)
