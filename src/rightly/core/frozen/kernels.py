"""The arithmetic behind the rules: weight gradients, and convolutions and pooling whose adjoints are fast."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core import autodiff
from rightly.core.frozen.tape import Pull
from rightly.core.intercept import Unsupported
from rightly.core.kernels.function import final
from rightly.core.kernels.masks import pool_images

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def product_pull(name: str, factor: Tensor, product: Callable[..., Tensor], first: bool) -> Pull:
    """Gradient of the constant factor of a product, the carried one coming first or second."""
    name = name.strip("_").removeprefix("r")
    if name in ("mul", "multiply"):
        shape = factor.shape
        return lambda cotangent, source: (cotangent * source).sum_to_size(shape)
    if name == "bmm" and first:
        return lambda cotangent, source: torch.bmm(source.transpose(1, 2), cotangent)
    if name == "mm" and first:
        return lambda cotangent, source: source.t() @ cotangent

    def pull(cotangent: Tensor, source: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = factor.detach().requires_grad_()
            result = product(source.detach(), leaf)
        return autodiff.only(autodiff.pull([result], [leaf], cotangent))

    return pull


@dataclass(frozen=True)
class Geometry:
    """Stride, padding and dilation along each dimension, and the groups of a convolution."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, dims: int, stride: Any, padding: Any, dilation: Any, groups: int) -> Geometry:
        """From arguments that are numbers or one number a dimension."""
        return cls(_each(stride, dims), _each(padding, dims), _each(dilation, dims), groups)


def _each(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    numbers = (value,) if isinstance(value, int) else tuple(value)
    return numbers * dims if len(numbers) == 1 else numbers


def same_padding(weight: Tensor, padding: str, dilation: Any) -> tuple[int, ...]:
    """What 'same' and 'valid' mean. Raises ``Unsupported`` where the two sides differ."""
    spans = [d * (size - 1) for d, size in zip(_each(dilation, weight.ndim - 2), weight.shape[2:], strict=True)]
    if padding == "valid":
        return (0,) * len(spans)
    if any(span % 2 for span in spans):
        raise Unsupported("padding='same' with an even kernel")
    return tuple(span // 2 for span in spans)


def convolve(source: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """The convolution; its graph reaches the source only, where that pays."""
    few = weight.shape[1] * weight[0, 0].numel() <= _FEW and geometry.groups == 1
    if few and weight.ndim == 4 and source.requires_grad and not source.is_cuda:
        return _FromFewChannels.apply(source, weight, bias, geometry)  # type: ignore[no-any-return,no-untyped-call]
    g = geometry
    return _CONVOLUTIONS[weight.ndim - 2](source, weight, bias, g.stride, g.padding, g.dilation, g.groups)


#: entries of a kernel up to which a processor sends a cotangent back faster by one product and a fold
_FEW = 64


class _FromFewChannels(torch.autograd.Function):
    """A 2-D convolution whose adjoint is one matrix product and a fold: four times faster from one channel."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.geometry = source.shape[2:], geometry
        return F.conv2d(source, weight, bias, geometry.stride, geometry.padding, geometry.dilation)

    @staticmethod
    @final
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        g = ctx.geometry
        columns = weight.flatten(1).t() @ cotangent.flatten(2)
        return F.fold(columns, ctx.size, weight.shape[2:], g.dilation, g.padding, g.stride), None, None, None


def convolution_pull(weight: Tensor, geometry: Geometry) -> Pull:
    """Gradient of a convolution's weight."""
    g = geometry
    zeros = [0] * len(g.stride)
    sizes = weight.detach()

    def pull(cotangent: Tensor, source: Tensor) -> Tensor:
        return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
            cotangent, source, sizes, None, g.stride, g.padding, g.dilation, False, zeros, g.groups,
            [False, True, False],
        )[1]  # fmt: skip

    return pull


def max_pool(source: Tensor, dims: int, arguments: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """Maxima, and the places of the winners, counted over the last ``dims`` dimensions."""
    if dims == 2 and source.ndim == 4:
        return _PoolOfImages.apply(source, arguments)  # type: ignore[no-any-return,no-untyped-call]
    return _POOLS[dims](source, *arguments, return_indices=True)


_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


class _PoolOfImages(torch.autograd.Function):
    """Max pooling by the faster kernel, with torch's own adjoint."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, arguments: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        result, index = pool_images(source, *arguments)
        ctx.save_for_backward(index)
        ctx.shape = source.shape
        ctx.mark_non_differentiable(index)
        return result, index

    @staticmethod
    @final
    def backward(ctx: Any, cotangent: Tensor, _: Any) -> Any:
        (index,) = ctx.saved_tensors
        made = cotangent.new_zeros(ctx.shape).flatten(2)
        return made.scatter_add_(2, index.flatten(2), cotangent.flatten(2)).view(ctx.shape), None
