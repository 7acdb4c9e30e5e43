"""Whether attribution lies where a person says that it should.

Every measure takes attributions (B, *F) and a boolean region that broadcasts to them (B or 1, *F), and gives (B,): 0 to
1, NaN for examples whose region is empty. Maps of several channels are to be summed over them first.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, ShapeError


def energy_pointing_game(attributions: Tensor, region: Tensor) -> Tensor:
    """Share of the positive attribution that lies inside (Wang et al. 2020, Score-CAM); 0 where none is positive.

    For attributions without negative values it is the relevance mass accuracy of Arras et al. (2022).
    """
    phi, inside = _flat(attributions, region)
    positive = phi.clamp_min(0)
    total = positive.sum(1)
    share = (positive * inside).sum(1) / total.clamp_min(torch.finfo(phi.dtype).tiny)
    return _known(share, inside)


def pointing_game(attributions: Tensor, region: Tensor, *, tolerance: float = 0) -> Tensor:
    """1 where the largest attribution lies inside, else 0 (Zhang et al. 2016); of several largest their mean.

    Args:
        tolerance: a miss by at most so many pixels is a hit (the paper: 15), for maps (B, ..., H, W).
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ArgumentError("tolerance is a distance", expected="a finite number of pixels, at least 0", got=tolerance)
    phi, inside = _flat(attributions, region)
    hit = inside
    if tolerance:
        maps = inside.reshape(attributions.shape)
        hit = _grown(maps, tolerance).flatten(1)
    largest = phi == phi.amax(1, keepdim=True)
    return _known((largest & hit).sum(1).to(phi) / largest.sum(1), inside)


def rank_accuracy(attributions: Tensor, region: Tensor) -> Tensor:
    """Of the n largest attributions, n being the region's size, the share inside (Arras et al. 2022).

    Where equal attributions compete for the last places, it is the mean over all ways to choose among them.
    """
    phi, inside = _flat(attributions, region)
    size = inside.sum(1)
    return _known(_inside_largest(phi, inside, size) / size.clamp_min(1), inside)


def top_k_intersection(attributions: Tensor, region: Tensor, k: int) -> Tensor:
    """Of the k largest attributions the share inside (Theiner et al. 2021); equal ones as in ``rank_accuracy``."""
    check_count("k", k)
    phi, inside = _flat(attributions, region)
    k = min(k, phi.shape[1])
    return _known(_inside_largest(phi, inside, torch.full_like(inside.sum(1), k)) / k, inside)


def iou(attributions: Tensor, region: Tensor, *, threshold: float = 0.15) -> Tensor:
    """Intersection over union of the region and of where attribution exceeds ``threshold`` of its largest value.

    The published localisation with Grad-CAM (Selvaraju et al. 2017) takes 0.15. 0 where no attribution is positive.
    """
    if not 0 <= threshold < 1:
        raise ArgumentError("threshold is a share of the largest", expected="0 to 1, 1 excluded", got=threshold)
    phi, inside = _flat(attributions, region)
    chosen = (phi > threshold * phi.amax(1, keepdim=True)) & (phi > 0)
    both, either = (chosen & inside).sum(1), (chosen | inside).sum(1)
    return _known(both.to(phi) / either.clamp_min(1), inside)


def _flat(attributions: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
    if region.dtype != torch.bool:
        raise ArgumentError("a region is inside or outside", expected="a boolean tensor", got=region.dtype)
    if attributions.ndim < 2 or not bool(attributions.isfinite().all()):
        raise ArgumentError("attributions cannot be placed", expected="finite (B, *F)", got=tuple(attributions.shape))
    try:
        region = region.to(attributions.device).expand(attributions.shape)
    except RuntimeError as error:
        raise ShapeError(
            "the region does not fit the attributions",
            expected=f"a shape that broadcasts to {tuple(attributions.shape)}",
            got=tuple(region.shape),
        ) from error
    return attributions.detach().flatten(1), region.flatten(1)


def _inside_largest(phi: Tensor, inside: Tensor, count: Tensor) -> Tensor:
    """How many of an example's ``count`` (B,) largest are inside; those equal to the last of them count in part."""
    last = phi.sort(1, descending=True).values.gather(1, (count - 1).clamp_min(0)[:, None])
    above, equal = phi > last, phi == last
    places = count - above.sum(1)
    return (above & inside).sum(1) + (equal & inside).sum(1).to(phi) * places / equal.sum(1)


def _known(values: Tensor, inside: Tensor) -> Tensor:
    return torch.where(inside.any(1), values, torch.full_like(values, torch.nan))


def _grown(region: Tensor, distance: float) -> Tensor:
    """The region with everything at most ``distance`` pixels from it, as the crow flies."""
    if region.ndim < 3:
        raise ShapeError("a tolerance in pixels needs maps", expected="(B, ..., H, W)", got=tuple(region.shape))
    reach = int(distance)
    steps = torch.arange(-reach, reach + 1, device=region.device)
    disc = (steps[:, None] ** 2 + steps**2 <= distance**2).float()[None, None]
    maps = region.reshape(-1, 1, *region.shape[-2:]).float()
    return (F.conv2d(maps, disc, padding=reach) > 0.5).reshape(region.shape)
