"""The ReLU family and max pooling with what they chose held as a constant; ``None`` where a call does not fit.

Torch's second derivative of these carries a tensor of zeros for the choice through the rest of the network. Here the
gradient is a linear map of the cotangent alone, and its own gradient is that map again, or its transpose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core.kernels.function import Kernel


def relu(inputs: Tensor, inplace: bool = False) -> Tensor:
    """torch.nn.functional.relu, torch.relu."""
    return Bent.one(inputs, torch.relu_ if inplace else torch.relu, _relu_slope, True)


def relu_(inputs: Tensor) -> Tensor:
    """torch.relu_."""
    return relu(inputs, inplace=True)


def leaky_relu(inputs: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor | None:
    """torch.nn.functional.leaky_relu."""
    if inplace and negative_slope < 0:  # then the output does not tell the piece
        return None

    def slope(grad: Tensor, kept: Tensor) -> Tensor:
        result: Tensor = torch.ops.aten.leaky_relu_backward(grad, kept, negative_slope, inplace)
        return result

    return Bent.one(inputs, lambda x: F.leaky_relu(x, negative_slope, inplace), slope, inplace)


def hardtanh(inputs: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """torch.nn.functional.hardtanh."""

    def slope(grad: Tensor, kept: Tensor) -> Tensor:
        result: Tensor = torch.ops.aten.hardtanh_backward(grad, kept, min_val, max_val)
        return result

    return Bent.one(inputs, lambda x: F.hardtanh(x, min_val, max_val, inplace), slope, inplace)


def relu6(inputs: Tensor, inplace: bool = False) -> Tensor:
    """torch.nn.functional.relu6."""
    return hardtanh(inputs, 0.0, 6.0, inplace)


def _relu_slope(grad: Tensor, kept: Tensor) -> Tensor:
    result: Tensor = torch.ops.aten.threshold_backward(grad, kept, 0)
    return result


class Bent(Kernel):
    """A function that is linear on each piece. As in torch, its input tells the piece, or its output (``by_output``):
    the other may be changed in place later."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, value: Callable[..., Tensor], slope: Callable[..., Tensor], by_output: bool
    ) -> Tensor:
        output = value(x)
        if output is x:
            ctx.mark_dirty(x)
        ctx.save_for_backward(output if by_output else x)
        ctx.slope = slope
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return Piece.one(grad, ctx.saved_tensors[0].detach(), ctx.slope), None, None, None


class Piece(Kernel):
    """A cotangent times the slope of its piece."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, kept: Tensor, slope: Callable[..., Tensor]) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.slope = slope
        return slope(grad, kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return Piece.one(grad, *ctx.saved_tensors, ctx.slope), None, None


def pooling(pool: Callable[..., Any], axes: int) -> Callable[..., Tensor | None]:
    """The rule of a max pooling over the last ``axes`` axes that gives its indices too."""

    def rule(inputs: Tensor, *args: Any, return_indices: bool = False, **kwargs: Any) -> Tensor | None:
        if return_indices:
            return None
        return Pick.one(inputs, axes, lambda x: pool(x, *args, **kwargs))

    return rule


def pool_images(x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """F.max_pool2d with its indices, faster on a processor: torch's kernel is slow unless channels come last."""
    plain = x.device.type == "cpu" and x.dim() == 4 and x.is_contiguous()
    if plain and _of_four(x, *args, **kwargs):
        return _pool_of_four(x)
    many = plain and x.shape[1] >= 8
    layout = torch.channels_last if many else torch.preserve_format
    output, where = F.max_pool2d(
        x.contiguous(memory_format=layout) if many else x, *args, **kwargs, return_indices=True
    )
    return output.contiguous(), where.contiguous()


def _of_four(
    x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> bool:
    """Whether the windows are 2 x 2, side by side, and cover the image."""
    even = x.shape[-1] % 2 == 0 and x.shape[-2] % 2 == 0
    sizes = all(size in (2, (2, 2), [2, 2]) for size in (kernel_size, stride or kernel_size))
    return even and sizes and padding in (0, (0, 0), [0, 0]) and dilation in (1, (1, 1), [1, 1])


def _pool_of_four(x: Tensor) -> tuple[Tensor, Tensor]:
    """Four images compared: ten times faster than a kernel that walks over windows. Ties go to the first, as there,
    and what is no number wins."""
    height, width = x.shape[-2:]
    windows = x.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2))
    (a, b), (c, d) = (windows[..., row, :, :].unbind(-1) for row in (0, 1))
    top, bottom = torch.maximum(a, b), torch.maximum(c, d)
    low = _beats(bottom, top)
    right = torch.where(low, _beats(d, c), _beats(b, a))
    corners = torch.arange(0, height, 2, device=x.device)[:, None] * width
    corners = corners + torch.arange(0, width, 2, device=x.device)
    return torch.maximum(top, bottom), (corners + low * width).add_(right)


def _beats(later: Tensor, first: Tensor) -> Tensor:
    return (later > first) | (later != later)


class Pick(Kernel):
    """Pooling that tells which elements of the last axes, counted flat, it took."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: int, pool: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        output, where = pool(x)
        if axes == 1:
            output = output.clone()  # torch gives a view of a pooled image, which could not be changed in place later
        ctx.save_for_backward(where)
        ctx.axes, ctx.shape = axes, x.shape
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return Put.one(grad, *ctx.saved_tensors, ctx.axes, ctx.shape), None, None


class Put(Kernel):
    """Each cotangent to the element that was taken."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, where: Tensor, axes: int, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(where)
        ctx.axes, ctx.shape = axes, shape
        made = grad.new_zeros(shape).flatten(-axes)
        return made.scatter_add_(-1, where.flatten(-axes), grad.flatten(-axes)).view(shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (where,) = ctx.saved_tensors
        return Take.one(grad, where, ctx.axes, ctx.shape), None, None, None


class Take(Kernel):
    """The elements that were taken: the transpose of ``Put``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, where: Tensor, axes: int, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(where)
        ctx.axes, ctx.shape = axes, shape
        return x.flatten(-axes).gather(-1, where.flatten(-axes)).view_as(where)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return Put.one(grad, *ctx.saved_tensors, ctx.axes, ctx.shape), None, None, None
