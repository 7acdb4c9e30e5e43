"""Self-attention with a second derivative in closed form; ``None`` where a call does not fit.

With scores S = s Q K^T + mask, P = softmax(S) and O = P V, ``Adjoint`` is the gradient. What a motion changes in P is
handed to ``Attend`` as the cotangent of its output ``probabilities``, by convention one *of the scores*, so that it
goes back to Q and K together with what else arrives there. Q, K and V stand in one tensor, as do their gradients.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rightly.core.kernels.function import Kernel, final


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor | None:
    """torch.nn.functional.scaled_dot_product_attention: three (..., L, E) of one shape, without dropout."""
    if dropout_p or enable_gqa or query.dim() < 3 or not (query.shape == key.shape == value.shape):
        return None
    if attn_mask is not None and (attn_mask.requires_grad or is_causal):
        return None
    lead, (length, width) = query.shape[:-2], query.shape[-2:]
    mask = _additive(attn_mask, is_causal, query)
    if mask is not None:
        mask = mask.expand(*lead, length, length).reshape(-1, length, length)
    packed = torch.stack((query, key, value)).view(3, -1, length, width)
    return Attend.many(packed, mask, 1 / math.sqrt(width) if scale is None else scale)[0].view(query.shape)


def _additive(mask: Tensor | None, is_causal: bool, query: Tensor) -> Tensor | None:
    if is_causal:
        mask = torch.ones(query.shape[-2], query.shape[-2], dtype=torch.bool, device=query.device).tril()
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, -math.inf)


def multi_head(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    is_causal: bool = False,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    **rest: Any,
) -> tuple[Tensor, None] | None:
    """torch.nn.functional.multi_head_attention_forward: (T, B, E) to itself, without mask, weights not returned."""
    special = (bias_k, bias_v, key_padding_mask, attn_mask, static_k, static_v)
    if any(each is not None for each in special) or not (query is key is value) or query.dim() != 3:
        return None
    if add_zero_attn or need_weights or use_separate_proj_weight or is_causal or (training and dropout_p):
        return None
    if in_proj_weight is None:
        return None
    x = query.transpose(0, 1)  # what a batch_first module holds
    batch, length, width = x.shape
    packed = F.linear(x, in_proj_weight, in_proj_bias).view(batch, length, 3, num_heads, -1)
    packed = packed.permute(2, 0, 3, 1, 4).reshape(3, batch * num_heads, length, -1)
    out = Attend.many(packed, None, 1 / math.sqrt(packed.shape[-1]))[0]
    out = out.view(batch, num_heads, length, -1).transpose(1, 2).reshape(batch, length, width)
    return F.linear(out, out_proj_weight, out_proj_bias).transpose(0, 1), None


class Attend(Kernel):
    """((Q, K, V) (3, N, L, E), mask (N, L, L), s) -> O (N, L, E), P (N, L, L)."""

    @staticmethod
    def forward(ctx: Any, packed: Tensor, mask: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
        q, k, v = packed
        scores = torch.bmm(q, k.mT).mul_(scale)
        # rows that are masked as a whole give 0, as in torch
        p = scores.softmax(-1) if mask is None else torch._safe_softmax(scores.add_(mask), -1)
        ctx.save_for_backward(packed, p)
        ctx.scale = scale
        ctx.set_materialize_grads(False)
        return torch.bmm(p, v), p

    @staticmethod
    def backward(ctx: Any, by_o: Tensor | None, by_scores: Tensor | None) -> tuple[Tensor | None, ...]:
        packed, p = ctx.saved_tensors
        if by_o is None:
            by_o = torch.zeros_like(packed[2])
        return Adjoint.one(by_o, by_scores, packed, p, ctx.scale), None, None


class Adjoint(Kernel):
    """The gradient of ``Attend``: cotangents of O and of the scores -> that of (Q, K, V)."""

    @staticmethod
    def forward(ctx: Any, by_o: Tensor, by_scores: Tensor | None, packed: Tensor, p: Tensor, scale: float) -> Tensor:
        q, k, v = packed
        to_p = torch.bmm(by_o, v.mT)
        to_s = torch._softmax_backward_data(to_p, p, -1, p.dtype)
        if by_scores is not None:
            to_s += by_scores
        to_s *= scale
        ctx.save_for_backward(by_o, packed, p, to_p, to_s)
        ctx.scale = scale
        return _packed(packed, (to_s, k), (to_s.mT, q), (p.mT, by_o))

    @staticmethod
    @final
    def backward(ctx: Any, along: Tensor) -> tuple[Tensor | None, ...]:
        by_o, packed, p, to_p, to_s = ctx.saved_tensors
        (q, k, v), (along_q, along_k, along_v) = packed, along
        moved_s = torch.bmm(along_q, k.mT).baddbmm_(q, along_k.mT).mul_(ctx.scale)
        moved_p = torch._softmax_backward_data(moved_s, p, -1, p.dtype)
        moved_o = torch.bmm(moved_p, v).baddbmm_(p, along_v)

        # what the motion changes in P: (dP - mean dP) moved_S - dP mean moved_S + by_O moved_V^T, means under P
        of_p = (to_p - (p * to_p).sum(-1, keepdim=True)).mul_(moved_s)
        of_p.addcmul_(to_p, (p * moved_s).sum(-1, keepdim=True), value=-1).baddbmm_(by_o, along_v.mT)
        of_s = torch._softmax_backward_data(of_p, p, -1, p.dtype)
        of_packed = _packed(packed, (to_s, along_k), (to_s.mT, along_q), (moved_p.mT, by_o))
        return moved_o, None, of_packed, of_s, None


def _packed(like: Tensor, *products: tuple[Tensor, Tensor]) -> Tensor:
    made = torch.empty_like(like)
    for part, (left, right) in zip(made, products, strict=True):
        torch.bmm(left, right, out=part)
    return made
