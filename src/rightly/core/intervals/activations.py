"""Functions that never fall: a bound goes to a bound, and slopes lie between bounds of the derivative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core import autodiff
from rightly.core.intercept import Unsupported, named
from rightly.core.intervals.bounded import Back, Bounded, Interval
from rightly.core.intervals.rules import Args, Kwargs, rule

#: bounds of the argument -> bounds of the derivative there, which are not negative
Slopes = Callable[[Tensor, Tensor], Interval]


def _rising(derivative: Callable[[Tensor], Tensor]) -> Slopes:
    """Of a convex function."""
    return lambda low, high: (derivative(low), derivative(high))


def _peaked(derivative: Callable[[Tensor], Tensor]) -> Slopes:
    """Of a function that is steepest at 0, alike on both sides."""

    def slopes(low: Tensor, high: Tensor) -> Interval:
        nearest = torch.where(low > 0, low, torch.where(high < 0, high, torch.zeros_like(low)))
        return derivative(torch.maximum(-low, high)), derivative(nearest)

    return slopes


def _between(least: float, most: float, edges: bool = False) -> Slopes:
    """Of a function that rises by 1 between two numbers, at them if ``edges``, and is flat elsewhere."""

    def slopes(low: Tensor, high: Tensor) -> Interval:
        if edges:
            return ((low >= least) & (high <= most)).to(low), ((high >= least) & (low <= most)).to(low)
        return ((low > least) & (high < most)).to(low), ((high > least) & (low < most)).to(low)

    return slopes


def _convex_if(slope: float, derivative: Callable[[Tensor], Tensor]) -> Slopes | None:
    """Without bounds of the derivative where it falls at 0."""
    return _rising(derivative) if slope <= 1 else None


def _softplus(beta: float = 1, threshold: float = 20) -> Slopes:
    if beta <= 0:
        raise Unsupported("softplus with a beta that is not positive")
    return _rising(lambda x: torch.where(beta * x > threshold, torch.ones_like(x), torch.sigmoid(beta * x)))


def _leaky_relu(negative_slope: float = 0.01) -> Slopes | None:
    if negative_slope < 0:
        raise Unsupported("leaky_relu that falls")
    return _convex_if(negative_slope, lambda x: torch.where(x > 0, torch.ones_like(x), negative_slope))


def _elu(alpha: float = 1.0) -> Slopes | None:
    if alpha < 0:
        raise Unsupported("elu that falls")
    return _convex_if(alpha, lambda x: torch.where(x > 0, torch.ones_like(x), alpha * x.clamp_max(0).exp()))


def _celu(alpha: float = 1.0) -> Slopes:
    if alpha < 0:
        raise Unsupported("celu with a negative alpha")
    return _rising(lambda x: (x.clamp_max(0) / alpha).exp())


def _clamp(min: float | None = None, max: float | None = None) -> Slopes:
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        raise Unsupported("clamp with bounds that are tensors")
    return _between(-torch.inf if min is None else min, torch.inf if max is None else max, edges=True)


#: from the arguments of a function to bounds of its derivative; None where there is no rule for those
_SLOPES: dict[str, Callable[..., Slopes | None]] = {
    "relu": lambda: _rising(lambda x: (x > 0).to(x)),
    "leaky_relu": _leaky_relu,
    "softplus": _softplus,
    "elu": _elu,
    "celu": _celu,
    "exp": lambda: _rising(torch.exp),
    "tanh": lambda: _peaked(lambda x: 1 - torch.tanh(x).square()),
    "sigmoid": lambda: _peaked(lambda x: torch.sigmoid(x) * torch.sigmoid(-x)),
    "softsign": lambda: _peaked(lambda x: (1 + x.abs()).pow(-2)),
    "logsigmoid": lambda: lambda low, high: (torch.sigmoid(-high), torch.sigmoid(-low)),
    "hardtanh": lambda min_val=-1.0, max_val=1.0: _between(min_val, max_val),
    "relu6": lambda: _between(0.0, 6.0),
    "clamp": _clamp,
    "clip": _clamp,
    "clamp_min": lambda min: _clamp(min),
    "clamp_max": lambda max: _clamp(None, max),
    "selu": lambda: None,
}


@rule(*_SLOPES, "log_sigmoid")
def _monotone(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, *rest = args
    if not isinstance(source, Bounded):
        raise Unsupported(f"{func.__name__} with an argument that depends on the input")
    name = func.__name__.strip("_").replace("log_sigmoid", "logsigmoid")
    slopes = _SLOPES[name](*rest, **kwargs)
    before, after = source.low, source.high  # not to be read later: the tensor may be changed in place
    back = _through(slopes, before, after, name)
    return source.made(func(before, *rest, **kwargs), func(after, *rest, **kwargs), back)


def _through(slopes: Slopes | None, before: Tensor, after: Tensor, name: str) -> Back:
    """A slope times the derivative, which is not negative, between two arguments."""

    def back(low: Tensor, high: Tensor) -> tuple[Interval, ...]:
        if slopes is None:
            raise Unsupported(f"no bounds for the slope of {name}")
        least, most = slopes(before, after)
        return (
            (low.clamp_min(0) * least + low.clamp_max(0) * most, high.clamp_min(0) * most + high.clamp_max(0) * least),
        )

    return back


@rule("max_pool1d", "max_pool2d", "max_pool3d")
def _max_pool(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    source, kernel, stride, padding, dilation, ceil, both = named(args, kwargs, names, (None, 0, 1, False, False))
    if both:
        raise Unsupported("max pooling that returns its indices")
    rest = (kernel, stride or None, padding, dilation, ceil)
    before, after = source.low, source.high

    def back(low: Tensor, high: Tensor) -> tuple[Interval, ...]:
        if func.__name__ != "max_pool2d" or ceil or before.ndim != 4:
            raise Unsupported(f"no bounds for the slope of {func.__name__} but in two dimensions without ceil_mode")

        def windows(x: Tensor) -> Tensor:
            down, right = _pair(padding)
            x = F.pad(x, (right, right, down, down), value=-torch.inf)
            places: Tensor = F.unfold(x, kernel, dilation, 0, stride or kernel).unflatten(1, (x.shape[1], -1))
            return places

        least, most = windows(before), windows(after)
        sure = least > _highest_of_the_others(most)
        maybe = most >= least.amax(2, keepdim=True)
        below, over = low.flatten(2)[:, :, None], high.flatten(2)[:, :, None]
        below = torch.where(sure, below, torch.where(maybe, below.clamp_max(0), 0))
        over = torch.where(sure, over, torch.where(maybe, over.clamp_min(0), 0))
        return ((autodiff.adjoint(windows, before, below), autodiff.adjoint(windows, before, over)),)

    return source.made(func(before, *rest), func(after, *rest), back)


def _highest_of_the_others(windows: Tensor) -> Tensor:
    """For each of the K places in (B, C, K, L) windows."""
    if windows.shape[2] == 1:
        return torch.full_like(windows, -torch.inf)
    first, second = windows.topk(2, 2).values.split(1, 2)
    return torch.where(windows == first, second, first)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
