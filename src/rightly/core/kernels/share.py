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
    return torch.addcdiv(part, torch.addcmul(own * floor * shift, sizes, shift), both.add_(floor))


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
        # tensors of this size cost more to come by than to fill: where nothing is recorded, each is used again
        again = "" if torch.is_grad_enabled() else "_"
        names = ("add", "sub", "mul", "div", "neg", "sign", "clamp_min", "reciprocal")
        add, sub, mul, div, neg, sign, clamp_min, reciprocal = (getattr(Tensor, name + again) for name in names)
        rest, sizes = whole - part, part.abs()
        both = add(rest.abs(), sizes)
        floor = shift.abs() * soft + tiny
        if dims is not None:
            mass = both.sum(dims, keepdim=True) + tiny
            own = (sizes.sum(dims, keepdim=True) + own * tiny) / mass
        both = add(both, floor)
        shares = div(add(sizes, own * floor), both)
        # by the share, by how large the part is, and by how large the rest is, turned
        least = max(_STEEP, tiny)
        steep = mul(mul(reciprocal(clamp_min(both, least)), grad), shift)
        by_rest = steep * shares
        flat = steep  # summed where both ``floor`` and ``own`` are the same throughout
        if dims is not None:
            same = [dim for dim in dims if dim < steep.ndim - floor.ndim or floor.shape[dim - steep.ndim] == 1]
            flat = steep.sum(same, keepdim=True) if same else steep
            by_own = (flat * floor).sum(dims, keepdim=True) / mass.clamp_min(least)
        by_shift = None
        if ctx.needs_input_grad[2]:
            by_floor = (flat * own).sum_to_size(shift.shape) - by_rest.sum_to_size(shift.shape)
            by_shift = mul(shares, grad).sum_to_size(shift.shape) + by_floor * (soft * shift.sign())
        by_size = sub(steep, by_rest)
        if dims is not None:
            by_size, by_rest = add(by_size, by_own * (1 - own)), add(by_rest, by_own * own)
        by_rest = mul(by_rest, sign(rest))
        by_part = add(add(mul(by_size, part.sign()), grad), by_rest)
        return by_part, neg(by_rest), by_shift, None, None, None
