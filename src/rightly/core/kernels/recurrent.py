"""torch.lstm and torch.gru, layer upon layer; ``None`` where a call does not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rightly.core.kernels import gru as gru_cell
from rightly.core.kernels import lstm as lstm_cell
from rightly.core.kernels.sequence import Layer, Weights


def lstm(inputs: Tensor, states: Sequence[Tensor], *args: Any) -> tuple[Tensor, ...] | None:
    """torch.lstm of a padded batch: no packed sequence (its second argument is a tensor), no projection."""
    if isinstance(states, Tensor) or states[0].shape != states[1].shape:
        return None
    return _stacked(lstm_cell.layer, inputs, states, *args)


def gru(inputs: Tensor, state: Tensor, *args: Any) -> tuple[Tensor, ...] | None:
    """torch.gru of a padded batch; the second argument of a packed one holds whole numbers."""
    return _stacked(gru_cell.layer, inputs, [state], *args) if state.is_floating_point() else None


def _stacked(
    layer: Layer,
    inputs: Tensor,
    states: Sequence[Tensor],
    params: Sequence[Tensor],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, ...] | None:
    if (train and dropout) or inputs.dim() != 3 or not inputs.numel():
        return None
    each, directions = (4, 2)[not has_biases], (1, 2)[bidirectional]
    if len(params) != each * num_layers * directions:
        return None
    series = inputs.transpose(0, 1) if batch_first else inputs
    last: list[Sequence[Tensor]] = []
    for first in range(0, num_layers * directions, directions):
        series, outputs = series.contiguous(), []
        for number in range(first, first + directions):
            weights = Weights(*params[each * number : each * (number + 1)])
            turn = number > first  # the second direction reads from the end
            hidden, end = layer(series.flip(0) if turn else series, [kind[number] for kind in states], weights)
            outputs.append(hidden.flip(0) if turn else hidden)
            last.append(end)
        series = torch.cat(outputs, -1) if directions > 1 else outputs[0]
    ends = (torch.stack(kind) for kind in zip(*last, strict=True))
    return series.transpose(0, 1) if batch_first else series, *ends
