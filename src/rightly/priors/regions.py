"""A prior on groups of features instead of single ones."""

from __future__ import annotations

import torch
from torch import Tensor

from rightly.core.annotation import Annotation
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.registry import register
from rightly.priors.base import Prior
from rightly.priors.norms import L1


def over_regions(attributions: Tensor, regions: Tensor) -> Tensor:
    """What each region matters: the sum of its features' attributions, (B, *F) -> (B, R).

    Args:
        attributions: (B, *F).
        regions: (R, *F) boolean (or weights): frequency bands, wavelet scales, segments; they may overlap.
    """
    if regions.ndim < 2 or regions.shape[1:] != attributions.shape[1:]:
        raise ShapeError(
            "the regions do not fit the attributions",
            expected=("R", *attributions.shape[1:]),
            got=tuple(regions.shape),
        )
    return attributions.flatten(1) @ regions.to(attributions).flatten(1).T


def _example(shape: tuple[int, ...]) -> dict[str, object]:
    features = torch.arange(int(torch.tensor(shape).prod())).reshape(shape)
    return {"prior": L1(), "regions": torch.stack([features % 2 == 0, features % 2 == 1])}


@register("prior", citation="singh2022", example=_example)
class OverRegions(Prior):
    """Another prior on what whole regions matter: bands of frequencies, scales of wavelets, segments of an image.

    Args:
        prior: of the sums over regions (B, R); annotations are shaped like them.
        regions: (R, *F) boolean, such as ``rt.spaces.Fourier(2).bands(shape, edges)``.
    """

    def __init__(self, prior: Prior, regions: Tensor) -> None:
        if not isinstance(prior, Prior):
            raise ArgumentError("sums over regions need a prior", expected="such as rt.priors.L1()", got=repr(prior))
        if not isinstance(regions, Tensor) or regions.ndim < 2:
            got = tuple(regions.shape) if isinstance(regions, Tensor) else type(regions).__name__
            raise ShapeError("regions are a tensor", expected="(R, *F)", got=got)
        self.prior, self.regions = prior, regions
        self.level = prior.level
        self.module = prior.module
        self.needs = prior.needs  # type: ignore[misc]

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """(B,) or (), as the other prior has it."""
        return self.prior.penalty(over_regions(attributions, self.regions), annotation, target)
