"""The engine itself: passes through the model, and one autograd node that knows their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rightly.core import autodiff
from rightly.core.frozen import kinks, rules  # noqa: F401 (they fill the table)
from rightly.core.frozen.table import RULES
from rightly.core.frozen.tape import Tape, Traced, Weighted
from rightly.core.intercept import Unsupported
from rightly.core.kernels.function import final
from rightly.core.types import Read

Found = list[Tensor | None]

Traced.rules = RULES


class FrozenMasks:
    """Input gradients with a graph, at the cost of the frozen-mask passes; see ``rightly.core.types.Engine``.

    Raises ``Unsupported`` for a model that is not piecewise linear, or not seen to be.
    """

    twice = False
    curved = False

    def __init__(self) -> None:
        self.start()

    def start(self, batch: Tensor | None = None) -> None:
        """Begin a step.

        Args:
            batch: of the task: where the points are the batch itself, its pass serves the task too; then take
                what ``finish`` gives.
        """
        self.batch = batch
        self.outputs: Tensor | None = None

    def finish(self) -> Tensor | None:
        """End the step: the model's outputs for the batch, with their graph, if they came along."""
        outputs, self.outputs, self.batch = self.outputs, None, None
        return outputs

    def gradient(self, read: Read, value_of: Read, points: Tensor) -> Tensor:
        """See ``rightly.core.types.Engine``."""
        if self.batch is not None and points is not self.batch:
            raise Unsupported("the gradients are not taken at the batch itself")
        work = Work(read, value_of, points)
        gradient, self.outputs = _Function.apply(work, self.batch is not None, *work.tape.tensors)  # type: ignore[no-untyped-call]
        return gradient  # type: ignore[no-any-return]


class Work:
    """One evaluation of the input gradients, and what their adjoint needs.

    Args:
        read: points (M, *F) -> outputs (M, ...).
        value_of: outputs -> the explained number (M,).
        points: (M, *F).
    """

    def __init__(self, read: Read, value_of: Read, points: Tensor) -> None:
        if torch.is_autocast_enabled(points.device.type):
            raise Unsupported("autocast changes the precision on the way")
        self.tape = Tape(points)
        self.output = output = self._pass(read)
        self.leaf = output.total.detach().requires_grad_()
        #: slope of the explained number with respect to the outputs, with a graph where that number bends
        self.slope = autodiff.gradient(value_of(self.leaf), self.leaf, create_graph=True)
        self.gradient, self.slopes = self.tape.slopes(output.total, self.slope.detach())

    def _pass(self, read: Read) -> Traced:
        try:
            output = read(self.tape.start())
        except Unsupported:
            raise
        except Exception as error:  # a call that our rules do not know; an error of the model itself will come again
            raise Unsupported(f"{type(error).__name__} on the way: {error}") from error
        if not isinstance(output, Traced) or output.tape is not self.tape:
            raise Unsupported("the model's outputs do not come from its inputs by operations that are seen")
        if self.tape.keeps(output):
            raise Unsupported("the model keeps what it computed")
        return output

    def give(self) -> Tensor:
        """The input gradients, and forget them: a node that keeps what it gave away is never freed."""
        gradient = self.gradient
        del self.gradient
        return gradient

    def adjoint(self, cotangent: Tensor | None, of_outputs: Tensor | None) -> Found:
        """Gradient of ``sum(cotangent * gradient) + sum(of_outputs * outputs)`` with respect to ``tape.tensors``."""
        sums = Sums(self.tape.tensors)
        if cotangent is not None:
            bend = self._tangents(cotangent, sums)
            of_outputs = bend if of_outputs is None else of_outputs if bend is None else of_outputs + bend
        if of_outputs is not None:
            self._primal(of_outputs, sums)
        return sums.close()

    def _tangents(self, cotangent: Tensor, sums: Sums) -> Tensor | None:
        """The frozen part; returns what the curvature of the explained number adds to the outputs' cotangent."""
        tangent, entering = self.tape.push(cotangent, self.output)
        for weighted, source, slope in zip(self.tape.weighted, entering, self.slopes, strict=False):
            if slope is not None:
                sums.weigh(weighted, slope, source)
        return autodiff.pull([self.slope], [self.leaf], tangent)[0] if self.slope.requires_grad else None

    def _primal(self, cotangent: Tensor, sums: Sums) -> None:
        """An ordinary backward pass over the tape, with what was cut off from its graph added."""
        tape = self.tape
        cut = [weighted for weighted in tape.weighted if weighted.cut]
        places = [*(weighted.output for weighted in cut), *tape.leaves.values()]
        found = autodiff.pull([self.output.total], places, cotangent)
        for weighted, slope in zip(cut, found, strict=False):
            if slope is not None:
                sums.weigh(weighted, slope, weighted.input.detach())
            if slope is not None and weighted.shift is not None:
                channel = weighted.channel % slope.ndim
                sums.add(weighted.shift, slope.sum([dim for dim in range(slope.ndim) if dim != channel]))
        for number, part in zip(tape.leaves, found[len(cut) :], strict=True):
            sums.add(number, part)


class Sums:
    """Gradients being added up; matrix products of one weight wait for each other and share their result's memory."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._found: Found = [None] * len(tensors)
        self._products: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def add(self, number: int, part: Tensor | None) -> None:
        """Add to a gradient."""
        before = self._found[number]
        if part is not None:
            self._found[number] = part if before is None else before + part

    def weigh(self, weighted: Weighted, cotangent: Tensor, source: Tensor) -> None:
        """Add a weight's gradient at a place where it acts."""
        if weighted.tensor is None:
            return
        if weighted.pull is not None:
            self.add(weighted.tensor, weighted.pull(cotangent, source))
            return
        pair = cotangent.reshape(-1, cotangent.shape[-1]), source.reshape(-1, source.shape[-1])
        self._products.setdefault(weighted.tensor, []).append(pair)

    def close(self) -> Found:
        """All of them."""
        for number, ((cotangent, source), *more) in self._products.items():
            product = torch.mm(cotangent.t(), source)
            for cotangent, source in more:
                product.addmm_(cotangent.t(), source)
            self.add(number, product)
        return self._found


class _Function(torch.autograd.Function):
    """Where the input gradients, and the outputs, enter the user's graph."""

    @staticmethod
    def forward(ctx: Any, work: Work, shared: bool, *tensors: Tensor) -> Any:
        ctx.work = work
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *work.tape.held)
        return work.give(), work.output.total.detach() if shared else None

    @staticmethod
    @final
    def backward(ctx: Any, cotangent: Tensor | None, of_outputs: Tensor | None) -> Any:
        _ = ctx.saved_tensors  # raises where a weight was changed in place since
        return None, None, *ctx.work.adjoint(cotangent, of_outputs)
