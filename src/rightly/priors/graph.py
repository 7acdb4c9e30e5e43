"""Features that are linked should matter alike."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from rightly.core.annotation import Annotation
from rightly.core.distributed import global_mean
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.graphs import edge_list
from rightly.core.registry import register
from rightly.priors.base import Level, Prior

Laplacian = Literal["unnormalized", "symmetric", "random-walk"]


def graph_smoothness(
    importances: Tensor, edges: Tensor, weights: Tensor, laplacian: Laplacian = "unnormalized"
) -> Tensor:
    """How much importances v differ along the edges of a graph with Laplacian L, in O(edges): (..., p) -> (...).

    - ``"unnormalized"``: v' L v = sum over edges {i, j} of W_ij (v_i - v_j)^2, the papers' penalty. A node of many
      edges weighs as much as they do.
    - ``"symmetric"``: the same of v_i / sqrt(d_i), with the degrees d. What costs nothing is then v proportional to
      sqrt(d): nodes of many edges may matter more.
    - ``"random-walk"``: |(I - D^-1 W) v|^2, every node against the weighted mean of its neighbours. All nodes weigh
      alike, and equal importances cost nothing. (v' (I - D^-1 W) v itself can be negative.)

    Nodes without edges cost nothing.

    Args:
        importances: (..., p).
        edges: (2, E), each undirected edge once.
        weights: (E,), not negative.
    """
    if laplacian not in get_args(Laplacian):
        raise ArgumentError("unknown Laplacian", expected=", ".join(get_args(Laplacian)), got=repr(laplacian))
    first, second = edges
    if laplacian == "unnormalized":
        return (weights * (importances[..., first] - importances[..., second]).square()).sum(-1)
    degrees = weights.new_zeros(importances.shape[-1]).index_add(0, edges.flatten(), weights.repeat(2))
    degrees = torch.where(degrees > 0, degrees, torch.ones_like(degrees))
    if laplacian == "symmetric":
        return graph_smoothness(importances * degrees.rsqrt(), edges, weights)
    steps = weights * (importances[..., first] - importances[..., second])
    off = torch.zeros_like(importances).index_add(-1, first, steps).index_add(-1, second, -steps)
    return (off / degrees).square().sum(-1)


def _example(shape: tuple[int, ...]) -> dict[str, Tensor]:
    size = int(torch.tensor(shape).prod())
    ring = torch.eye(size).roll(1, 0)
    return {"adjacency": (ring + ring.T).clamp(max=1)}


@register("prior", citation="erion2021", example=_example)
class GraphSmoothness(Prior):
    """Features that are linked in a graph should matter alike: v' L v of the importances.

    Args:
        adjacency: (p, p) symmetric strengths, dense or sparse; only the edges are kept.
        laplacian: ``"unnormalized"`` (the papers' choice), ``"symmetric"`` or ``"random-walk"``; see
            ``rt.functional.graph_smoothness``.
        level: ``"batch"`` takes v = mean |phi| over the batch (the papers' choice), ``"example"`` v = |phi| of each.
        signed: keep the signs, v = mean phi or phi: linked features should then matter in the same direction too. On
            the ``Gradient`` of a linear model this is w' L w, the graph LASSO's penalty.
        features: (p,) positions, in the flattened space, of the graph's nodes; by default all of it in order.
    """

    def __init__(
        self,
        adjacency: Tensor,
        *,
        laplacian: Laplacian = "unnormalized",
        level: Level = "batch",
        signed: bool = False,
        features: Tensor | None = None,
    ) -> None:
        if level not in ("batch", "example"):
            raise ArgumentError("unknown level", expected="'batch' or 'example'", got=repr(level))
        self.edges, self.weights = edge_list(adjacency)
        self.nodes = adjacency.shape[0]
        if laplacian not in get_args(Laplacian):
            raise ArgumentError("unknown Laplacian", expected=", ".join(get_args(Laplacian)), got=repr(laplacian))
        self.laplacian, self.level, self.signed = laplacian, level, signed
        self.features = features
        if features is not None and features.shape != (self.nodes,):
            raise ShapeError("every node needs its feature", expected=(self.nodes,), got=tuple(features.shape))
        if features is not None and (features.is_floating_point() or bool((features < 0).any())):
            raise ArgumentError("features are positions", expected="whole numbers >= 0", got=features.dtype)

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """() or (B,)."""
        sizes = attributions if self.signed else attributions.abs()
        importances = global_mean(sizes).flatten() if self.level == "batch" else sizes.flatten(1)
        if self.features is not None:
            if int(self.features.max()) >= importances.shape[-1]:
                raise ShapeError(
                    "the graph has features that the space does not have",
                    expected=f"positions below {importances.shape[-1]}",
                    got=int(self.features.max()),
                )
            importances = importances[..., self.features.to(importances.device)]
        if importances.shape[-1] != self.nodes:
            raise ShapeError(
                "the graph does not fit the features",
                expected=f"{self.nodes} features",
                got=importances.shape[-1],
                mend="pass features= to say which features are in the graph",
            )
        device = importances.device
        return graph_smoothness(importances, self.edges.to(device), self.weights.to(importances), self.laplacian)
