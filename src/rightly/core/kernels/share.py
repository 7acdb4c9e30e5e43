"""What two parts of a linear map's output get of what is added to both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rightly.core.kernels.function import Kernel

#: keeps 0 / 0 away; what is smaller than this counts as nothing
TINY = 1e-20
#: and in the gradient, where the published share has no bound
_STEEP = 1e-12


def share(part: Tensor, whole: Tensor, shift: Tensor, own: Tensor, dims: tuple[int, ...] | None, soft: float) -> Tensor:
    """``part`` with its share of ``shift``: proportional to |part| : |whole - part|.

    Where neither is larger than ``soft * |shift|``, the shares go over to those of the sums over ``dims``, and to
    ``own`` where these are nothing either. No part is left out, and nothing goes to a part that is zero throughout.
    The gradient is written out: it keeps three tensors, and is finite where the share is 0 / 0.

    Args:
        part, whole: in one shape, that of the result.
        shift: broadcastable to it.
        own: broadcastable to it with ``dims`` of size 1.
        dims: over which the sums are taken; None takes ``own`` at once.
        soft: 0 is the published share, whose slopes have no bound.
    """
    if torch.is_grad_enabled() and (part.requires_grad or whole.requires_grad or shift.requires_grad):
        return Share.one(part, whole, shift, own, dims, soft)
    return _value(part, whole, shift, own, dims, soft)


def _tiny(like: Tensor) -> float:
    return max(TINY, torch.finfo(like.dtype).tiny)


def _value(
    part: Tensor, whole: Tensor, shift: Tensor, own: Tensor, dims: tuple[int, ...] | None, soft: float
) -> Tensor:
    tiny = _tiny(part)
    sizes = part.abs()
    both = (whole - part).abs_().add_(sizes)
    if dims is not None:
        own = (sizes.sum(dims, keepdim=True) + own * tiny) / (both.sum(dims, keepdim=True) + tiny)
    floor = shift.abs() * soft + tiny
    return torch.addcdiv(part, (sizes + own * floor) * shift, both + floor)


class Share(Kernel):
    """``share`` with its gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        part: Tensor, whole: Tensor, shift: Tensor, own: Tensor, dims: tuple[int, ...] | None, soft: float
    ) -> Tensor:
        return _value(part, whole, shift, own, dims, soft)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.dims, ctx.soft = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        part, whole, shift, own = ctx.saved_tensors
        dims, soft, tiny = ctx.dims, ctx.soft, _tiny(part)
        rest, sizes = whole - part, part.abs()
        both = rest.abs() + sizes
        floor = shift.abs() * soft + tiny
        if dims is not None:
            mass = both.sum(dims, keepdim=True) + tiny
            own = (sizes.sum(dims, keepdim=True) + own * tiny) / mass
        both = both + floor
        shares = (sizes + own * floor) / both
        least = max(_STEEP, tiny)
        # by the share, by how large the part is, and by how large the rest is, turned
        steep = grad * shift / both.clamp_min(least)
        by_rest = steep * shares
        by_size = steep - by_rest
        if dims is not None:
            by_own = (steep * floor).sum(dims, keepdim=True) / mass.clamp_min(least)
            by_size, by_rest = by_size + by_own * (1 - own), by_rest + by_own * own
        by_rest = by_rest * rest.sign()
        by_shift = None
        if ctx.needs_input_grad[2]:
            by_floor = (steep * (own - shares)).sum_to_size(shift.shape) * (soft * shift.sign())
            by_shift = (grad * shares).sum_to_size(shift.shape) + by_floor
        by_part = torch.addcmul(grad, by_size, part.sign()) + by_rest
        return by_part, -by_rest, by_shift, None, None, None
