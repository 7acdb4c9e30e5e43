"""Layer normalisation and GELU with their second derivative in closed form; ``None`` where a call does not fit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core.kernels.function import Kernel, final


def gelu(inputs: Tensor, approximate: str = "none") -> Tensor | None:
    """torch.nn.functional.gelu."""
    return Gelu.one(inputs) if approximate == "none" else None


def layer_norm(
    inputs: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor | None:
    """torch.nn.functional.layer_norm over the last axis."""
    if len(normalized_shape) != 1 or inputs.shape[-1:] != tuple(normalized_shape):
        return None
    normal = Normal.one(inputs, eps)
    if weight is None:
        return normal.clone() if bias is None else normal + bias  # Normal keeps its own: the model's may be changed
    return normal * weight if bias is None else torch.addcmul(bias, normal, weight)


class Gelu(Kernel):
    """x P(X < x) for a standard normal X."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x, torch.ops.aten.gelu_backward(x.new_ones(()).expand_as(x), x))
        return F.gelu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return GeluSlope.one(grad, *ctx.saved_tensors)


class GeluSlope(Kernel):
    """(g, x, gelu'(x)) -> g gelu'(x)."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(grad, x, slope)
        return grad * slope

    @staticmethod
    @final
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor, Tensor, None]:
        grad, x, slope = ctx.saved_tensors
        square = x * x
        density = torch.mul(square, -0.5).exp_()
        # gelu'' = (2 - x^2) times the normal density
        square.sub_(2).mul_(density).mul_(grad).mul_(along).mul_(-1 / math.sqrt(2 * math.pi))
        return along * slope, square, None


class Normal(Kernel):
    """Rows (..., n) to mean 0 and variance 1: y = r (x - mean), r = 1 / sqrt(variance + eps)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        normal, mean, rate = torch.native_layer_norm(x, x.shape[-1:], None, None, eps)
        ctx.save_for_backward(x, normal, mean, rate)
        return normal

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, normal, mean, rate = ctx.saved_tensors
        return NormalSlope.one(grad, x, normal.detach(), mean, rate), None


class NormalSlope(Kernel):
    """(g, x) -> r (g - mean g - y mean(g y)): a symmetric map of g, so its gradient with respect to g is itself."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, normal: Tensor, mean: Tensor, rate: Tensor) -> Tensor:
        slope = _apply(grad, x, mean, rate)
        ctx.save_for_backward(grad, x, normal, mean, rate, slope)
        return slope

    @staticmethod
    @final
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor | None, ...]:
        grad, x, normal, mean, rate, slope = ctx.saved_tensors
        moved = _apply(along, x, mean, rate)
        # r changes along -r^2 y / n, and y along the same map as g
        lost = normal * _row_mean(along, slope, rate)
        lost.addcmul_(moved, _row_mean(grad, normal, rate)).addcmul_(slope, _row_mean(along, normal, rate))
        return moved, lost, None, None, None


def _apply(grad: Tensor, x: Tensor, mean: Tensor, rate: Tensor) -> Tensor:
    result: Tensor = torch.ops.aten.native_layer_norm_backward(
        grad.contiguous(), x, x.shape[-1:], mean, rate, None, None, [True, False, False]
    )[0]
    return result


def _row_mean(left: Tensor, right: Tensor, rate: Tensor) -> Tensor:
    """-r mean(left right) of each row, (..., 1)."""
    return (left * right).mean(-1, keepdim=True).mul_(rate).neg_()
