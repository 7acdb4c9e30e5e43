"""The space of a layer's output: activations, token embeddings."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from rightly.core.batch import Inputs, Model, call, outputs_of, rows, take
from rightly.core.errors import ArgumentError
from rightly.core.registry import register
from rightly.core.types import View


class _Reached(BaseException):
    """Ends a forward pass at the layer; no ``except Exception`` in a model may swallow it."""


@register("space", citation="selvaraju2017", example=lambda shape: {"module": "0"})
@dataclass(frozen=True)
class Layer:
    """The output of one module, found by name or given as the instance; token embeddings are such a layer.

    The attributions are shaped like that output, and their gradient reaches the parameters on both sides of it.
    A module that returns a tuple (an LSTM, an attention) is explained by the first entry.

    Args:
        module: the name as ``model.named_modules()`` gives it (``"encoder.0"``), or the module itself. It must run
            exactly once in a forward pass.
    """

    module: str | nn.Module

    def open(self, model: Model, inputs: Inputs) -> View:
        """See ``Space.open``."""
        rows(inputs)
        layer = self._find(model)

        def encode(inputs: Inputs) -> Tensor:
            return _output_of(layer, model, inputs)

        def rest(points: Tensor, index: Tensor) -> Tensor:
            return _with_output(layer, points, lambda: outputs_of(call(model, take(inputs, index))))

        return View(inputs, encode(inputs), encode, rest)

    def _find(self, model: Model) -> nn.Module:
        if not isinstance(model, nn.Module):
            raise ArgumentError("only a module has layers", expected="torch.nn.Module", got=type(model).__name__)
        modules: dict[str, nn.Module] = dict(model.named_modules())
        if isinstance(self.module, str) and self.module in modules:
            return modules[self.module]
        if isinstance(self.module, nn.Module) and any(m is self.module for m in modules.values()):
            return self.module
        names = [name for name in modules if name]
        near = difflib.get_close_matches(str(self.module), names, n=3, cutoff=0.3)
        raise ArgumentError(
            "the model has no such layer",
            expected=f"one of {near or names[:10]}" + (" ..." if len(names) > 10 else ""),
            got=self.module if isinstance(self.module, str) else type(self.module).__name__,
            mend="names are those of model.named_modules()",
        )


def _first(output: Any) -> Tensor:
    tensor = output[0] if isinstance(output, tuple | list) else output
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        raise ArgumentError(
            "this layer's output cannot be explained",
            expected="a floating point tensor, or a tuple that starts with one",
            got=type(tensor).__name__ if not isinstance(tensor, Tensor) else tensor.dtype,
        )
    return tensor


def _output_of(layer: nn.Module, model: Model, inputs: Inputs) -> Tensor:
    caught: list[Tensor] = []

    def catch(module: nn.Module, args: Any, output: Any) -> None:
        caught.append(_first(output))
        raise _Reached

    handle = layer.register_forward_hook(catch)
    try:
        call(model, inputs)
    except _Reached:
        return caught[0]
    finally:
        handle.remove()
    raise ArgumentError(
        "this layer does not run in the model's forward pass", expected="a layer in use", got=type(layer).__name__
    )


def _with_output(layer: nn.Module, points: Tensor, forward: Callable[[], Tensor]) -> Tensor:
    runs = 0

    def replace(module: nn.Module, args: Any, output: Any) -> Any:
        nonlocal runs
        runs += 1
        if isinstance(output, tuple | list):
            return type(output)((points, *output[1:]))
        return points

    handle = layer.register_forward_hook(replace)
    try:
        outputs = forward()
    finally:
        handle.remove()
    if runs != 1:
        raise ArgumentError(
            "the explained layer must run exactly once in a forward pass",
            expected=1,
            got=runs,
            mend="explain a layer that is used once, for example the block around it",
        )
    return outputs
