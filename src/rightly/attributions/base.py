"""What all attributions share: arguments checked, the model read without being changed, completeness measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from rightly.attributions.problem import Problem, Progress
from rightly.core import autodiff, seeding
from rightly.core.batch import Inputs, Model, convert, rows
from rightly.core.checks import check_count
from rightly.core.engines import DoubleBackward
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.scalar import Output, Target, check_output, check_target
from rightly.core.types import AttributionResult, Draw, Engine, Reference, Space


@dataclass(frozen=True)
class Explanation:
    """What a method finds: attributions (B, *F), their sampling error, and the references it compared with.

    ``whole`` is False where only some of what adds up to the output was asked for, so that no gap can be told.
    """

    attributions: Tensor
    standard_error: Tensor | None = None
    references: Draw | None = None
    whole: bool = True


class Attribution(ABC):
    """A differentiable explanation method.

    Subclasses give ``_explain``; calling is final. All arguments are stored under their own names.

    Args:
        space: where the explanation lives.
        output: which number is explained.
        target: which class of it; ignored when the model gives a single output.
    """

    #: how often the explained number is differentiated with respect to the space
    order: ClassVar[int] = 1

    def __init__(self, space: Space, output: Output, target: Target) -> None:
        self.space = check_space(space)
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
        engine: Engine | None = None,
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
            engine: how gradients are taken with ``create_graph``; double backward by default.

        Raises:
            ArgumentError, ShapeError: an argument cannot be used.
            NotConnectedError: the output does not depend on the space.
        """
        _check_call(model, inputs, labels, chunk_size, generator)
        generator = generator or seeding.generator("attribution")
        engine = engine or DoubleBackward()
        with autodiff.reading(model, trainable=(create_graph and engine.twice) or self.order > 1):
            view = self.space.open(model, convert(inputs, autodiff.recordable))
            if view.coordinates.shape[:1] != (rows(inputs),):
                raise ShapeError(
                    "the space does not hold one entry an example",
                    expected=f"({rows(inputs)}, ...), examples first",
                    got=tuple(view.coordinates.shape),
                    mend="explain a layer whose output counts the examples first (batch_first=True)",
                )
            problem = Problem(view, labels, self.output, self.target, create_graph, chunk_size, progress, engine)
            found = self._explain(problem, generator, diagnostics)
            if diagnostics:
                problem.own_outputs()
            gap = _completeness_gap(problem, found) if diagnostics and found.whole else None
        attributions = found.attributions if create_graph else found.attributions.detach()
        return AttributionResult(attributions, problem.outputs, gap, found.standard_error, problem.classes, self.space)

    @abstractmethod
    def _explain(self, problem: Problem, generator: torch.Generator, diagnostics: bool) -> Explanation:
        """The method itself; the standard error is wanted with ``diagnostics`` only."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if not isinstance(v, Tensor))
        return f"{type(self).__name__}({shown})"


def _check_call(
    model: Model,
    inputs: Inputs,
    labels: Tensor | None,
    chunk_size: int | None,
    generator: torch.Generator | None,
) -> None:
    """Raise ``ArgumentError`` or ``ShapeError`` for arguments of a call that cannot be used."""
    if not callable(model):
        raise ArgumentError(
            "the model is called", expected="a module, or a callable inputs -> outputs", got=type(model).__name__
        )
    if chunk_size is not None:
        check_count("chunk_size", chunk_size)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ArgumentError(
            "draws need a generator",
            expected="a torch.Generator, or None",
            got=repr(generator),
            mend="torch.Generator().manual_seed(seed)",
        )
    if labels is not None and not isinstance(labels, Tensor):
        raise ArgumentError(
            "labels cannot be read",
            expected="a tensor (B,)",
            got=type(labels).__name__,
            mend="torch.as_tensor(labels)",
        )
    if labels is not None and labels.shape[:1] != (rows(inputs),):
        raise ShapeError("labels do not fit the inputs", expected=f"({rows(inputs)},)", got=tuple(labels.shape))


@torch.no_grad()
def _completeness_gap(problem: Problem, found: Explanation) -> Tensor:
    """sum(phi) - (f(x) - E f(x')); methods without references are measured against zero coordinates."""
    x = problem.view.coordinates.detach()
    references = found.references or Draw(1, lambda rows, samples: torch.zeros_like(x[rows]))
    own = problem.value_of(problem.own_outputs(), torch.arange(problem.batch, device=x.device))
    # copies, because a constant reference is one row seen many times, which no operation in place may write to
    base = problem.values(lambda rows, samples: references.gather(rows, samples).clone(), references.n).mean(1)
    return found.attributions.detach().flatten(1).sum(1) - (own - base)


def check_space(space: Any) -> Space:
    """Raise ``ArgumentError`` for something that cannot be opened."""
    if callable(getattr(space, "open", None)) and not isinstance(space, type):
        return space  # type: ignore[no-any-return]
    raise ArgumentError(
        "not a space",
        expected="one of rt.spaces, such as Input() or Layer('encoder')",
        got=repr(space) if not isinstance(space, type) else f"the class {space.__name__}",
    )


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
