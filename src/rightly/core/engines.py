"""How input gradients are taken when they are to be trained through; every engine gives the same parameter gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from rightly.core import autodiff
from rightly.core.intercept import Unsupported
from rightly.core.kernels import cheap_second_derivatives
from rightly.core.kernels.function import final
from rightly.core.types import Engine, Read


class DoubleBackward:
    """Autograd through autograd: right for every model, about three plain steps for one sample an example.

    Args:
        kernels: put functions with a cheap second derivative under the model (see ``rightly.core.kernels``). What is
            made with them cannot be differentiated once more.
    """

    twice = True

    def __init__(self, *, kernels: bool = False) -> None:
        self.kernels = kernels
        self.curved = not kernels

    def gradient(self, read: Read, value_of: Read, points: Tensor) -> Tensor:
        """See ``Engine``."""
        if not points.requires_grad:
            points = points.detach().requires_grad_()
        with cheap_second_derivatives() if self.kernels else nullcontext():
            # a copy, because a model may begin with an operation in place, such as nn.ReLU(inplace=True)
            values = value_of(read(points.clone()))
        return autodiff.gradient(values, points, create_graph=True)


class FiniteDifferences:
    """The parameter gradient from a difference of first gradients, for smooth models whose second ones are slow.

    With v the penalty's gradient with respect to the input gradients, the parameters' gradient is that of
    sum_m s_m (f(z_m + e s_m v_m) - f(z_m)) / e. The signs s_m alternate, so that errors of second order cancel on
    average, and e v has ``step`` times the size of z. The backward pass that gives the input gradients gives the
    parameters' share of f(z_m) as well, so that 9 F is all it costs. The step is adapted: now and then three times and
    a third of it are tried as well, and it moves to where the differences agree best.

    Args:
        parameters: gives those of the model that want a gradient now.
        reading: opens the model for reading; differences are taken when the attribution has closed it.
        step: to begin with, relative to the points.

    Where the model has kinks a difference is useless at every step, since each unit that flips adds O(1 / e), and
    nothing here can notice: ``rightly.objectives.engines`` measures the error and refuses such models.
    """

    twice = False
    curved = False

    def __init__(
        self,
        parameters: Callable[[], Sequence[Tensor]],
        reading: Callable[[], AbstractContextManager[None]],
        step: float = 1e-3,
    ) -> None:
        self.parameters, self.reading, self.step = parameters, reading, step
        self.calls = 0

    def gradient(self, read: Read, value_of: Read, points: Tensor) -> Tensor:
        """See ``Engine``. Raises ``Unsupported`` for points that depend on parameters: their part would be missing."""
        if points.requires_grad:
            raise Unsupported("the points themselves depend on parameters")
        if torch.is_autocast_enabled(points.device.type):
            raise Unsupported("autocast rounds more than a difference leaves")
        pair = _Pair(self, read, value_of, points)
        return _Difference.apply(pair, *pair.parameters)  # type: ignore[no-any-return,no-untyped-call]


class _Pair:
    """Gradients at the points, and what is needed to take those of the parameters elsewhere."""

    def __init__(self, engine: FiniteDifferences, read: Read, value_of: Read, points: Tensor) -> None:
        self.engine, self.read, self.value_of = engine, read, value_of
        self.points = points.detach()
        self.parameters = list(engine.parameters())
        leaf = self.points.clone().requires_grad_()
        values = value_of(read(leaf.clone()))
        self.signs = 1.0 - 2.0 * (torch.arange(len(points), device=points.device) % 2).to(values)
        found, *self.here = autodiff.pull([values], [leaf, *self.parameters], self.signs, keep=False)
        if found is None:
            raise Unsupported("the output does not depend on the points")
        self.gradient = found * self._beside(found)

    def adjoint(self, cotangent: Tensor) -> list[Tensor | None]:
        """Gradient of ``sum(cotangent * gradient)`` with respect to the parameters."""
        engine = self.engine
        engine.calls += 1
        found = self._difference(cotangent, engine.step)
        if engine.calls % _ADAPT == 1:
            wide, narrow = (self._difference(cotangent, engine.step * factor) for factor in (3.0, 1 / 3))
            outer, inner = _distance(wide, found), _distance(found, narrow)
            engine.step = min(max(engine.step * (3.0 if outer < inner else 1 / 3), 1e-5), 1e-1)
        return found

    def _difference(self, cotangent: Tensor, step: float) -> list[Tensor | None]:
        length = float(cotangent.norm())
        if length == 0:
            return [None if here is None else torch.zeros_like(here) for here in self.here]
        size = float(self.points.norm()) or self.points.numel() ** 0.5
        step = step * size / length
        with self.engine.reading():
            values = self.value_of(self.read(self.points + step * self._beside(cotangent) * cotangent))
            there = autodiff.pull([values], self.parameters, self.signs, keep=False)
        pairs = zip(there, self.here, strict=True)
        return [None if a is None or b is None else (a - b).div_(step) for a, b in pairs]

    def _beside(self, points: Tensor) -> Tensor:
        """The signs (M,), to be multiplied with (M, *F)."""
        return self.signs.to(points).reshape(-1, *(1,) * (points.ndim - 1))


#: calls between two adaptations of the step
_ADAPT = 100


def _distance(left: Sequence[Tensor | None], right: Sequence[Tensor | None]) -> float:
    pairs = [(a, b) for a, b in zip(left, right, strict=True) if a is not None and b is not None]
    return float(sum(((a - b) ** 2).sum() for a, b in pairs))


class _Difference(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pair: _Pair, *parameters: Tensor) -> Tensor:
        ctx.pair = pair
        ctx.save_for_backward(*parameters)
        gradient = pair.gradient
        del pair.gradient  # a node that keeps what it gave away is never freed
        return gradient

    @staticmethod
    @final
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        _ = ctx.saved_tensors  # raises where a parameter was changed in place since
        return None, *ctx.pair.adjoint(cotangent)


class TwoPhase:
    """Any engine, a chunk of points at a time, at a memory that does not depend on their number.

    The first phase adds up what the chunks give, without a graph; the second, when the penalty's gradient is known,
    takes every chunk again, with its graph, and sends the gradient back. Costs one more forward and backward pass.

    Args:
        inner: what takes the gradients of a chunk.
        chunk_size: points a chunk.
        parameters: gives those of the model that want a gradient now.
        reading: opens the model for reading; the second phase runs when the attribution has closed it.
    """

    def __init__(
        self,
        inner: Engine,
        chunk_size: int,
        parameters: Callable[[], Sequence[Tensor]],
        reading: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.inner, self.chunk_size, self.parameters, self.reading = inner, chunk_size, parameters, reading
        self.twice, self.curved = inner.twice, inner.curved

    def gradient(self, read: Read, value_of: Read, points: Tensor) -> Tensor:
        """See ``Engine``; of one chunk."""
        return self.inner.gradient(read, value_of, points)

    def total(self, parts: Sequence[Callable[[bool], Tensor]]) -> Tensor:
        """Sum of what the chunks give: ``part(False)`` without a graph now, ``part(True)`` with it later."""
        total = parts[0](False)
        for part in parts[1:]:
            total = total + part(False)
        return _TwoPhase.apply(self, parts, total, *self.parameters())  # type: ignore[no-any-return,no-untyped-call]


class _TwoPhase(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, engine: TwoPhase, parts: Sequence[Callable[[bool], Tensor]], total: Tensor, *parameters: Tensor
    ) -> Tensor:
        ctx.engine, ctx.parts = engine, parts
        ctx.save_for_backward(*parameters)
        return total.clone()

    @staticmethod
    @final
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        parameters = ctx.saved_tensors  # raises where a parameter was changed in place since
        found: list[Tensor | None] = [None] * len(parameters)
        for part in ctx.parts:
            with ctx.engine.reading():
                gradients = autodiff.pull([part(True)], parameters, cotangent)
            for number, gradient in enumerate(gradients):
                before = found[number]
                if gradient is not None:
                    found[number] = gradient if before is None else before.add_(gradient)
        return None, None, None, *found
