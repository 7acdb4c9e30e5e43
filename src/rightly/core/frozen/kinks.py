"""What operations with kinks do to tangents: the slope on their own side of the kink, which is held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core import autodiff
from rightly.core.frozen import kernels
from rightly.core.frozen.rules import add, product
from rightly.core.frozen.table import Args, Kwargs, constant, record, rule, tape_of, value
from rightly.core.frozen.tape import Traced
from rightly.core.intercept import Unsupported, named


@rule("relu")
def _relu(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    result = torch.relu(args[0].total)
    held = result.detach()
    return record(args[0], result, lambda t: torch.ops.aten.threshold_backward(t, held, 0))


#: elementwise functions with kinks, and how many arguments they have beside ``inplace``
_KINKED = {"leaky_relu": 1, "hardtanh": 2, "relu6": 0, "threshold": 2, "clamp": 2, "clip": 2, "abs": 0, "absolute": 0}
_KINKED |= {"clamp_min": 1, "clamp_max": 1, "hardshrink": 1, "softshrink": 1}


@rule(*_KINKED, "_threshold")
def _kinked(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Elementwise, so that its Jacobian is diagonal and the adjoint does what the tangent needs."""
    source, *rest = args
    if any(isinstance(bound, Tensor) for bound in (*rest, *kwargs.values())):
        raise Unsupported(f"{func.__name__} with bounds that are tensors")
    before = source.total
    result = func(before, *rest[: _KINKED[func.__name__.strip("_")]], **kwargs)
    return record(source, result, lambda t: autodiff.only(autodiff.pull([result], [before], t)))


@rule("prelu")
def _prelu(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """relu(x) - w relu(-x), so that the slope is a weight like any other."""
    source, weight = named(args, kwargs, ("input", "weight"), ())
    slope = weight.reshape(1, -1, *(1,) * (source.total.ndim - 2)) if weight.numel() > 1 else weight
    minus = _relu(torch.relu, (_negative(source),), {})
    plus = _relu(torch.relu, (source,), {})
    return add(torch.sub, (plus, product(torch.mul, (minus, slope), {})), {})


def _negative(source: Any) -> Traced:
    return record(source, -source.total, torch.neg)


@rule("max_pool1d", "max_pool2d", "max_pool3d")
def _max_pool(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    source, kernel, stride, padding, dilation, ceil_mode, both = named(args, kwargs, names, (None, 0, 1, False, False))
    if both:
        raise Unsupported("max pooling that returns its indices")
    dims = int(func.__name__[-2])
    result, index = kernels.max_pool(source.total, dims, (kernel, stride or None, padding, dilation, ceil_mode))
    return _winners(source, result, index, dims)


@rule("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive_max_pool(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, size, both = named(args, kwargs, ("input", "output_size", "return_indices"), (False,))
    if both:
        raise Unsupported("max pooling that returns its indices")
    pool = {
        1: F.adaptive_max_pool1d,
        2: F.adaptive_max_pool2d,
        3: F.adaptive_max_pool3d,
    }[int(func.__name__[-2])]
    result, index = pool(source.total, size, return_indices=True)
    return _winners(source, result, index, int(func.__name__[-2]))


def _winners(source: Any, result: Tensor, index: Tensor, dims: int) -> Traced:
    """The tangent of a maximum is that of its winner; ``index`` counts over the last ``dims`` dimensions."""
    start = result.ndim - dims
    flat, shape = index.flatten(start), result.shape
    return record(source, result, lambda t: t.flatten(start).gather(start, flat).reshape(shape))


@rule("max", "min")
def _extreme(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    if (len(args) == 2 and isinstance(args[1], Tensor)) or "other" in kwargs:
        return _extreme_of_two(torch.maximum if func.__name__ == "max" else torch.minimum, args, kwargs)
    if len(args) + len(kwargs) < 2:
        raise Unsupported("the extreme of a whole batch")
    source, dim, keepdim = named(args, kwargs, ("input", "dim", "keepdim"), (False,))
    result = func(source.total, dim, keepdim)
    index = result.indices

    def run(t: Tensor) -> Tensor:
        return t.gather(dim, index if keepdim else index.unsqueeze(dim)).reshape(index.shape)

    return type(result)((record(source, result.values, run), index))


@rule("amax", "amin")
def _extreme_values(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Ties share, as in torch's own derivative."""
    source, dim, keepdim = named(args, kwargs, ("input", "dim", "keepdim"), ((), False))
    result = func(source.total, dim, keepdim=True)
    held = (source.total == result).to(result)
    held = held / held.sum(dim, keepdim=True)
    shown = result if keepdim else func(source.total, dim, keepdim=False)
    return record(source, shown, lambda t: (t * held).sum(dim, keepdim=keepdim))


@rule("maximum", "minimum")
def _extreme_of_two(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Where they tie each gets half, as in torch's own derivative."""
    left, right = args if len(args) == 2 else (args[0], kwargs["other"])
    a, b = _values(left, right)
    result: Tensor = func(a, b)
    first = torch.where(a == b, 0.5, (result == a).to(result)).expand(result.shape)
    return _chosen([left, right], result, [first, 1 - first])


@rule("where")
def _where(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    condition, left, right = args
    a, b = _values(left, right)
    result = torch.where(condition, a, b)
    first = condition.to(result).expand(result.shape)
    return _chosen([left, right], result, [first, 1 - first])


@rule("masked_fill")
def _masked_fill(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, mask, value = args
    if not isinstance(source, Traced) or isinstance(value, Tensor):
        raise Unsupported("masked_fill with a tensor for its value")
    result = func(source.total, mask, value)
    source.tape.held.append(mask)
    return record(source, result, lambda t: t.masked_fill(mask, 0.0))


def _values(*sides: Any) -> list[Any]:
    tape = tape_of(sides)
    return [value(side) if isinstance(side, Traced) else constant(tape, side) for side in sides]


def _chosen(sides: list[Any], result: Tensor, shares: list[Tensor]) -> Traced:
    """What each side contributes to a tangent."""
    tape = tape_of(sides)
    own = [(side, share) for side, share in zip(sides, shares, strict=True) if isinstance(side, Traced)]
    parts = [share for _, share in own]

    def run(*tangents: Tensor) -> Tensor:
        return sum(t * share for t, share in zip(tangents, parts, strict=True))  # type: ignore[return-value]

    return tape.add(result, tuple(side.slot for side, _ in own), run)
