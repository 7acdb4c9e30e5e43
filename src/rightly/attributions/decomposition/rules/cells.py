"""One step of a recurrent cell on (total, relevant part)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.attributions.decomposition.convention import Convention
from rightly.attributions.decomposition.split import Run, Split
from rightly.core.kernels.share import TINY


class Pair(NamedTuple):
    """Total and relevant part."""

    total: Tensor
    part: Tensor

    @classmethod
    def of(cls, value: Any, run: Run) -> Pair:
        """Of a split, or of a constant, which is shared like a bias: where nothing is recorded, nothing of zeros."""
        if isinstance(value, Split):
            return cls(value.total, value.relevant)
        nothing = not torch.is_grad_enabled() and not bool(value.any())
        return cls(value, torch.zeros_like(value) if nothing else run.alone(value))

    def map(self, function: Callable[[Tensor], Tensor]) -> Pair:
        """A linear function of both."""
        return Pair(function(self.total), function(self.part))


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


def owned(run: Run, series: Pair) -> Tensor:
    """(..., 1): how much of a step's input is the region's, 1 or 0 for spans. Whose biases a step's are."""
    part = series.part.abs().sum(-1, keepdim=True)
    rest = (series.total - series.part).abs().sum(-1, keepdim=True)
    start = run.place(series.total, (series.total.ndim - 1,))
    return (part + start * TINY) / (part + rest + TINY)


State = list[Pair]


class Cell(NamedTuple):
    """A kind of cell with its weights.

    Attributes:
        project: inputs (..., I), of all steps at once -> what they add to the gates (..., G H).
        step: (that of one step, states (B, H), own=(B, 1)) -> new states, the hidden one first.
    """

    project: Callable[[Pair], Pair]
    step: Callable[..., State]


def cell(kind: str, convention: Convention, weights: Weights) -> Cell:
    """A kind of cell under a convention."""
    if kind == "lstm" and convention.gates == "first":
        return _lstm(weights)
    activation = torch.relu if kind == "rnn_relu" else torch.tanh
    step = {"lstm": _lstm_averaged, "gru": _gru}.get(kind, partial(_rnn, activation))
    return Cell(lambda inputs: inputs.map(lambda x: F.linear(x, weights.inputs)), partial(step, weights=weights))


class Three(NamedTuple):
    """Total, relevant part, and what biases make of it alone, which is neither part's."""

    total: Tensor
    part: Tensor
    alone: Tensor | float = 0.0

    def owned(self, own: Tensor) -> Pair:
        """The biases' own given to whom the step belongs to."""
        return Pair(self.total, self.part + own * self.alone)


def gate(function: Callable[[Tensor], Tensor], pair: Pair, bias: Tensor) -> Three:
    """f(z + c) of a total z.

    The part gets the mean of what it adds to the bias alone and of what it adds to everything else.
    """
    before = pair.total + bias
    value, alone = function(before), function(bias)
    # what has no parts comes first, and nothing still comes of nothing, to the last bit
    part = (function(pair.part + bias) - function(before - pair.part) + (value - alone)) / 2
    return Three(value, part, alone)


def product(left: Three, right: Three | Pair) -> Three:
    """Shapley's average of the two parts of either factor; what biases make is always there.

    A gate that its bias alone holds open lets a part through whole: halved, it would be lost within a few steps.
    """
    alone = right.alone if isinstance(right, Three) else 0.0
    part = (left.part * (right.total + alone) + (left.total + left.alone) * right.part) / 2
    return Three(left.total * right.total, part, left.alone * alone)


def _gates(inputs: Pair, hidden: Pair, weights: Weights, count: int) -> list[Pair]:
    """Pre-activations without biases."""
    total = (inputs.total + F.linear(hidden.total, weights.hidden)).chunk(count, -1)
    part = (inputs.part + F.linear(hidden.part, weights.hidden)).chunk(count, -1)
    return [Pair(*each) for each in zip(total, part, strict=True)]


def _squashed(value: Pair) -> Pair:
    total = torch.tanh(value.total)
    return Pair(total, (torch.tanh(value.part) + total - torch.tanh(value.total - value.part)) / 2)


def _biased(weights: Weights, count: int) -> list[Tensor]:
    return [first + second for first, second in zip(*weights.biases(count), strict=True)]


def _shown(cells: Pair, output: Pair, weights: Weights) -> State:
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

    def step(inputs: Pair, state: State, own: Tensor) -> State:
        hidden, (c, c_part) = state
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
        cells = Pair(torch.addcmul(i * g, f, c), c_part)
        return _shown(cells, _squashed(cells).map(lambda x: o * x), weights)

    return Cell(lambda x: Pair(F.linear(x.total, weights.inputs), F.linear(x.part, weights.inputs[gated])), step)


def _lstm_averaged(inputs: Pair, state: State, weights: Weights, own: Tensor) -> State:
    """Every gate decomposed, every product averaged."""
    hidden, cells = state
    biases = _biased(weights, 4)
    functions = (torch.sigmoid, torch.sigmoid, torch.tanh, torch.sigmoid)
    i, f, g, o = map(gate, functions, _gates(inputs, hidden, weights, 4), biases)
    kept, new = product(f, cells), product(i, g).owned(own)
    cells = Pair(kept.total + new.total, kept.part + new.part)
    return _shown(cells, product(o, _squashed(cells)).owned(own), weights)


def _gru(inputs: Pair, state: State, weights: Weights, own: Tensor) -> State:
    (hidden,) = state
    turned = hidden.map(lambda x: F.linear(x, weights.hidden))
    (xr, xz, xn), (hr, hz, hn) = (
        [Pair(*each) for each in zip(pair.total.chunk(3, -1), pair.part.chunk(3, -1), strict=True)]
        for pair in (inputs, turned)
    )
    (ir, iz, in_), (jr, jz, jn) = weights.biases(3)
    reset = gate(torch.sigmoid, Pair(xr.total + hr.total, xr.part + hr.part), ir + jr)
    update = gate(torch.sigmoid, Pair(xz.total + hz.total, xz.part + hz.part), iz + jz)
    again = product(reset, Three(hn.total + jn, hn.part, jn))
    new = gate(torch.tanh, Pair(xn.total + again.total - again.alone, xn.part + again.part), in_ + again.alone)
    kept = product(update, Three(hidden.total - new.total, hidden.part - new.part, -new.alone)).owned(own)
    made = new.owned(own)
    return [Pair(made.total + kept.total, made.part + kept.part)]


def _rnn(function: Callable[[Tensor], Tensor], inputs: Pair, state: State, weights: Weights, own: Tensor) -> State:
    (hidden,) = state
    (before,) = _gates(inputs, hidden, weights, 1)
    (bias,) = _biased(weights, 1)
    return [gate(function, before, bias).owned(own)]
