"""Other functions in the place of torch's while a model runs; among them normalisation with right third derivatives.

Interactions that are trained through need third derivatives. PyTorch's second derivative of normalisation by the
input's own statistics takes mean and deviation for constants, so that a third one is wrong without a word (layer norm,
instance norm, and batch norm without running statistics). Written out in operations of their own, they are right.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
import torch.utils.checkpoint as checkpointing
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rightly.core.errors import ArgumentError


class replacing(TorchFunctionMode):
    """While it is active, other functions are called in the place of torch's own.

    Args:
        rules: function of torch -> what is called instead, with the same arguments.

    Attributes:
        seen: how many calls were replaced, by the name of the function.

    Raises:
        ArgumentError: from a call under activation checkpointing, which would compute it again in the backward pass,
            where nothing is replaced, and differentiate that.
    """

    def __init__(self, rules: Mapping[Callable[..., Any], Callable[..., Any]]) -> None:
        super().__init__()
        self.rules = rules
        self.seen: Counter[str] = Counter()
        self._recorded, self._outside = False, 0

    def __enter__(self) -> Self:
        self._recorded, self._outside = torch.is_grad_enabled(), id(sys._getframe(1))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

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
        if self._recorded and not torch.compiler.is_compiling() and self._checkpointed():
            raise ArgumentError(
                f"{func.__name__} is replaced while the model runs, which activation checkpointing would undo",
                expected="a model that keeps its activations",
                got="torch.utils.checkpoint",
                mend="switch checkpointing off in the model, or checkpoint all of it from outside",
            )
        self.seen[func.__name__.rstrip("_")] += 1
        return rule(*args, **(kwargs or {}))

    def _checkpointed(self) -> bool:
        """Whether checkpointing began after the replacing did: nothing but the stack of calls tells."""
        frame = sys._getframe(2)
        while frame.f_back is not None and id(frame) != self._outside:
            if frame.f_code.co_filename == checkpointing.__file__:
                return True
            frame = frame.f_back
        return False


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


def _native_layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The normal numbers, their means, and one over their deviations."""
    dims = tuple(range(input.ndim - len(normalized_shape), input.ndim))
    wide = input.to(torch.promote_types(input.dtype, torch.float32))
    spread = wide.var(dims, correction=0, keepdim=True) + eps
    normal = _layer_norm(input, normalized_shape, weight, bias, eps)
    return normal, wide.mean(dims, keepdim=True), spread.rsqrt()


def _native_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The normal numbers, their means, and one over their deviations."""
    if not training or running_mean is not None:
        return torch.native_batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps)
    dims = (0, *range(2, input.ndim))
    wide = input.to(torch.promote_types(input.dtype, torch.float32))
    normal = _batch_norm(input, None, None, weight, bias, training, momentum, eps)
    return normal, wide.mean(dims), (wide.var(dims, correction=0) + eps).rsqrt()


def _torch_instance_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    return _instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)


def _torch_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Tensor:
    return _batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


#: normalisation that can be differentiated three times
THRICE: dict[Callable[..., Any], Callable[..., Any]] = {
    **dict.fromkeys((F.layer_norm, torch.layer_norm), _layer_norm),
    torch.native_layer_norm: _native_layer_norm,
    F.instance_norm: _instance_norm,
    torch.instance_norm: _torch_instance_norm,
    F.batch_norm: _batch_norm,
    torch.batch_norm: _torch_batch_norm,
    torch.native_batch_norm: _native_batch_norm,
}
