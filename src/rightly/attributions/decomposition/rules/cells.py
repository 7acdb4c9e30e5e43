"""One step of a recurrent cell on (total, relevant part)."""

from __future__ import annotations

from collections.abc import Callable
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
        """Of a split, or of a constant, which is shared like a bias."""
        return cls(value.total, value.relevant) if isinstance(value, Split) else cls(value, run.alone(value))

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
#: (projected inputs (B, G H), states (B, H), weights, own (B, 1)) -> new states, the hidden one first
Step = Callable[[Pair, State, Weights, Tensor], State]


def cell(kind: str, convention: Convention) -> Step:
    """The step of a kind of cell."""
    if kind == "lstm":
        return _lstm if convention.gates == "first" else _lstm_averaged
    if kind == "gru":
        return _gru
    return lambda *args: _rnn(torch.tanh if kind == "rnn_tanh" else torch.relu, *args)


def gate(function: Callable[[Tensor], Tensor], pair: Pair, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """f(z + c) of a total z: its value, what the part makes of it, and what the bias makes of it alone.

    The part gets the mean of what it adds to the bias alone and of what it adds to everything else.
    """
    before = pair.total + bias
    value, alone = function(before), function(bias)
    # what has no parts comes first, and nothing still comes of nothing, to the last bit
    part = (function(pair.part + bias) - function(before - pair.part) + (value - alone)) / 2
    return value, part, alone


def product(left: Pair, right: Pair) -> Pair:
    """Each factor's part with the other's total, halved."""
    return Pair(left.total * right.total, (left.part * right.total + left.total * right.part) / 2)


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


def _lstm(inputs: Pair, state: State, weights: Weights, own: Tensor) -> State:
    """As published: what touches the other part is the other part's; the output gate is held."""
    hidden, cells = state
    size = len(weights.hidden) // 4
    biases = torch.cat(_biased(weights, 4))
    total = inputs.total + F.linear(hidden.total, weights.hidden)
    part = inputs.part[..., : 3 * size] + F.linear(hidden.part, weights.hidden[: 3 * size])  # none of the output gate
    both, last = slice(0, 2 * size), slice(2 * size, 3 * size)
    (i, f), (i_part, f_part), (i_alone, f_alone) = (
        x.chunk(2, -1) for x in gate(torch.sigmoid, Pair(total[..., both], part[..., both]), biases[both])
    )
    g, g_part, g_alone = gate(torch.tanh, Pair(total[..., last], part[..., last]), biases[last])
    kept = (f_part + f_alone) * cells.part
    new = torch.addcmul(i_alone * g_part, i_part, g_part + g_alone)
    cells = Pair(f * cells.total + i * g, torch.addcmul(kept + new, own, i_alone * g_alone))
    opened = torch.sigmoid(total[..., 3 * size :] + biases[3 * size :])
    return _shown(cells, _squashed(cells).map(lambda x: opened * x), weights)


def _lstm_averaged(inputs: Pair, state: State, weights: Weights, own: Tensor) -> State:
    """Every gate decomposed, every product averaged."""
    hidden, cells = state
    biases = _biased(weights, 4)
    functions = (torch.sigmoid, torch.sigmoid, torch.tanh, torch.sigmoid)
    i, f, g, o = (
        _owning(function, pair, bias, own)
        for function, pair, bias in zip(functions, _gates(inputs, hidden, weights, 4), biases, strict=True)
    )
    kept, new = product(f, cells), product(i, g)
    cells = Pair(kept.total + new.total, kept.part + new.part)
    return _shown(cells, product(o, _squashed(cells)), weights)


def _owning(function: Callable[[Tensor], Tensor], pair: Pair, bias: Tensor, own: Tensor) -> Pair:
    """A gate whose bias belongs to whom the step belongs to."""
    value, part, alone = gate(function, pair, bias)
    return Pair(value, part + own * alone)


def _gru(inputs: Pair, state: State, weights: Weights, own: Tensor) -> State:
    (hidden,) = state
    turned = hidden.map(lambda x: F.linear(x, weights.hidden))
    (xr, xz, xn), (hr, hz, hn) = (
        [Pair(*each) for each in zip(pair.total.chunk(3, -1), pair.part.chunk(3, -1), strict=True)]
        for pair in (inputs, turned)
    )
    (ir, iz, in_), (jr, jz, jn) = weights.biases(3)
    reset = _owning(torch.sigmoid, Pair(xr.total + hr.total, xr.part + hr.part), ir + jr, own)
    update = _owning(torch.sigmoid, Pair(xz.total + hz.total, xz.part + hz.part), iz + jz, own)
    again = product(reset, Pair(hn.total + jn, hn.part + own * jn))
    new = _owning(torch.tanh, Pair(xn.total + again.total, xn.part + again.part), in_, own)
    kept = product(update, Pair(hidden.total - new.total, hidden.part - new.part))
    return [Pair(new.total + kept.total, new.part + kept.part)]


def _rnn(function: Callable[[Tensor], Tensor], inputs: Pair, state: State, weights: Weights, own: Tensor) -> State:
    (hidden,) = state
    (before,) = _gates(inputs, hidden, weights, 1)
    (bias,) = _biased(weights, 1)
    return [_owning(function, before, bias, own)]
