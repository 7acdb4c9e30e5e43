"""A whole step of an objective as one compiled graph: task loss, attributions, priors and all parameter gradients.

``torch.compile`` cannot differentiate twice through a module that it compiled. So the step is written down once, with
its inner and outer derivatives, as a graph of plain tensor operations, and that graph is compiled: nothing is left to
be differentiated. What changes from step to step (parameters, buffers, batch, draws, weights) goes in as tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rightly.core import autodiff, distributed
from rightly.core.errors import RightlyError
from rightly.core.kernels.function import Kernel, final
from rightly.core.traced import Untraceable, noting, traced
from rightly.objectives.engines import TOLERANCE, relative
from rightly.objectives.step import CompilationError, Passes, Step

#: kinds of step (shapes, acting terms, modes) that are compiled; any further one stays eager
_GRAPHS = 8
#: steps at which a graph is compared with the eager step; the second sees other parameters and other draws
_PROOFS = 2


class Compiled:
    """The graphs of an objective, one for each kind of step.

    A kind is taken eagerly when it comes for the first time (engines are chosen then, and weights settled), and
    compiled when it comes again. A copy, or one that was saved, compiles anew.

    Args:
        arguments: of ``torch.compile``.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        self.arguments = {"fullgraph": True, "dynamic": False, **arguments}
        self._graphs: dict[tuple[Any, ...], _Graph | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"arguments": self.arguments, "_graphs": {}}

    def __call__(self, step: Step) -> tuple[Tensor, Passes] | None:
        """The total, with its gradient, and the passes without; None where the step has to be taken eagerly.

        Raises:
            CompilationError: the step cannot be compiled, or the graph gives something else.
        """
        kind = step.kind()
        if kind not in self._graphs:
            if len(self._graphs) < _GRAPHS:
                self._graphs[kind] = None
            return None
        try:
            graph = self._graphs[kind]
            if graph is None:
                graph = self._graphs[kind] = _Graph(step, self.arguments)
            return graph(step)
        except RightlyError:
            raise  # the eager step, which is taken for the proof, says the same
        except Exception as reason:
            raise CompilationError(
                "this objective's step cannot be compiled",
                expected="one graph of tensor operations that gives the eager gradient",
                got=str(reason) if isinstance(reason, Untraceable) else _told(reason),
                mend="the objective is eager again, and works as before: leave out objective.compile()",
            ) from reason


def _told(reason: BaseException) -> str:
    """What an error says, and what the one says that led to it: a compiler's own goes on for pages."""
    first = reason
    while before := first.__cause__ or first.__context__:
        first = before
    said = dict.fromkeys(f"{type(e).__name__}: {' '.join(str(e).split())[:200]}" for e in (reason, first))
    return ", after ".join(said)


class _Graph:
    """One kind of step: written down, compiled, and proved at its first calls."""

    def __init__(self, step: Step, arguments: Mapping[str, Any]) -> None:
        _check(step)
        self.proofs = 0
        self.modes = any(module.training for module in step.objective.modules())
        states = step.states()
        with noting(step.generators) as noted:
            _eager(step)
        drawn = [draw(step.generators) for draw in noted.draws]
        numbers = step.numbers()
        with torch.enable_grad():
            graph, masks = traced(lambda: self._written(step, numbers), [*step.tensors(), numbers], drawn)
        step.restore(states)
        self.draws = [*noted.draws, *masks]
        self.compiled = torch.compile(graph, **arguments)

    def _written(self, step: Step, numbers: Tensor) -> list[Tensor]:
        """The step, tensors out; the order of the results is kept in ``names``, ``sizes`` and ``reached``."""
        with autodiff.own_buffers(step.objective) as own:
            found = step.passes()
            total = found.total(numbers.unbind())
            gradients = autodiff.parameter_gradient(total, step.wanted())
            # in training mode batch norm moves its statistics; in evaluation mode nothing should
            buffers = own() if self.modes else []
        self.names = list(found.penalties)
        self.reached = [gradient is not None for gradient in gradients]
        task = [] if found.task is None or found.outputs is None else [found.task, found.outputs]
        reached = [gradient for gradient in gradients if gradient is not None]
        self.sizes = [1, 1, len(found.penalties), len(task), len(buffers), len(reached)]
        return [total, *found.penalties.values(), *task, *buffers, *reached]

    def __call__(self, step: Step) -> tuple[Tensor, Passes] | None:
        """See ``Compiled``."""
        states = step.states()
        expected = _eager(step) if self.proofs < _PROOFS else None
        drawn = [draw(step.generators) for draw in self.draws]
        results = iter(self._run(step, drawn, states))
        (same,), (total,), penalties, task, buffers, gradients = ([next(results) for _ in range(n)] for n in self.sizes)
        if not bool(same):
            # a question that the step asks has another answer now, and so the step may take another way
            step.restore(states)
            return None
        with torch.no_grad():
            for buffer, value in zip(step.objective.buffers(), buffers, strict=self.modes):
                buffer.copy_(value)
        found = iter(gradients)
        every = [next(found) if reached else None for reached in self.reached]
        if expected is not None:
            _prove([total, *step.objective.buffers()], every, *expected)
            self.proofs += 1
        loss, outputs = task or (None, None)
        passes = Passes(outputs, loss, dict(zip(self.names, penalties, strict=True)))
        return _Total.one(total, every, *step.wanted()), passes

    def _run(self, step: Step, drawn: Sequence[Tensor], states: Sequence[Tensor]) -> Sequence[Tensor]:
        given = [*step.tensors(), step.numbers(), *drawn]
        try:
            with torch.no_grad():
                results: Sequence[Tensor] = self.compiled(*[part.detach() for part in given])
        except Exception:
            step.restore(states)
            _eager(step)  # which knows better what is wrong, if it is the batch
            raise
        return results


class _Total(Kernel):
    """A number whose gradient is known."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, gradients: Sequence[Tensor | None], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return total.clone()

    @staticmethod
    @final
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        return None, None, *(None if gradient is None else cotangent * gradient for gradient in ctx.gradients)


def _check(step: Step) -> None:
    """Raise ``Untraceable`` for what is known beforehand."""
    if distributed.world_size() > 1:
        raise Untraceable("several processes sum inside the step")
    types = {parameter.dtype for parameter in step.wanted()}
    if torch.is_autocast_enabled(step.labels.device.type) or not types <= set(TOLERANCE):
        raise Untraceable("half precision, in which rounding hides whether the graph is right")


def _eager(step: Step) -> tuple[list[Tensor], list[Tensor | None]]:
    """Total, buffers and gradients as the eager step has them; buffers and generators are put back."""
    states = step.states()
    with torch.enable_grad(), autodiff.keeping_buffers(step.objective):
        total = step.passes().total(step.numbers().unbind())
        gradients = autodiff.parameter_gradient(total, step.wanted())
        moved = [buffer.clone() for buffer in step.objective.buffers()]
    step.restore(states)
    return [total.detach(), *moved], gradients


def _prove(
    values: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    eager_values: Sequence[Tensor],
    eager_gradients: Sequence[Tensor | None],
) -> None:
    """Raise ``Untraceable`` where the graph gives something else than the eager step."""
    if [g is None for g in gradients] != [g is None for g in eager_gradients]:
        raise Untraceable("the graph reaches other parameters than the eager step")
    tolerance = max(TOLERANCE[e.dtype] for e in eager_gradients if e is not None)
    error = relative(gradients, eager_gradients)
    if error > tolerance:
        raise Untraceable(f"the graph's gradient differs from the eager one by {error:.1e} (at most {tolerance:.0e})")
    for value, eager in zip(values, eager_values, strict=True):
        if not torch.allclose(value, eager, rtol=tolerance, atol=tolerance):
            raise Untraceable("the graph's total, or the buffers it leaves, differ from those of the eager step")
