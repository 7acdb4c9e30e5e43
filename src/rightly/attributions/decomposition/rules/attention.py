"""Scaled dot-product attention; ``nn.MultiheadAttention`` and the transformers are made of it and of other rules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rightly.attributions.decomposition.split import total_of
from rightly.attributions.decomposition.table import SHAPLEY, Args, Kwargs, rule
from rightly.core.intercept import named


@rule(
    "scaled_dot_product_attention",
    formula='"freeze": A(t) b_v; "shapley": 1/2 (b_A t_v + t_A b_v)',
    source=SHAPLEY,
    apart=True,
)
def _attention(func: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    query, key, value, mask, dropout, causal, scale, grouped = named(
        args, kwargs, names, (None, 0.0, False, None, False)
    )
    factor = 1 / math.sqrt(total_of(query).shape[-1]) if scale is None else scale
    if isinstance(mask, Tensor) and not mask.is_floating_point():
        mask = total_of(mask)
    with torch._C._EnableTorchFunction():
        if grouped:
            repeats = total_of(query).shape[-3] // total_of(key).shape[-3]
            key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
        scores = (query * factor) @ key.transpose(-2, -1)
        if causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=total_of(query).device).tril()
        blind = None  # queries that must not see anything: PyTorch gives them zeros
        if isinstance(mask, Tensor):
            seen = mask if mask.dtype == torch.bool else total_of(mask) != -math.inf
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
            blind = ~seen.any(-1, keepdim=True)
            if bool(blind.any()):
                scores = scores.masked_fill(blind, 0.0)
            else:
                blind = None
        weights = torch.softmax(scores, -1)
        if blind is not None:
            weights = weights * (~blind).to(weights.dtype)
        if dropout > 0:
            weights = torch.nn.functional.dropout(weights, dropout)
        return weights @ value
