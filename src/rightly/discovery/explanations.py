"""How explanations of several models are compared: where gradients are largest, and how alike they are."""

from __future__ import annotations

import torch
from torch import Tensor

from rightly.core.errors import ArgumentError, ShapeError


def largest_gradient_mask(gradients: Tensor, cutoff: float = 0.67) -> Tensor:
    """M_c: which components are larger than ``cutoff`` times the example's largest, in size (Ross 2018, 2.2.2).

    Args:
        gradients: (B, *F).
        cutoff: c, at least 0 and below 1. The thesis' 0.67 tends to keep 2 to 5 % of the components.

    Returns:
        (B, *F), boolean. Strictly larger, as in the authors' code: an example without any gradient has nothing marked.
    """
    check_cutoff(cutoff)
    if gradients.ndim < 2:
        raise ShapeError("gradients need features", expected="(B, *F)", got=tuple(gradients.shape))
    sizes = gradients.abs()
    return sizes > cutoff * sizes.flatten(1).amax(1).reshape(-1, *(1,) * (sizes.ndim - 1))


def gradient_similarity(gradients: Tensor) -> Tensor:
    """How alike the gradients of M models are: the absolute cosine of each two, averaged over examples.

    Args:
        gradients: (M, B, *F).

    Returns:
        (M, M), symmetric, from 0 to 1. An example where one of the two has no gradient counts as 0, also beside
        itself.
    """
    flat = _flat(gradients)
    # by the largest component first, so that tiny gradients do not vanish in the squares
    flat = flat / flat.abs().amax(2, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
    units = torch.nn.functional.normalize(flat, dim=2)
    return torch.einsum("abf,cbf->acb", units, units).abs().mean(2).clamp_max(1)


def mask_overlap(masks: Tensor) -> Tensor:
    """How much the masks of M models share: what both mark over what either marks, averaged over examples.

    Args:
        masks: (M, B, *F), boolean.

    Returns:
        (M, M), symmetric, from 0 to 1. Examples where neither marks anything are left out; 0 where none are left.
    """
    marked = _flat(masks).bool()
    found = torch.zeros(len(marked), len(marked), dtype=torch.float64)
    for a in range(len(marked)):
        for b in range(len(marked)):
            either = (marked[a] | marked[b]).sum(1).double()
            both = (marked[a] & marked[b]).sum(1)[either > 0]
            found[a, b] = (both / either[either > 0]).mean() if len(both) else 0.0
    return found


def check_cutoff(cutoff: object) -> None:
    """Raise ``ArgumentError`` unless it is a share of the largest gradient, below 1."""
    if not isinstance(cutoff, int | float) or isinstance(cutoff, bool) or not 0 <= cutoff < 1:
        raise ArgumentError("unusable cutoff", expected="at least 0 and below 1", got=repr(cutoff))


def _flat(values: Tensor) -> Tensor:
    if values.ndim < 3:
        raise ShapeError("several models' explanations come stacked", expected="(M, B, *F)", got=tuple(values.shape))
    return values.flatten(2)
