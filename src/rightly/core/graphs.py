"""Graphs over features, as lists of edges."""

from __future__ import annotations

import torch
from torch import Tensor

from rightly.core.errors import ArgumentError


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
