"""A penalty on the model itself: on its weights, on what it answers to changed inputs, on how it represents them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self, final

import torch
from torch import Tensor, nn

from rightly.core.annotation import Annotation
from rightly.core.batch import Inputs, rows
from rightly.core.errors import ShapeError
from rightly.objectives.term import EngineName, Schedule, Term, Weight
from rightly.priors.base import Level


@dataclass(frozen=True)
class Batch:
    """What a term may read beside the model.

    Attributes:
        inputs: as the model takes them, B examples.
        labels: what the loss takes.
        annotation: what is known about these examples.
        generator: of the term's draws at this step; None means the same draws at every call.
    """

    inputs: Inputs
    labels: Tensor | None = None
    annotation: Annotation | None = None
    generator: torch.Generator | None = None


@dataclass(frozen=True)
class ModelTerm(ABC):
    """``weight * penalty of the model``, where ``rt.Term`` asks something of an explanation.

    Subclasses are frozen dataclasses with a ``weight``, a ``name`` and a ``schedule`` like ``rt.Term``'s. They say in
    their docstring in which mode they read the model: as it is, like the task loss, or with dropout off and batch norm
    frozen (``core.autodiff.reading``), like attributions.
    """

    if TYPE_CHECKING:

        @property
        def weight(self) -> Weight:
            """The strength."""

        @property
        def name(self) -> str:
            """In reports."""

        @property
        def schedule(self) -> Schedule:
            """When it acts."""

    @property
    @abstractmethod
    def level(self) -> Level:
        """``"example"`` for a penalty an example, of which the mean is taken; ``"batch"`` for one number."""

    @property
    @abstractmethod
    def about(self) -> str:
        """In words; terms with the same words differ by their weight only."""

    @abstractmethod
    def of(self, model: nn.Module, batch: Batch) -> Tensor:
        """The penalty, before its weight: (B,) or (), according to ``level``."""

    @property
    def gives_outputs(self) -> bool:
        """Whether ``with_outputs`` has outputs to give, of the model with dropout off and batch norm frozen."""
        return False

    def with_outputs(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The penalty, and the model's outputs (B, ...) with their graph, if they come along.

        An objective takes them for the task where the model's mode makes no difference, and saves a pass.
        """
        return self.of(model, batch), None

    @final
    def measured(self, model: nn.Module, batch: Batch) -> Tensor:
        """The number () that the weight multiplies."""
        return self.measured_with_outputs(model, batch)[0]

    @final
    def measured_with_outputs(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The same, and the outputs that came along."""
        value, outputs = self.with_outputs(model, batch)
        expected = (rows(batch.inputs),) if self.level == "example" else ()
        if value.shape != expected:
            raise ShapeError(
                f"the penalty of the term {self.name!r} does not fit its level {self.level!r}",
                expected=expected,
                got=tuple(value.shape),
            )
        return value.mean() if self.level == "example" else value, outputs

    @property
    def module(self) -> nn.Module | None:
        """What the term learns along with the model, if it does: an objective trains, saves and moves it."""
        return None

    def with_weight(self, weight: Weight) -> Self:
        """The same with another strength."""
        made: Self = replace(self, weight=weight)  # type: ignore[call-arg]
        return made

    def with_engine(self, engine: EngineName) -> Self:
        """Itself: no input gradient is taken by an engine."""
        return self


AnyTerm = Term | ModelTerm


def learned_by(term: AnyTerm) -> nn.Module | None:
    """What the term, or its prior, learns along with the model."""
    return term.prior.module if isinstance(term, Term) else term.module


def learned(terms: Sequence[AnyTerm], model: nn.Module) -> list[nn.Module]:
    """What priors learn, where the model is and as precise as it is, in float32 at least; what two share, once."""
    found = dict.fromkeys(module for module in map(learned_by, terms) if module is not None)
    like = next(model.parameters(), torch.empty(0))
    return [module.to(like.device, torch.promote_types(like.dtype, torch.float32)) for module in found]
