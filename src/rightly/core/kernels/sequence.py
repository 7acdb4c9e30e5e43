"""What the recurrent kernels share: weights, a gradient of them only where it is asked for, series in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rightly.core.kernels.function import Kernel, final


class Weights(NamedTuple):
    """One layer in one direction, for G gates: (G H, I), (G H, H), and the biases (G H,) twice or None."""

    inputs: Tensor
    hidden: Tensor
    inputs_bias: Tensor | None = None
    hidden_bias: Tensor | None = None


@dataclass
class Visited:
    """What a weight multiplied, (T, B, I); the hidden states are known once the layer has run."""

    series: Tensor | None = None


class WeightOf(Kernel):
    """A stand-in of zeros for what a weight adds to the pre-activations, by which the gradient finds the weight.

    The layer hands the gradient of its pre-activations (T, B, G H) to this node as to any other input. Autograd
    skips the node where no weight gradient is asked for, as in the pass that makes an attribution; a Function that
    took the weight itself could not tell and would multiply in vain.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, steps: int, batch: int, visited: Visited) -> Tensor:
        ctx.visited = visited
        return weight.new_zeros(()).expand(steps, batch, len(weight))

    @staticmethod
    @final
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows = grad.flatten(0, 1)
        by_weight = rows.t() @ ctx.visited.series.flatten(0, 1) if ctx.needs_input_grad[0] else None
        return by_weight, rows.sum(0) if ctx.needs_input_grad[1] else None, None, None, None


#: Numbers of the widest series in one block of steps.
CACHED = 1 << 19

#: (inputs (T, B, I), state: one (B, H) a kind of state, weights) -> (hidden (T, B, H), last state)
Layer = Callable[[Tensor, Sequence[Tensor], Weights], tuple[Tensor, Sequence[Tensor]]]


def scaled(weights: Weights, tanh_gate: int) -> Weights:
    """Multiply a tanh gate's rows by -2: tanh(a) = 1 - 2 sigmoid(-2 a), and sigmoid is several times the faster."""
    size = weights.hidden.shape[1]
    factor = weights.hidden.new_ones(len(weights.hidden))
    factor[tanh_gate * size : (tanh_gate + 1) * size] = -2
    inputs, hidden, *biases = weights
    return Weights(
        inputs * factor[:, None],
        hidden * factor[:, None],
        *(None if bias is None else bias * factor for bias in biases),
    )


def project(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(T, B, I) -> a new (T, B, G H)."""
    rows, turned = inputs.flatten(0, 1), weight.t()
    products = rows @ turned if bias is None else torch.addmm(bias, rows, turned)
    return products.view(*inputs.shape[:2], -1)


def from_start(first: Tensor, series: Tensor) -> Tensor:
    """(B, H) and (T, B, H) -> (T + 1, B, H)."""
    return torch.cat([first[None], series])


def steps(series: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Views of several series (T, ...), one step of each at a time."""
    return zip(*(each.unbind() for each in series), strict=True)


def blocks(series: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Views of several series (T, ...), as many steps at a time as stay in a processor's cache."""
    length = max(1, CACHED // series[0][0].numel())
    return zip(*(each.split(length) for each in series), strict=True)
