"""Normalisations: with the statistics of the total held still, they are linear layers with a bias."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.attributions.decomposition.composites import without_override
from rightly.attributions.decomposition.rules.unary import together
from rightly.attributions.decomposition.split import Split, affine, first
from rightly.attributions.decomposition.table import OURS, SHAPLEY, SINGH, Args, Kwargs, rule
from rightly.core.intercept import in_python, named


def _read(func: Callable[..., Any], args: Args, kwargs: Kwargs, rest: tuple[str, ...], defaults: Args) -> list[Any]:
    """input, running_mean, running_var, weight, bias, and the rest, of a function or of its namesake in ``torch``."""
    statistics, scale = ("running_mean", "running_var"), ("weight", "bias")
    if in_python(func):
        return named(args, kwargs, ("input", *statistics, *scale, *rest), (None,) * 4 + defaults)
    names = ("input", *scale, *statistics, *rest, "cudnn_enabled")
    source, weight, bias, mean, variance, *others, _ = named(args, kwargs, names, ())
    return [source, mean, variance, weight, bias, *others]


@rule("batch_norm", formula="b w / sigma + s c with c = bias - mu w / sigma", source=f"{SINGH}, eq. 5", apart=True)
def _batch_norm(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, mean, variance, weight, bias, training, momentum, eps = _read(
        func, args, kwargs, ("training", "momentum", "eps"), (False, 0.1, 1e-5)
    )
    x = source.total
    total = F.batch_norm(x, mean, variance, weight, bias, training, momentum, eps)
    if training or mean is None:
        dims = [dim for dim in range(x.ndim) if dim != 1]
        variance, mean = torch.var_mean(x, dims, correction=0)
    return _scaled(source, total, mean, variance, weight, bias, eps)


def _scaled(source: Split, total: Tensor, mean: Tensor, variance: Tensor, weight: Any, bias: Any, eps: float) -> Split:
    """Each channel multiplied and moved."""
    scale = torch.rsqrt(variance + eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    if bias is not None:
        shift = shift + bias
    shape = (1, -1, *(1,) * (source.total.ndim - 2))
    scale, shift = scale.reshape(shape).to(total.dtype), shift.reshape(shape).to(total.dtype)
    return affine(total, source, lambda x: x * scale, shift, range(1, source.total.ndim))


@rule("layer_norm", formula="(b - mean b) w / sigma(t) + s c", source=OURS)
def _layer_norm(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "normalized_shape", "weight", "bias", "eps", "cudnn_enable")
    source, shape, weight, bias, eps, _ = named(args, kwargs, names, (None, None, 1e-5, True))
    dims = tuple(range(-len(shape), 0))
    total = F.layer_norm(source.total, shape, weight, bias, eps)
    scale = torch.rsqrt(source.total.var(dims, correction=0, keepdim=True) + eps)
    if weight is not None:
        scale = scale * weight
    return affine(total, source, lambda x: (x - x.mean(dims, keepdim=True)) * scale, bias, dims)


@rule("rms_norm", formula="b w / rms(t)", source=OURS)
def _rms_norm(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, shape, weight, eps = named(args, kwargs, ("input", "normalized_shape", "weight", "eps"), (None, None))
    dims = tuple(range(-len(shape), 0))
    total = F.rms_norm(source.total, shape, weight, eps)
    small = torch.finfo(total.dtype).eps if eps is None else eps
    scale = torch.rsqrt(source.total.square().mean(dims, keepdim=True) + small)
    if weight is not None:
        scale = scale * weight
    return affine(total, source, lambda x: x * scale, None, dims)


@rule("group_norm", formula="(b - mean b) w / sigma(t) + s c", source=OURS)
def _group_norm(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = ("input", "num_groups", "weight", "bias", "eps", "cudnn_enabled")
    source, groups, weight, bias, eps, _ = named(args, kwargs, names, (None, None, 1e-5, True))
    total = F.group_norm(source.total, groups, weight, bias, eps)
    return _grouped(source, total, groups, weight, bias, eps)


def _grouped(source: Split, total: Tensor, groups: int, weight: Any, bias: Any, eps: float) -> Split:
    """Statistics of each example's groups of channels."""
    shape = source.total.shape
    channels = (1, -1, *(1,) * (source.total.ndim - 2))
    folded = source.total.reshape(shape[0], groups, -1)
    scale = torch.rsqrt(folded.var(-1, correction=0, keepdim=True) + eps)

    def run(x: Tensor) -> Tensor:
        folded = x.reshape(shape[0], groups, -1)
        centred = ((folded - folded.mean(-1, keepdim=True)) * scale).reshape(shape)
        return centred if weight is None else centred * weight.reshape(channels)

    return affine(total, source, run, None if bias is None else bias.reshape(channels), range(1, len(shape)))


@rule("instance_norm", formula="(b - mean b) w / sigma(t) + s c", source=OURS, apart=True)
def _instance_norm(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    source, mean, variance, weight, bias, own, momentum, eps = _read(
        func, args, kwargs, ("use_input_stats", "momentum", "eps"), (True, 0.1, 1e-5)
    )
    total = F.instance_norm(source.total, mean, variance, weight, bias, own, momentum, eps)
    if own and source.run.apart:
        found = together(lambda x: F.instance_norm(x, None, None, weight, bias, True, momentum, eps), (source,), {})
        return source.made(total, found.part, reference=found.reference)
    if own:
        return _grouped(source, total, source.total.shape[1], weight, bias, eps)
    return _scaled(source, total, mean, variance, weight, bias, eps)


@rule("normalize", formula="x / |x|, step by step; from a reference as one", source=SHAPLEY, apart=True)
def _normalized(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    """Step by step from a reference of zeros, everything would be divided by nothing."""
    if first(args, kwargs).run.apart:
        return together(func, args, kwargs)
    return without_override(func)(func, args, kwargs)  # type: ignore[misc]
