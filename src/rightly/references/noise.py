"""The input with noise on it as its own reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from rightly.core.checks import check_number
from rightly.core.registry import register
from rightly.core.types import Centre, Draw, View


@register("reference", citation="sturmfels2020", traits=("sampled",), example=lambda shape: {"sigma": 0.5})
@dataclass(frozen=True)
class Noise:
    """Gaussian baseline: the example plus noise, so that a feature is "not known" within ``sigma`` of its value.

    All draws of a call are held in memory: B x K x F numbers.

    Args:
        sigma: standard deviation, in the units of the space's coordinates.
    """

    sigma: float

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma, positive=True)

    def draw(self, view: View, n_samples: int, generator: torch.Generator) -> Draw:
        """See ``Reference.draw``."""
        like = view.coordinates
        noise = self.sigma * torch.randn(len(like), n_samples, *like.shape[1:], generator=generator).to(like)
        centre = Centre.independent(lambda: like, n_samples)
        return Draw(n_samples, lambda rows, k: like[rows] + noise[rows, k], centre)
