"""What all attributions share: arguments checked, the model read without being changed, completeness measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from rightly.attributions.problem import Problem, Progress
from rightly.core import autodiff, seeding
from rightly.core.batch import Inputs, Model, rows
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.scalar import Output, Target, check_output, check_target
from rightly.core.types import AttributionResult, Draw, Reference, Space


@dataclass(frozen=True)
class Explanation:
    """What a method finds: attributions (B, *F), their sampling error, and the references it compared with."""

    attributions: Tensor
    standard_error: Tensor | None = None
    references: Draw | None = None


class Attribution(ABC):
    """A differentiable explanation method.

    Subclasses give ``_explain``; calling is final. All arguments are stored under their own names.

    Args:
        space: where the explanation lives.
        output: which number is explained.
        target: which class of it; ignored when the model gives a single output.
    """

    def __init__(self, space: Space, output: Output, target: Target) -> None:
        self.space = space
        self.output = check_output(output)
        self.target = check_target(target)

    @final
    def __call__(
        self,
        model: Model,
        inputs: Inputs,
        labels: Tensor | None = None,
        *,
        create_graph: bool = False,
        diagnostics: bool = True,
        chunk_size: int | None = None,
        generator: torch.Generator | None = None,
        progress: Progress | None = None,
    ) -> AttributionResult:
        """Explain a batch.

        Args:
            model: a module or a callable. Dropout is off and batch norm frozen while it is read, whatever its mode.
            inputs: a tensor (B, ...), or a tuple or dict of such tensors.
            labels: (B,), where ``output`` or ``target`` needs them.
            create_graph: keep the graph to the parameters, for training. False leaves nothing behind.
            diagnostics: also return outputs, completeness gap and standard error (extra passes without a graph).
            chunk_size: points a pass; memory only, it never changes a value.
            generator: for methods that draw; None means the same draws at every call.
            progress: called with (points done, points in all).

        Raises:
            ArgumentError, ShapeError: an argument cannot be used.
            NotConnectedError: the output does not depend on the space.
        """
        if chunk_size is not None and chunk_size < 1:
            raise ArgumentError("chunk_size counts points", expected="at least 1, or None", got=chunk_size)
        if labels is not None and len(labels) != rows(inputs):
            raise ShapeError("labels do not fit the inputs", expected=f"({rows(inputs)},)", got=tuple(labels.shape))
        generator = generator or seeding.generator("attribution")
        with autodiff.reading(model, trainable=create_graph):
            view = self.space.open(model, inputs)
            problem = Problem(view, labels, self.output, self.target, create_graph, chunk_size, progress)
            found = self._explain(problem, generator, diagnostics)
            gap = _completeness_gap(problem, found) if diagnostics else None
        attributions = found.attributions if create_graph else found.attributions.detach()
        return AttributionResult(attributions, problem.outputs, gap, found.standard_error, problem.classes, self.space)

    @abstractmethod
    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        """The method itself; the standard error is wanted with ``diagnostics`` only."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not isinstance(v, Tensor))
        return f"{type(self).__name__}({shown})"


@torch.no_grad()
def _completeness_gap(problem: Problem, found: Explanation) -> Tensor:
    """sum(phi) - (f(x) - E f(x')); methods without references are measured against zero coordinates."""
    x = problem.view.coordinates.detach()
    zero = Draw(1, lambda rows, samples: torch.zeros_like(x[rows]))
    references = found.references or zero
    own = problem.value_of(problem.own_outputs(), torch.arange(problem.batch, device=x.device))
    base = problem.values(references.gather, references.n).mean(1)
    return found.attributions.detach().flatten(1).sum(1) - (own - base)


def check_reference(reference: Any) -> Reference:
    """Raise ``ArgumentError`` for something that cannot draw; a tensor is the commonest slip."""
    if callable(getattr(reference, "draw", None)) and not isinstance(reference, type):
        return reference  # type: ignore[no-any-return]
    raise ArgumentError(
        "not a reference",
        expected="one of rt.references, such as InBatch() or Sample(data)",
        got=type(reference).__name__ if not isinstance(reference, type) else f"the class {reference.__name__}",
        mend="rt.references.Sample(data) to draw from data, rt.references.Constant(x) for one fixed baseline",
    )


def check_count(name: str, value: int) -> int:
    """Raise ``ArgumentError`` unless ``value`` is a whole number of at least 1."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ArgumentError(f"{name} counts", expected="a whole number of at least 1", got=repr(value))
