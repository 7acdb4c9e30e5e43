"""LASSO and graph LASSO are the L1 and the signed graph prior on the gradient of a linear model."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import nn
from torch.nn.functional import mse_loss

import rightly as rt
from contracts import oracles
from contracts.problems import draws

P = 6
RING = (torch.eye(P).roll(1, 0) + torch.eye(P).roll(-1, 0)).double()
LAPLACIAN = oracles.laplacian(RING, "unnormalized")


@pytest.fixture
def problem():
    inputs = torch.randn(40, P, generator=draws(0), dtype=torch.float64)
    truth = torch.tensor([1.0, 1.2, 0.9, 0, 0, -0.5], dtype=torch.float64)
    labels = inputs @ truth + 0.1 * torch.randn(40, generator=draws(1), dtype=torch.float64)
    return inputs - inputs.mean(0), (labels - labels.mean())[:, None], nn.Linear(P, 1).double()


def terms(l1, graph, signed=True):
    smooth = rt.priors.GraphSmoothness(RING, signed=signed)
    return [rt.Term(rt.Gradient(), rt.priors.L1(), l1, "l1"), rt.Term(rt.Gradient(), smooth, graph, "graph")]


def test_the_penalties_are_those_of_the_weights(problem):
    inputs, labels, model = problem
    w = model.weight[0]
    report = rt.Objective(model, mse_loss, terms(0.3, 0.7))(inputs, labels)
    expected = mse_loss(model(inputs), labels) + 0.3 * w.abs().sum() + 0.7 * w @ LAPLACIAN @ w
    assert torch.allclose(report.total, expected, rtol=1e-12)
    found, wanted = (torch.autograd.grad(total, model.weight)[0] for total in (report.total, expected))
    assert torch.allclose(found, wanted, rtol=1e-10)


def test_without_signs_it_is_another_penalty(problem):
    """Where linked weights differ in sign, |w|' L |w| is smaller: the prior on sizes is no graph LASSO."""
    inputs, labels, model = problem
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -1, 1, -1, 1, -1]]))
    signed, unsigned = (
        float(rt.Objective(model, mse_loss, terms(0.0, 1.0, signed))(inputs, labels).terms["graph"].penalty)
        for signed in (True, False)
    )
    assert (signed, unsigned) == (24.0, 0.0)


def trained(problem, l1, graph, steps=4000):
    inputs, labels, model = problem
    objective = rt.Objective(model, mse_loss, terms(l1, graph))
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.998)
    for _ in range(steps):
        optimizer.zero_grad()
        objective(inputs, labels).total.backward()
        optimizer.step()
        scheduler.step()
    return model.weight[0].detach()


def test_trained_with_the_graph_alone_it_is_the_closed_form(problem):
    inputs, labels, _ = problem
    gram = inputs.T @ inputs / 40
    expected = torch.linalg.solve(gram + 0.5 * LAPLACIAN, inputs.T @ labels[:, 0] / 40)
    assert torch.allclose(trained(problem, 0.0, 0.5, steps=1500), expected, atol=1e-4)


def test_trained_with_l1_alone_it_is_the_lasso(problem):
    inputs, labels, _ = problem
    expected = Lasso(alpha=0.1, tol=1e-10).fit(inputs.numpy(), labels[:, 0].numpy()).coef_
    assert (expected == 0).any()
    assert np.allclose(trained(problem, 0.2, 0.0, steps=1500).numpy(), expected, atol=2e-3)  # ours does not halve
