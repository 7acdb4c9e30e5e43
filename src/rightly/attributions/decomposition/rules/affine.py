"""Linear layers with a bias, and sums with constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.attributions.decomposition.rules.products import product
from rightly.attributions.decomposition.split import HUGE, Split, affine, carried, joint, linear, total_of
from rightly.attributions.decomposition.table import EXACT, OURS, SINGH, Args, Kwargs, rule
from rightly.core.intercept import Unsupported, named

_BIASED = "W b + s(W b, W g) c, s(b, g) = |b| / (|b| + |g|)"


def _plain_weights(func: Callable[..., Any], source: Any, *weights: Any) -> Split:
    if not isinstance(source, Split) or any(isinstance(weight, Split) for weight in weights):
        raise Unsupported(f"{func.__name__} whose weight depends on the input")
    return source


@rule("linear", formula=_BIASED, source=f"{SINGH}, eq. 5")
def _linear(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, weight, bias = named(args, kwargs, ("input", "weight", "bias"), (None,))
    if isinstance(weight, Split):
        result = product(lambda x, w: F.linear(x, w), (source, weight), {})
        return result if bias is None else add(torch.add, (result, bias), {})
    source = _plain_weights(func, source, bias)
    total = F.linear(source.total, weight, bias)
    return affine(total, source, lambda x: F.linear(x, weight), bias, (-1,))


@rule("conv1d", "conv2d", "conv3d", formula=_BIASED, source=f"{SINGH}, eq. 5")
def _convolution(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    source, weight, bias, *rest = named(args, kwargs, names, (None, 1, 0, 1, 1))
    return _convolved(func, source, weight, bias, rest)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", formula=_BIASED, source=f"{SINGH}, eq. 5")
def _transposed(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
    source, weight, bias, *rest = named(args, kwargs, names, (None, 1, 0, 0, 1, 1))
    return _convolved(func, source, weight, bias, rest)


def _convolved(func: Callable[..., Any], source: Any, weight: Any, bias: Any, rest: list[Any]) -> Split:
    source = _plain_weights(func, source, weight, bias)
    axes = weight.ndim - 2
    shift = None if bias is None else bias.reshape(-1, *(1,) * axes)
    total = func(source.total, weight, bias, *rest)
    return affine(total, source, lambda x: func(x, weight, None, *rest), shift, range(-axes - 1, 0))


@rule("bilinear", formula="1/2 (f(b_x, t_y) + f(t_x, b_y)), the bias shared", source=SINGH)
def _bilinear(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    left, right, weight, bias = named(args, kwargs, ("input1", "input2", "weight", "bias"), (None,))
    result = product(lambda x, y: torch.einsum("...i,oij,...j->...o", x, weight, y), (left, right), {})
    return result if bias is None else add(torch.add, (result, bias), {})


@rule("add", "sub", "subtract", "rsub", "radd", formula="b_x + b_y; a constant is shared like a bias", source=SINGH)
def add(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Sums and differences."""
    left, right, *rest = args if len(args) >= 2 else (args[0], kwargs["other"])
    alpha: Any = kwargs.get("alpha", rest[0] if rest else 1)
    name = func.__name__.strip("_")
    if name == "rsub":
        left, right = right, left
    factor = -alpha if name in ("sub", "subtract", "rsub") else alpha
    if isinstance(left, Split) and isinstance(right, Split):
        return linear(torch.add, (left, right), {"alpha": factor})
    source, constant = (left, right) if isinstance(left, Split) else (right, left)
    scale, by = (1, factor) if source is left else (factor, 1)
    return plus(source, constant, scale, by)


def plus(source: Split, constant: Any, scale: float = 1, by: float = 1) -> Split:
    """scale x + by c."""
    scaled = source if scale == 1 else linear(torch.mul, (source, scale), {})
    if not isinstance(constant, Tensor):
        if constant * by == 0:
            return scaled
        constant = torch.full((), constant, dtype=source.total.dtype, device=source.total.device)
    shift = constant * by if by != 1 else constant
    if not shift.is_floating_point():
        shift = shift.to(source.total.dtype)
    total = scaled.total + shift
    credited = torch.where(shift.abs() < HUGE, shift, torch.zeros_like(shift)) if shift.numel() > 1 else shift
    dims = (-1,) if total.ndim > 1 else ()
    whole, part = scaled.total.to(total.dtype), scaled.part

    def made() -> Tensor:
        return source.run.share(part().to(total.dtype), whole.expand(total.shape), credited, dims)

    return source.made(total, scaled.lazily(made))


_PRODUCTS: dict[str, Callable[..., Tensor]] = {
    "addmm": torch.mm,
    "baddbmm": torch.bmm,
    "addmv": torch.mv,
    "addbmm": lambda x, y: torch.bmm(x, y).sum(0),
}


@rule("addmm", "baddbmm", "addbmm", "addmv", formula="c + x y", source=SINGH)
def _sum_and_product(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    shift, left, right = args
    alpha, beta = kwargs.get("alpha", 1), kwargs.get("beta", 1)
    made = product(_PRODUCTS[func.__name__.strip("_")], (left, right), {})
    if not carried(left, right):
        return plus(shift, made, beta, alpha)
    if alpha != 1:
        made = linear(torch.mul, (made, alpha), {})
    if isinstance(shift, Split):
        return linear(torch.add, (made, shift), {"alpha": beta})
    return plus(made, shift, 1, beta) if beta != 0 else made


@rule("addcmul", "addcdiv", formula="c + v x y", source=SINGH)
def _sum_and_elements(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    start, left, right = args[:3]
    value = kwargs.get("value", 1)
    name = "mul" if "mul" in func.__name__ else "div"
    with torch._C._EnableTorchFunction():
        return start + getattr(torch, name)(left, right) * value


@rule(
    *("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack", "row_stack"),
    formula="f(b, ...); constants are shared like biases",
    source=OURS,
)
def _join(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    items = list(args[0] if args else kwargs["tensors"])
    rest = {"dim": args[1]} if len(args) > 1 else {k: v for k, v in kwargs.items() if k not in ("tensors", "out")}
    rest = {"dim" if k == "axis" else k: v for k, v in rest.items()}
    dim = {"hstack": 1, "dstack": 2, "column_stack": 1}.get(func.__name__, rest.get("dim", 0))
    return joint(lambda *xs: func(list(xs), **rest), tuple(items), {}, (dim, -1))


@rule("where", "masked_fill", formula="b where it is taken; a constant is shared like a bias", source=OURS)
def _where(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    if func.__name__.strip("_") == "masked_fill":
        source, mask, value = named(args, kwargs, ("input", "mask", "value"), ())
        mask, left, right = total_of(mask), value, source
    else:
        mask, left, right = named(args, kwargs, ("condition", "input", "other"), ())
        mask = total_of(mask)
    if not carried(left, right):
        return torch.where(mask, left, right)
    like = (left if isinstance(left, Split) else right).total
    left, right = (s if isinstance(s, Tensor) else torch.full((), s, dtype=like.dtype).to(like) for s in (left, right))
    return joint(torch.where, (mask, left, right), {})


@rule(
    *("scatter", "scatter_add", "index_add", "index_copy", "masked_scatter", "index_put", "slice_scatter"),
    *("select_scatter", "lerp"),
    formula="f(b, ...); constants are shared like biases",
    source=OURS,
)
def _written(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    if func.__name__.strip("_") == "lerp":
        start, end, weight = args
        with torch._C._EnableTorchFunction():
            return start + weight * (end - start)
    return joint(func, args, kwargs)


@rule("index_fill", "fill", "zero", formula="b where it stays; a constant is shared like a bias", source=EXACT)
def _filled(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, *rest = args
    keep = func(torch.ones_like(source.total), *rest[:-1], 0.0) if rest else torch.zeros_like(source.total)
    value = torch.as_tensor(rest[-1] if rest else 0.0).to(source.total)
    return joint(torch.where, (keep != 0, source, value.expand(source.total.shape)), {})


@rule("maximum", "minimum", "fmax", "fmin", formula="b of the one that is taken", source=SINGH)
def larger(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """The larger or smaller of two, number by number."""
    left, right = args if len(args) == 2 else (args[0], kwargs["other"])
    values = [value if isinstance(value, Tensor) else torch.as_tensor(value) for value in map(total_of, (left, right))]
    return _where(torch.where, (func(*values) == values[0], left, right), {})
