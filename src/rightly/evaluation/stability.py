"""Whether models that differ by their seed alone rely on the same things."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rightly.core.errors import ArgumentError
from rightly.evaluation.similarity import cosine, rank_correlation, top_k_overlap


@dataclass(frozen=True)
class Agreement:
    """How alike the explanations of several models are, over all pairs of them.

    Attributes:
        rank_correlation, cosine, top_k: (B,), mean over the pairs, of the attributions of each example.
        global_rank_correlation, global_top_k: (P,), for each pair, of the mean absolute attributions.
    """

    rank_correlation: Tensor
    cosine: Tensor
    top_k: Tensor
    global_rank_correlation: Tensor
    global_top_k: Tensor


def agreement(attributions: Sequence[Tensor], *, k: int = 5) -> Agreement:
    """Agreement of several seeds.

    Args:
        attributions: (B, *F) of the same examples, one tensor a model.
        k: features that count as the most important ones.
    """
    if len(attributions) < 2:
        raise ArgumentError("agreement takes several", expected="at least 2 models", got=len(attributions))
    pairs = list(itertools.combinations(attributions, 2))
    importance = [phi.detach().abs().mean(0).reshape(1, -1) for phi in attributions]
    between = list(itertools.combinations(importance, 2))
    return Agreement(
        torch.stack([rank_correlation(a, b) for a, b in pairs]).mean(0),
        torch.stack([cosine(a, b) for a, b in pairs]).mean(0),
        torch.stack([top_k_overlap(a, b, k) for a, b in pairs]).mean(0),
        torch.cat([rank_correlation(a, b) for a, b in between]),
        torch.cat([top_k_overlap(a, b, k) for a, b in between]),
    )
