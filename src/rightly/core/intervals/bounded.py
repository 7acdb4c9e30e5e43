"""The carrier: the lowest and the highest value of everything that a model computes, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from rightly.core.batch import outputs_of
from rightly.core.intercept import Carrier, Rule, Unsupported

#: (low, high), low <= high in every entry
Interval = tuple[Tensor, Tensor]
#: bounds of the slope at an operation's result -> those that it sends to each of its sources
Back = Callable[[Tensor, Tensor], tuple[Interval, ...]]


class Tape:
    """The operations of a pass in their order; slot n + 1 is the result of step n, slot 0 the box of inputs."""

    def __init__(self) -> None:
        self.steps: list[tuple[tuple[int, ...], Back]] = []
        self.recording = torch.is_grad_enabled()

    def add(self, interval: Interval, sources: tuple[int, ...], back: Back) -> Bounded:
        """Record an operation and its result."""
        # under torch.no_grad(), or in a Function with a derivative of its own
        hidden = torch.is_grad_enabled() != self.recording
        self.steps.append((sources, _hidden if hidden else back))
        return Bounded(*interval, self, len(self.steps))

    def back(self, output: Bounded, slope: Interval) -> Interval:
        """Send bounds of the slope at the output back to the inputs."""
        found: dict[int, Interval] = {output.slot: slope}
        for slot in range(output.slot, 0, -1):
            if slot not in found:
                continue
            sources, back = self.steps[slot - 1]
            low, high = found.pop(slot)
            for source, (below, above) in zip(sources, back(low, high), strict=True):
                known = found.get(source)
                found[source] = (below, above) if known is None else (known[0] + below, known[1] + above)
        if 0 not in found:
            raise Unsupported("the output does not depend on the inputs")
        return found[0]


class Bounded(Carrier):
    """A tensor of which only bounds are known.

    Attributes:
        low, high: its lowest and highest values, with their graph to the parameters.
    """

    rules: ClassVar[Mapping[str, Rule]] = {}

    def __init__(self, low: Tensor, high: Tensor, tape: Tape, slot: int) -> None:
        super().__init__(low)
        self.low, self.high, self.tape, self.slot = low, high, tape, slot

    @staticmethod
    def __new__(cls, low: Tensor, high: Tensor, tape: Tape, slot: int) -> Bounded:
        return Carrier.__new__(cls, low)  # type: ignore[return-value]

    def made(self, low: Tensor, high: Tensor, back: Back) -> Bounded:
        """The result of an operation on this one tensor."""
        return self.tape.add((low, high), (self.slot,), back)


def output_bounds(read: Callable[[Tensor], Any], low: Tensor, high: Tensor) -> Interval:
    """Bounds (B, ...) of the outputs for all inputs with low <= x <= high, each (B, *F).

    Args:
        read: the model; it is called once.

    Raises:
        Unsupported: an operation of the model has no rule; it is named.
    """
    output = _carried(read, low, high)
    return output.low, output.high


def gradient_bounds(
    read: Callable[[Tensor], Any], low: Tensor, high: Tensor, slope: Callable[[Tensor, Tensor], Interval]
) -> Interval:
    """Bounds (B, *F) of the input gradient of a number made of the outputs, over the same box.

    Args:
        slope: bounds of the outputs -> bounds of the number's slope with respect to each output.

    Raises:
        Unsupported: as above, or the slope of an operation has no rule.
    """
    output = _carried(read, low, high)
    return output.tape.back(output, slope(output.low, output.high))


def _carried(read: Callable[[Tensor], Any], low: Tensor, high: Tensor) -> Bounded:
    output = outputs_of(read(Bounded(low, high, Tape(), 0)))
    if not isinstance(output, Bounded):
        raise Unsupported("the output does not depend on the inputs")
    Bounded.check_fresh("the output", (output,), {})
    return output


def _hidden(low: Tensor, high: Tensor) -> tuple[Interval, ...]:
    raise Unsupported("a part of the model runs without gradients: torch.no_grad(), or a Function of its own")


def sum_to(slope: Tensor, like: Tensor) -> Tensor:
    """The adjoint of broadcasting to the slope's shape."""
    return slope if slope.shape == like.shape else torch.Tensor.sum_to_size(slope, like.shape)
