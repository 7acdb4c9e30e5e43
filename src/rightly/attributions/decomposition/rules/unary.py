"""Functions of one tensor that are not linear: elementwise, or of a vector as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.attributions.decomposition.split import Part, Split, called, carried, first, splits, total_of
from rightly.attributions.decomposition.table import ANYTHING, MURDOCH, OURS, SHAPLEY, SINGH, Args, Kwargs, rule
from rightly.core.intercept import Unsupported, named

_AVERAGED = "1/2 (f(b) - f(0) + f(t) - f(g)), f(0) shared like a bias"

_SMOOTH = (
    "gelu silu mish tanh sigmoid log_sigmoid logsigmoid softplus elu celu selu softsign tanhshrink hardswish "
    "hardsigmoid exp exp2 expm1 sin cos tan atan arctan asinh arcsinh sinh cosh erf erfc square expit special_expit "
    "special_erf sinc sgn"
)
_KINKED = (
    "relu6 hardtanh threshold clamp clip clamp_min clamp_max abs absolute hardshrink softshrink sign round floor ceil "
    "trunc fix frac heaviside nan_to_num"
)


@rule(*_SMOOTH.split(), *_KINKED.split(), formula=_AVERAGED, source=f"{MURDOCH}; {SHAPLEY}")
def elementwise(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """A function of each number on its own."""
    source, *rest = args
    if not isinstance(source, Split) or carried(*rest, *kwargs.values()):
        raise Unsupported(f"{func.__name__} with bounds that depend on the input")
    return averaged(source, lambda x: func(x, *rest, **kwargs))


def averaged(source: Split, function: Callable[[Tensor], Tensor]) -> Split:
    """The two-player Shapley value of an elementwise function."""
    t, b = source.total, source.relevant
    total = function(t)
    nothing = function(torch.zeros((1,) * t.ndim, dtype=t.dtype, device=t.device))
    gain = total - function(t - b)
    if bool(nothing == 0):
        return source.made(total, (function(b) + gain) / 2)
    part = (function(b) - nothing + gain) / 2  # in this order nothing comes of nothing, to the last bit
    return source.made(total, source.run.share(part, total - nothing, nothing, (-1,) if t.ndim > 1 else ()))


@rule("relu", "leaky_relu", formula='"first": f(b); "shapley": 1/2 (f(b) + f(t) - f(g))', source=f"{SINGH}, eq. 7")
def _relu(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, *rest = args
    return _bent(source, lambda x: func(x, *rest, **kwargs))


@rule("prelu", formula='"first": f(b); "shapley": 1/2 (f(b) + f(t) - f(g))', source=f"{SINGH}, eq. 7")
def _prelu(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, weight = named(args, kwargs, ("input", "weight"), ())
    return _bent(source, lambda x: func(x, weight))


@rule("rrelu", formula="as leaky_relu, in eval mode only", source=f"{SINGH}, eq. 7")
def _rrelu(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, lower, upper, training = named(args, kwargs, ("input", "lower", "upper", "training"), (1 / 8, 1 / 3, False))
    if training:
        raise Unsupported("rrelu in training mode")
    return _bent(source, lambda x: F.leaky_relu(x, (lower + upper) / 2))


def _bent(source: Split, function: Callable[[Tensor], Tensor]) -> Split:
    if source.run.convention.relu == "first":
        return source.made(function(source.total), function(source.relevant))
    return averaged(source, function)


@rule(
    *("sqrt", "rsqrt", "log", "log2", "log10", "log1p", "reciprocal", "acos", "asin", "atanh", "acosh", "arccos"),
    *("arcsin", "arctanh", "arccosh", "digamma", "lgamma", "logit", "erfinv"),
    formula="s(b, g) f(t)",
    source=OURS,
)
def _proportional(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Functions without a value at 0 or below it: each part gets its share of the result."""
    source, *rest = args
    return proportional(source, func(source.total, *rest, **kwargs))


def proportional(source: Split, total: Tensor) -> Split:
    """``total`` divided as the parts of ``source`` are."""
    t, b = source.total, source.relevant
    dims = (-1,) if t.ndim > 1 else ()
    return source.made(total, source.run.share(b, t, total, dims) - b)


def reciprocal(source: Split) -> Split:
    """1 / x."""
    return proportional(source, source.total.reciprocal())


@rule("pow", "float_power", formula=f"whole powers: {_AVERAGED}; others: s(b, g) f(t)", source=SHAPLEY)
def _power(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, exponent = args if len(args) == 2 else (args[0], kwargs["exponent"])
    if not isinstance(source, Split) or isinstance(exponent, Tensor):
        return together(func, args, kwargs)
    if exponent == int(exponent) and exponent > 0:
        return averaged(source, lambda x: func(x, exponent))
    return proportional(source, func(source.total, exponent))


@rule("rpow", formula=_AVERAGED, source=SHAPLEY)
def _exponential(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, base = args
    return averaged(source, lambda x: torch.pow(base, x))


@rule("softmax", "special_softmax", "softmin", formula=f"of the whole vector: {_AVERAGED}", source=SHAPLEY)
def _softmax(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Attention weights are marked: where they are frozen, nothing of this is computed."""
    names = dict(zip(("dim", "second", "dtype"), args[1:], strict=False)) | kwargs
    dim, dtype = names.get("dim"), names.get("dtype")
    if dim is None:
        raise Unsupported("a softmax that does not say over which dimension")
    if dtype is None and isinstance(names.get("second"), torch.dtype):
        dtype = names["second"]
    source: Split = args[0]
    sign = -1 if func.__name__ == "softmin" else 1

    def plain(x: Tensor) -> Tensor:
        return torch.softmax(sign * x, dim, dtype=dtype)

    total, t, inner = plain(source.total), source.total, source.part
    # what gets no weight among all gets none among the parts: a mask holds for both
    masked = total == 0
    some = bool(masked.any())

    def function(x: Tensor) -> Tensor:
        return plain(x.masked_fill(masked, -sign * torch.inf) if some else x)

    def made() -> Tensor:
        b = inner().masked_fill(masked, 0.0) if some else inner()
        g = (t.masked_fill(masked, 0.0) if some else t) - b
        nothing = function(torch.zeros_like(t))
        part = (function(b) - nothing + (total - function(g))) / 2
        return source.run.share(part, total - nothing, nothing, (dim,))

    return source.made(total, Part(None, made), True)


@rule("log_softmax", "logsumexp", "special_log_softmax", formula=f"of the whole vector: {_AVERAGED}", source=SHAPLEY)
def _of_vectors(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    return together(func, args, kwargs)


@rule("glu", formula="x sigmoid(y)", source=SHAPLEY)
def _gated(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, dim = named(args, kwargs, ("input", "dim"), (-1,))
    with torch._C._EnableTorchFunction():
        left, right = source.chunk(2, dim)
        return left * right.sigmoid()


@rule(
    *("cosine_similarity", "pairwise_distance", "cdist", "prod", "cumprod", "atan2", "arctan2", "hypot", "remainder"),
    *("fmod", "floordiv", "floor_divide", "rfloordiv", "rmod", "mod", "dist", "logaddexp", "cross", "renorm"),
    *("xlogy", "copysign", "polar", "angle", "logcumsumexp", "linalg_solve", "linalg_inv", "inverse", "polygamma"),
    ANYTHING,
    formula="1/2 (f(b) - f(0) + f(t) - f(g)) over all arguments at once, f(0) shared like a bias",
    source=SHAPLEY,
)
def together(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Any function at all, of any number of splits: two more evaluations."""
    source = first(args, kwargs)
    parts = {id(split): split.relevant for split in splits(args, kwargs)}
    total = called(func, args, kwargs, total_of)
    if not isinstance(total, Tensor):
        raise Unsupported(f"{getattr(func, '__name__', func)} gives something else than one tensor")
    if not total.is_floating_point():
        return total
    nothing = called(func, args, kwargs, lambda split: torch.zeros_like(split.total))
    one = called(func, args, kwargs, lambda split: parts[id(split)])
    other = called(func, args, kwargs, lambda split: split.total - parts[id(split)])
    part = (one - nothing + (total - other)) / 2
    dims = (-1,) if total.ndim > 1 else ()
    return source.made(total, source.run.share(part, total - nothing, nothing, dims))
