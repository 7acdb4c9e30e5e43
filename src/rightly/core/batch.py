"""Inputs as PyTorch models take them: one tensor, or a tuple or dict of tensors that share their first dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from rightly.core.errors import ArgumentError, ShapeError

Inputs = Tensor | tuple[Any, ...] | list[Any] | Mapping[str, Any]
Model = Callable[..., Any]


def tensors(inputs: Inputs) -> list[Tensor]:
    """The tensors inside ``inputs``, in order; anything else in it (flags, ``None``) is passed through untouched."""
    if isinstance(inputs, Tensor):
        return [inputs]
    parts = inputs.values() if isinstance(inputs, Mapping) else inputs
    return [part for part in parts if isinstance(part, Tensor)]


def rows(inputs: Inputs) -> int:
    """Number of examples B. Raises ``ShapeError`` when the tensors disagree or there is no tensor or no example."""
    if not isinstance(inputs, Tensor | tuple | list | Mapping):
        raise ArgumentError(
            "inputs cannot be read",
            expected="a tensor, or a tuple or dict of tensors",
            got=type(inputs).__name__,
            mend="torch.as_tensor(inputs)",
        )
    sizes = {part.shape[0] for part in tensors(inputs) if part.ndim > 0}
    if len(sizes) != 1:
        raise ShapeError(
            "inputs do not agree on the number of examples",
            expected="tensors whose first dimension is the same",
            got=[tuple(part.shape) for part in tensors(inputs)],
        )
    (size,) = sizes
    if size == 0:
        raise ShapeError("the batch is empty", expected="at least one example", got=0)
    return size


def convert(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Any:
    """``inputs`` with every tensor replaced by ``change(tensor)``; the container and everything else stay."""

    def one(part: Any) -> Any:
        return change(part) if isinstance(part, Tensor) else part

    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, Mapping):
        return {key: one(part) for key, part in inputs.items()}
    return type(inputs)(one(part) for part in inputs)


def take(inputs: Inputs, index: Tensor) -> Any:
    """The examples ``index`` (M,) of ``inputs``, a copy."""
    size = rows(inputs)
    return convert(
        inputs,
        lambda part: part[index.to(part.device)] if part.ndim and part.shape[0] == size else part,
    )


def device_of(model: Model) -> torch.device | None:
    """Where a model's parameters are; None for one without any, and for a function."""
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return None if parameter is None else parameter.device


def placed(inputs: Inputs, device: torch.device | None) -> Any:
    """``inputs`` on a device; as they come for None."""
    return inputs if device is None else convert(inputs, lambda part: part.to(device))


def call(model: Model, inputs: Inputs) -> Any:
    """Call a model the way PyTorch users do: a tuple as positional, a dict as keyword arguments."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(*inputs)


def outputs_of(raw: Any) -> Tensor:
    """The tensor that a model returns; for structured outputs, its ``logits``."""
    if isinstance(raw, Tensor):
        return raw
    logits = raw.get("logits") if isinstance(raw, Mapping) else getattr(raw, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    raise ArgumentError(
        "the model's output cannot be read",
        expected="a tensor, or a structure with a tensor named 'logits'",
        got=type(raw).__name__,
        mend="wrap the model in a function that returns the tensor to be explained",
    )
