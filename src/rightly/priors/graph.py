"""Features that are linked should matter alike."""

from __future__ import annotations

import torch
from torch import Tensor

from rightly.core.annotation import Annotation
from rightly.core.distributed import global_mean
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.registry import register
from rightly.priors.base import Level, Prior


def graph_smoothness(importances: Tensor, edges: Tensor, weights: Tensor, degrees: Tensor | None = None) -> Tensor:
    """sum over edges {i, j} of W_ij (v_i - v_j)^2 = v' L v, in O(edges): (..., p) -> (...).

    Args:
        importances: (..., p).
        edges: (2, E), each undirected edge once.
        weights: (E,), not negative.
        degrees: (p,), for the normalised Laplacian: v is divided by the square root of its degree first.
    """
    if degrees is not None:
        scale = torch.where(degrees > 0, degrees, torch.ones_like(degrees)).rsqrt()
        importances = importances * scale
    steps = importances[..., edges[0]] - importances[..., edges[1]]
    return (weights * steps.square()).sum(-1)


def edge_list(adjacency: Tensor) -> tuple[Tensor, Tensor]:
    """Edges (2, E) with i < j and their weights (E,) from a dense or sparse symmetric adjacency (p, p).

    The diagonal does not matter to the Laplacian and is left out.

    Raises:
        ArgumentError: not square, not symmetric, negative or not finite.
    """
    if not isinstance(adjacency, Tensor):
        raise ArgumentError("an adjacency is a tensor", expected="a tensor (p, p)", got=type(adjacency).__name__)
    if adjacency.ndim != 2 or adjacency.shape[0] != adjacency.shape[1]:
        raise ArgumentError("an adjacency is square", expected="(p, p)", got=tuple(adjacency.shape))
    sparse = adjacency if adjacency.layout == torch.sparse_coo else adjacency.to_sparse_coo()
    sparse = sparse.coalesce()
    index, values = sparse.indices(), sparse.values()
    if not bool(values.isfinite().all()) or bool((values < 0).any()):
        raise ArgumentError("an adjacency holds strengths", expected="finite weights >= 0", got="others")
    mirror = sparse.t().coalesce()
    if not torch.equal(mirror.indices(), index) or not torch.allclose(mirror.values(), values):
        raise ArgumentError(
            "the adjacency is not symmetric", expected="W_ij = W_ji", got="others", mend="(W + W.T) / 2"
        )
    once = (index[0] < index[1]) & (values > 0)
    return index[:, once], values[once]


def _example(shape: tuple[int, ...]) -> dict[str, Tensor]:
    size = int(torch.tensor(shape).prod())
    ring = torch.eye(size).roll(1, 0)
    return {"adjacency": (ring + ring.T).clamp(max=1)}


@register("prior", citation="erion2021", example=_example)
class GraphSmoothness(Prior):
    """Features that are linked in a graph should matter alike: v' L v of the importances.

    Args:
        adjacency: (p, p) symmetric strengths, dense or sparse; only the edges are kept.
        normalized: use the symmetric normalised Laplacian.
        level: ``"batch"`` takes v = mean |phi| over the batch (the papers' choice), ``"example"`` v = |phi| of each.
        features: (p,) positions, in the flattened space, of the graph's nodes; by default all of it in order.
    """

    def __init__(
        self,
        adjacency: Tensor,
        *,
        normalized: bool = False,
        level: Level = "batch",
        features: Tensor | None = None,
    ) -> None:
        if level not in ("batch", "example"):
            raise ArgumentError("unknown level", expected="'batch' or 'example'", got=repr(level))
        self.edges, self.weights = edge_list(adjacency)
        self.nodes = adjacency.shape[0]
        self.normalized, self.level = normalized, level
        self.features = features
        if features is not None and features.shape != (self.nodes,):
            raise ShapeError("every node needs its feature", expected=(self.nodes,), got=tuple(features.shape))
        if features is not None and (features.is_floating_point() or bool((features < 0).any())):
            raise ArgumentError("features are positions", expected="whole numbers >= 0", got=features.dtype)
        degrees = torch.zeros(self.nodes, dtype=self.weights.dtype, device=self.weights.device)
        self.degrees = degrees.index_add(0, self.edges.flatten(), self.weights.repeat(2))

    def penalty(self, attributions: Tensor, annotation: Annotation | None, target: Tensor | None) -> Tensor:
        """() or (B,)."""
        sizes = attributions.abs()
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
        degrees = self.degrees.to(importances) if self.normalized else None
        return graph_smoothness(importances, self.edges.to(device), self.weights.to(importances), degrees)
