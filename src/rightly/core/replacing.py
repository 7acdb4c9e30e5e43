"""Other functions in the place of torch's while a model runs; among them normalisation with right third derivatives.

Interactions that are trained through need third derivatives. PyTorch's second derivative of normalisation by the
input's own statistics takes mean and deviation for constants, so that a third one is wrong without a word (layer norm,
instance norm, and batch norm without running statistics). Written out in operations of their own, they are right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class replacing(TorchFunctionMode):
    """While it is active, other functions are called in the place of torch's own.

    Args:
        rules: function of torch -> what is called instead, with the same arguments.

    Attributes:
        seen: how many calls were replaced, by the name of the function.
    """

    def __init__(self, rules: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self.rules = rules
        self.seen: Counter[str] = Counter()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        rule = self.rules.get(func)
        if rule is None:
            return func(*args, **(kwargs or {}))
        self.seen[func.__name__.rstrip("_")] += 1
        return rule(*args, **(kwargs or {}))


def _standardised(input: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    """Mean 0 and variance 1 over some dimensions, in float32 at least."""
    wide = input.to(torch.promote_types(input.dtype, torch.float32))
    centred = wide - wide.mean(dims, keepdim=True)
    spread: Tensor = centred.square().mean(dims, keepdim=True) + eps
    return centred * spread.rsqrt()


def _scaled(normal: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int], like: Tensor) -> Tensor:
    if weight is not None:
        normal = normal * weight.reshape(shape)
    if bias is not None:
        normal = normal + bias.reshape(shape)
    return normal.to(like.dtype)


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    dims = tuple(range(input.ndim - len(normalized_shape), input.ndim))
    return _scaled(_standardised(input, dims, eps), weight, bias, tuple(normalized_shape), input)


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not use_input_stats:
        return F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    shape = (-1, *(1,) * (input.ndim - 2))
    return _scaled(_standardised(input, tuple(range(2, input.ndim)), eps), weight, bias, shape, input)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training or running_mean is not None:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    dims = (0, *range(2, input.ndim))
    return _scaled(_standardised(input, dims, eps), weight, bias, (-1, *(1,) * (input.ndim - 2)), input)


#: normalisation that can be differentiated three times
THRICE: dict[Callable[..., Any], Callable[..., Tensor]] = {
    **dict.fromkeys((F.layer_norm, torch.layer_norm), _layer_norm),
    F.instance_norm: _instance_norm,
    F.batch_norm: _batch_norm,
}
