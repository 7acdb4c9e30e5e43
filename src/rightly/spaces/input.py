"""The space of the model's inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from rightly.core.batch import Inputs, Model, call, outputs_of, rows, take
from rightly.core.errors import ArgumentError
from rightly.core.registry import register
from rightly.core.types import View


@register("space", citation="simonyan2014")
@dataclass(frozen=True)
class Input:
    """The model's input itself: attributions are shaped like it.

    Args:
        name: which input is explained when the model takes several: a position in the tuple or a key of the
            dict. The others are held as they are.
    """

    name: int | str = 0

    def open(self, model: Model, inputs: Inputs) -> View:
        """See ``Space.open``. Raises ``ArgumentError`` for inputs without a gradient (token numbers)."""
        rows(inputs)

        def encode(inputs: Inputs) -> Tensor:
            return self._chosen(inputs)

        def rest(points: Tensor, index: Tensor) -> Tensor:
            if isinstance(inputs, Tensor):
                return outputs_of(model(points))
            return outputs_of(call(model, self._replaced(take(inputs, index), points)))

        return View(inputs, encode(inputs), encode, rest)

    def _chosen(self, inputs: Inputs) -> Tensor:
        if isinstance(inputs, Tensor):
            chosen = inputs
        else:
            try:
                chosen = inputs[self.name]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                names = list(inputs) if isinstance(inputs, Mapping) else list(range(len(inputs)))
                raise ArgumentError("no such input", expected=f"one of {names}", got=self.name) from None
        if not chosen.is_floating_point():
            raise ArgumentError(
                "whole numbers have no gradient to explain with",
                expected="floating point inputs",
                got=chosen.dtype,
                mend="use .float(); for token numbers explain the embedding: rt.spaces.Layer('embedding')",
            )
        return chosen

    def _replaced(self, inputs: Inputs, points: Tensor) -> Inputs:
        if isinstance(inputs, Mapping):
            return {**inputs, str(self.name): points}
        parts = list(inputs)
        parts[int(self.name)] = points
        return tuple(parts)
