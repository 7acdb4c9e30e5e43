"""The mode that puts the kernels in the place of torch's own functions while a model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rightly.core.kernels import attention, masks, recurrent, smooth

#: What stands in for a function of torch: called as it is; None where a call does not fit.
RULES: dict[Callable[..., Any], Callable[..., Any]] = {
    **dict.fromkeys((F.relu, torch.relu, Tensor.relu), masks.relu),
    **dict.fromkeys((torch.relu_, Tensor.relu_), masks.relu_),
    F.leaky_relu: masks.leaky_relu,
    F.hardtanh: masks.hardtanh,
    F.relu6: masks.relu6,
    F.max_pool1d: masks.pooling(partial(F.max_pool1d, return_indices=True), 1),
    F.max_pool2d: masks.pooling(masks.pool_images, 2),
    F.max_pool3d: masks.pooling(partial(F.max_pool3d, return_indices=True), 3),
    F.adaptive_max_pool1d: masks.pooling(partial(F.adaptive_max_pool1d, return_indices=True), 1),
    F.adaptive_max_pool2d: masks.pooling(partial(F.adaptive_max_pool2d, return_indices=True), 2),
    F.adaptive_max_pool3d: masks.pooling(partial(F.adaptive_max_pool3d, return_indices=True), 3),
    F.gelu: smooth.gelu,
    F.layer_norm: smooth.layer_norm,
    F.scaled_dot_product_attention: attention.attention,
    F.multi_head_attention_forward: attention.multi_head,
    torch.lstm: recurrent.lstm,
    torch.gru: recurrent.gru,
}


class cheap_second_derivatives(TorchFunctionMode):
    """While it is active, a model's passes are recorded so that a gradient through their gradient is cheap.

    It surrounds the forward pass only::

        with cheap_second_derivatives():
            outputs = model(points)

    Values, gradients and gradients of gradients are those of torch up to rounding. A call that does not fit (another
    dtype than float32 or float64, autocast, nothing to differentiate, arguments that a kernel does not know) goes to
    torch. Recurrent, attention, normalisation and GELU kernels cannot be differentiated three times, nor the recurrent
    weights twice; trying to raises ``DoubleBackwardError``.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        rule = RULES.get(func)
        if rule is not None and _fits(args, kwargs):
            result = rule(*args, **kwargs)
            if result is not None:
                return result
        return func(*args, **kwargs)


def _fits(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    if not args or not isinstance(args[0], Tensor):
        return False
    found = list(_tensors((*args, *kwargs.values())))
    device = args[0].device.type
    return (
        args[0].dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled(device)
        and any(tensor.requires_grad for tensor in found)
        and all(type(tensor) in (Tensor, nn.Parameter) for tensor in found)
        and all(tensor.dtype == args[0].dtype for tensor in found if tensor.is_floating_point())
    )


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)
