"""Layers that hold those of M equal models and apply number m to block m of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from rightly.core import seeding


class StackedLinear(nn.Module):
    """M linear layers: rows (M * B, ..., in) -> (M * B, ..., out), bias (M, out) or none.

    The weight is (M, in, out), transposed to that of ``nn.Linear``: so its gradient is laid out as it is made.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach().t() for layer in layers]).contiguous())
        biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(torch.stack(biases)) if biases else None

    def forward(self, rows: Tensor) -> Tensor:
        """See the class."""
        models, inner, width = self.weight.shape
        blocks = rows.reshape(models, -1, inner)
        if self.bias is None:
            outputs = torch.bmm(blocks, self.weight)
        else:
            outputs = torch.baddbmm(self.bias[:, None], blocks, self.weight)
        return outputs.reshape(*rows.shape[:-1], width)


class StackedLayerNorm(nn.Module):
    """M layer norms: the same rows, each normalised, then scaled by its own model."""

    def __init__(self, layers: Sequence[nn.LayerNorm]) -> None:
        super().__init__()
        self.shape, self.eps = layers[0].normalized_shape, layers[0].eps
        self.weight = _stacked([layer.weight for layer in layers])
        self.bias = _stacked([layer.bias for layer in layers])

    def forward(self, rows: Tensor) -> Tensor:
        """See the class."""
        normal = nn.functional.layer_norm(rows, self.shape, eps=self.eps)
        if self.weight is None:
            return normal
        models = len(self.weight)
        blocks = normal.reshape(models, -1, *self.shape) * self.weight[:, None]
        return (blocks if self.bias is None else blocks + self.bias[:, None]).reshape(rows.shape)


def _stacked(parameters: Sequence[nn.Parameter | None]) -> nn.Parameter | None:
    """(M, ...) from M parameters, or none from none."""
    given = [parameter.detach() for parameter in parameters if parameter is not None]
    return nn.Parameter(torch.stack(given)) if given else None


@dataclass
class Streams:
    """The random numbers of dropout, one generator a model: each draws what it would draw alone."""

    generators: list[torch.Generator] = field(default_factory=list)

    def start(self, seeds: Sequence[int], epoch: int) -> None:
        """The state in which ``rt.fit`` begins the epoch, for models trained with ``seeds``."""
        self.generators = [seeding.generator(seed, "epoch", epoch) for seed in seeds]


class StackedDropout(nn.Module):
    """M dropouts with one rate; model m's mask comes from its own stream."""

    def __init__(self, rate: float, streams: Streams) -> None:
        super().__init__()
        self.rate, self.streams = rate, streams

    def forward(self, rows: Tensor) -> Tensor:
        """See the class; nothing is dropped in evaluation mode."""
        if not self.training or self.rate == 0:
            return rows
        blocks = rows.chunk(len(self.streams.generators))
        # as torch draws it: a mask of the rows' own type, divided by what is kept
        masks = [
            torch.empty_like(block).bernoulli_(1 - self.rate, generator=generator)
            for block, generator in zip(blocks, self.streams.generators, strict=True)
        ]
        return rows * (torch.cat(masks) / (1 - self.rate))
