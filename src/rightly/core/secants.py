"""Slopes between two points in the place of derivatives: what DeepLIFT's rescale rule sends backwards.

The model runs on pairs: the points first, then as many others that they are compared with. In the backward pass that
``secants.gradient`` makes, elementwise functions have the slope of the line from one of a pair to the other, and max
pooling something like it; what is linear has that slope anyway. So a gradient at the points becomes DeepLIFT's
multipliers. In every later backward pass, one that trains, all derivatives are their own again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core import autodiff
from rightly.core.intercept import in_python, operation
from rightly.core.kernels.function import Kernel
from rightly.core.operators import KINKED
from rightly.core.replacing import replacing

Function = Callable[..., Any]

_ELEMENTWISE = (
    "relu relu6 leaky_relu hardtanh hardswish hardsigmoid hardshrink softshrink threshold abs absolute clamp clip "
    "clamp_min clamp_max tanh sigmoid logsigmoid softplus softsign tanhshrink gelu silu mish elu selu celu exp exp2 "
    "expm1 log log1p log2 log10 sqrt rsqrt reciprocal square pow sin cos tan asin acos "
    "atan sinh cosh asinh acosh atanh erf erfc sinc logit lgamma"
)
_LINEAR = (
    "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d add sub sum mean cat stack neg "
    "view reshape flatten permute transpose T squeeze unsqueeze expand getitem gather split chunk clone detach to "
    "contiguous dropout avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d pad "
    "len size shape dim ndim numel dtype device data grad_fn requires_grad is_floating_point is_complex"
)
ELEMENTWISE = frozenset(_ELEMENTWISE.split())
#: without a derivative at zero
STEEP = frozenset({"log", "log2", "log10", "sqrt", "rsqrt", "reciprocal", "pow", "lgamma"})
POOLS = {"max_pool1d": F.max_pool1d, "max_pool2d": F.max_pool2d, "max_pool3d": F.max_pool3d}
#: what is never in the way
KNOWN = ELEMENTWISE | POOLS.keys() | {"prelu"} | frozenset(_LINEAR.split())


class secants(replacing):
    """Runs a model so that ``gradient`` knows slopes between the first and the second half of the rows."""

    def __init__(self) -> None:
        super().__init__({func: partial(rule, self) for func, rule in _rules().items()})
        self.sending = False
        #: names of functions that have a rule, but were called in a way that it is not for
        self.left: set[str] = set()

    def gradient(self, values: Tensor, points: Tensor, *, create_graph: bool) -> Tensor:
        """As ``autodiff.gradient``, of values (M,) from the first half, with slopes for derivatives."""
        self.sending = True
        try:
            return autodiff.gradient(values, points, create_graph=create_graph)
        finally:
            self.sending = False


class _Secant(Kernel):
    """``run(pairs)``; its adjoint is ``send(pairs, cotangent)`` while slopes are sent, and its own at other times."""

    @staticmethod
    def forward(ctx: Any, pairs: Tensor, owner: secants, run: Function, send: Function) -> Tensor:
        ctx.save_for_backward(pairs)
        ctx.owner, ctx.run, ctx.send = owner, run, send
        made: Tensor = run(pairs)
        return made

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:
        (pairs,) = ctx.saved_tensors
        own = partial(autodiff.sent_back, ctx.run)
        return (ctx.send if ctx.owner.sending else own)(pairs, cotangent), None, None, None


def _elementwise(func: Function, owner: secants, *args: Any, **kwargs: Any) -> Any:
    pairs, args = (args[0], args[1:]) if args else (kwargs.pop("input"), ())
    name, plain, in_place = operation(func)
    if in_python(func) and func.__module__ == F.__name__:
        bound = inspect.signature(func).bind(pairs, *args, **kwargs)
        in_place = bool(bound.arguments.pop("inplace", False))
        (_, *args), kwargs = bound.args, bound.kwargs  # type: ignore[assignment]
    # of two tensors there is no one line from a pair to the other: left to the sum that will not add up
    if not _are_pairs(pairs) or any(isinstance(arg, Tensor) for arg in (*args, *kwargs.values())):
        owner.left.add(name)
        return func(pairs, *args, **kwargs)

    def run(x: Tensor) -> Tensor:
        made: Tensor = plain(x, *args, **kwargs)
        return made

    send = partial(_slopes, run, name)
    if in_place:
        return pairs.copy_(_Secant.one(pairs.clone(), owner, run, send))
    return _Secant.one(pairs, owner, run, send)


def _are_pairs(tensor: Any) -> bool:
    """Whether a tensor has two halves. Where examples do not come first they are wrong ones, and will not add up."""
    return isinstance(tensor, Tensor) and tensor.ndim > 0 and len(tensor) % 2 == 0


def _slopes(run: Function, name: str, pairs: Tensor, cotangent: Tensor) -> Tensor:
    """The cotangent times the slopes."""
    slope = slope_between(run, name, *pairs.chunk(2))
    return cotangent * torch.cat([slope, slope])


def slope_between(run: Function, name: str, x: Tensor, other: Tensor) -> Tensor:
    """(f(x) - f(x')) / (x - x') of an elementwise function, by its name, and its derivative where these are so near
    that rounding would be larger than what the derivative in the middle is off.

    A function with a kink can be off by anything there, and loses nothing to rounding. A function that is steep at
    zero is as fine there as its argument.
    """
    apart, middle = x - other, (x + other) / 2
    scale = middle.abs() + (name not in STEEP)
    near = apart == 0 if name in KINKED else apart.abs() <= torch.finfo(x.dtype).eps ** (1 / 3) * scale
    secant = (value_at(run, x, other) - value_at(run, other, x)) / torch.where(near, 1.0, apart)
    # what is not taken must have a gradient too
    middle = torch.where(near, middle, torch.where(x.abs() > other.abs(), x, other).detach())
    return torch.where(near, autodiff.sent_back(run, middle, torch.ones_like(middle)), secant)


def value_at(run: Function, x: Tensor, elsewhere: Tensor) -> Tensor:
    """f(x), without a gradient where it is infinite there, as that of a root is at zero."""
    made: Tensor = run(x)
    if not (torch.is_grad_enabled() and x.requires_grad):
        return made
    with torch.no_grad():
        steep = ~autodiff.sent_back(run, x, torch.ones_like(x)).isfinite()
    if not bool(steep.any()):
        return made
    return torch.where(steep, made.detach(), run(torch.where(steep, elsewhere.detach(), x)))


def _prelu(func: Function, owner: secants, pairs: Any, weight: Tensor) -> Any:
    """relu(x) - w relu(-x): the slope below zero is a weight like any other."""
    below = weight.reshape(-1, *(1,) * (pairs.ndim - 2)) if weight.numel() > 1 else weight
    return _elementwise(torch.relu, owner, pairs) - below * _elementwise(torch.relu, owner, -pairs)


def _pooled(func: Function, owner: secants, pairs: Any, *args: Any, **kwargs: Any) -> Any:
    pool = POOLS[func.__name__]
    if kwargs.pop("return_indices", False) or pairs.ndim != int(func.__name__[-2]) + 2:
        owner.left.add(func.__name__)
        return func(pairs, *args, **kwargs)

    def run(x: Tensor) -> Tensor:
        made: Tensor = pool(x, *args, **kwargs)
        return made

    both = partial(_winners, lambda x: pool(x, *args, **kwargs, return_indices=True))
    return _Secant.one(pairs, owner, run, both)


def _winners(run: Function, pairs: Tensor, cotangent: Tensor) -> Tensor:
    """All that a maximum gains or loses goes to where the larger of the two was found."""
    with torch.no_grad():
        (top, other_top), (index, other_index) = (found.flatten(2).chunk(2) for found in run(pairs))
        place = torch.where(top >= other_top, index, other_index)
    flat = pairs.flatten(2)
    x, other = flat.chunk(2)
    apart = x.gather(2, place) - other.gather(2, place)
    gained = x.gather(2, index) - other.gather(2, other_index)
    share = torch.where(apart == 0, 1.0, gained / torch.where(apart == 0, 1.0, apart))
    sent = cotangent.flatten(2) * torch.cat([share, share])
    return torch.zeros_like(flat).scatter_add(2, torch.cat([place, place]), sent).reshape(pairs.shape)


@cache
def _rules() -> Mapping[Function, Function]:
    """For every spelling of a function: ``F.relu``, ``torch.relu_``, ``Tensor.relu``."""
    by_name = dict.fromkeys(ELEMENTWISE, _elementwise) | dict.fromkeys(POOLS, _pooled) | {"prelu": _prelu}
    rules: dict[Function, Function] = {}
    for name, rule in by_name.items():
        for place in (F, torch, torch.Tensor, torch.special):
            for spelling in (name, f"{name}_", f"__{name}__"):
                func = getattr(place, spelling, None)
                if func is not None:
                    rules[func] = partial(rule, func)
    return rules
