"""Random noise, whatever the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from rightly.core.batch import Model
from rightly.core.errors import ArgumentError
from rightly.perturbations.base import Perturbation, check_radius

NoiseKind = Literal["gaussian", "uniform"]


@dataclass(frozen=True)
class Noise(Perturbation):
    """Independent noise on every value.

    Args:
        scale: the standard deviation of Gaussian noise, the largest change of uniform noise, in the inputs' units.
        kind: which of them.
        clip: as in ``Perturbation``.
    """

    scale: float
    kind: NoiseKind = "gaussian"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_radius("scale", self.scale)
        if self.kind not in get_args(NoiseKind):
            raise ArgumentError("unknown noise", expected=", ".join(get_args(NoiseKind)), got=repr(self.kind))

    def _change(
        self, model: Model, inputs: Tensor, labels: Tensor | None, region: Tensor | None, draws: torch.Generator
    ) -> Tensor:
        if self.kind == "gaussian":
            noise = torch.randn(inputs.shape, generator=draws)
        else:
            noise = 2 * torch.rand(inputs.shape, generator=draws) - 1
        return inputs + self.scale * noise.to(inputs)
