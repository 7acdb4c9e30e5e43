"""One step of an objective: what its passes over the model give, and all that they depend on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rightly.core.annotation import Annotation
from rightly.core.batch import Inputs, tensors
from rightly.core.errors import RightlyError


class CompilationError(RightlyError, RuntimeError):
    """An objective's step cannot be compiled, or would not give what the eager step gives."""


@dataclass(frozen=True)
class Passes:
    """What the passes over the model give: outputs and task loss (None for the prior alone), penalties by term."""

    outputs: Tensor | None
    task: Tensor | None
    penalties: dict[str, Tensor]

    def total(self, weights: Sequence[Tensor]) -> Tensor:
        """Task loss and weighted penalties."""
        parts = [] if self.task is None else [self.task]
        parts += [w.to(p) * p for w, p in zip(weights, self.penalties.values(), strict=True)]
        return torch.stack(parts).sum()


@dataclass(frozen=True)
class Step:
    """One step of an objective.

    Attributes:
        objective: whose parameters and buffers the passes read.
        passes: runs them, with their graph.
        inputs, labels, annotation: the batch.
        generators: that the acting terms draw from, in their order, and the global one.
        weights: of the acting terms, by name, in the same order.
        part: of the objective.
    """

    objective: nn.Module
    passes: Callable[[], Passes]
    inputs: Inputs
    labels: Tensor
    annotation: Annotation | None
    generators: Sequence[torch.Generator]
    weights: dict[str, float]
    part: str

    def wanted(self) -> list[Tensor]:
        """The parameters that want a gradient."""
        return [parameter for parameter in self.objective.parameters() if parameter.requires_grad]

    def tensors(self) -> list[Tensor]:
        """All parameters, buffers and tensors of the batch."""
        known = self._known().values()
        return [*self.objective.parameters(), *self.objective.buffers(), *tensors(self.inputs), self.labels, *known]

    def numbers(self) -> Tensor:
        """The weights (W,), beside the parameters."""
        first = self.wanted()[0]
        return torch.tensor(list(self.weights.values()), dtype=first.dtype, device=first.device)

    def states(self) -> list[Tensor]:
        """Of the generators."""
        return [generator.get_state() for generator in self.generators]

    def restore(self, states: Sequence[Tensor]) -> None:
        """Put the generators back."""
        for generator, state in zip(self.generators, states, strict=True):
            generator.set_state(state)

    def kind(self) -> tuple[Any, ...]:
        """What two steps have in common when one graph serves both."""
        every = self.tensors()
        first: dict[int, int] = {}
        # a tensor that comes twice (labels that are the inputs) is one argument of the graph
        alike = tuple(first.setdefault(id(part), position) for position, part in enumerate(every))
        shapes = tuple((part.shape, part.stride(), part.dtype, part.device, part.requires_grad) for part in every)
        modes = tuple(module.training for module in self.objective.modules())
        named = tuple(self._known()), self.annotation and self.annotation.per_class
        return self.part, tuple(self.weights), named, repr(self._others()), shapes, modes, alike

    def _known(self) -> dict[str, Tensor]:
        """The fields that the annotation has."""
        return {} if self.annotation is None else self.annotation.given()

    def _others(self) -> Any:
        """What the inputs are beside their tensors: names, flags."""
        if isinstance(self.inputs, Tensor):
            return None
        parts = self.inputs.items() if isinstance(self.inputs, Mapping) else enumerate(self.inputs)
        return [(key, None if isinstance(part, Tensor) else part) for key, part in parts]
