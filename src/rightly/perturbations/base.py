"""What every perturbation keeps to: region, range, the model's state, the caller's randomness."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from rightly.core import autodiff, seeding
from rightly.core.batch import Model, rows
from rightly.core.errors import ArgumentError, ShapeError


@dataclass(frozen=True, kw_only=True)
class Perturbation(ABC):
    """Changes inputs, for training (``rt.PerturbationTerm``) or to attack a model (``rt.evaluation.attack``).

    Subclasses are frozen dataclasses that say in ``_change`` where each example goes. They see the model with dropout
    off and batch norm frozen, and leave it as it was.

    Args:
        clip: lowest and highest value that the data can take. What lies outside already is not moved further out.
    """

    clip: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.clip is not None and not (len(self.clip) == 2 and self.clip[0] < self.clip[1]):
            raise ArgumentError("clip is a range", expected="(low, high), low < high", got=repr(self.clip))

    @final
    def __call__(
        self,
        model: Model,
        inputs: Tensor,
        labels: Tensor | None = None,
        *,
        inside: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The changed inputs.

        Args:
            model: inputs -> outputs (B, ...). Nothing of it changes.
            inputs: (B, *F), of floating point.
            labels: (B,), for what follows a loss of the labels.
            inside: broadcastable to the inputs: where they may change (above 0). The rest comes back bit for bit.
            generator: of random draws, on the CPU; None draws the same at every call.

        Returns:
            (B, *F), detached and finite where the inputs are.
        """
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            got = str(inputs.dtype) if isinstance(inputs, Tensor) else type(inputs).__name__
            raise ArgumentError("only real numbers are changed", expected="a floating tensor (B, *F)", got=got)
        rows(inputs)
        region = _region(inside, inputs)
        draws = generator or seeding.generator("perturbation")
        with autodiff.reading(model, trainable=False):
            start = autodiff.recordable(inputs.detach())
            moved = self._change(model, start, labels, region, draws).detach()
        moved = self._clipped(moved, start)
        moved = torch.where(moved.isfinite(), moved, start)
        return moved if region is None else torch.where(region, moved, start)

    @abstractmethod
    def _change(
        self, model: Model, inputs: Tensor, labels: Tensor | None, region: Tensor | None, draws: torch.Generator
    ) -> Tensor:
        """The changed inputs (B, *F); what leaves the region (boolean) or the range is put back afterwards."""

    def _clipped(self, moved: Tensor, start: Tensor) -> Tensor:
        if self.clip is None:
            return moved
        low, high = self.clip
        return torch.minimum(torch.maximum(moved, start.clamp(max=low)), start.clamp(min=high))


def check_radius(name: str, value: float, *, infinite: bool = False) -> None:
    """Raise ``ArgumentError`` unless ``value`` is a number of at least 0, finite if it has to be."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
    if not number or (math.isinf(value) and not infinite):
        raise ArgumentError(f"{name} is a distance", expected="a finite number >= 0", got=repr(value))


def _region(inside: Tensor | None, inputs: Tensor) -> Tensor | None:
    if inside is None:
        return None
    region = inside.to(inputs.device) > 0  # NaN is "not known": stays
    try:
        return region.expand(inputs.shape)
    except RuntimeError:
        raise ShapeError(
            "inside does not fit the inputs",
            expected=f"a tensor that broadcasts to {tuple(inputs.shape)}",
            got=tuple(inside.shape),
        ) from None
