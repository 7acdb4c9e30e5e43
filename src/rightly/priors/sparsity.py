"""A few features should carry the model."""

from __future__ import annotations

import torch
from torch import Tensor

from rightly.core.annotation import Annotation
from rightly.core.distributed import global_mean
from rightly.core.registry import register
from rightly.priors.base import Level, Prior


def gini(values: Tensor) -> Tensor:
    """Gini coefficient of non-negative values, (..., p) -> (...): 0 when all are equal, 1 - 1/p when one has all.

    sum_ij |v_i - v_j| / (2 p sum_i v_i), by sorting in O(p log p). All zeros count as equal: 0, with zero gradient.
    """
    p = values.shape[-1]
    ordered = values.sort(-1).values
    ranks = torch.arange(1 - p, p, 2, device=values.device, dtype=values.dtype)
    total = ordered.sum(-1)
    nothing = total <= torch.finfo(values.dtype).tiny * p
    safe = torch.where(nothing, torch.ones_like(total), total)
    # divided before the weighted sum, so that neither huge nor tiny attributions overflow
    shares = torch.where(nothing[..., None], torch.zeros_like(ordered), ordered / safe[..., None])
    return (shares * ranks).sum(-1) / p


def sparsity(attributions: Tensor) -> Tensor:
    """1 - Gini of the mean absolute attribution of each feature, (B, *F) -> (): between 1/p and 1.

    The published penalty is -2 Gini (Erion et al. 2021), the published code -Gini; the gradient is that of the code.
    """
    return 1 - gini(global_mean(attributions.abs()).flatten())


@register("prior", citation="erion2021")
class Sparsity(Prior):
    """A few features should carry the model: 1 - Gini coefficient of the global importances (mean |phi|).

    Unlike L1 it does not care about the attributions' scale, so it cannot be met by making the model timid.
    """

    level: Level = "batch"

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """()."""
        return sparsity(attributions)
