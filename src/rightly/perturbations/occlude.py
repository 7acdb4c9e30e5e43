"""A region of the inputs replaced by what says nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rightly.core.batch import Model
from rightly.core.errors import ArgumentError
from rightly.perturbations.base import Perturbation, check_radius


@dataclass(frozen=True)
class Occlude(Perturbation):
    """What lies ``inside`` is replaced; a call without ``inside`` is refused, since nothing would be left.

    Args:
        fill: a value, or ``"mean"`` for the mean of the batch at that place.
        noise: standard deviation of Gaussian noise on what was filled in.
        clip: as in ``Perturbation``.
    """

    fill: float | Literal["mean"] = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_radius("noise", self.noise)
        if self.fill != "mean" and not (isinstance(self.fill, int | float) and math.isfinite(self.fill)):
            raise ArgumentError("unknown fill", expected="a finite number, or 'mean'", got=repr(self.fill))

    def _change(
        self, model: Model, inputs: Tensor, labels: Tensor | None, region: Tensor | None, draws: torch.Generator
    ) -> Tensor:
        if region is None:
            raise ArgumentError(
                "nothing says what to occlude",
                expected="inside=, broadcastable to the inputs",
                got=None,
                mend="rt.PerturbationTerm(..., inside='irrelevant') reads it from the annotation",
            )
        if isinstance(self.fill, str):
            filled = inputs.mean(0, keepdim=True).expand_as(inputs)
        else:
            filled = torch.full_like(inputs, self.fill)
        if self.noise:
            filled = filled + self.noise * torch.randn(inputs.shape, generator=draws).to(inputs)
        return filled
