"""What two parts of a linear map's output get of what is added to both."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rightly.core import autodiff
from rightly.core.kernels.function import Kernel

#: keeps 0 / 0 away; what is smaller than this counts as nothing
TINY = 1e-20
#: and in the gradient, where the published share has no bound
_STEEP = 1e-12
#: steps of rounding that a part is not told from, over the size of its layer; in half precision less
_ROUNDED, _MOST_ROUNDED = 64, 1e-4
#: numbers of a block whose handful of temporaries stay in a processor's cache
_BLOCK = 2**18


def share(
    part: Tensor,
    whole: Tensor,
    shift: Tensor,
    own: Tensor,
    total: Tensor,
    dims: tuple[int, ...] | None,
    soft: float,
    taken: bool,
) -> Tensor:
    """``part`` with its share of ``shift``: proportional to |part| : |whole - part|.

    Where neither is larger than ``soft * |shift|``, the shares go over to those of the sums over ``dims``, and to
    ``own`` where these are nothing either. No part is left out. Nothing goes to a part that is zero throughout, or
    left of it by rounding; and where the rest is nothing throughout but rounding, the part is the total to the last
    bit: what was left would be given its share of the next shift, and so on (with ``dims``; the gradient does not ask
    what counts as rounding).
    The gradient is written out: it keeps three tensors, and is finite where the share is 0 / 0.

    Args:
        part, whole: in one shape, that of the result.
        shift: broadcastable to it.
        own: broadcastable to it with ``dims`` of size 1.
        total: the whole with the shift, to the last bit of what the model makes of it; no gradient goes to it.
        dims: over which the sums are taken; None takes ``own`` at once.
        soft: 0 is the published share, whose slopes have no bound.
        taken: whether the whole is the total less the shift, and so no better known than these.
    """
    if torch.is_grad_enabled() and (part.requires_grad or whole.requires_grad or shift.requires_grad):
        return Share.one(part, whole, shift, own, total.detach(), dims, soft, taken)
    laid = autodiff.laid_out(part, whole, shift, own, total) if part.device.type == "cpu" else None
    if laid is None or laid[0][0].numel() <= _BLOCK:
        return _value(part, whole, shift, own, total, dims, soft, taken)
    (parts, *others), one_of = laid
    rank = parts.ndim
    others = [each.reshape(len(each), *(1,) * (rank - each.ndim), *each.shape[1:]) for each in others]
    return one_of(_by_block([parts, *others], None if dims is None else tuple(dim + 1 for dim in dims), soft, taken))


def _by_block(tensors: list[Tensor], dims: tuple[int, ...] | None, soft: float, taken: bool) -> Tensor:
    """``_value`` of plain tensors, so many of their first dimension at a time."""
    made = torch.empty_like(tensors[0])
    rows = max(1, _BLOCK // made[0].numel())
    for start in range(0, len(made), rows):
        now = slice(start, start + rows)
        part, whole, shift, own, total = (each[now] if len(each) > 1 else each for each in tensors)
        _value(part, whole, shift, own, total, dims, soft, taken, into=made[now])
    return made


def _tiny(like: Tensor) -> float:
    return max(TINY, torch.finfo(like.dtype).tiny)


def _noise(whole: Tensor, shift: Tensor, dims: tuple[int, ...], taken: bool) -> Tensor:
    """What may be left of a part by rounding alone, which is as large as the layer and as what is taken off it. It
    would be given its share of a bias, and that a share of the next, so that after twenty layers nothing would have
    become as large as everything."""
    size = torch.nan_to_num(whole.detach().abs().mean(dims, keepdim=True), nan=0.0, posinf=0.0)
    size = size + shift.detach().abs() if taken else size
    return size * min(_ROUNDED * torch.finfo(whole.dtype).eps, _MOST_ROUNDED)


def _value(
    part: Tensor,
    whole: Tensor,
    shift: Tensor,
    own: Tensor,
    total: Tensor,
    dims: tuple[int, ...] | None,
    soft: float,
    taken: bool,
    into: Tensor | None = None,
) -> Tensor:
    tiny = _tiny(part)
    if dims is None:
        sizes, rest = part.abs(), (whole - part).abs_()
    else:
        noise = _noise(whole, shift, dims, taken)
        sizes, rest = _heard(part.abs(), noise), _heard((whole - part).abs_(), noise)
        mass, left = sizes.sum(dims, keepdim=True), rest.sum(dims, keepdim=True)
        full = (left == 0) & ((mass > 0) | (own == 1))
        own = (mass + own * tiny) / (mass + left + tiny)
    both, again = rest.add_(sizes), None if into is None else sizes
    floor = shift.abs() * soft + tiny
    # one by one: torch's addcmul is slow where a bias is the same for a whole image
    shares = torch.add(torch.mul(sizes, shift, out=again), own * floor * shift, out=again)
    made = torch.addcdiv(part, shares, both.add_(floor), out=into)
    if dims is None or (into is not None and not bool(full.any())):
        return made
    return torch.where(full, total, made, out=into)


def _heard(size: Tensor, noise: Tensor) -> Tensor:
    """Nothing up to the noise, and the size from twice the noise on. Without a jump between: a region and its
    complement would pass a bar by different roundings."""
    # in place: a tensor of this size costs more to come by than to fill
    return torch.add(-2 * noise, size, alpha=2).clamp_max_(size).clamp_min_(0)


class Share(Kernel):
    """``share`` with its gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        part: Tensor,
        whole: Tensor,
        shift: Tensor,
        own: Tensor,
        total: Tensor,
        dims: tuple[int, ...] | None,
        soft: float,
        taken: bool,
    ) -> Tensor:
        return _value(part, whole, shift, own, total, dims, soft, taken)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, _, ctx.dims, ctx.soft, ctx.taken = inputs
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
        if dims is not None:
            noise = _noise(whole, shift, dims, ctx.taken)
            rest, sizes = mul(rest, rest.abs() > noise), mul(sizes, sizes > noise)
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
        heard = part if dims is None else part * (part.abs() > noise)
        by_part = add(add(mul(by_size, heard.sign()), grad), by_rest)
        return by_part, neg(by_rest), by_shift, *(None,) * 5
