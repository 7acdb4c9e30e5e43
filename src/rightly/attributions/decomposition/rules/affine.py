"""Linear layers with a bias, and sums with constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.attributions.decomposition.rules.products import product
from rightly.attributions.decomposition.split import (
    HUGE,
    Split,
    affine,
    carried,
    constant,
    first,
    joint,
    linear,
    total_of,
)
from rightly.attributions.decomposition.table import EXACT, OURS, SINGH, TOKEN_RULES, Args, Kwargs, rule
from rightly.core.intercept import Unsupported, named

_BIASED = "W b + s(W b, W g) c, s(b, g) = |b| / (|b| + |g|)"


def _plain_weights(func: Callable[..., Any], source: Any, *weights: Any) -> Split:
    if not isinstance(source, Split) or any(isinstance(weight, Split) for weight in weights):
        raise Unsupported(f"{func.__name__} whose weight depends on the input")
    return source


@rule("linear", formula=_BIASED, source=f"{SINGH}, eq. 5", apart=True)
def _linear(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, weight, bias = named(args, kwargs, ("input", "weight", "bias"), (None,))
    if isinstance(weight, Split):
        result = product(lambda x, w: F.linear(x, w), (source, weight), {})
        return result if bias is None else add(torch.add, (result, bias), {})
    source = _plain_weights(func, source, bias)
    total = F.linear(source.total, weight, bias)
    return affine(total, source, lambda x: F.linear(x, weight), bias, (-1,))


@rule("conv1d", "conv2d", "conv3d", formula=_BIASED, source=f"{SINGH}, eq. 5", apart=True)
def _convolution(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    source, weight, bias, *rest = named(args, kwargs, names, (None, 1, 0, 1, 1))
    return _convolved(func, source, weight, bias, rest)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", formula=_BIASED, source=f"{SINGH}, eq. 5", apart=True)
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


@rule("bilinear", formula="1/2 (f(b_x, t_y) + f(t_x, b_y)), the bias shared", source=SINGH, apart=True)
def _bilinear(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    left, right, weight, bias = named(args, kwargs, ("input1", "input2", "weight", "bias"), (None,))
    result = product(lambda x, y: torch.einsum("...i,oij,...j->...o", x, weight, y), (left, right), {})
    return result if bias is None else add(torch.add, (result, bias), {})


@rule(
    "add",
    "sub",
    "subtract",
    "rsub",
    "radd",
    formula="b_x + b_y; a constant is shared like a bias",
    source=SINGH,
    apart=True,
)
def add(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Sums and differences."""
    left, right, alpha = named(args, kwargs, ("input", "other", "alpha"), (1,))
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
            return scaled.made(scaled.total + 0, scaled.part, reference=scaled.reference)
        constant = torch.full((), constant, dtype=source.total.dtype, device=source.total.device)
    shift = constant * by if by != 1 else constant
    if not shift.is_floating_point():
        shift = shift.to(source.total.dtype)
    total = scaled.total + shift
    credited = torch.where(shift.abs() < HUGE, shift, torch.zeros_like(shift)) if shift.numel() > 1 else shift
    dims = (-1,) if total.ndim > 1 else ()
    whole, part = scaled.total.to(total.dtype), scaled.part

    def made() -> Tensor:
        if source.run.apart:
            kept: Tensor = part().to(total.dtype).expand(total.shape)
            return kept
        return source.run.share(part().to(total.dtype), whole + credited, credited, dims, whole.expand(total.shape))

    start = None if scaled.reference is None else scaled.reference + shift
    return source.made(total, scaled.lazily(made), reference=start)


_PRODUCTS: dict[str, Callable[..., Tensor]] = {
    "addmm": torch.mm,
    "baddbmm": torch.bmm,
    "addmv": torch.mv,
    "addbmm": lambda x, y: torch.bmm(x, y).sum(0),
}


@rule("addmm", "baddbmm", "addbmm", "addmv", formula="c + x y", source=SINGH, apart=True)
def _sum_and_product(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    called = {"mat1": "x", "batch1": "x", "mat": "x", "mat2": "y", "batch2": "y", "vec": "y"}
    kwargs = {called.get(name, name): value for name, value in kwargs.items()}
    shift, left, right, alpha, beta = named(args, kwargs, ("input", "x", "y", "alpha", "beta"), (1, 1))
    made = product(_PRODUCTS[func.__name__.strip("_")], (left, right), {})
    if not carried(left, right):
        return plus(shift, made, beta, alpha)
    if alpha != 1:
        made = linear(torch.mul, (made, alpha), {})
    if isinstance(shift, Split):
        return linear(torch.add, (made, shift), {"alpha": beta})
    return plus(made, shift, 1, beta) if beta != 0 else made


@rule("addcmul", "addcdiv", formula="c + v x y", source=SINGH, apart=True)
def _sum_and_elements(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    start, left, right, value = named(args, kwargs, ("input", "tensor1", "tensor2", "value"), (1,))
    name = "mul" if "mul" in func.__name__ else "div"
    with torch._C._EnableTorchFunction():
        return start + getattr(torch, name)(left, right) * value


_JOINED = ("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack", "row_stack")


@rule(*_JOINED, formula="the same choice; that of constants is shared like a bias", source=OURS, table=TOKEN_RULES)
@rule(*_JOINED, formula="f(b, ...); constants are shared like biases", source=OURS, apart=True)
def _join(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    items, dim = named(args, kwargs, ("tensors", "dim"), (None,))
    rest = {} if dim is None else {"dim": dim}
    dim = {"hstack": 1, "dstack": 2, "column_stack": 1}.get(func.__name__, dim or 0)
    return joint(lambda *xs: func(list(xs), **rest), *items, dims=(dim, -1))


@rule("where", "masked_fill", formula="b where it is taken; a constant is shared like a bias", source=OURS, apart=True)
def _where(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    if func.__name__.strip("_") == "masked_fill":
        right, mask, left = named(args, kwargs, ("input", "mask", "value"), ())
    elif func == torch.Tensor.where:
        left, mask, right = named(args, kwargs, ("input", "condition", "other"), ())
    else:
        mask, left, right = named(args, kwargs, ("condition", "input", "other"), ())
    return taken(mask, left, right)


def taken(mask: Any, left: Any, right: Any) -> Any:
    """``torch.where``, of splits, tensors and numbers."""
    mask = total_of(mask)
    if not carried(left, right):
        return torch.where(mask, left, right)
    like = (left if isinstance(left, Split) else right).total
    return joint(lambda x, y: torch.where(mask, x, y), constant(left, like), constant(right, like))


#: where something is written into a tensor: names and defaults of the arguments, and the name of what is written
_WRITTEN: dict[str, tuple[tuple[str, ...], tuple[Any, ...], str]] = {
    "scatter": (("input", "dim", "index", "src", "reduce"), (None,), "src"),
    "scatter_add": (("input", "dim", "index", "src"), (), "src"),
    "scatter_reduce": (("input", "dim", "index", "src", "reduce", "include_self"), (True,), "src"),
    "index_add": (("input", "dim", "index", "source", "alpha"), (1,), "source"),
    "index_copy": (("input", "dim", "index", "source"), (), "source"),
    "index_put": (("input", "indices", "values", "accumulate"), (False,), "values"),
    "slice_scatter": (("input", "src", "dim", "start", "end", "step"), (0, None, None, 1), "src"),
    "select_scatter": (("input", "src", "dim", "index"), (), "src"),
    "diagonal_scatter": (("input", "src", "offset", "dim1", "dim2"), (0, 0, 1), "src"),
}


@rule(*_WRITTEN, formula="f(b, ...); constants are shared like biases", source=OURS, apart=True)
def _written(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names, defaults, what = _WRITTEN[func.__name__.strip("_")]
    kwargs = {"src" if name == "value" else name: value for name, value in kwargs.items()}
    given = dict(zip(names, named(args, kwargs, names, defaults), strict=True))
    into, value = given.pop("input"), given.pop(what)
    if carried(*given.values()):
        raise Unsupported(f"{func.__name__} at places that depend on the input")
    if given.get("reduce") not in (None, "add", "sum", "mean"):
        raise Unsupported(f"{func.__name__} with reduce={given['reduce']!r}")
    if not isinstance(value, Tensor):
        value = torch.full(given["index"].shape, value, dtype=into.dtype, device=into.device)
    given = {name: each for name, each in given.items() if each is not None}
    return joint(lambda x, y: func(x, **{what: y}, **given), into, value)


@rule("masked_scatter", formula="f(b, ...); constants are shared like biases", source=OURS, apart=True)
def _poured(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """The numbers of the source in turn, wherever the mask says so."""
    into, mask, value = named(args, kwargs, ("input", "mask", "source"), ())
    mask = total_of(mask).expand(into.shape)
    turn = (mask.flatten().cumsum(0) - 1).clamp_min(0)
    return joint(lambda x, y: torch.where(mask, y.flatten()[turn].reshape(mask.shape), x), into, value)


@rule("lerp", formula="x + w (y - x)", source=OURS, apart=True)
def _between(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    start, end, weight = named(args, kwargs, ("input", "end", "weight"), ())
    with torch._C._EnableTorchFunction():
        return start + weight * (end - start)


@rule("diff", formula="f(b, ...); constants are shared like biases", source=OURS, apart=True)
def _differences(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "n", "dim", "prepend", "append")
    source, n, dim, before, after = named(args, kwargs, names, (1, -1, None, None))
    items = [item for item in (before, source, after) if item is not None]
    return joint(lambda *xs: torch.diff(torch.cat(xs, dim), n, dim), *items, dims=(dim, -1))


@rule("complex", formula="f(b, ...); constants are shared like biases", source=OURS)
def _complex(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    items = named(args, kwargs, ("real", "imag"), ())
    source = first(tuple(items), {})
    split = (item if isinstance(item, Split) else source.made(item, source.run.alone(item)) for item in items)
    return linear(torch.complex, tuple(split), {})


_FILLED = {"index_fill": ("input", "dim", "index", "value"), "fill": ("input", "value"), "zero": ("input",)}


@rule(*_FILLED, formula="b where it stays; a constant is shared like a bias", source=EXACT, apart=True)
def _filled(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = _FILLED[func.__name__.strip("_")]
    source, *rest = named(args, kwargs, names, ())
    keep = torch.zeros_like(total_of(source), dtype=torch.bool)
    if len(rest) == 3:
        keep = ~keep.index_fill(rest[0], total_of(rest[1]), True)
    return taken(keep, source, rest[-1] if rest else 0.0)


@rule("maximum", "minimum", "fmax", "fmin", formula="b of the one that is taken", source=SINGH)
def larger(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """The larger or smaller of two, number by number."""
    left, right = named(args, kwargs, ("input", "other"), ())
    values = [value if isinstance(value, Tensor) else torch.as_tensor(value) for value in map(total_of, (left, right))]
    return taken(func(*values) == values[0], left, right)
