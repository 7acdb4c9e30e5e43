"""The words that rooms share: what a space opens, what a reference draws, what an attribution returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from rightly.core.batch import Inputs, Model


@dataclass(frozen=True)
class View:
    """A model seen from a space.

    Attributes:
        inputs: the B examples, as the model takes them.
        coordinates: (B, *F), the examples in the space. Keeps its graph to the parameters that it depends on.
        encode: any inputs -> their coordinates.
        rest: (points (M, *F), rows (M,)) -> outputs (M, ...): the rest of the model, where point m stands in for
            the coordinates of example ``rows[m]``.
    """

    inputs: Inputs
    coordinates: Tensor
    encode: Callable[[Inputs], Tensor]
    rest: Callable[[Tensor, Tensor], Tensor]


class Space(Protocol):
    """Where an explanation lives."""

    def open(self, model: Model, inputs: Inputs) -> View:
        """The model as a function of the space, at these inputs."""


@dataclass(frozen=True)
class Draw:
    """References drawn for a batch, gathered when they are needed so that many cost no memory.

    Attributes:
        n: references an example, K.
        gather: (rows (M,), samples (M,)) -> (M, *F), sample k of example b.
    """

    n: int
    gather: Callable[[Tensor, Tensor], Tensor]

    def all(self, batch: int, device: torch.device | str = "cpu") -> Tensor:
        """The whole tensor ``baselines`` (B, K, *F)."""
        index = torch.arange(batch * self.n, device=device)
        flat = self.gather(index // self.n, index % self.n)
        return flat.reshape(batch, self.n, *flat.shape[1:])


class Reference(Protocol):
    """What "not knowing a feature" means."""

    def draw(self, view: View, n_samples: int, generator: torch.Generator) -> Draw:
        """``n_samples`` references for every example of the view."""


@dataclass(frozen=True)
class AttributionResult:
    """An explanation of a batch.

    Attributes:
        attributions: (B, *F), how much each feature mattered.
        outputs: what the model returned for the inputs (dropout off, batch norm frozen); None when diagnostics
            were not asked for and the method did not need it.
        completeness_gap: (B,), ``sum(phi) - (f(x) - E f(x'))``, captum's sign; None as above.
        standard_error: (B, *F), of the sampling, for methods that average random draws; None for the others.
        target: (B,) the class explained; None for single outputs and whole-output scalars.
        space: the space that the attributions live in.
    """

    attributions: Tensor
    outputs: Tensor | None
    completeness_gap: Tensor | None
    standard_error: Tensor | None
    target: Tensor | None
    space: Space
