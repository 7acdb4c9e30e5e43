"""One step of a recurrent cell on what it carries: the total, the relevant part, and what is neither part's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.attributions.decomposition.convention import Convention
from rightly.attributions.decomposition.split import Run, Split
from rightly.core.kernels.share import TINY


class Parts(NamedTuple):
    """Total, relevant part, and what is neither part's.

    Attributes:
        alone: what biases make alone, within a cell; where they are kept apart, what comes of the reference, always.
    """

    total: Tensor
    part: Tensor
    alone: Tensor | float = 0.0

    @classmethod
    def of(cls, value: Any, run: Run) -> Parts:
        """Of a split, or of a constant, which is shared like a bias: where nothing is recorded, nothing of zeros."""
        if isinstance(value, Split):
            return cls(value.total, value.relevant, value.start if run.apart else 0.0)
        if run.apart:
            return cls(value, run.nothing(value), value)
        nothing = not torch.is_grad_enabled() and not bool(value.any())
        return cls(value, torch.zeros_like(value) if nothing else run.alone(value))

    @classmethod
    def joined(cls, function: Callable[[Sequence[Any]], Tensor], several: Sequence[Parts]) -> Parts:
        """A linear function of several."""
        total, part, alone = zip(*several, strict=True)
        return cls(function(total), function(part), function(alone) if isinstance(alone[0], Tensor) else 0.0)

    def into(self, source: Split) -> Split:
        """As what an operation makes of ``source``."""
        return source.made(self.total, self.part, reference=self.alone if isinstance(self.alone, Tensor) else None)

    def map(self, function: Callable[[Tensor], Tensor]) -> Parts:
        """A linear function of all three."""
        alone = function(self.alone) if isinstance(self.alone, Tensor) else self.alone
        return Parts(function(self.total), function(self.part), alone)

    def plus(self, other: Parts, sign: int = 1) -> Parts:
        """The sum, or with -1 the difference."""
        if sign < 0:
            return Parts(self.total - other.total, self.part - other.part, self.alone - other.alone)
        return Parts(self.total + other.total, self.part + other.part, self.alone + other.alone)

    def chunk(self, count: int) -> list[Parts]:
        """So many along the last dimension."""
        alone: Any = self.alone.chunk(count, -1) if isinstance(self.alone, Tensor) else [self.alone] * count
        return list(map(Parts, self.total.chunk(count, -1), self.part.chunk(count, -1), alone))

    def owned(self, own: Tensor) -> Parts:
        """What is neither part's given to whom the step belongs to."""
        return Parts(self.total, self.part + own * self.alone)

    def apart(self, own: Tensor) -> Parts:
        """As it is."""
        return self


class Weights(NamedTuple):
    """Of one layer in one direction, for G gates: (G H, I), (G H, H), the biases (G H,), a projection (P, H)."""

    inputs: Tensor
    hidden: Tensor
    inputs_bias: Tensor | None = None
    hidden_bias: Tensor | None = None
    projection: Tensor | None = None

    @classmethod
    def of(cls, params: Any, has_biases: bool) -> Weights:
        """As torch lists them."""
        count = 4 if has_biases else 2
        first, second = params[2:4] if has_biases else (None, None)
        return cls(params[0], params[1], first, second, params[count] if len(params) > count else None)

    def biases(self, gates: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """For each gate, what is added to the inputs and to the hidden states."""
        nothing = self.hidden.new_zeros(len(self.hidden))
        both = (nothing if bias is None else bias for bias in (self.inputs_bias, self.hidden_bias))
        first, second = (bias.chunk(gates) for bias in both)
        return first, second


def owned(run: Run, series: Parts) -> Tensor:
    """(..., 1): how much of a step's input is the region's, 1 or 0 for spans. Whose biases a step's are."""
    part = series.part.abs().sum(-1, keepdim=True)
    rest = (series.total - series.part).abs().sum(-1, keepdim=True)
    start = run.place(series.total, (series.total.ndim - 1,))
    return (part + start * TINY) / (part + rest + TINY)


State = list[Parts]
#: (what a step made, own) -> who gets what is neither part's
Settled = Callable[[Parts, Tensor], Parts]


class Cell(NamedTuple):
    """A kind of cell with its weights.

    Attributes:
        project: inputs (..., I), of all steps at once -> what they add to the gates (..., G H).
        step: (that of one step, states (B, H), own=(B, 1)) -> new states, the hidden one first.
    """

    project: Callable[[Parts], Parts]
    step: Callable[..., State]


def cell(kind: str, convention: Convention, weights: Weights) -> Cell:
    """A kind of cell under a convention."""
    if kind == "lstm" and convention.gates == "first":
        return _lstm(weights)
    activation = torch.relu if kind == "rnn_relu" else torch.tanh
    step = {"lstm": _lstm_averaged, "gru": _gru}.get(kind, partial(_rnn, activation))
    settled = Parts.apart if convention.bias == "apart" else Parts.owned
    return Cell(
        lambda inputs: inputs.map(lambda x: F.linear(x, weights.inputs)),
        partial(step, weights=weights, settled=settled),
    )


def gate(function: Callable[[Tensor], Tensor], parts: Parts, bias: Tensor | float) -> Parts:
    """f(z + c) of a total z.

    The part gets the mean of what it adds to the bias alone and of what it adds to everything else.
    """
    before, nothing = parts.total + bias, parts.alone + bias
    value, alone = function(before), function(nothing)  # type: ignore[arg-type]
    # what has no parts comes first, and nothing still comes of nothing, to the last bit
    part = (function(parts.part + nothing) - function(before - parts.part) + (value - alone)) / 2
    return Parts(value, part, alone)


def product(left: Parts, right: Parts) -> Parts:
    """Shapley's average of the two parts of either factor; what biases make is always there.

    A gate that its bias alone holds open lets a part through whole: halved, it would be lost within a few steps.
    """
    part = (left.part * (right.total + right.alone) + (left.total + left.alone) * right.part) / 2
    return Parts(left.total * right.total, part, left.alone * right.alone)


def _gates(inputs: Parts, hidden: Parts, weights: Weights, count: int) -> list[Parts]:
    """Pre-activations without biases."""
    return inputs.plus(hidden.map(lambda x: F.linear(x, weights.hidden))).chunk(count)


def _squashed(value: Parts) -> Parts:
    if isinstance(value.alone, Tensor):
        return gate(torch.tanh, value, 0.0)
    total = torch.tanh(value.total)
    return Parts(total, (torch.tanh(value.part) + total - torch.tanh(value.total - value.part)) / 2)


def _biased(weights: Weights, count: int) -> list[Tensor]:
    return [first + second for first, second in zip(*weights.biases(count), strict=True)]


def _shown(cells: Parts, output: Parts, weights: Weights) -> State:
    """The states, the hidden one through its projection where there is one."""
    projection = weights.projection
    if projection is not None:
        output = output.map(lambda x: F.linear(x, projection))
    return [output, cells]


def _lstm(weights: Weights) -> Cell:
    """As published: what touches the other part is the other part's; the output gate is held.

    As in ``gate``, what has no parts comes first.
    """
    size = len(weights.hidden) // 4
    first, second = (bias for (bias,) in weights.biases(1))
    bias, both, gated = first + second, slice(0, 2 * size), slice(0, 3 * size)
    both_alone, g_alone = torch.sigmoid(bias[both]), torch.tanh(bias[2 * size : 3 * size])
    i_alone, f_alone = both_alone.chunk(2)
    # of the gate f, what the part makes of it and what the bias makes of it alone are needed together
    biases, others = i_alone * g_alone, torch.cat([-i_alone, f_alone])

    def step(inputs: Parts, state: State, own: Tensor) -> State:
        hidden, (c, c_part, _) = state
        before = inputs.total + F.linear(hidden.total, weights.hidden) + bias
        part = inputs.part + F.linear(hidden.part, weights.hidden[gated])  # of the output gate, nothing is decomposed
        with_bias, without = part + bias[gated], before[..., gated] - part
        values, last = torch.sigmoid(before[..., both]), slice(2 * size, 3 * size)
        g, o = torch.tanh(before[..., last]), torch.sigmoid(before[..., 3 * size :])
        parts = torch.sigmoid(with_bias[..., both]) - torch.sigmoid(without[..., both])
        i_part, f_both = torch.add((values + others) / 2, parts, alpha=0.5).chunk(2, -1)
        g_part = (torch.tanh(with_bias[..., last]) - torch.tanh(without[..., last]) + (g - g_alone)) / 2
        new = torch.addcmul(i_part * (g_part + g_alone), i_alone, g_part)
        c_part = torch.addcmul(torch.addcmul(new, f_both, c_part), own, biases)
        i, f = values.chunk(2, -1)
        cells = Parts(torch.addcmul(i * g, f, c), c_part)
        return _shown(cells, _squashed(cells).map(lambda x: o * x), weights)

    return Cell(lambda x: Parts(F.linear(x.total, weights.inputs), F.linear(x.part, weights.inputs[gated])), step)


def _lstm_averaged(inputs: Parts, state: State, weights: Weights, settled: Settled, own: Tensor) -> State:
    """Every gate decomposed, every product averaged."""
    hidden, cells = state
    biases = _biased(weights, 4)
    functions = (torch.sigmoid, torch.sigmoid, torch.tanh, torch.sigmoid)
    i, f, g, o = map(gate, functions, _gates(inputs, hidden, weights, 4), biases)
    cells = settled(product(f, cells).plus(product(i, g)), own)
    return _shown(cells, settled(product(o, _squashed(cells)), own), weights)


def _gru(inputs: Parts, state: State, weights: Weights, settled: Settled, own: Tensor) -> State:
    (hidden,) = state
    (xr, xz, xn), (hr, hz, hn) = inputs.chunk(3), hidden.map(lambda x: F.linear(x, weights.hidden)).chunk(3)
    (ir, iz, in_), (jr, jz, jn) = weights.biases(3)
    reset = gate(torch.sigmoid, xr.plus(hr), ir + jr)
    update = gate(torch.sigmoid, xz.plus(hz), iz + jz)
    again = product(reset, Parts(hn.total + jn, hn.part, hn.alone + jn))
    new = gate(torch.tanh, xn.plus(again), in_)
    return [settled(new.plus(product(update, hidden.plus(new, -1))), own)]


def _rnn(
    function: Callable[[Tensor], Tensor], inputs: Parts, state: State, weights: Weights, settled: Settled, own: Tensor
) -> State:
    (hidden,) = state
    (before,) = _gates(inputs, hidden, weights, 1)
    (bias,) = _biased(weights, 1)
    return [settled(gate(function, before, bias), own)]
