"""What recipes share that hold scores of groups of features against exact Shapley values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from rightly.attributions import Attribution
from rightly.evaluation import rank_correlation
from rightly.priors.regions import over_regions

#: (model, inputs) -> scores of the groups (B, R)
Explain = Callable[[Any, Tensor], Tensor]


def summed(method: Attribution, groups: Tensor) -> Explain:
    """A method's attributions added up over the groups (R, *F)."""
    return lambda model, x: over_regions(method(model, x, diagnostics=False).attributions, groups)


def nearness(scores: Tensor, exact: Tensor) -> tuple[float, float]:
    """How near scores (B, R) are to the exact ones.

    Returns:
        Spearman's correlation over the groups, the mean over examples; and the error: the sum of absolute differences
        over that of absolute exact values, over groups and examples.
    """
    error = (scores - exact).abs().sum() / exact.abs().sum()
    return float(rank_correlation(scores, exact).mean()), float(error)
