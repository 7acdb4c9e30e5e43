"""Graph convolution: features read their neighbours in a graph before a network reads them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from rightly.core import seeding
from rightly.core.checks import check_count
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.graphs import edge_list
from rightly.models.networks import mlp


class GraphConvolution(nn.Module):
    """D^-1/2 (W + I) D^-1/2 X Theta + b (Kipf and Welling 2017, eq. 2): (B, p, channels_in) -> (B, p, channels_out).

    D holds the degrees of W + I; the diagonal of ``adjacency`` does not matter.

    Args:
        adjacency: (p, p) symmetric strengths, dense or sparse; kept as edges, so that p may be large.
        channels_in, channels_out: numbers a node.
    """

    edges: Tensor
    strengths: Tensor

    def __init__(self, adjacency: Tensor, channels_in: int = 1, channels_out: int = 1) -> None:
        super().__init__()
        edges, weights = edge_list(adjacency)
        self.nodes = adjacency.shape[0]
        weights = weights.to(torch.get_default_dtype())
        loops = torch.arange(self.nodes, device=edges.device).expand(2, -1)
        both = torch.cat([edges, edges.flip(0), loops], 1)
        weights = torch.cat([weights, weights, weights.new_ones(self.nodes)])
        scale = weights.new_zeros(self.nodes).index_add(0, both[0], weights).rsqrt()
        matrix = torch.sparse_coo_tensor(
            both, weights * scale[both[0]] * scale[both[1]], (self.nodes, self.nodes), check_invariants=True
        ).coalesce()
        self.register_buffer("edges", matrix.indices())
        self.register_buffer("strengths", matrix.values())
        self.linear = nn.Linear(channels_in, channels_out)
        # torch's own bias is as large as the weights: with few channels, ReLU would leave whole channels at zero
        nn.init.zeros_(self.linear.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, p, channels_in) -> (B, p, channels_out)."""
        if inputs.ndim != 3 or inputs.shape[1] != self.nodes:
            raise ShapeError(
                "the graph does not fit the inputs",
                expected=f"(B, {self.nodes}, {self.linear.in_features})",
                got=tuple(inputs.shape),
            )
        # the weights first, the neighbours then: the two commute, and there may be fewer channels afterwards
        mixed = nn.functional.linear(inputs, self.linear.weight)
        columns = mixed.transpose(0, 1).reshape(self.nodes, -1)
        matrix = torch.sparse_coo_tensor(
            self.edges, self.strengths, (self.nodes, self.nodes), is_coalesced=True, check_invariants=False
        )
        spread = torch.sparse.mm(matrix, columns).reshape(self.nodes, len(inputs), -1).transpose(0, 1)
        return torch.add(spread, self.linear.bias)


class GraphNetwork(nn.Module):
    """A graph convolution over some features, then a network of what it gives and of the other features.

    Made by ``gcn``.
    """

    nodes: Tensor
    others: Tensor

    def __init__(self, convolution: GraphConvolution, head: nn.Module, nodes: Tensor, others: Tensor) -> None:
        super().__init__()
        self.convolution, self.head = convolution, head
        self.register_buffer("nodes", nodes)
        self.register_buffer("others", others)

    def forward(self, inputs: Tensor) -> Tensor:
        """(B, n_in) -> (B, n_out)."""
        spread = self.convolution(inputs[:, self.nodes, None]).relu().flatten(1)
        return self.head(torch.cat([spread, inputs[:, self.others]], 1))  # type: ignore[no-any-return]


def gcn(
    adjacency: Tensor,
    hidden: Sequence[int],
    n_out: int,
    *,
    n_in: int | None = None,
    features: Tensor | None = None,
    channels: int = 1,
    dropout: float = 0.0,
    seed: int | None = None,
) -> GraphNetwork:
    """One graph convolution with ReLU, then an ``mlp``: (B, n_in) -> (B, n_out).

    The graph baseline of Erion et al. (2021), whose head is ``hidden=(512, 256)`` with dropout 0.6; they do not
    state the channels.

    Args:
        adjacency: (p, p), as for ``rt.priors.GraphSmoothness``.
        hidden, n_out, dropout, seed: as in ``mlp``.
        n_in: features of an example; by default those of the graph alone.
        features: (p,) positions of the graph's nodes among them; by default the first p. The others (which drug it
            is) go around the convolution.
        channels: numbers that the convolution gives each node.
    """
    check_count("channels", channels)
    with seeding.guarded(seed, "gcn") if seed is not None else nullcontext():
        convolution = GraphConvolution(adjacency, 1, channels)
        size = convolution.nodes if n_in is None else check_count("n_in", n_in)
        nodes = torch.arange(convolution.nodes) if features is None else features
        if nodes.shape != (convolution.nodes,) or nodes.is_floating_point() or len(nodes.unique()) < len(nodes):
            raise ArgumentError(
                "every node needs a feature of its own",
                expected=f"{convolution.nodes} different whole numbers",
                got=tuple(nodes.shape),
            )
        if int(nodes.min()) < 0 or int(nodes.max()) >= size:
            raise ArgumentError("no such feature", expected=f"0 to {size - 1}", got=int(nodes.max()))
        others = torch.ones(size, dtype=torch.bool)
        others[nodes] = False
        rest = others.nonzero()[:, 0]
        head = mlp(len(nodes) * channels + len(rest), hidden, n_out, dropout=dropout)
        return GraphNetwork(convolution, head, nodes, rest)
