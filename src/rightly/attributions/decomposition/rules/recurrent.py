"""LSTM, GRU and RNN: their cells step by step, each gate in three parts: relevant, irrelevant, and its bias."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.attributions.decomposition.rules.cells import Cell, Parts, State, Weights, cell, owned
from rightly.attributions.decomposition.rules.prefixes import Fork, alike, forks
from rightly.attributions.decomposition.split import Split, dropout_mask, first
from rightly.attributions.decomposition.table import MURDOCH, OURS, Args, Kwargs, rule
from rightly.core import autodiff

_LSTM = "c_b = (f_b + f(c)) c_b + i_b (g_b + g(c)) + i(c) g_b + own i(c) g(c); h_b = o(t) tanh_b(c)"


@rule("lstm", formula=_LSTM, source=MURDOCH, apart=True)
@rule("gru", formula="r_b, z_b, n_b in three parts, as of an LSTM with gates averaged", source=OURS, apart=True)
@rule("rnn_tanh", "rnn_relu", formula="1/2 (f(b + c) - f(c) + f(t) - f(t - b)) + own f(c)", source=MURDOCH, apart=True)
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
    parts = Parts.of(inputs, source.run)
    series = parts.map(lambda x: x.transpose(0, 1)) if batch_first else parts
    settings = (params, has_biases, num_layers, dropout if train else 0.0, bidirectional)
    series, ends = _stacked(kind, source, series, states, None, *settings)
    if batch_first:
        series = series.map(lambda x: x.transpose(0, 1))
    return tuple(each.into(source) for each in (series, *ends))


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
    parts = Parts.of(data, source.run)
    steps, batch = len(batch_sizes), int(batch_sizes[0])
    there = torch.arange(batch)[None] < batch_sizes[:, None]
    there = there.to(parts.total.device)
    places = torch.zeros(steps, batch, dtype=torch.long, device=there.device)
    places[there] = torch.arange(len(parts.total), device=there.device)
    back = there.flatten().nonzero()[:, 0]
    series = parts.map(lambda x: x.index_select(0, places.flatten()).unflatten(0, (steps, batch)))
    settings = (params, has_biases, num_layers, dropout if train else 0.0, bidirectional)
    series, ends = _stacked(kind, source, series, states, there, *settings)
    series = series.map(lambda x: x.flatten(0, 1).index_select(0, back))
    return tuple(each.into(source) for each in (series, *ends))


def _stacked(
    kind: str,
    source: Split,
    series: Parts,
    states: Any,
    there: Tensor | None,
    params: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    bidirectional: bool,
) -> tuple[Parts, list[Parts]]:
    """All layers over (T, B, I)."""
    starts = [Parts.of(state, source.run) for state in (states if kind == "lstm" else [states])]
    directions = 2 if bidirectional else 1
    each = len(params) // (num_layers * directions)
    last: list[list[Parts]] = []
    groups: list[Tensor] = []
    for layer in range(num_layers):
        own = owned(source.run, series)
        outputs = []
        for direction in range(directions):
            number = layer * directions + direction
            weights = Weights.of(params[each * number : each * (number + 1)], has_biases)
            begin = [start.map(itemgetter(number)) for start in starts]
            outputs.append(_one(kind, source, series, groups, own, begin, weights, there, bool(direction)))
            last.append(outputs[-1].ends)
        series = outputs[0].hidden
        if directions > 1:
            series = Parts.joined(lambda several: torch.cat(several, -1), [output.hidden for output in outputs])  # type: ignore[arg-type]
        groups = [output.groups for output in outputs if output.groups is not None]
        if dropout > 0 and layer < num_layers - 1:
            mask = dropout_mask(F.dropout, series.total, dropout)
            series = series.map(mask.mul)
    return series, [Parts.joined(torch.stack, kind) for kind in zip(*last, strict=True)]  # type: ignore[arg-type]


class _Layer(NamedTuple):
    """What one layer gives in one direction.

    Attributes:
        hidden: (T, B, H).
        ends: the last states, (B, H).
        groups: (T, R), regions with the same hidden states at a step; None where nobody looked.
    """

    hidden: Parts
    ends: list[Parts]
    groups: Tensor | None = None


def _one(
    kind: str,
    source: Split,
    series: Parts,
    groups: list[Tensor],
    own: Tensor,
    state: State,
    weights: Weights,
    there: Tensor | None,
    reverse: bool,
) -> _Layer:
    """One layer in one direction; where nothing is recorded, regions go through it as one until they come apart."""
    chosen = cell(kind, source.run.convention, weights)
    exclusive = source.run.convention.span_end == "exclusive"
    carried = 3 if source.run.apart else 2
    laid = autodiff.laid_out(own, *(each for parts in (series, *state) for each in parts[:carried]))  # type: ignore[arg-type]
    if laid is None or len(laid[0][1]) != 1:
        own = own * _following(own, reverse) if exclusive else own
        inputs = _by_step(chosen.project(series))
        steps, ends = _steps(chosen.step, inputs, own.unbind(), state, there, reverse)
        return _Layer(Parts.joined(torch.stack, steps), ends)  # type: ignore[arg-type]
    (own, *tensors), one_of = laid
    count = max(len(own), *map(len, tensors))
    with autodiff.outside_blocks():
        series, *state = (Parts(*tensors[at : at + carried]) for at in range(0, len(tensors), carried))
        own = own.transpose(0, 1).expand(-1, count, -1, -1)
        series = series.map(lambda x: x.transpose(0, 1))  # (T, R or 1, B, ...)
        series = series._replace(part=series.part.expand(-1, count, -1, -1))
        state = [parts._replace(part=parts.part.expand(count, -1, -1)) for parts in state]
        made = _together(chosen, series, groups, own, state, there, reverse, exclusive)
        hidden = made.hidden.map(lambda x: x[:, 0])._replace(part=one_of(made.hidden.part.transpose(0, 1)))
        ends = [end.map(itemgetter(0))._replace(part=one_of(end.part)) for end in made.ends]
        return _Layer(hidden, ends, made.groups)


def _together(
    chosen: Cell,
    series: Parts,
    groups: list[Tensor],
    own: Tensor,
    state: State,
    there: Tensor | None,
    reverse: bool,
    exclusive: bool,
) -> _Layer:
    """Totals (T, 1, B, I) and parts (T, R, B, I), a step's groups of regions one after the other."""
    numbers = alike(series.total - series.alone, series.part, groups)
    if exclusive:
        own = own * _following(own, reverse)
        numbers += [_following(each, reverse) for each in numbers]
    tree = forks([parts.part for parts in state], [each.flip(0) if reverse else each for each in numbers])
    tree = tree[::-1] if reverse else tree
    sizes = [len(fork.members) for fork in tree]
    times = torch.arange(len(tree), device=own.device).repeat_interleave(torch.tensor(sizes, device=own.device))
    members = torch.cat([fork.members for fork in tree])
    projected = chosen.project(series._replace(part=series.part[times, members]))
    inputs = _by_step(projected, projected.part.split(sizes))
    steps, ends = _steps(chosen.step, inputs, own[times, members].split(sizes), state, there, reverse, tree)
    width = steps[0].part.shape[-1]
    relevant = steps[0].part.new_empty(len(steps), *series.part.shape[1:3], width)
    for parts, fork, into in zip(steps, tree, relevant, strict=True):
        torch.index_select(parts.part, 0, fork.groups, out=into)
    last = tree[0 if reverse else -1].groups
    ends = [end._replace(part=end.part.index_select(0, last)) for end in ends]
    total, _, alone = zip(*steps, strict=True)
    hidden = Parts(torch.stack(total), relevant, torch.stack(alone) if isinstance(alone[0], Tensor) else 0.0)
    return _Layer(hidden, ends, torch.stack([fork.groups for fork in tree]))


def _by_step(series: Parts, parts: Sequence[Tensor] | None = None) -> list[Parts]:
    """Of all steps, each."""
    alone: Any = series.alone if isinstance(series.alone, Tensor) else [series.alone] * len(series.total)
    return list(map(Parts, series.total, series.part if parts is None else parts, alone))


def _following(steps: Tensor, reverse: bool) -> Tensor:
    """What comes one step later, nothing after the last."""
    none = torch.zeros_like(steps[:1])
    return torch.cat([none, steps[:-1]] if reverse else [steps[1:], none])


def _steps(
    step: Callable[..., State],
    inputs: Sequence[Parts],
    own: Sequence[Tensor],
    state: State,
    there: Tensor | None,
    reverse: bool,
    tree: Sequence[Fork] | None = None,
) -> tuple[list[Parts], State]:
    """Hidden states step by step, and the last states."""
    hidden: list[Parts] = []
    for time in range(len(inputs))[:: -1 if reverse else 1]:
        parents = tree[time].parents if tree else None
        if parents is not None:
            state = [parts._replace(part=parts.part.index_select(0, parents)) for parts in state]
        new = step(inputs[time], state, own=own[time])
        if there is not None and not bool(there[time].all()):
            here = there[time].unsqueeze(-1)
            new = [Parts.joined(partial(_either, here), both) for both in zip(new, state, strict=True)]
        state = new
        hidden.append(state[0])
    if reverse:
        hidden.reverse()
    return hidden, state


def _either(here: Tensor, both: Sequence[Tensor]) -> Tensor:
    new, old = both
    return torch.where(here, new, old)


@rule("lstm_cell", formula=_LSTM, source=MURDOCH, apart=True)
@rule("gru_cell", "rnn_tanh_cell", "rnn_relu_cell", formula="as in the layers", source=OURS, apart=True)
def _cell(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    inputs, states, *params = args
    kind = func.__name__.removesuffix("_cell")
    source = first((inputs, states), {})
    chosen = cell(kind, source.run.convention, Weights(*params))
    state = [Parts.of(each, source.run) for each in (states if kind == "lstm" else [states])]
    parts = Parts.of(inputs, source.run)
    new = chosen.step(chosen.project(parts), state, own=owned(source.run, parts))
    made = tuple(each.into(source) for each in new)
    return made if kind == "lstm" else made[0]


@rule("_pack_padded_sequence", formula="the same order", source=MURDOCH, apart=True)
def _pack(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, lengths, batch_first = args
    data, sizes = func(source.total, lengths, batch_first)
    rows = source.total.shape[:2]
    index, _ = func(torch.arange(rows.numel(), dtype=torch.float64).reshape(*rows, 1), lengths, batch_first)
    places = index[:, 0].long().to(data.device)

    def ordered(x: Tensor) -> Tensor:
        return x.flatten(0, 1).index_select(0, places)

    start = None if source.reference is None else ordered(source.reference)
    return source.made(data, ordered(source.relevant), reference=start), sizes


@rule("_pad_packed_sequence", formula="the same order; the padding is shared like a bias", source=MURDOCH, apart=True)
def _unpack(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, sizes, batch_first, value, *rest = args
    total, lengths = func(source.total, sizes, batch_first, value, *rest)
    numbers = torch.arange(1, len(source.total) + 1, dtype=torch.float64)[:, None]
    places = func(numbers, sizes, batch_first, 0.0, *rest)[0][..., 0].long().to(total.device)
    nothing = torch.zeros_like(source.total[:1])

    def padded(x: Tensor, by: Tensor) -> Tensor:
        spread: Tensor = torch.cat([by, x]).index_select(0, places.flatten()).reshape(total.shape)
        return spread

    part = padded(source.relevant, nothing + torch.zeros_like(source.relevant[:1]))
    if source.reference is not None:
        return source.made(total, part, reference=padded(source.reference, nothing + value)), lengths
    if value:
        shift = torch.where(places.unsqueeze(-1) == 0, value, 0.0).to(total).expand_as(total)
        part = source.run.share(part, total, shift, (-1,))
    return source.made(total, part), lengths
