"""LSTM, GRU and RNN: their cells step by step, each gate in three parts: relevant, irrelevant, and its bias."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rightly.attributions.decomposition.convention import Convention
from rightly.attributions.decomposition.rules.cells import Pair, Weights, cell, owned
from rightly.attributions.decomposition.split import Split, dropout_mask, first
from rightly.attributions.decomposition.table import MURDOCH, OURS, Args, Kwargs, rule
from rightly.core import autodiff

_LSTM = "c_b = (f_b + f(c)) c_b + i_b (g_b + g(c)) + i(c) g_b + own i(c) g(c); h_b = o(t) tanh_b(c)"


@rule("lstm", formula=_LSTM, source=MURDOCH)
@rule("gru", formula="r_b, z_b, n_b in three parts; products 1/2 (b t + t b)", source=OURS)
@rule("rnn_tanh", "rnn_relu", formula="1/2 (f(b + c) - f(c) + f(t) - f(t - b)) + own f(c)", source=MURDOCH)
def _recurrent(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Layers upon layers; a packed sequence has the sizes of its batches for a second argument."""
    kind = func.__name__
    if isinstance(args[1], Tensor) and not args[1].is_floating_point() and not isinstance(args[1], Split):
        return _packed(kind, *args, **kwargs)
    return _padded(kind, *args, **kwargs)


def _padded(
    kind: str,
    inputs: Any,
    states: Any,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    source = first((inputs, states), {})
    pair = Pair.of(inputs, source.run)
    series = pair.map(lambda x: x.transpose(0, 1)) if batch_first else pair
    settings = (params, has_biases, num_layers, dropout if train else 0.0, bidirectional)
    series, ends = _stacked(kind, source, series, states, None, *settings)
    if batch_first:
        series = series.map(lambda x: x.transpose(0, 1))
    return (source.made(*series), *(source.made(*end) for end in ends))


def _packed(
    kind: str,
    data: Any,
    batch_sizes: Tensor,
    states: Any,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> Any:
    """Spread out to (T, B, ...), with the steps that are not there left out, and packed again."""
    source = first((data, states), {})
    pair = Pair.of(data, source.run)
    steps, batch = len(batch_sizes), int(batch_sizes[0])
    there = torch.arange(batch)[None] < batch_sizes[:, None]
    there = there.to(pair.total.device)
    places = torch.zeros(steps, batch, dtype=torch.long, device=there.device)
    places[there] = torch.arange(len(pair.total), device=there.device)
    back = there.flatten().nonzero()[:, 0]
    series = pair.map(lambda x: x.index_select(0, places.flatten()).unflatten(0, (steps, batch)))
    settings = (params, has_biases, num_layers, dropout if train else 0.0, bidirectional)
    series, ends = _stacked(kind, source, series, states, there, *settings)
    series = series.map(lambda x: x.flatten(0, 1).index_select(0, back))
    return (source.made(*series), *(source.made(*end) for end in ends))


def _stacked(
    kind: str,
    source: Split,
    series: Pair,
    states: Any,
    there: Tensor | None,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    bidirectional: bool,
) -> tuple[Pair, list[Pair]]:
    """All layers over (T, B, I)."""
    starts = [Pair.of(state, source.run) for state in (states if kind == "lstm" else [states])]
    directions = 2 if bidirectional else 1
    each = len(params) // (num_layers * directions)
    last: list[list[Pair]] = []
    for layer in range(num_layers):
        own = owned(source.run, series)
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            weights = Weights.of(params[each * number : each * (number + 1)], has_biases)
            begin = [Pair(start.total[number], start.part[number]) for start in starts]
            hidden, end = _one(kind, source, series, own, begin, weights, there, bool(direction))
            outputs.append(hidden)
            last.append(end)
        series = Pair(*(torch.cat(parts, -1) for parts in zip(*outputs, strict=True)))
        if dropout > 0 and layer < num_layers - 1:
            mask = dropout_mask(torch.nn.functional.dropout, series.total, dropout)
            series = Pair(series.total * mask, series.part * mask)
    ends = [Pair(*(torch.stack(parts) for parts in zip(*kind, strict=True))) for kind in zip(*last, strict=True)]
    return series, ends


def _one(
    kind: str,
    source: Split,
    series: Pair,
    own: Tensor,
    state: list[Pair],
    weights: Weights,
    there: Tensor | None,
    reverse: bool,
) -> tuple[Pair, list[Pair]]:
    """One layer in one direction; where nothing is recorded, its many small steps on tensors as they lie in memory."""
    laid = autodiff.laid_out(*series, own, *(each for pair in state for each in pair))
    if laid is None or len(laid[0][0]) != 1:
        return _steps(kind, source.run.convention, series, own, state, weights, there, reverse)
    tensors, one_of = laid
    with autodiff.outside_blocks():
        total, part, own = (each.transpose(0, 1) for each in tensors[:3])  # (T, R or 1, B, ...)
        begin = [Pair(*pair) for pair in zip(tensors[3::2], tensors[4::2], strict=True)]
        hidden, ends = _steps(kind, source.run.convention, Pair(total, part), own, begin, weights, there, reverse)
        made = [Pair(hidden.total[:, 0], hidden.part.transpose(0, 1)), *(Pair(end.total[0], end.part) for end in ends)]
    series, *ends = (Pair(pair.total, one_of(pair.part)) for pair in made)
    return series, ends


def _steps(
    kind: str,
    convention: Convention,
    series: Pair,
    own: Tensor,
    state: list[Pair],
    weights: Weights,
    there: Tensor | None,
    reverse: bool,
) -> tuple[Pair, list[Pair]]:
    """Step by step along the first dimension."""
    projected = series.map(lambda x: torch.nn.functional.linear(x, weights.inputs))
    length = len(projected.total)
    step = cell(kind, convention)
    if convention.span_end == "exclusive":  # the last step of a span has none of its biases
        none = torch.zeros_like(own[:1])
        own = own * torch.cat([none, own[:-1]] if reverse else [own[1:], none])
    totals, parts = projected.total.unbind(0), projected.part.unbind(0)
    hidden: list[Pair] = []
    for time in range(length)[:: -1 if reverse else 1]:
        new = step(Pair(totals[time], parts[time]), state, weights, own[time])
        if there is not None and not bool(there[time].all()):
            here = there[time].unsqueeze(-1)
            new = [
                Pair(torch.where(here, a.total, b.total), torch.where(here, a.part, b.part))
                for a, b in zip(new, state, strict=True)
            ]
        state = new
        hidden.append(state[0])
    if reverse:
        hidden.reverse()
    return Pair(*(torch.stack(parts) for parts in zip(*hidden, strict=True))), state


@rule("lstm_cell", formula=_LSTM, source=MURDOCH)
@rule("gru_cell", "rnn_tanh_cell", "rnn_relu_cell", formula="as in the layers", source=OURS)
def _cell(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    inputs, states, *params = args
    kind = func.__name__.removesuffix("_cell")
    source = first((inputs, states), {})
    weights = Weights(*params)
    state = [Pair.of(each, source.run) for each in (states if kind == "lstm" else [states])]
    pair = Pair.of(inputs, source.run)
    projected = pair.map(lambda x: torch.nn.functional.linear(x, weights.inputs))
    new = cell(kind, source.run.convention)(projected, state, weights, owned(source.run, pair))
    made = tuple(source.made(*each) for each in new)
    return made if kind == "lstm" else made[0]


@rule("_pack_padded_sequence", formula="the same order", source=MURDOCH)
def _pack(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, lengths, batch_first = args
    data, sizes = func(source.total, lengths, batch_first)
    rows = source.total.shape[:2]
    index, _ = func(torch.arange(rows.numel(), dtype=torch.float64).reshape(*rows, 1), lengths, batch_first)
    places = index[:, 0].long().to(data.device)
    return source.made(data, source.relevant.flatten(0, 1).index_select(0, places)), sizes


@rule("_pad_packed_sequence", formula="the same order; the padding is shared like a bias", source=MURDOCH)
def _unpack(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, sizes, batch_first, value, *rest = args
    total, lengths = func(source.total, sizes, batch_first, value, *rest)
    numbers = torch.arange(1, len(source.total) + 1, dtype=torch.float64)[:, None]
    places = func(numbers, sizes, batch_first, 0.0, *rest)[0][..., 0].long().to(total.device)
    nothing = torch.zeros_like(source.total[:1]) + torch.zeros_like(source.relevant[:1])
    part = torch.cat([nothing, source.relevant]).index_select(0, places.flatten()).reshape(total.shape)
    if value:
        shift = torch.where(places.unsqueeze(-1) == 0, value, 0.0).to(total).expand_as(total)
        part = source.run.share(part, total, shift, (-1,))
    return source.made(total, part), lengths
