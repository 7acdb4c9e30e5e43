"""Neighbouring pixels should matter alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rightly.core.annotation import Annotation
from rightly.core.checks import check_number
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.registry import register
from rightly.priors.base import Prior


def total_variation(
    attributions: Tensor, dims: int = 2, standardize: bool = True, floor: float | None = None
) -> Tensor:
    """Anisotropic total variation of attribution maps, (B, *channels, *spatial) -> (B,).

    Args:
        attributions: channels are summed first, as the papers do.
        dims: number of spatial dimensions: 1 for signals, 2 for images, 3 for volumes.
        standardize: shift each map to mean 0 and divide it by its standard deviation, without which the penalty
            could be met by making all attributions small (Erion et al. 2021, methods).
        floor: smallest divisor; by default 1 / sqrt(number of pixels), that of the published code. It keeps the
            gradient finite on constant maps.
    """
    if attributions.ndim <= dims:
        raise ShapeError(
            "total variation needs maps",
            expected=f"(B, ..., {dims} spatial dimensions)",
            got=tuple(attributions.shape),
            mend="choose dims= to fit",
        )
    spatial = tuple(range(-dims, 0))
    maps = attributions.reshape(len(attributions), -1, *attributions.shape[-dims:]).sum(1)
    if standardize:
        smallest = 1 / math.sqrt(maps[0].numel()) if floor is None else floor
        centred = maps - maps.mean(spatial, keepdim=True)
        variance = centred.square().mean(spatial, keepdim=True)
        maps = centred / variance.clamp_min(smallest**2).sqrt()
    steps = [maps.diff(dim=dim).abs().flatten(1).sum(1) for dim in spatial]
    return torch.stack(steps).sum(0)


@register("prior", citation="erion2021", traits=("images",), example=lambda shape: {"floor": 1e-3})
class TotalVariation(Prior):
    """Neighbouring pixels should matter alike: total variation of each (standardised) attribution map.

    Args:
        dims: spatial dimensions: 1, 2 or 3.
        standardize: see ``rt.functional.total_variation``.
        floor: smallest divisor of the standardisation; None for the papers' 1 / sqrt(pixels).
    """

    def __init__(self, dims: int = 2, *, standardize: bool = True, floor: float | None = None) -> None:
        if dims not in (1, 2, 3):
            raise ArgumentError("maps have 1, 2 or 3 dimensions", expected="1, 2 or 3", got=dims)
        self.floor = None if floor is None else check_number("floor", floor, positive=True)
        self.dims, self.standardize = dims, standardize

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,)."""
        return total_variation(attributions, self.dims, self.standardize, self.floor)
