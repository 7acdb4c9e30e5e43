"""What picks numbers out: both parts follow the choice that the totals make."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.attributions.decomposition.rules.affine import larger
from rightly.attributions.decomposition.split import Split
from rightly.attributions.decomposition.table import SINGH, Args, Kwargs, rule
from rightly.core import autodiff
from rightly.core.intercept import Unsupported, in_python, named
from rightly.core.kernels.masks import pool_images

_PICKED = "b at the winners of t"


@rule("max_pool1d", "max_pool2d", "max_pool3d", formula=_PICKED, source=SINGH)
def _max_pool(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    source, kernel, stride, padding, dilation, ceil_mode, both = named(args, kwargs, names, (None, 0, 1, False, False))
    axes = int(func.__name__[-2])
    rest = (kernel, stride or None, padding, dilation, ceil_mode)
    if axes == 2 and source.total.ndim == 4:
        with torch.no_grad():
            total, index = pool_images(source.total, *rest)
        if torch.is_grad_enabled():
            total = _taken(source.total, index, axes)
    else:
        pool: Any = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[axes]
        total, index = pool(source.total, *rest, return_indices=True)
    return _winners(source, total, index, axes, both)


@rule(*("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices"), formula=_PICKED, source=SINGH)
def _max_pool_and_indices(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    kwargs = {name: value for name, value in kwargs.items() if name != "return_indices"}
    axes = int(func.__name__.split("pool")[1][0])
    pool: Any = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[axes]
    return _max_pool(pool, args[:6], {**kwargs, "return_indices": True})


@rule("fractional_max_pool2d", "fractional_max_pool3d", formula=_PICKED, source=SINGH, apart=True)
def _fractional_max_pool(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, *rest = args
    if source.run.apart:
        raise Unsupported(f"{func.__name__}, which draws its windows anew, with biases apart")
    kwargs = dict(kwargs)
    both = kwargs.pop("return_indices", False)
    with autodiff.outside_blocks():
        total, index = func(source.total, *rest, **kwargs, return_indices=True)
    return _winners(source, total, index, int(func.__name__[-2]), both)


@rule("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", formula=_PICKED, source=SINGH)
def _adaptive_max_pool(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, size, both = named(args, kwargs, ("input", "output_size", "return_indices"), (not in_python(func),))
    axes = int(func.__name__[-2])
    pool: Any = {1: F.adaptive_max_pool1d, 2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}[axes]
    total, index = pool(source.total, size, return_indices=True)
    return _winners(source, total, index, axes, both)


def _winners(source: Split, total: Tensor, index: Tensor, axes: int, both: bool) -> Any:
    """``index`` counts over the last dimensions."""
    made = source.made(total, _taken(source.relevant, index, axes))
    return (made, index) if both else made


def _taken(x: Tensor, index: Tensor, axes: int) -> Tensor:
    """What the index takes out of the last dimensions. For a gradient nothing is kept but the index, once for all."""
    if torch.is_grad_enabled():
        return x.flatten(-axes).gather(-1, index.flatten(-axes)).reshape(index.shape)
    # for many parts: examples and channels counted on top, so that one index is all of theirs
    each = math.prod(x.shape[-axes:])
    rows = torch.arange(math.prod(x.shape[:-axes]), device=index.device).reshape(*x.shape[:-axes], *(1,) * axes)
    return x.reshape(-1).index_select(0, (index + rows * each).flatten()).reshape(index.shape)


@rule("max_unpool1d", "max_unpool2d", "max_unpool3d", formula="b where t came from", source=SINGH, apart=True)
def _max_unpool(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, index, *rest = args if len(args) > 1 else (args[0], kwargs["indices"])
    kwargs = {name: value for name, value in kwargs.items() if name != "indices"}
    axes = int(func.__name__[-2])
    total = func(source.total, index, *rest, **kwargs)
    empty = torch.zeros_like(total).flatten(-axes)
    part = empty.scatter(-1, index.flatten(-axes), source.relevant.flatten(-axes)).reshape(total.shape)
    start = None if source.reference is None else func(source.reference, index, *rest, **kwargs)
    return source.made(total, part, reference=start)


@rule("max", "min", "median", "nanmedian", "mode", "kthvalue", "cummax", "cummin", formula=_PICKED, source=SINGH)
def _extreme(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    name = func.__name__
    if name in ("max", "min") and ((len(args) == 2 and isinstance(args[1], Tensor)) or "other" in kwargs):
        return larger(torch.maximum if name == "max" else torch.minimum, args, kwargs)
    source, *rest = args
    if not rest and not kwargs and name in ("max", "min"):
        place = (source.total.argmax() if name == "max" else source.total.argmin()).reshape(1)
        return source.made(func(source.total), source.relevant.reshape(-1).index_select(0, place).reshape(()))
    if name == "kthvalue":
        dim = kwargs.get("dim", rest[1] if len(rest) > 1 else -1)
        keep = kwargs.get("keepdim", len(rest) > 2 and rest[2])
    else:
        dim = kwargs.get("dim", rest[0] if rest else -1)
        keep = kwargs.get("keepdim", name in ("cummax", "cummin") or (len(rest) > 1 and rest[1]))
    if name in ("median", "nanmedian") and not rest and "dim" not in kwargs:
        raise Unsupported(f"the {name} of everything")
    found = func(source.total, *rest, **kwargs)
    index = found.indices if keep else found.indices.unsqueeze(dim)
    part = source.relevant.gather(dim, index)
    return type(found)((source.made(found.values, part if keep else part.squeeze(dim)), found.indices))


@rule("sort", "topk", "msort", formula="b in the order of t", source=SINGH)
def _sorted(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, *rest = args
    if func.__name__ == "msort":
        values, index = torch.sort(source.total, dim=0)
        return source.made(values, source.relevant.gather(0, index))
    place = 1 if func.__name__ == "topk" else 0
    given = rest[place] if len(rest) > place and not isinstance(rest[place], bool) else -1
    found = func(source.total, *rest, **kwargs)
    part = source.relevant.gather(kwargs.get("dim", given), found.indices)
    return type(found)((source.made(found.values, part), found.indices))


@rule("amax", "amin", formula="b of the winners, ties share", source=SINGH)
def _extreme_values(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, dim, keepdim = named(args, kwargs, ("input", "dim", "keepdim"), ((), False))
    held = (source.total == func(source.total, dim, True)).to(source.total)
    held = held / held.sum(dim, keepdim=True)
    return source.made(func(source.total, dim, keepdim), (source.relevant * held).sum(dim, keepdim=keepdim))
