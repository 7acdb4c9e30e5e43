"""What a pass through the model leaves behind: how to send a tangent the same way, and where weights act."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from rightly.core import autodiff
from rightly.core.intercept import Carrier, Rule, Unsupported

#: (cotangent of the output, input) -> gradient of the weight
Pull = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Weighted:
    """A place where a trainable tensor multiplies what is carried.

    Attributes:
        tensor: its number among the tape's tensors; None where the weight itself is not trained.
        output: the product, with its graph.
        input: what was multiplied.
        pull: the weight's gradient there; None for a plain matrix product, several of which can be one.
        cut: whether the graph of ``output`` was cut off from the weight and from what was added.
        shift: the number of what was added, a vector over the output's dimension ``channel``.
        channel: see ``shift``.
    """

    tensor: int | None
    output: Tensor
    input: Tensor
    pull: Pull | None
    cut: bool = False
    shift: int | None = None
    channel: int = -1


@dataclass(frozen=True)
class Step:
    """One operation: the slots it reads, what it does to tangents, and the weight in it."""

    sources: tuple[int, ...]
    run: Callable[..., Tensor]
    weighted: Weighted | None


class Traced(Carrier):
    """A value on the tape; slot n + 1 is the result of step n, slot 0 the points."""

    rules: ClassVar[Mapping[str, Rule]] = {}

    def __init__(self, total: Tensor, tape: Tape, slot: int) -> None:
        super().__init__(total)
        self.tape, self.slot = tape, slot
        tape.alive.append(weakref.ref(self))

    @staticmethod
    def __new__(cls, total: Tensor, tape: Tape, slot: int) -> Traced:
        return Carrier.__new__(cls, total)  # type: ignore[return-value]

    @classmethod
    def read(
        cls, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """As they were given: a call in another spelling is left to double backward."""
        return args, kwargs


class Tape:
    """A pass through the model from ``points`` (M, *F), recorded with an ordinary graph for its adjoints."""

    def __init__(self, points: Tensor) -> None:
        self.points = points.detach().requires_grad_()
        #: everything that the outputs depend on and that wants a gradient, each once; the points come first
        self.tensors: list[Tensor] = [points]
        #: what stands on the tape for those that its graph reaches, by number: one of them may be a part of another
        self.leaves: dict[int, Tensor] = {0: self.points} if points.requires_grad else {}
        #: constants that the tangents will meet again: changing them in place before that is an error
        self.held: list[Tensor] = []
        #: every carrier of the pass
        self.alive: list[weakref.ref[Traced]] = []
        self.steps: list[Step] = []
        self.weighted: list[Weighted] = []
        self._numbers: dict[int, int] = {id(points): 0}
        self._last: list[int] = [0]

    def start(self) -> Traced:
        """The points, to be given to the model."""
        return Traced(self.points, self, 0)

    def add(
        self, total: Tensor, sources: tuple[int, ...], run: Callable[..., Tensor], weighted: Weighted | None = None
    ) -> Traced:
        """Record an operation and its result."""
        if not torch.is_grad_enabled():
            raise Unsupported("a part of the model runs without gradients: torch.no_grad(), or a Function of its own")
        self.steps.append(Step(sources, run, weighted))
        if weighted is not None:
            self.weighted.append(weighted)
        for source in sources:
            self._last[source] = len(self.steps)
        self._last.append(len(self.steps))
        return Traced(total, self, len(self.steps))

    def keeps(self, output: Traced) -> bool:
        """Whether any carrier but the output outlived the pass: somebody stored it."""
        return any(found is not None and found is not output for found in (carrier() for carrier in self.alive))

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor that wants a gradient."""
        found = self._numbers.setdefault(id(tensor), len(self.tensors))
        if found == len(self.tensors):
            self.tensors.append(tensor)
        return found

    def leaf(self, tensor: Tensor) -> Tensor:
        """What stands on the tape for a tensor that wants a gradient."""
        number = self.number(tensor)
        if number not in self.leaves:
            self.leaves[number] = tensor.detach().requires_grad_()
        return self.leaves[number]

    def slopes(self, output: Tensor, cotangent: Tensor) -> tuple[Tensor, list[Tensor | None]]:
        """The adjoint of the pass: at the points, and at the output of every weighted operation."""
        outputs = [w.output for w in self.weighted]
        at_points, *at_outputs = autodiff.pull([output], [self.points, *outputs], cotangent)
        if at_points is None:
            raise Unsupported("the output does not depend on the points")
        return at_points, at_outputs

    @torch.no_grad()
    def push(self, tangent: Tensor, output: Traced) -> tuple[Tensor, list[Tensor]]:
        """Send a tangent of the points the way the points went.

        Returns:
            The tangent of the output, and the tangent that enters every weighted operation, in their order.
        """
        slots: list[Any] = [tangent]
        entering = []
        for number, step in enumerate(self.steps[: output.slot], 1):
            parts = [slots[source] for source in step.sources]
            if step.weighted is not None:
                entering.append(parts[0])
            slots.append(step.run(*parts))
            for source in step.sources:
                if self._last[source] == number:
                    slots[source] = None  # no longer needed: large k lives on this
        return slots[output.slot], entering
