"""What operations do to bounds. Anything without a rule is ``Unsupported``, so that no bound is ever wrong in silence.

Questions about values (comparisons, ``item``) have no rule: a model that decides by them may decide otherwise
elsewhere in the box.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core import autodiff
from rightly.core.intercept import Rule, Unsupported, carriers, named
from rightly.core.intervals.bounded import Back, Bounded, Interval, Tape, sum_to

Args = tuple[Any, ...]
Kwargs = dict[str, Any]

#: by the operation's name
RULES: dict[str, Rule] = {}
Bounded.rules = RULES


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule under the names of the operations that it is for."""

    def note(entered: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, entered))
        return entered

    return note


# ---- nothing but shapes

_SHAPES = (
    "shape size dim ndim device dtype layout numel len is_floating_point is_complex is_contiguous stride get_device"
)
_NEW = "zeros_like ones_like empty_like full_like new_zeros new_ones new_full new_tensor new_empty"


@rule(*_SHAPES.split(), *_NEW.split(), "requires_grad", "is_cuda", "is_cpu", "is_leaf", "is_nested", "is_sparse")
def _plain(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """What does not depend on the values."""
    if list(carriers(args[1:], kwargs)):
        raise Unsupported(f"{func.__name__} of several bounded tensors")
    return func(args[0].low, *args[1:], **kwargs)


@rule("to", "type", "type_as", "float", "double", "half", "bfloat16")
def _same_type(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source = _only(func, args, kwargs)
    result = func(source.low, *args[1:], **kwargs)
    if result.dtype != source.low.dtype or result.device != source.low.device:
        raise Unsupported("the model changes its precision or device on the way")
    return source


@rule("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
def _dropout(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = {"p": 0.5, "training": True} | dict(zip(("p", "training"), args[1:], strict=False)) | kwargs
    if names["training"] and names["p"] > 0:
        raise Unsupported("dropout is on")
    return args[0]


# ---- sums with weights that are not negative: each bound goes its own way

_VIEWS = (
    "view reshape flatten unflatten permute transpose movedim moveaxis swapaxes swapdims squeeze unsqueeze expand "
    "expand_as view_as T mT contiguous getitem narrow select unbind split chunk tensor_split"
)
_SUMS = (
    "clone repeat tile roll flip positive sum mean cumsum index_select gather avg_pool1d avg_pool2d avg_pool3d "
    "adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d pixel_shuffle pixel_unshuffle channel_shuffle "
    "unfold fold pad"
)


@rule(*_SUMS.split())
def _rising(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, rest = _only(func, args, kwargs), args[1:]

    def run(t: Tensor) -> Any:
        return func(t, *rest, **kwargs)

    low, high, like = run(source.low), run(source.high), source.low
    if isinstance(low, Tensor):
        return source.made(low, high, _both(run, like))
    return tuple(source.made(low[i], high[i], _both(_piece(run, i), like)) for i in range(len(low)))


def _piece(run: Callable[[Tensor], Any], index: int) -> Callable[[Tensor], Tensor]:
    return lambda t: run(t)[index]


@rule(*_VIEWS.split())
def _view(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """The same, and what comes out may share memory with what went in."""
    if any(isinstance(value, torch.dtype) for value in (*args[1:], *kwargs.values())):
        raise Unsupported("a view of the same memory as numbers of another type")
    result = _rising(func, args, kwargs)
    for part in result if isinstance(result, tuple) else (result,):
        part.shares(args[0])
    return result


@rule("interpolate", "upsample")
def _interpolate(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    if kwargs.get("mode", args[3] if len(args) > 3 else "nearest") == "bicubic":
        raise Unsupported("bicubic interpolation, whose weights may be negative")
    return _rising(func, args, kwargs)


@rule("cat", "concat", "concatenate", "stack", "hstack", "vstack")
def _join(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    first, *rest = args or (kwargs.pop("tensors"),)
    items = list(first)
    places = [i for i, item in enumerate(items) if isinstance(item, Bounded)]
    lows, highs = ([getattr(x, end) if isinstance(x, Bounded) else x for x in items] for end in ("low", "high"))

    def with_one(i: int) -> Callable[[Tensor], Tensor]:
        return lambda t: func([*lows[:i], t, *lows[i + 1 :]], *rest, **kwargs)

    def back(low: Tensor, high: Tensor) -> tuple[Interval, ...]:
        return tuple(_both(with_one(i), lows[i])(low, high)[0] for i in places)

    bounds = func(lows, *rest, **kwargs), func(highs, *rest, **kwargs)
    return _tape([items[i] for i in places]).add(bounds, tuple(items[i].slot for i in places), back)


@rule("add", "sub", "subtract", "rsub")
def _add(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    left, right, *rest = args if len(args) >= 2 else (args[0], kwargs["other"])
    factor: Any = kwargs.get("alpha", rest[0] if rest else 1)
    name = func.__name__.strip("_")
    if name == "rsub":
        left, right = right, left
    if name != "add":
        factor = -factor
    if isinstance(right, Bounded) and factor != 1:
        right = scaled(right, factor)
    elif factor != 1:
        right = right * factor
    if isinstance(left, Bounded) and isinstance(right, Bounded):
        bounds = left.low + right.low, left.high + right.high
        return _tape([left, right]).add(bounds, (left.slot, right.slot), _summed(left.low, right.low))
    source, constant = (left, right) if isinstance(left, Bounded) else (right, left)
    return source.made(source.low + constant, source.high + constant, _summed(source.low))


def _summed(*sides: Tensor) -> Back:
    """The way back through a sum: to every side, over whose broadcast entries it is summed."""
    return lambda low, high: tuple((sum_to(low, side), sum_to(high, side)) for side in sides)


# ---- products with constants: the middle of the box goes with the weights, its half widths with their sizes


def product(source: Bounded, weight: Tensor, apply: Callable[[Tensor, Tensor], Tensor], shift: Any = None) -> Bounded:
    """apply(x, weight) + shift, linear in x and in the weight."""
    sizes = weight.abs()
    middle = apply((source.low + source.high) / 2, weight)
    middle = middle if shift is None else middle + shift
    half = apply((source.high - source.low) / 2, sizes)

    like = source.low

    def back(low: Tensor, high: Tensor) -> tuple[Interval, ...]:
        centre = autodiff.adjoint(lambda t: apply(t, weight), like, (low + high) / 2)
        width = autodiff.adjoint(lambda t: apply(t, sizes), like, (high - low) / 2)
        return ((centre - width, centre + width),)

    return source.made(middle - half, middle + half, back)


def scaled(source: Bounded, by: Any) -> Bounded:
    """x times a constant."""
    weight = by if isinstance(by, Tensor) else source.low.new_tensor(float(by))
    return product(source, weight, torch.mul)


@rule("neg", "negative")
def _negative(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    return scaled(args[0], -1.0)


@rule("mul", "multiply", "matmul", "rmatmul", "mm", "bmm", "rmul")
def _product(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    left, right = args if len(args) == 2 else (args[0], *kwargs.values())
    if isinstance(left, Bounded) and isinstance(right, Bounded):
        raise Unsupported(f"{func.__name__} of two tensors that both depend on the input")
    source, factor = (left, right) if isinstance(left, Bounded) else (right, left)
    if not isinstance(factor, Tensor):
        return scaled(source, factor)
    if not factor.is_floating_point() and not factor.is_complex():
        factor = factor.to(source.low)  # a mask
    first = source is left
    return product(source, factor, lambda t, w: func(t, w) if first else func(w, t))


@rule("div", "divide", "true_divide")
def _quotient(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    if kwargs or not isinstance(args[0], Bounded) or isinstance(args[1], Bounded):
        raise Unsupported("a quotient by something that depends on the input")
    return scaled(args[0], 1 / args[1])


@rule("addmm", "baddbmm")
def _affine_product(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    shift, source, weight = args
    if kwargs or isinstance(shift, Bounded) or not isinstance(source, Bounded) or isinstance(weight, Bounded):
        raise Unsupported(f"{func.__name__} in which other than the first factor depends on the input")
    return product(source, weight, torch.mm if func.__name__ == "addmm" else torch.bmm, shift)


@rule("linear")
def _linear(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, weight, bias = named(args, kwargs, ("input", "weight", "bias"), (None,))
    _constant(func, source, weight, bias)
    return product(source, weight, lambda t, w: F.linear(t, w), bias)


@rule("conv1d", "conv2d", "conv3d")
def _convolution(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    return _convolved(func, *named(args, kwargs, names, (None, 1, 0, 1, 1)))


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _transposed(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    return _convolved(func, *named(args, kwargs, names, (None, 1, 0, 0, 1, 1)))


def _convolved(func: Callable[..., Any], source: Any, weight: Any, bias: Any, *rest: Any) -> Bounded:
    _constant(func, source, weight, bias)
    shift = None if bias is None else bias.reshape(-1, *(1,) * (weight.ndim - 2))
    return product(source, weight, lambda t, w: func(t, w, None, *rest), shift)


@rule("batch_norm")
def _batch_norm(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    source, mean, variance, weight, bias, training, _, eps = named(args, kwargs, names, (None, None, False, 0.1, 1e-5))
    if training or mean is None:
        raise Unsupported("batch norm with the statistics of the batch")
    scale = torch.rsqrt(variance + eps) if weight is None else weight * torch.rsqrt(variance + eps)
    shift = -mean * scale if bias is None else bias - mean * scale
    shape = (-1, *(1,) * (source.low.ndim - 2))
    return product(source, scale.reshape(shape), torch.mul, shift.reshape(shape))


# ---- what rules share


def _both(function: Callable[[Tensor], Tensor], like: Tensor) -> Back:
    """The way back through a sum with weights that are not negative."""

    def back(low: Tensor, high: Tensor) -> tuple[Interval, ...]:
        return ((autodiff.adjoint(function, like, low), autodiff.adjoint(function, like, high)),)

    return back


def _only(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Bounded:
    source, *others = carriers(args, kwargs)
    if others or args[0] is not source or not isinstance(source, Bounded):
        raise Unsupported(f"{func.__name__} of several bounded tensors")
    return source


def _constant(func: Callable[..., Any], source: Any, *weights: Any) -> None:
    if not isinstance(source, Bounded) or any(isinstance(weight, Bounded) for weight in weights):
        raise Unsupported(f"{func.__name__} whose weight depends on the input")


def _tape(items: list[Bounded]) -> Tape:
    first, *others = (item.tape for item in items)
    if any(other is not first for other in others):
        raise Unsupported("the model uses what it computed in an earlier pass")
    return first
