"""What a model relies on as a whole: global importances, their concentration, their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.gini import gini


@dataclass(frozen=True)
class Importance:
    """Global importance of features or of groups of features.

    Attributes:
        values: (G,), mean over examples of the absolute attribution of the group (summed within it first, so that
            the columns that encode one category count as one feature).
        gini: concentration of ``values``: 0 all alike, towards 1 a single one.
        completeness_gap: mean absolute gap of the attributions.
    """

    values: Tensor
    gini: float
    completeness_gap: float


def global_importance(
    attributions: Tensor, groups: Sequence[int] | np.ndarray | None = None, completeness_gap: Tensor | None = None
) -> Importance:
    """Importances from attributions (B, F).

    Args:
        attributions: (B, *F), flattened.
        groups: (F,), which group each feature belongs to; by default every feature is its own.
        completeness_gap: (B,), to be reported along.
    """
    flat = attributions.detach().flatten(1)
    if groups is not None:
        index = torch.as_tensor(np.asarray(groups), device=flat.device)
        if index.shape != flat.shape[1:]:
            raise ShapeError("every feature needs a group", expected=tuple(flat.shape[1:]), got=tuple(index.shape))
        if index.is_floating_point() or int(index.min()) < 0:
            raise ArgumentError("groups are numbered", expected="whole numbers from 0", got=index.tolist()[:5])
        flat = flat.new_zeros(len(flat), int(index.max()) + 1).index_add(1, index, flat)
    values = flat.abs().mean(0)
    gap = 0.0 if completeness_gap is None else float(completeness_gap.abs().mean())
    return Importance(values, float(gini(values.double())), gap)


def lorenz(values: Tensor, points: int = 101) -> list[float]:
    """Lorenz curve of importances: share of the total that the least important q of the features hold."""
    if values.ndim != 1 or len(values) == 0 or not bool((values >= 0).all()):
        raise ArgumentError(
            "a Lorenz curve orders importances", expected="(G,), none negative", got=tuple(values.shape)
        )
    ordered = values.double().sort().values
    cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), ordered.cumsum(0).cpu()])
    total = float(cumulative[-1])
    curve = cumulative / total if total > 0 else torch.linspace(0, 1, len(cumulative), dtype=torch.float64)
    at = np.linspace(0, 1, points)
    return [float(v) for v in np.interp(at, np.linspace(0, 1, len(curve)), curve.numpy())]


def share_inside(attributions: Tensor, region: Tensor) -> Tensor:
    """Share of each example's absolute attribution inside a region, (B, *F) -> (B,); 0 where there is none."""
    try:
        region = region.expand(attributions.shape)
    except RuntimeError as error:
        raise ShapeError(
            "the region does not fit the attributions",
            expected=f"a shape that broadcasts to {tuple(attributions.shape)}",
            got=tuple(region.shape),
        ) from error
    sizes = attributions.detach().abs().flatten(1)
    sizes = sizes.float() if sizes.element_size() < 4 else sizes
    inside = (sizes * region.to(sizes).flatten(1)).sum(1)
    return inside / sizes.sum(1).clamp_min(torch.finfo(sizes.dtype).tiny)
