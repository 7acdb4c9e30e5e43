"""Functions of one tensor that are not linear: elementwise, or of a vector as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.attributions.decomposition.split import (
    HUGE,
    Part,
    Split,
    called,
    carried,
    first,
    linear,
    numeric,
    reference_of,
    splits,
    total_of,
)
from rightly.attributions.decomposition.table import ANYTHING, MURDOCH, OURS, SHAPLEY, SINGH, Args, Kwargs, rule
from rightly.core.intercept import Unsupported, named
from rightly.core.secants import slope_between, value_at

_AVERAGED = "1/2 (f(b) - f(0) + f(t) - f(g)), f(0) shared like a bias"

_SMOOTH = (
    "gelu silu mish tanh sigmoid log_sigmoid logsigmoid softplus elu celu selu softsign tanhshrink hardswish "
    "hardsigmoid exp exp2 expm1 sin cos tan atan arctan asinh arcsinh sinh cosh erf erfc square expit special_expit "
    "special_erf sinc"
)
_KINKED = (
    "relu6 hardtanh threshold clamp clip clamp_min clamp_max abs absolute hardshrink softshrink round trunc fix "
    "nan_to_num"
)


@rule(*_SMOOTH.split(), *_KINKED.split(), formula=_AVERAGED, source=f"{MURDOCH}; {SHAPLEY}")
def elementwise(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """A function of each number on its own."""
    source, *rest = args
    if not isinstance(source, Split) or carried(*rest, *kwargs.values()):
        raise Unsupported(f"{func.__name__} with bounds that depend on the input")
    return averaged(source, lambda x: func(x, *rest, **kwargs))


@rule(
    *("sign", "sgn", "floor", "ceil", "frac", "heaviside", "floordiv", "floor_divide", "remainder", "mod", "fmod"),
    formula=_AVERAGED,
    source=SHAPLEY,
    apart=True,
)
def _stepped(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Functions that jump at zero: what is only left of a part by rounding is nothing."""
    source, *rest = args
    if not isinstance(source, Split) or carried(*rest, *kwargs.values()):
        return together(func, args, kwargs)
    if source.run.apart:
        return _jumped(source, lambda x: func(x, *rest, **kwargs))
    least = 16 * torch.finfo(source.total.dtype).eps * source.total.abs()
    return averaged(source, lambda x: func(x, *rest, **kwargs), lambda x: x.masked_fill(x.abs() <= least, 0.0))


def _jumped(source: Split, function: Callable[[Tensor], Tensor]) -> Split:
    """From a reference: what is left of either part by rounding, as large as the layer's, is nothing."""
    t, r, b = source.total, source.start, source.relevant
    total, start = function(t), function(r)
    least = 64 * torch.finfo(t.dtype).eps * torch.maximum(t.abs(), r.abs()).max() if t.numel() else 0.0
    whole = ((t - r - b).abs() <= least) & (b != 0)
    none = (b.abs() <= least) & ~whole
    one = torch.where(whole, total, torch.where(none, start, function(r + b)))
    other = torch.where(whole, start, torch.where(none, total, function(t - b)))
    return source.made(total, (one - start + (total - other)) / 2, reference=start)


def averaged(
    source: Split, function: Callable[[Tensor], Tensor], cleaned: Callable[[Tensor], Tensor] = lambda x: x
) -> Split:
    """The two-player Shapley value of an elementwise function; the parts are ``cleaned`` before."""
    if source.run.apart:
        return together(function, (source,), {})  # type: ignore[no-any-return]
    t = source.total
    b, g = cleaned(source.relevant), cleaned(t - source.relevant)
    total = function(t)
    nothing = function(torch.zeros((1,) * t.ndim, dtype=t.dtype, device=t.device))
    part = function(b) - nothing + (total - function(g))  # in this order nothing comes of nothing, to the last bit
    masked = masked_in(t)
    if masked is not None:  # its value belongs to neither, whatever comes of it
        nothing, part = torch.where(masked, total, nothing), part.masked_fill(masked, 0.0)
    elif bool((nothing == 0).all()):
        return source.made(total, part / 2)
    return source.made(total, source.run.share(part / 2, total, nothing, (-1,) if t.ndim > 1 else ()))


def masked_in(total: Tensor) -> Tensor | None:
    """Where a value is that of a mask, like minus infinity; None if it is so nowhere."""
    if total.is_complex() or not total.numel():
        return None
    least, most = torch.aminmax(total.detach())
    return total.abs() >= HUGE if bool((least <= -HUGE) | (most >= HUGE)) else None


@rule("relu", "leaky_relu", formula='"first": f(b); "shapley": 1/2 (f(b) + f(t) - f(g))', source=f"{SINGH}, eq. 7")
def _relu(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, *rest = args
    return _bent(source, lambda x: func(x, *rest, **kwargs))


@rule("prelu", formula='"first": f(b); "shapley": 1/2 (f(b) + f(t) - f(g))', source=f"{SINGH}, eq. 7")
def _prelu(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, weight = named(args, kwargs, ("input", "weight"), ())
    return _bent(source, lambda x: func(x, weight))


@rule("rrelu", formula="as leaky_relu, in eval mode only", source=f"{SINGH}, eq. 7", apart=True)
def _rrelu(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, lower, upper, training = named(args, kwargs, ("input", "lower", "upper", "training"), (1 / 8, 1 / 3, False))
    if training:
        raise Unsupported("rrelu in training mode")
    return _bent(source, lambda x: F.leaky_relu(x, (lower + upper) / 2))


def _bent(source: Split, function: Callable[[Tensor], Tensor]) -> Split:
    """A function that keeps zero, with a bend there."""
    if source.run.apart:
        return together(function, (source,), {})  # type: ignore[no-any-return]
    t, b = source.total, source.relevant
    total, alone = function(t), function(b)
    if source.run.convention.relu == "first":
        return source.made(total, alone)
    return source.made(total, (alone + total - function(t - b)) / 2)


@rule(
    *("sqrt", "rsqrt", "log", "log2", "log10", "log1p", "reciprocal", "acos", "asin", "atanh", "acosh", "arccos"),
    *("arcsin", "arctanh", "arccosh", "digamma", "lgamma", "logit", "erfinv", "polygamma"),
    formula="s(b, g) f(t); what is infinite is no part's",
    source=OURS,
    apart=True,
)
def _proportional(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Functions without a value at 0 or below it: each part gets its share of the result."""
    source = first(args, kwargs)
    if source.run.apart:
        name = func.__name__.rstrip("_")
        if name == "reciprocal":
            return reciprocal(source)
        made = _sloped(source, name, lambda x: called(func, args, kwargs, lambda split: x))
        if name == "rsqrt":
            made.under = _sloped(source, "sqrt", torch.sqrt)
        return made
    return proportional(source, called(func, args, kwargs, total_of))


def _sloped(source: Split, name: str, function: Callable[[Tensor], Tensor]) -> Split:
    """A function without a value everywhere, from a reference: the game of two where a part lies between nothing and
    everything; else each part gets the slope from the reference on times itself, as in DeepLIFT. At the ends of where
    a part may lie the two are the same."""
    total, b = function(source.total), source.relevant
    t, r = source.total.expand(total.shape), source.start.expand(total.shape)
    start = value_at(function, r, t)
    slope = slope_between(function, name, t, r)
    # a slope without bound where nothing changes, and what is infinite, which is no part's
    slope = torch.where((total == start) | ~total.isfinite(), slope.nan_to_num(0.0, 0.0, 0.0), slope)
    between = (t * r >= 0) & total.isfinite()
    for x in (r + b, t - b):
        between = between & ((x - r) * (t - r) > 0) & ((t - x) * (t - r) > 0)
    one, other = (function(torch.where(between, x, t.detach())) for x in (r + b, t - b))
    return source.made(total, torch.where(between, (one - start + (total - other)) / 2, slope * b), reference=start)


def proportional(source: Split, total: Tensor) -> Split:
    """``total`` divided as the parts of ``source`` are; what is infinite, or no number, belongs to neither."""
    t, b = source.total, source.relevant
    dims = (-1,) if t.ndim > 1 else ()
    whole, finite = (torch.nan_to_num(x, nan=0.0, posinf=0.0, neginf=0.0) for x in (t, total))
    return source.made(total, source.run.share(b, whole + finite, finite, dims, whole) - b)


def reciprocal(source: Split) -> Split:
    """1 / x."""
    if source.run.apart:
        made = _sloped(source, "reciprocal", torch.reciprocal)
        made.under = source.made(source.total, source.part, reference=source.start)
        return made
    return proportional(source, source.total.reciprocal())


@rule("pow", "float_power", formula=f"whole powers: {_AVERAGED}; others: s(b, g) f(t)", source=SHAPLEY, apart=True)
def _power(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    kwargs = {"input" if name == "self" else name: value for name, value in kwargs.items()}
    source, exponent = named(args, kwargs, ("input", "exponent"), ())
    if isinstance(exponent, Split):
        return together(func, (source, exponent), {})
    whole = torch.as_tensor(exponent)
    if bool(((whole == whole.round()) & (whole > 0)).all()):
        return averaged(source, lambda x: func(x, exponent))
    if source.run.apart:
        return _sloped(source, "pow", lambda x: func(x, exponent))
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

    def made() -> Tensor:
        # what gets no weight among all gets none among the parts: a mask holds for both
        lost, away = total.isnan(), masked_in(t)
        masked = (total == 0) | lost
        some, hidden = bool(masked.any()), masked if away is None else masked | away

        def function(x: Tensor) -> Tensor:
            return plain(x.masked_fill(masked, -sign * torch.inf)).masked_fill(lost, 0.0) if some else plain(x)

        def seen(x: Tensor) -> Tensor:
            return x.masked_fill(hidden, 0.0) if some or away is not None else x

        b, nothing = seen(inner()), function(torch.zeros_like(t))
        known = total.masked_fill(lost, 0.0) if some else total
        part = (function(b) - nothing + (known - function(seen(t) - b))) / 2
        return source.run.share(part, known, nothing, (dim,))

    return source.made(total, Part(None, made), True)


@rule(
    *("log_softmax", "special_log_softmax", "logsumexp", "special_logsumexp", "logcumsumexp"),
    formula=f"of the whole vector: {_AVERAGED}; what is masked has no part",
    source=SHAPLEY,
)
def _of_vectors(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, *rest = args
    t, b = source.total, source.relevant
    total = func(t, *rest, **kwargs)
    masked = masked_in(t)
    if masked is None:
        return together(func, args, kwargs)
    # what nothing is left of, and what is minus infinity: finite throughout, and then taken back
    dim = kwargs.get("dim", rest[0] if rest else -1)
    dead = masked.all(dim, keepdim=True)
    lost = ~(total.abs() < HUGE)

    def function(x: Tensor) -> Tensor:
        made: Tensor = func(x.masked_fill(masked, -torch.inf).masked_fill(dead, 0.0), *rest, **kwargs)
        return made.masked_fill(lost, 0.0)

    nothing, known = function(torch.zeros_like(t)), function(t)
    part = (function(b.masked_fill(masked, 0.0)) - nothing + known - function(t - b)) / 2
    made = source.run.share(part, known, nothing, (-1,) if total.ndim > 1 else ())
    return source.made(total, made)


@rule("logaddexp", formula="logsumexp of both", source=SHAPLEY)
def _log_sum(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    both = named(args, kwargs, ("input", "other"), ())
    with torch._C._EnableTorchFunction():
        made: Any = torch.stack(torch.broadcast_tensors(*both)).logsumexp(0)
    return made.made(func(*map(total_of, both)), made.part)


@rule("xlogy", "special_xlogy", formula="1/2 (f(b_x, t_y) + s(b_y, g_y) f(t))", source=SHAPLEY)
def _log_product(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    left, right = named(args, kwargs, ("input", "other"), ())
    if not isinstance(right, Split):
        return linear(func, (left, right), {})
    by_right = proportional(right, func(total_of(left), right.total))
    if not isinstance(left, Split):
        return by_right
    return by_right.made(by_right.total, (func(left.relevant, right.total) + by_right.relevant) / 2)


@rule("linalg_inv", "inverse", formula="t^-1 b t^-1", source=OURS)
def _inverse(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    (source,) = args
    total = func(source.total)
    return source.made(total, total @ source.relevant @ total)


@rule("linalg_solve", formula="x = A^-1 y: 1/2 (A^-1 b_A x + A^-1 b_y)", source=OURS)
def _solved(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    kwargs = {"input" if name == "A" else "other" if name == "B" else name: value for name, value in kwargs.items()}
    matrix, right, left = named(args, kwargs, ("input", "other", "left"), (True,))
    if not isinstance(matrix, Split):
        return linear(lambda y: func(matrix, y, left=left), (right,), {})
    total = func(matrix.total, total_of(right), left=left)
    vectors = total.ndim < matrix.total.ndim or total.shape == matrix.total.shape[:-1]
    x = total.unsqueeze(-1) if vectors else total
    moved = matrix.relevant @ x if left else x @ matrix.relevant
    part = func(matrix.total, moved.squeeze(-1) if vectors else moved, left=left)
    if isinstance(right, Split):
        part = (part + func(matrix.total, right.relevant, left=left)) / 2
    return matrix.made(total, part)


@rule("glu", formula="x sigmoid(y)", source=SHAPLEY)
def _gated(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, dim = named(args, kwargs, ("input", "dim"), (-1,))
    with torch._C._EnableTorchFunction():
        left, right = source.chunk(2, dim)
        return left * right.sigmoid()


@rule(
    *("cosine_similarity", "pairwise_distance", "cdist", "prod", "cumprod", "atan2", "arctan2", "hypot"),
    *("rfloordiv", "rmod", "dist", "cross", "renorm"),
    *("copysign", "polar", "angle"),
    ANYTHING,
    formula="1/2 (f(b) - f(0) + f(t) - f(g)) over all arguments at once, f(0) shared like a bias",
    source=SHAPLEY,
)
def together(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Any function at all, of any number of splits: two more evaluations."""
    source = first(args, kwargs)
    if source.run.apart:
        return _from_reference(func, args, kwargs)
    parts = {id(split): split.relevant for split in splits(args, kwargs)}
    total = called(func, args, kwargs, total_of)
    if not isinstance(total, Tensor):
        raise Unsupported(f"{getattr(func, '__name__', func)} gives something else than one tensor")
    if not numeric(total):
        return total
    nothing = called(func, args, kwargs, lambda split: torch.zeros_like(split.total))
    one = called(func, args, kwargs, lambda split: parts[id(split)])
    other = called(func, args, kwargs, lambda split: split.total - parts[id(split)])
    part = (one - nothing + (total - other)) / 2
    dims = (-1,) if total.ndim > 1 else ()
    return source.made(total, source.run.share(part, total, nothing, dims))


def _from_reference(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """``together`` where nothing is the reference; of several results, of each that is of numbers."""
    source = first(args, kwargs)
    parts = {id(split): split.relevant for split in splits(args, kwargs)}
    total, start = called(func, args, kwargs, total_of), called(func, args, kwargs, reference_of)
    one = called(func, args, kwargs, lambda split: split.start + parts[id(split)])
    other = called(func, args, kwargs, lambda split: split.total - parts[id(split)])

    def made(t: Any, a: Any, one: Any, other: Any) -> Any:
        if not isinstance(t, Tensor) or not numeric(t):
            return t
        part = (one - a + (t - other)) / 2
        finite = t.isfinite()
        return source.made(t, part if bool(finite.all()) else part.masked_fill(~finite, 0.0), reference=a)

    if isinstance(total, tuple):
        results = [made(*each) for each in zip(total, start, one, other, strict=True)]
        return type(total)(results) if hasattr(total, "_fields") or hasattr(total, "n_fields") else tuple(results)
    return made(total, start, one, other)
