"""Graph convolution against a dense loop over nodes and neighbours."""

import math

import pytest
import torch

import rightly as rt
from contracts.problems import draws
from rightly.core.errors import ArgumentError, ShapeError


def weighted(p=6, seed=0):
    upper = torch.rand(p, p, generator=draws(seed), dtype=torch.float64).triu(1)
    upper[upper < 0.4] = 0
    upper[:, p - 1] = 0  # a node without edges
    return upper + upper.T


def slow(layer, adjacency, inputs):
    """Node by node: the weighted sum of its neighbours and itself, over the roots of both degrees."""
    looped = adjacency.clone().fill_diagonal_(1)
    degrees = [float(row.sum()) for row in looped]
    out = torch.zeros(*inputs.shape[:2], layer.linear.out_features, dtype=inputs.dtype)
    for b in range(len(inputs)):
        for i in range(len(adjacency)):
            for j in range(len(adjacency)):
                strength = float(looped[i, j]) / math.sqrt(degrees[i] * degrees[j])
                out[b, i] += strength * (layer.linear.weight @ inputs[b, j])
            out[b, i] += layer.linear.bias
    return out


@pytest.mark.parametrize("layout", ["dense", "sparse", "with loops"])
def test_convolution_is_the_dense_loop(layout):
    adjacency = weighted()
    given = {"dense": adjacency, "sparse": adjacency.to_sparse_coo(), "with loops": adjacency + torch.eye(6) * 7}[
        layout
    ]
    torch.set_default_dtype(torch.float64)
    try:
        layer = rt.models.GraphConvolution(given, 2, 3)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        layer.linear.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    inputs = torch.randn(4, 6, 2, generator=draws(1), dtype=torch.float64)
    assert torch.allclose(layer(inputs), slow(layer, adjacency, inputs), rtol=1e-12)


def test_the_others_go_around():
    model = rt.models.gcn(
        weighted().float(), (8,), 1, n_in=9, features=torch.tensor([8, 1, 2, 3, 4, 5]), channels=2, seed=0
    )
    inputs = torch.randn(5, 9, generator=draws(2))
    spread = model.convolution(inputs[:, [8, 1, 2, 3, 4, 5], None]).relu().flatten(1)
    assert torch.equal(model(inputs), model.head(torch.cat([spread, inputs[:, [0, 6, 7]]], 1)))
    again = rt.models.gcn(
        weighted().float(), (8,), 1, n_in=9, features=torch.tensor([8, 1, 2, 3, 4, 5]), channels=2, seed=0
    )
    assert torch.equal(model(inputs), again(inputs))
    assert rt.models.gcn(weighted().float(), (8,), 3)(inputs[:, :6]).shape == (5, 3)


def test_a_prior_trains_through_it():
    """The parameter gradient of a graph prior on its attributions, against a central difference."""
    torch.set_default_dtype(torch.float64)
    try:
        model = rt.models.gcn(weighted(), (8,), 1, n_in=8, channels=2, seed=0)
    finally:
        torch.set_default_dtype(torch.float32)
    inputs, labels = (torch.randn(6, n, generator=draws(n), dtype=torch.float64) for n in (8, 1))
    prior = rt.priors.GraphSmoothness(weighted(), features=torch.arange(6))
    term = rt.Term(rt.ExpectedGradients(n_samples=2), prior, 1.0)
    objective = rt.Objective(model, torch.nn.functional.mse_loss, [term]).eval()
    total = objective(inputs, labels).total
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradient = torch.autograd.grad(total, parameters)
    direction = [torch.randn(p.shape, generator=draws(9), dtype=p.dtype) for p in parameters]
    slope = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p += sign * 1e-6 * d
        values.append(float(objective(inputs, labels).total.detach()))
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p -= sign * 1e-6 * d
    assert slope == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


def test_it_is_saved_with_its_graph():
    first, second = (rt.models.gcn(weighted(seed=s).float(), (4,), 1, seed=s) for s in (0, 0))
    second.load_state_dict(first.state_dict())
    assert all(value.layout == torch.strided for value in first.state_dict().values())  # what safetensors can hold


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda: rt.models.gcn(torch.ones(3, 3), (4,), 1, n_in=2), ArgumentError),
        (lambda: rt.models.gcn(torch.ones(3, 3), (4,), 1, features=torch.tensor([0, 1, 1])), ArgumentError),
        (lambda: rt.models.gcn(torch.ones(3, 3), (4,), 1, features=torch.tensor([0, 1])), ArgumentError),
        (lambda: rt.models.gcn(torch.ones(3, 3), (4,), 1, channels=0), ArgumentError),
        (lambda: rt.models.gcn(torch.ones(3, 2), (4,), 1), ArgumentError),
        (lambda: rt.models.GraphConvolution(torch.ones(3, 3))(torch.ones(2, 4, 1)), ShapeError),
    ],
)
def test_graphs_that_do_not_fit(wrong, error):
    with pytest.raises(error, match="expected"):
        wrong()
