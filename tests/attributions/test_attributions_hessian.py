"""The Hessian at the input: closed forms, its norm from random directions, training with and without curvature."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.agreement import check_close
from contracts.derivatives import check_term
from contracts.problems import draws, images, initialised, normal, sequences, tokens, vectors
from rightly.core.errors import ArgumentError, NotConnectedError

X = normal(5, 4, seed=1)
LABELS = torch.tensor([0, 1, 2, 1, 0])
CURVE = normal(4, 4, seed=3)
SLOPE = normal(4, seed=4)
ACROSS = CURVE + CURVE.T


def quadratic(x):
    """x' A x + b x + 3: the Hessian is A + A' everywhere."""
    return ((x @ CURVE) * x).sum(1) + x @ SLOPE + 3


def _net(activation=nn.Softplus, seed=0):
    return initialised(
        nn.Sequential(nn.Linear(4, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 3)), seed
    )


# --- closed forms


def test_a_quadratic_has_its_matrix_everywhere():
    check_close(rt.Hessian()(quadratic, X).attributions, ACROSS.expand(5, 4, 4))


def test_a_product_of_three_has_the_third_at_each_pair():
    found = rt.Hessian()(lambda x: x[:, :3].prod(1), X).attributions
    expected = torch.zeros(5, 4, 4, dtype=torch.float64)
    for i, j, k in ((0, 1, 2), (0, 2, 1), (1, 2, 0)):
        expected[:, i, j] = expected[:, j, i] = X[:, k]
    check_close(found, expected)


def test_a_sigmoid_of_a_sum_has_a_hessian_of_rank_one():
    """p'' = p (1 - p) (1 - 2 p) w w'."""
    model = nn.Linear(4, 1).double()
    p = torch.sigmoid(model(X))[:, 0].detach()
    w = model.weight[0].detach()
    expected = (p * (1 - p) * (1 - 2 * p))[:, None, None] * torch.outer(w, w)
    found = rt.Hessian(output="prob")(model, X, torch.ones(5, dtype=torch.long)).attributions
    check_close(found, expected)


def test_rows_and_pairs_are_parts_of_the_whole():
    model, pairs = _net(), torch.tensor([[0, 3], [1, 3], [2, 2], [0, 1]])
    whole = rt.Hessian()(model, X, LABELS).attributions
    check_close(rt.Hessian(features=[3, 1])(model, X, LABELS).attributions, whole[:, [3, 1]])
    check_close(rt.Hessian(pairs=pairs)(model, X, LABELS).attributions, whole[:, pairs[:, 0], pairs[:, 1]])


def test_a_linear_model_has_none():
    model = nn.Linear(4, 3).double()
    for method in (rt.Hessian(), rt.HessianProducts(n_samples=2), rt.GradientDifferences()):
        found = method(model, X, LABELS).attributions
        assert found.abs().max() < 1e-14


@pytest.mark.parametrize("problem", [images(2), tokens(2), sequences(2)], ids=lambda p: p.name)
def test_the_hessian_is_the_difference_of_gradients_in_any_space(problem):
    model, step = problem.model.eval(), 1e-5
    found = rt.Hessian(space=problem.space, features=[0, 7])(model, problem.inputs, problem.labels).attributions
    assert found.shape == (2, 2, *problem.shape)
    view = problem.space.open(model, problem.inputs)
    rows = torch.arange(2)

    def slopes(points):
        points = points.detach().requires_grad_()
        values = view.rest(points, rows)[rows, problem.labels]
        return torch.autograd.grad(values.sum(), points)[0]

    for place, feature in enumerate((0, 7)):
        way = torch.zeros(problem.shape, dtype=torch.float64)
        way.view(-1)[feature] = step
        x = view.coordinates
        difference = (slopes(x + way) - slopes(x - way)) / (2 * step)
        assert torch.allclose(found[:, place], difference, rtol=1e-5, atol=1e-8)


# --- the estimators


def test_products_give_the_squared_norm_on_average():
    """Unbiased: the mean over 40000 draws is within four standard errors; and each draw is |H v|^2."""
    model = _net()
    exact = rt.Hessian()(model, X, LABELS).attributions.square().flatten(1).sum(1)
    many = rt.HessianProducts(n_samples=1)(
        model, X[:1].expand(40000, -1), LABELS[:1].expand(40000), generator=draws(3)
    ).attributions
    each = many.square().flatten(1).sum(1)
    assert (each.mean() - exact[0]).abs() < 4 * each.std() / 200
    assert each.std() > 0.1 * exact[0]


def test_more_directions_do_not_change_what_is_estimated():
    few, many = (
        rt.HessianProducts(n_samples=k)(quadratic, X[:1].expand(n, -1), generator=draws(1)).attributions
        for k, n in ((2, 20000), (40, 1000))
    )
    size = ACROSS.square().sum()
    spread = []
    for found in (few, many):
        each = found.square().flatten(1).sum(1)
        assert (each.mean() - size).abs() < 4 * each.std() / len(each) ** 0.5
        spread.append(each.var())
    assert 15 < spread[0] / spread[1] < 27  # 1 / K


def test_differences_tend_to_products():
    model = _net()
    exact = rt.HessianProducts(n_samples=3)(model, X, LABELS, generator=draws(2)).attributions
    gaps = []
    for step in (1e-2, 1e-3):
        near = rt.GradientDifferences(n_samples=3, step=step)(model, X, LABELS, generator=draws(2)).attributions
        gaps.append(float((near - exact).abs().max() / exact.abs().max()))
    assert gaps[0] < 0.1
    assert gaps[1] < 0.2 * gaps[0]  # first order


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_default_step_is_above_the_rounding_of_half_precision(dtype):
    """A gradient of 1 + x: its slope of 1 is found to within a few percent, where a step of 0.1 is 10 % off."""

    def curved(x):
        return (x + x.square() / 2).sum(1)

    x = torch.full((200, 4), 1.0)
    exact = rt.HessianProducts(n_samples=2)(curved, x, generator=draws(2)).attributions

    def error(step):
        method = rt.GradientDifferences(n_samples=2, step=step)
        found = method(curved, x.to(dtype), generator=draws(2)).attributions.float()
        return float((found - exact).norm() / exact.norm())

    assert error(None) < 0.03
    if dtype == torch.bfloat16:
        assert error(0.1) > 2 * error(None)


def test_the_default_step_is_a_tenth_otherwise():
    model = _net()
    found, expected = (
        rt.GradientDifferences(**given)(model, X, LABELS, generator=draws(2)).attributions
        for given in ({}, {"step": 0.1})
    )
    assert torch.equal(found, expected)


def test_differences_of_a_quadratic_are_exact_at_any_step():
    exact = rt.HessianProducts(n_samples=3)(quadratic, X, generator=draws(2)).attributions
    check_close(rt.GradientDifferences(n_samples=3, step=5.0)(quadratic, X, generator=draws(2)).attributions, exact)


# --- training


@pytest.mark.parametrize("n_samples", [None, 2])
def test_the_recipe_has_the_true_gradient(n_samples):
    problem = vectors()
    term = rt.recipes.hessian_penalty(n_samples=n_samples)
    check_term(rt.Objective(problem.model, F.cross_entropy, [term]), problem.inputs, problem.labels)


def test_the_recipe_is_the_frobenius_norm():
    model = _net()
    objective = rt.Objective(model, F.cross_entropy, [rt.recipes.hessian_penalty(output="logit")])
    exact = rt.Hessian()(model, X, LABELS).attributions.square().flatten(1).sum(1).mean()
    check_close(objective(X, LABELS, part="prior").total, exact)


def test_the_recipe_by_differences_is_the_published_estimator():
    """E |grad f(x) - grad f(x + e)|^2 / s^2, written out."""
    model, step = _net(nn.ReLU), 0.3
    objective = rt.Objective(model, F.cross_entropy, [rt.recipes.hessian_penalty(step=step, output="logit")])
    found = objective(X, LABELS, generator=draws(4), part="prior").total
    noise = step * torch.randn(5, 1, 4, generator=draws(4)).double()[:, 0]
    gradients = [rt.Gradient()(model, x, LABELS).attributions for x in (X, X + noise)]
    check_close(found, ((gradients[0] - gradients[1]) ** 2).sum(1).mean() / step**2)
    assert found > 0


@pytest.mark.parametrize("engine", ["auto", "double-backward"])
@pytest.mark.parametrize("method", [rt.Hessian(), rt.HessianProducts(), rt.Hessian(features=[0])])
def test_a_relu_network_says_that_there_is_nothing_to_train(method, engine):
    term = rt.Term(method, rt.priors.L2(), engine=engine)
    with pytest.raises(NotConnectedError, match="second derivatives") as caught:
        rt.Objective(_net(nn.ReLU), F.cross_entropy, [term])(X, LABELS)
    assert "smoothed" in caught.value.mend
    smooth = rt.Objective(rt.models.smoothed(_net(nn.ReLU)), F.cross_entropy, [term])
    check_term(smooth, X, LABELS)
    assert rt.check(smooth, X, LABELS).ok


def test_the_preflight_reports_a_relu_network():
    found = rt.check(
        rt.Objective(_net(nn.ReLU), F.cross_entropy, [rt.recipes.hessian_penalty(output="logit")]), X, LABELS
    )
    assert not found.ok
    assert "second derivatives" in str(found)


def test_a_penalty_of_zero_that_can_grow_is_no_error():
    """A last layer of zeros: no curvature yet, and the next step may bring some."""
    model = _net()
    nn.init.zeros_(model[-1].weight)
    term = rt.Term(rt.Hessian(), rt.priors.L2())
    assert rt.Objective(model, F.cross_entropy, [term])(X, LABELS, part="prior").total == 0


def test_curvature_can_be_trained_away():
    x = normal(300, 2, seed=7)
    y = (x.square().sum(1) > 1).long()
    sizes = {}
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 10), nn.Tanh(), nn.Linear(10, 2)).double()
        rt.fit(rt.Objective(model, F.cross_entropy, [rt.recipes.hessian_penalty(weight)]), (x, y), epochs=30, lr=0.03)
        sizes[weight] = rt.Hessian(output="log_odds")(model, x, y).attributions.square().sum((1, 2)).mean()
    assert sizes[1.0] < sizes[0.0] / 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rt.HessianProducts(n_samples=0), "n_samples"),
        (lambda: rt.GradientDifferences(step=0.0), "step"),
        (lambda: rt.GradientDifferences(step=float("nan")), "step"),
        (lambda: rt.Hessian(features=[0], pairs=torch.tensor([[0, 1]])), "say two things"),
        (lambda: rt.Hessian(features=[4])(quadratic, X), "no such features"),
        (lambda: rt.recipes.hessian_penalty(step=-1.0), "step"),
    ],
)
def test_what_cannot_be_asked(make, message):
    with pytest.raises((ArgumentError, ValueError), match=message):
        make()
