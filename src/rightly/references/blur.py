"""The blurred input as its own reference."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core.checks import check_count, check_number
from rightly.core.errors import ShapeError
from rightly.core.registry import register
from rightly.core.types import Draw, View


@register("reference", citation="sturmfels2020", example=lambda shape: {"sigma": 1.0, "dims": len(shape[-2:])})
@dataclass(frozen=True)
class Blur:
    """The example with its detail blurred away: what is "not known" is the fine structure.

    Args:
        sigma: standard deviation of the Gaussian kernel, in pixels (or time steps).
        dims: how many trailing dimensions are blurred: 1 for signals, 2 for images, 3 for volumes.
    """

    sigma: float
    dims: int = 2

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma, positive=True)
        check_count("dims", self.dims)

    def draw(self, view: View, n_samples: int, generator: torch.Generator) -> Draw:
        """See ``Reference.draw``; nothing is random here."""
        if view.coordinates.ndim <= self.dims:
            raise ShapeError(
                "nothing to blur",
                expected=f"examples with at least {self.dims} dimensions",
                got=tuple(view.coordinates.shape[1:]),
                mend="choose dims= to fit",
            )
        blurred = view.coordinates
        for dim in range(1, self.dims + 1):
            blurred = _blur_along(blurred, -dim, self.sigma)
        return Draw(n_samples, lambda rows, samples: blurred[rows])


def _blur_along(x: Tensor, dim: int, sigma: float) -> Tensor:
    """Gaussian along one dimension, the edge values repeated outwards."""
    reach = max(1, math.ceil(3 * sigma))
    steps = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma) ** 2)
    moved = x.movedim(dim, -1)
    padded = F.pad(moved.reshape(-1, 1, moved.shape[-1]), (reach, reach), mode="replicate")
    smooth = F.conv1d(padded, (kernel / kernel.sum()).reshape(1, 1, -1))
    return smooth.reshape(moved.shape).movedim(-1, dim)
