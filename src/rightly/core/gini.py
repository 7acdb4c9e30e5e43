"""How concentrated a set of importances is: the Gini coefficient, differentiable and safe at zero."""

from __future__ import annotations

import torch
from torch import Tensor


def gini(values: Tensor) -> Tensor:
    """Gini coefficient of non-negative values, (..., p) -> (...): 0 when all are equal, 1 - 1/p when one has all.

    sum_ij |v_i - v_j| / (2 p sum_i v_i), by sorting in O(p log p). All zeros count as equal: 0, with zero gradient.
    """
    p = values.shape[-1]
    # the order has no derivative: each value is weighed by its rank, and nothing is sorted back
    order = values.detach().argsort(-1)
    weights = torch.arange(1 - p, p, 2, device=values.device, dtype=values.dtype)
    ranks = torch.zeros_like(order, dtype=values.dtype).scatter(-1, order, weights.expand(order.shape))
    total = values.sum(-1)
    nothing = total <= torch.finfo(values.dtype).tiny * p
    safe = torch.where(nothing, torch.ones_like(total), total)
    # divided before the weighted sum, so that neither huge nor tiny attributions overflow
    shares = torch.where(nothing[..., None], torch.zeros_like(values), values / safe[..., None])
    return (shares * ranks).sum(-1) / p
