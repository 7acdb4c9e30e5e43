"""How alike two explanations of the same examples are: each measure takes (B, *F) twice and gives (B,)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, ShapeError

#: side of the window, and the two constants, of Wang et al. (2004)
_WINDOW, _MEANS, _SPREADS = 7, 0.01, 0.03


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's correlation, ties sharing their mean rank; 0 where one of the two is constant."""
    a, b = _both(first, second)
    return _correlation(_ranks(a), _ranks(b))


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine of the angle between them; 0 where one of the two is zero."""
    a, b = _both(first, second)
    # each scaled by its largest first, so that tiny gradients do not vanish in the squares
    a, b = (v / v.abs().amax(1, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny) for v in (a, b))
    sizes = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(sizes > 0, (a * b).sum(1) / sizes.clamp_min(torch.finfo(a.dtype).tiny), torch.zeros_like(sizes))


def top_k_overlap(first: Tensor, second: Tensor, k: int = 5) -> Tensor:
    """Share of the k features of largest absolute attribution that both have in common; ties go to the first."""
    check_count("k", k)
    a, b = _both(first, second)
    k = min(k, a.shape[1])
    chosen = [torch.zeros_like(v, dtype=torch.bool).scatter(1, _largest(v.abs(), k), True) for v in (a, b)]
    return (chosen[0] & chosen[1]).sum(1).to(a) / k


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004) of maps (B, ..., H, W), each stretched to 0 to 1 first as Adebayo et al. (2018) do.

    Mean over all windows of 7 x 7 pixels that lie inside, with sample covariances.

    Raises:
        ShapeError: the maps are smaller than a window.
    """
    if first.ndim < 3 or min(first.shape[-2:]) < _WINDOW:
        raise ShapeError(
            "no maps", expected=f"(B, ..., H, W) of at least {_WINDOW} x {_WINDOW}", got=tuple(first.shape)
        )
    _both(first, second)
    a, b = (_stretched(maps.flatten(1)).reshape(len(maps), -1, *maps.shape[-2:]) for maps in (first, second))

    def mean(maps: Tensor) -> Tensor:
        return F.avg_pool2d(maps, _WINDOW, 1)

    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)
    mean_a, mean_b = mean(a), mean(b)
    var_a, var_b = (unbiased * (mean(m * m) - at * at) for m, at in ((a, mean_a), (b, mean_b)))
    covariance = unbiased * (mean(a * b) - mean_a * mean_b)
    c1, c2 = _MEANS**2, _SPREADS**2
    found = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return (found / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).flatten(1).mean(1)


def _largest(values: Tensor, k: int) -> Tensor:
    """Indices (B, k) of the largest values; of equal ones the first, on every machine."""
    return values.argsort(dim=1, descending=True, stable=True)[:, :k]


def _stretched(flat: Tensor) -> Tensor:
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    return (flat - low) / (high - low).clamp_min(torch.finfo(flat.dtype).tiny)


def _ranks(values: Tensor) -> Tensor:
    """(B, F) double: 1 for the smallest, equal values sharing the mean of their ranks."""
    ordered, order = values.sort(1)
    count = values.shape[1]
    place = torch.arange(count, device=values.device).expand(values.shape)
    # every run of equal values starts where the value changes, and its mean rank is that of its two ends
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = torch.where(new, place, 0).cummax(1).values
    ends = torch.ones_like(new)
    ends[:, :-1] = new[:, 1:]
    last = torch.where(ends, place, count).flip(1).cummin(1).values.flip(1)
    return torch.empty_like(values, dtype=torch.float64).scatter(1, order, (first + last).double() / 2 + 1)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    sizes = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(sizes > 0, (a * b).sum(1) / sizes.clamp_min(torch.finfo(a.dtype).tiny), torch.zeros_like(sizes))


def _both(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    if first.shape != second.shape or first.ndim < 2:
        raise ShapeError(
            "explanations of the same examples are compared",
            expected=f"(B, *F) twice, such as {tuple(first.shape)}",
            got=tuple(second.shape),
        )
    if not bool(first.isfinite().all() and second.isfinite().all()):
        raise ArgumentError("attributions must be finite", expected="finite numbers", got="NaN or infinity")
    return first.detach().flatten(1), second.detach().flatten(1)
