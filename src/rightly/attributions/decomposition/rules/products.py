"""Products: with a constant they are linear, of two splits each factor's part meets the other's total, halved."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rightly.attributions.decomposition.rules.unary import proportional, reciprocal, together
from rightly.attributions.decomposition.split import Part, Split, carried, check_kinds, linear, numeric
from rightly.attributions.decomposition.table import EXACT, SHAPLEY, Args, Kwargs, rule
from rightly.core.intercept import named

_FORMULA = "1/2 (b_x t_y + t_x b_y)"


@rule(
    *("mul", "multiply", "rmul", "matmul", "rmatmul", "mm", "bmm", "mv", "dot", "inner", "outer", "ger", "vdot"),
    *("kron", "tensordot"),
    formula=_FORMULA,
    source=SHAPLEY,
    apart=True,
)
def product(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Any bilinear function of its first two arguments."""
    left, *rest = args
    if not rest:  # the second factor has many names
        name = next(name for name, value in kwargs.items() if isinstance(value, Tensor) or name == "other")
        rest, kwargs = [kwargs[name]], {other: value for other, value in kwargs.items() if other != name}
    right, *rest = rest

    def run(x: Any, y: Any) -> Any:
        return func(x, y, *rest, **kwargs)

    return bilinear(run, left, right, elementwise=func.__name__.strip("_") in ("mul", "multiply", "rmul"))


def bilinear(run: Callable[[Any, Any], Any], left: Any, right: Any, *, elementwise: bool = False) -> Any:
    """f(x, y), of which one or both are split. Frozen attention weights pass on the other's part."""
    if not (isinstance(left, Split) and isinstance(right, Split)):
        plain = not carried(left, right)
        return run(left, right) if plain else linear(run, (left, right), {}, weights=elementwise)
    if left.run.convention.attention == "freeze" and left.weights != right.weights:
        left, right = (side.total if side.weights else side for side in (left, right))
        return linear(run, (left, right), {})
    of_left, of_right = left.part, right.part
    if numeric(left.total) != numeric(right.total):
        check_kinds(iter((left, right)), run(left.total, right.total))
    x, y = left.total, right.total
    if left.run.apart:
        if elementwise and right.under is not None:
            part = _over(left, right, right.under)
        elif elementwise and left.under is not None:
            part = _over(right, left, left.under)
        else:
            both = run(left.relevant, right.start + y) + run(left.start + x, right.relevant)
            part = both / 2
        return left.made(run(x, y), part, reference=run(left.start, right.start))
    # made when asked for: the scores of frozen attention never are
    return left.made(run(x, y), Part(None, lambda: (run(of_left(), y) + run(x, of_right())) / 2))


def _over(left: Split, inverse: Split, under: Split) -> Tensor:
    """The part of x / y as a game of its own where no part of y turns its sign, so that every quotient has a value;
    else x first, over all of y.

    As a product, an inverse that is large at the reference would make parts as large of everything.
    """
    (x, a, b), (y, c, d) = ((split.total, split.start, split.relevant) for split in (left, under))
    tame = (y * c > 0) & (y * (c + d) > 0) & (y * (y - d) > 0)
    one, other = (a + b) / torch.where(tame, c + d, 1.0), (x - b) / torch.where(tame, y - d, 1.0)
    first = b * inverse.total + a * inverse.relevant
    return torch.where(tame, (one - a / c + (x / y - other)) / 2, first)


@rule("einsum", formula="1/2 (f(b_x, t_y) + f(t_x, b_y))", source=SHAPLEY, apart=True)
def _einsum(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    equation, *operands = args
    if len(operands) == 1 and isinstance(operands[0], tuple | list):
        operands = list(operands[0])
    places = [i for i, operand in enumerate(operands) if isinstance(operand, Split)]

    def run(*factors: Any) -> Any:
        given = list(operands)
        for place, factor in zip(places, factors, strict=True):
            given[place] = factor
        return torch.einsum(equation, *given)

    factors = [operands[place] for place in places]
    if len(places) == 2:
        return bilinear(run, *factors)
    return (linear if len(places) == 1 else together)(run, tuple(factors), {})


@rule("multi_dot", "linalg_multi_dot", "chain_matmul", formula="f of both parts, averaged", source=SHAPLEY, apart=True)
def _chain(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    made, *rest = args if func.__name__ == "chain_matmul" else args[0]
    for factor in rest:
        made = bilinear(torch.matmul, made, factor)
    return made


@rule("div", "divide", "true_divide", "truediv", "rdiv", "rtruediv", formula="x (1 / y)", source=SHAPLEY, apart=True)
def _quotient(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    left, right, rounding = named(args, kwargs, ("input", "other", "rounding_mode"), (None,))
    if func.__name__.strip("_") in ("rdiv", "rtruediv"):
        left, right = right, left
    if rounding is not None:
        return together(func, args, kwargs)
    if not isinstance(right, Split):
        return linear(torch.div, (left, right), {}, weights=True)
    inverse = reciprocal(right)
    if not isinstance(left, Split):
        return inverse if isinstance(left, int | float) and left == 1 else linear(torch.mul, (inverse, left), {})
    # the total as torch computes it, to the last bit
    made = bilinear(torch.mul, left, inverse, elementwise=True)
    return made.made(left.total / right.total, made.part, reference=made.reference)


@rule("linalg_norm", "linalg_vector_norm", "norm", formula="sqrt(sum x x) and the like, step by step", source=EXACT)
def _norm(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    return together(func, args, kwargs)


@rule("var", "std", formula="of (x - mean) (x - mean), step by step", source=SHAPLEY)
def _spread(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    dims, correction, keep = _degrees(args, kwargs)
    source: Split = args[0]
    with torch._C._EnableTorchFunction():
        centred = source - source.mean(dims, keepdim=True)
        added = (centred * centred).sum(dims, keepdim=keep)
    variance = torch.var(source.total, dims, correction=correction, keepdim=keep)
    count = source.total.numel() // max(variance.numel(), 1)
    made = linear(torch.mul, (added, 1 / (count - correction) if count > correction else math.nan), {})
    if func.__name__ == "var":
        return made.made(variance, made.part)
    return proportional(made, torch.std(source.total, dims, correction=correction, keepdim=keep))


def _degrees(args: Args, kwargs: Kwargs) -> tuple[Any, Any, bool]:
    """(dimensions, correction, whether they are kept), of the ways to call ``var`` and ``std``."""
    rest = args[1:]
    if rest and isinstance(rest[0], bool):  # (unbiased)
        rest, kwargs = rest[1:], {**kwargs, "unbiased": rest[0]}
    dims, unbiased, keep, correction = named(
        rest, kwargs, ("dim", "unbiased", "keepdim", "correction"), (None, True, False, None)
    )
    return dims, (int(unbiased) if correction is None else correction), keep


@rule("var_mean", "std_mean", formula="both", source=SHAPLEY)
def _spread_and_mean(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    spread = torch.var if func.__name__ == "var_mean" else torch.std
    dims, _, keep = _degrees(args, kwargs)
    with torch._C._EnableTorchFunction():
        return spread(*args, **kwargs), args[0].mean(dims, keepdim=keep)
