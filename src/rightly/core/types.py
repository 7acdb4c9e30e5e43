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
class Centre:
    """The mean of all the references that an example may draw, and how far its own draws can be held to it.

    Attributes:
        mean: () -> (1, *F), or (B, *F) where it differs between examples.
        start: the draws before this one go through all the references once or several times, so that their mean is
            right already.
        factor: what the deviation of each later draw from the mean of the later draws has to be multiplied with, so
            that its covariance with anything that this draw alone decides is not underestimated.
    """

    mean: Callable[[], Tensor]
    start: int = 0
    factor: float = 1.0

    @classmethod
    def independent(cls, mean: Callable[[], Tensor], k: int) -> Centre:
        """Of k independent draws: Bessel's factor."""
        return cls(mean, 0, k / (k - 1)) if k > 1 else cls(mean, k)

    @classmethod
    def without_replacement(cls, mean: Callable[[], Tensor], k: int, n: int) -> Centre:
        """Of k draws from n references in random order, none twice before all were drawn."""
        late = k % n
        # a draw says something about the others, which cannot be it again: (n - 1) / n
        return cls(mean, k - late, late * (n - 1) / ((late - 1) * n)) if late > 1 else cls(mean, k)


@dataclass(frozen=True)
class Draw:
    """References drawn for a batch, gathered when they are needed so that many cost no memory.

    Attributes:
        n: references an example, K.
        gather: (rows (M,), samples (M,)) -> (M, *F), sample k of example b.
        centre: of the references that were drawn from; None where nothing is drawn or the mean is not known.
    """

    n: int
    gather: Callable[[Tensor, Tensor], Tensor]
    centre: Centre | None = None

    def all(self, batch: int, device: torch.device | str = "cpu") -> Tensor:
        """The whole tensor ``baselines`` (B, K, *F)."""
        index = torch.arange(batch * self.n, device=device)
        flat = self.gather(index // self.n, index % self.n)
        return flat.reshape(batch, self.n, *flat.shape[1:])


class Reference(Protocol):
    """What "not knowing a feature" means."""

    def draw(self, view: View, n_samples: int, generator: torch.Generator) -> Draw:
        """``n_samples`` references for every example of the view."""


Read = Callable[[Tensor], Tensor]


class Engine(Protocol):
    """How input gradients are taken when they are to be trained through.

    Attributes:
        twice: whether it differentiates the model twice, so that only kernels with a second derivative may run.
        curved: whether its gradients can be differentiated with respect to the points, and then be trained through.
    """

    twice: bool
    curved: bool

    def gradient(self, read: Read, value_of: Read, points: Tensor) -> Tensor:
        """Gradient of each point's explained number with respect to the point, with its graph to the parameters.

        Args:
            read: points (M, *F) -> outputs (M, ...); may be called again when the gradient is sent back.
            value_of: outputs -> the explained number (M,), number m of point m alone.
            points: (M, *F).

        Returns:
            (M, *F).

        Raises:
            Unsupported: the model, or the way it is called, does not fit the engine.
        """


@dataclass(frozen=True)
class AttributionResult:
    """An explanation of a batch.

    Attributes:
        attributions: (B, *F), how much each feature mattered.
        outputs: what the model returned for the inputs (dropout off, batch norm frozen); None when diagnostics
            were not asked for and the method did not need it.
        completeness_gap: (B,), ``sum(phi) - (f(x) - E f(x'))``, captum's sign; None as above.
        standard_error: (B, *F), of the sampling, for methods that average random draws; None for the others. Designs
            that cover the draws evenly do better than it says, because it takes the draws for independent.
        target: (B,) the class explained; None for single outputs and whole-output scalars.
        space: the space that the attributions live in.
        n_samples: (B,), the draws that each example took, where a tolerance decided; None otherwise.
    """

    attributions: Tensor
    outputs: Tensor | None
    completeness_gap: Tensor | None
    standard_error: Tensor | None
    target: Tensor | None
    space: Space
    n_samples: Tensor | None = None
