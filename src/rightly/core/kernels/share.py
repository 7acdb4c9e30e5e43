"""What two parts of a linear map's output get of what is added to both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

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

Dims = tuple[int, ...] | None


def share(
    part: Tensor,
    total: Tensor,
    shift: Tensor,
    own: Tensor,
    dims: Dims,
    soft: float,
    whole: Tensor | None = None,
    *,
    spent: bool = False,
) -> Tensor:
    """``part`` with its share of ``shift``: proportional to |part| : |whole - part|.

    Where neither is larger than ``soft * |shift|``, the shares go over to those of the sums over ``dims``, and to
    ``own`` where these are nothing either. No part is left out. Nothing goes to a part that is zero throughout, or
    left of it by rounding; and where the rest is nothing throughout but rounding, the part is the total to the last
    bit: what was left would be given its share of the next shift, and so on (with ``dims``; the gradient does not ask
    what counts as rounding).
    The gradient is written out: it keeps nothing but the arguments, and is finite where the share is 0 / 0.

    Args:
        part, total: in one shape, that of the result. The total is what the model makes of it, to the last bit.
        shift: broadcastable to it.
        own: broadcastable to it with ``dims`` of size 1.
        dims: over which the sums are taken, counted from the front; None takes ``own`` at once.
        soft: 0 is the published share, whose slopes have no bound.
        whole: the total without the shift, which then gets the gradient in the total's place. None takes it off, and
            the whole is no better known than these.
        spent: whether the part may be written over.
    """
    given = part, total, shift, own, whole
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in given):
        return Share.one(*given, dims, soft)
    return _shared(*given, dims, soft, spent)


def _shared(
    part: Tensor,
    total: Tensor,
    shift: Tensor,
    own: Tensor,
    whole: Tensor | None,
    dims: Dims,
    soft: float,
    spent: bool = False,
) -> Tensor:
    """``_value``, block by block where that can be."""
    laid = _laid(part, total, shift, own, whole)
    if laid is None:
        return _value(part, own, _layer(total, shift, whole, dims, soft), dims)
    (part, total, shift, own, whole), dims, one_of = laid[0], _inner(dims), laid[1]
    with autodiff.outside_blocks():  # where each operation takes twice as long to begin
        made = part if spent and part.is_contiguous() else torch.empty_like(part)
        layer = None
        if total.numel() <= _BLOCK:  # the same for many parts; in full, since short runs of equal numbers take longer
            layer = _Layer(*(x.expand(total.shape).contiguous() for x in _layer(total, shift, whole, dims, soft)))
        for block in _blocks(part.shape, dims):
            if layer is None:
                alone = None if whole is None else _at(whole, block)
                now = _layer(_at(total, block), _at(shift, block), alone, dims, soft)
            else:
                now = _Layer(*(_at(x, block) for x in layer))
            _value(part[block], _at(own, block), now, dims, into=made[block])
    return one_of(made)


def _laid(*tensors: Tensor | None) -> tuple[list[Any], Callable[[Tensor], Tensor]] | None:
    """Tensors as they lie in a processor's memory, with one more dimension in front and as many in all; the first in
    full. And what takes that dimension off again. None where that cannot be."""
    given = [tensor for tensor in tensors if tensor is not None]
    if given[0].device.type != "cpu" or len({tensor.dtype for tensor in given}) > 1:
        return None
    laid = autodiff.laid_out(*given)
    if laid is None and not autodiff.plain(*given):
        return None
    found, one_of = laid or ([tensor.unsqueeze(0) for tensor in given], lambda made: made.squeeze(0))
    rank = found[0].ndim
    padded = [each.reshape(len(each), *(1,) * (rank - each.ndim), *each.shape[1:]) for each in found]
    padded[0] = padded[0].expand(max(map(len, found)), *padded[0].shape[1:])
    turn = iter(padded)
    return [None if tensor is None else next(turn) for tensor in tensors], one_of


def _inner(dims: Dims) -> Dims:
    """The same dimensions behind one more."""
    return None if dims is None else tuple(dim + 1 for dim in dims)


def _blocks(shape: tuple[int, ...], dims: Dims, axis: int = 0) -> Iterator[tuple[slice, ...]]:
    """Where to cut so that no block has many more numbers than ``_BLOCK``, but not within ``dims``."""
    each, deeper = math.prod(shape[axis + 1 :]), axis + 1
    inside = each > _BLOCK and deeper < len(shape) and deeper not in (dims or ())
    rows = max(1, _BLOCK // max(1, each))
    for start in range(0, shape[axis], rows):
        now = (slice(start, start + rows),)
        yield from ((*now, *rest) for rest in _blocks(shape, dims, deeper)) if inside else (now,)


def _at(tensor: Tensor, block: tuple[slice, ...]) -> Tensor:
    """The block of what is broadcast to the size of all."""
    for axis, now in enumerate(block):
        if tensor.shape[axis] > 1:
            tensor = tensor[(*(slice(None),) * axis, now)]
    return tensor


def _tiny(like: Tensor) -> float:
    return max(TINY, torch.finfo(like.dtype).tiny)


def _noise(whole: Tensor, shift: Tensor, dims: tuple[int, ...], taken: bool) -> Tensor:
    """What may be left of a part by rounding alone, which is as large as the layer and as what is taken off it. It
    would be given its share of a bias, and that a share of the next, so that after twenty layers nothing would have
    become as large as everything."""
    size = torch.nan_to_num(whole.detach().abs().mean(dims, keepdim=True), nan=0.0, posinf=0.0)
    size = size + shift.detach().abs() if taken else size
    return size * min(_ROUNDED * torch.finfo(whole.dtype).eps, _MOST_ROUNDED)


class _Layer(NamedTuple):
    """What parts are compared to: ``floor`` is how small they are for others to take over, ``least`` the share that
    these then get, and ``quiet`` is minus twice the noise."""

    total: Tensor
    whole: Tensor
    shift: Tensor
    floor: Tensor
    least: Tensor
    quiet: Tensor


def _layer(total: Tensor, shift: Tensor, whole: Tensor | None, dims: Dims, soft: float) -> _Layer:
    alone = total - shift if whole is None else whole
    floor = shift.abs() * soft + _tiny(total)
    quiet = floor if dims is None else -2 * _noise(alone, shift, dims, whole is None)
    return _Layer(total, alone, shift, floor, floor * shift, quiet)


def _value(part: Tensor, own: Tensor, layer: _Layer, dims: Dims, into: Tensor | None = None) -> Tensor:
    sizes, rest, given = part.abs(), (layer.whole - part).abs_(), own
    if dims is not None:
        sizes, rest = (_heard(size, layer.quiet, into is not None) for size in (sizes, rest))
        tiny = _tiny(part)
        mass, left = sizes.sum(dims, keepdim=True), rest.sum(dims, keepdim=True)
        own = (mass + own * tiny) / (mass + left + tiny)
    both, again = rest.add_(sizes), None if into is None else sizes
    shares = torch.addcmul(torch.mul(sizes, layer.shift, out=again), own, layer.least, out=again)
    made = torch.addcdiv(part, shares, both.add_(layer.floor), out=into)
    if dims is None or (into is not None and bool(left.all())):
        return made
    return torch.where((left == 0) & ((mass > 0) | (given == 1)), layer.total, made, out=into)


def _heard(size: Tensor, quiet: Tensor, plain: bool) -> Tensor:
    """Nothing up to the noise, and the size from twice the noise on. Without a jump between: a region and its
    complement would pass a bar by different roundings."""
    twice = torch.add(quiet, size, alpha=2)
    # a tensor of this size costs more to come by than to fill
    return torch.clamp(twice, size.new_zeros(()), size, out=twice if plain else None)


class Share(Kernel):
    """``share`` with its gradient."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        part: Tensor, total: Tensor, shift: Tensor, own: Tensor, whole: Tensor | None, dims: Dims, soft: float
    ) -> Tensor:
        return _shared(part, total, shift, own, whole, dims, soft)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        *tensors, ctx.dims, ctx.soft = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        part, total, shift, own, whole = ctx.saved_tensors
        dims, soft, taken = ctx.dims, ctx.soft, whole is None
        laid = _laid(grad, part, shift, own, total if taken else whole)
        if laid is None:
            alone = total - shift if taken else whole
            by_part, by_whole, by_shift = _slopes(grad, part, shift, own, alone, dims, soft, taken)
        else:
            (grads, part, shifts, own, alone), one_of = laid
            shifts = shifts.expand(len(grads), *shifts.shape[1:])
            by_part, by_whole = grads.new_empty(grads.shape), grads.new_empty(grads.shape)
            by_shift = shifts.new_zeros(shifts.shape)
            for block in _blocks(grads.shape, _inner(dims)):
                g, p, s, o, w = (_at(each, block) for each in (grads, part, shifts, own, alone))
                w = w - s if taken else w
                found = _slopes(g, p, s, o, w, _inner(dims), soft, taken)
                by_part[block], by_whole[block] = found[:2]
                _at(by_shift, block).add_(found[2])
            by_part, by_whole = one_of(by_part), one_of(by_whole)
            by_shift = one_of(by_shift).reshape(shift.shape)
        wanted = (by_whole, by_shift, None, None) if taken else (None, by_shift, None, by_whole)
        return by_part, *wanted, None, None


def _slopes(
    grad: Tensor, part: Tensor, shift: Tensor, own: Tensor, whole: Tensor, dims: Dims, soft: float, taken: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """What comes back to the part, to the whole (or the total it is taken of), and to the shift."""
    tiny = _tiny(part)
    # tensors of this size cost more to come by than to fill: where nothing is recorded, each is used again
    again = "" if torch.is_grad_enabled() else "_"
    names = ("add", "sub", "mul", "div", "neg", "sign", "clamp_min", "reciprocal")
    add, sub, mul, div, neg, sign, clamp_min, reciprocal = (getattr(Tensor, name + again) for name in names)
    heard, rest = part, whole - part
    if dims is not None:
        noise = _noise(whole, shift, dims, taken)
        heard, rest = _loud(heard, noise), _loud(rest, noise)
    sizes = heard.abs()
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
    by_floor = (flat * own).sum_to_size(shift.shape) - by_rest.sum_to_size(shift.shape)
    by_shift = mul(shares, grad).sum_to_size(shift.shape) + by_floor * (soft * shift.sign())
    by_size = sub(steep, by_rest)
    if dims is not None:
        by_size, by_rest = add(by_size, by_own * (1 - own)), add(by_rest, by_own * own)
    by_rest = mul(by_rest, sign(rest))
    by_part = add(add(mul(by_size, heard.sign()), grad), by_rest)
    if taken:
        by_shift = by_shift + by_rest.sum_to_size(shift.shape)
    return by_part, neg(by_rest), by_shift


def _loud(x: Tensor, noise: Tensor) -> Tensor:
    """What is larger than the noise, and zero elsewhere. (A product with a truth value takes ten times as long.)"""
    found: Tensor = torch.ops.aten.threshold_backward(x, x.detach().abs() - noise, 0)
    return found
