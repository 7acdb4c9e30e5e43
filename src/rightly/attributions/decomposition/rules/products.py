"""Products: with a constant they are linear, of two splits each factor's part meets the other's total, halved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rightly.attributions.decomposition.rules.unary import reciprocal, together
from rightly.attributions.decomposition.split import Part, Split, carried, linear
from rightly.attributions.decomposition.table import EXACT, SHAPLEY, Args, Kwargs, rule

_FORMULA = "1/2 (b_x t_y + t_x b_y)"


@rule(
    *("mul", "multiply", "rmul", "matmul", "rmatmul", "mm", "bmm", "mv", "dot", "inner", "outer", "ger", "vdot"),
    *("kron", "tensordot", "chain_matmul"),
    formula=_FORMULA,
    source=SHAPLEY,
)
def product(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Any bilinear function of its first two arguments."""
    left, right, *rest = args if len(args) >= 2 else (args[0], *kwargs.values())
    kwargs = kwargs if len(args) >= 2 else {}

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
    x, y = left.total, right.total
    # made when asked for: the scores of frozen attention never are
    return left.made(run(x, y), Part(None, lambda: (run(of_left(), y) + run(x, of_right())) / 2))


@rule("einsum", formula="1/2 (f(b_x, t_y) + f(t_x, b_y))", source=SHAPLEY)
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


@rule("multi_dot", "linalg_multi_dot", formula="f of both parts, averaged", source=SHAPLEY)
def _chain(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    made, *rest = args[0]
    for factor in rest:
        made = bilinear(torch.matmul, made, factor)
    return made


@rule("div", "divide", "true_divide", "truediv", "rdiv", "rtruediv", formula="x (1 / y)", source=SHAPLEY)
def _quotient(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    left, right = args
    if func.__name__.strip("_") in ("rdiv", "rtruediv"):
        left, right = right, left
    if kwargs.get("rounding_mode") is not None:
        return together(func, args, kwargs)
    if not isinstance(right, Split):
        return linear(torch.div, (left, right), {}, weights=True)
    inverse = reciprocal(right)
    if not isinstance(left, Split):
        return linear(torch.mul, (inverse, left), {})
    # the total as torch computes it, to the last bit
    made = bilinear(torch.mul, left, inverse)
    return made.made(left.total / right.total, made.part)


@rule("linalg_norm", "linalg_vector_norm", "norm", formula="sqrt(sum x x) and the like, step by step", source=EXACT)
def _norm(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    return together(func, args, kwargs)


@rule("var", "std", formula="of (x - mean) (x - mean), step by step", source=SHAPLEY)
def _spread(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, *rest = args
    dims = kwargs.get("dim", rest[0] if rest and not isinstance(rest[0], bool) else None)
    keep = kwargs.get("keepdim", len(rest) > 2 and rest[2])
    with torch._C._EnableTorchFunction():
        centred = source - (source.mean() if dims is None else source.mean(dims, keepdim=True))
        square = centred * centred
        added = square.sum() if dims is None else square.sum(dims, keep)
    total = func(source.total, *rest, **kwargs)
    variance = total if func.__name__ == "var" else torch.var(source.total, *rest, **kwargs)
    # the factor that the correction of the degrees of freedom makes
    count = source.total.numel() / max(total.numel(), 1)
    ones = torch.arange(int(count), dtype=total.dtype, device=total.device)
    names = {k: v for k, v in kwargs.items() if k not in ("dim", "keepdim")}
    if rest and (isinstance(rest[0], bool) or len(rest) > 1):
        names["unbiased"] = rest[0] if isinstance(rest[0], bool) else rest[1]
    scale = torch.var(ones, **names) / (ones - ones.mean()).square().sum()
    made = linear(torch.mul, (added, scale), {})
    if func.__name__ == "var":
        return made.made(variance, made.part)
    with torch._C._EnableTorchFunction():
        root = made.sqrt()
    return root.made(total, root.part)


@rule("var_mean", "std_mean", formula="both", source=SHAPLEY)
def _spread_and_mean(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    spread = torch.var if func.__name__ == "var_mean" else torch.std
    source, *rest = args
    dims = kwargs.get("dim", rest[0] if rest and not isinstance(rest[0], bool) else None)
    keep = kwargs.get("keepdim", len(rest) > 2 and rest[2])
    with torch._C._EnableTorchFunction():
        mean = source.mean() if dims is None else source.mean(dims, keepdim=keep)
        return spread(*args, **kwargs), mean
