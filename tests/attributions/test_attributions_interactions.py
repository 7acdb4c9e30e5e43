"""Integrated and expected Hessians: closed forms, what they add up to, parts of them, and training through them."""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.agreement import check_chunks, check_close
from contracts.derivatives import check_term
from contracts.problems import draws, images, initialised, normal, sequences, tokens, vectors
from rightly.attributions.interactions import nested_quadrature, nested_quantile
from rightly.core import autodiff
from rightly.core.engines import DoubleBackward
from rightly.core.errors import ArgumentError, ShapeError
from rightly.core.frozen import FrozenMasks
from rightly.core.intercept import Unsupported

X = normal(5, 4, seed=1)
BASELINE = normal(4, seed=2)
CURVE = normal(4, 4, seed=3)
SLOPE = normal(4, seed=4)
LABELS = torch.tensor([0, 1, 2, 1, 0])


def quadratic(x):
    """x' A x + b x + 3."""
    return ((x @ CURVE) * x).sum(1) + x @ SLOPE + 3


def interactions_of_the_quadratic(x, reference, covariance=0.0):
    """For A symmetric: half of d_i d_j A_ij in entry (i, j); a feature's gradient at the reference stays its own."""
    symmetric, delta = (CURVE + CURVE.T) / 2, x - reference
    products = delta[:, :, None] * delta[:, None] + covariance
    first = delta * (2 * reference @ symmetric + SLOPE) + (products * symmetric).sum(2) / 2
    return products * symmetric / 2 + torch.diag_embed(first)


# --- closed forms


def test_quadratic_models_are_exact_with_one_node():
    found = rt.IntegratedHessians(rt.references.Constant(BASELINE), n_steps=1)(quadratic, X)
    check_close(found.attributions, interactions_of_the_quadratic(X, BASELINE))
    assert found.completeness_gap.abs().max() < 1e-12


def test_expected_hessians_of_a_quadratic_hold_the_covariance_of_the_references():
    """The mean over references of the products is that of the means plus the covariance; the gradient's part, with a
    reference in its slope, loses twice of it and gets half back."""
    data = normal(6, 4, seed=5)
    found = rt.IntegratedHessians(rt.references.Sample(data), n_samples=6, n_steps=1)(quadratic, X).attributions
    each = [rt.IntegratedHessians(rt.references.Constant(row), n_steps=1)(quadratic, X).attributions for row in data]
    check_close(found, torch.stack(each).mean(0))
    covariance = torch.cov(data.T, correction=0)
    expected = interactions_of_the_quadratic(X, data.mean(0), covariance)
    off = ~torch.eye(4, dtype=torch.bool)
    check_close(found[:, off], expected[:, off])
    sampled = rt.ExpectedHessians(rt.references.Sample(data), n_samples=6000)(quadratic, X)
    assert bool(((sampled.attributions - found).abs() < 5 * sampled.standard_error + 1e-12).all())


def test_a_product_of_two_is_shared_four_ways():
    found = rt.IntegratedHessians(n_steps=2)(lambda x: x[:, 0] * x[:, 2], X).attributions
    expected = torch.zeros(5, 4, 4, dtype=torch.float64)
    for i in (0, 2):
        for j in (0, 2):
            expected[:, i, j] = X[:, 0] * X[:, 2] / 4
    check_close(found, expected)


def test_a_product_of_three_is_shared_nine_ways():
    found = rt.IntegratedHessians(n_steps=2)(lambda x: x[:, :3].prod(1), X).attributions
    check_close(found[:, :3, :3], (X[:, :3].prod(1) / 9)[:, None, None].expand(5, 3, 3))
    assert not found[:, 3].any()
    assert not found[:, :, 3].any()


def test_a_function_of_one_feature_is_its_own():
    found = rt.IntegratedHessians(n_steps=30)(lambda x: x[:, 1].exp(), X).attributions
    check_close(found[:, 1, 1], X[:, 1].exp() - 1)
    found[:, 1, 1] = 0
    assert not found.any()


def test_additive_models_have_no_interactions():
    off = rt.ExpectedHessians(n_samples=3, pairs=torch.combinations(torch.arange(4)))
    assert not off(lambda x: (x.sin() * SLOPE).sum(1), X).attributions.any()


@pytest.mark.parametrize("n", [1, 2, 7, 50, 120])
def test_the_nodes_are_those_of_gauss_for_the_nested_density(n):
    """All moments of a product of two uniform positions, 1 / (k + 1)^2, up to degree 2 n - 1."""
    nodes, weights = nested_quadrature(n)
    powers = nodes[:, None] ** torch.arange(2 * n)
    assert torch.allclose(weights @ powers, 1 / (1.0 + torch.arange(2 * n, dtype=torch.float64)) ** 2, rtol=1e-11)
    assert bool((weights > 0).all())
    assert 0 < nodes.min() <= nodes.max() < 1


def test_many_nodes_are_found_at_once_and_belong_to_the_caller():
    began = time.perf_counter()
    nodes, weights = nested_quadrature(600)  # of a product rule with 360,000 points
    assert time.perf_counter() - began < 20
    assert weights.sum().item() == pytest.approx(1, rel=1e-12)
    assert (weights @ nodes**1000).item() == pytest.approx(1 / 1001**2, rel=1e-9)
    nodes.zero_()
    assert nested_quadrature(600)[0].min() > 0


def test_positions_are_drawn_from_the_nested_density():
    shares = torch.linspace(0, 1, 1001, dtype=torch.float64)
    found = nested_quantile(shares)
    assert torch.allclose(found * (1 - found.log()), shares, rtol=0, atol=1e-12)
    product = torch.rand(2, 200000, generator=draws(1), dtype=torch.float64).prod(0)
    quantiles = product.quantile(shares[[100, 500, 900]])
    assert torch.allclose(found[[100, 500, 900]], quantiles, rtol=0.02)


# --- any shape, space and model


@pytest.mark.parametrize("problem", [images(2), tokens(2), tokens(2, "lstm"), sequences(2)], ids=lambda p: p.name)
def test_rows_add_up_to_integrated_gradients(problem):
    steps = 40
    alone = rt.IntegratedGradients(n_steps=steps, space=problem.space)
    found = rt.IntegratedHessians(n_steps=steps, space=problem.space)(problem.model, problem.inputs, problem.labels)
    shape = problem.shape
    assert found.attributions.shape == (2, *shape, *shape)
    rows = found.attributions.flatten(1 + len(shape)).sum(-1)
    expected = alone(problem.model, problem.inputs, problem.labels).attributions
    assert torch.allclose(rows, expected, rtol=0, atol=1e-8)
    assert found.completeness_gap.abs().max() < 1e-8


@pytest.mark.parametrize("problem", [tokens(2), sequences(2)], ids=lambda p: p.name)
def test_sequence_models_have_the_true_gradient(problem):
    """Third derivatives of LSTM and attention."""
    pairs = torch.tensor([[0, 5], [3, 7], [2, 2]])
    term = rt.Term(rt.ExpectedHessians(n_samples=2, pairs=pairs, space=problem.space), rt.priors.L2())
    check_term(rt.Objective(problem.model, F.cross_entropy, [term]), problem.inputs, problem.labels)


class Normed(nn.Module):
    """A norm by the input's own statistics, over (B, 4, 3)."""

    def __init__(self, norm):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(3, 3), norm, nn.Linear(12, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(torch.sin(self.first(x)))).flatten(1))


NORMS = {
    "layer": lambda: nn.LayerNorm(3),
    "layer over two": lambda: nn.LayerNorm((4, 3), bias=False),
    "plain layer": lambda: nn.LayerNorm(3, elementwise_affine=False),
    "instance": lambda: nn.InstanceNorm1d(4, affine=True),
    "instance with statistics": lambda: nn.InstanceNorm1d(4, track_running_stats=True),
    "batch": lambda: nn.BatchNorm1d(4),
    "batch without statistics": lambda: nn.BatchNorm1d(4, track_running_stats=False),
    "group": lambda: nn.GroupNorm(2, 4),
    "rms": lambda: nn.RMSNorm(3),
}


@pytest.mark.parametrize("name", NORMS)
def test_normalised_models_have_the_true_gradient(name):
    """PyTorch's own third derivative of layer and instance norm is wrong."""
    model, x = initialised(Normed(NORMS[name]())), normal(3, 4, 3, seed=6)
    method = rt.ExpectedHessians(rt.references.Constant(0.1), n_samples=2)
    plain = method(model, x, LABELS[:3], generator=draws(7), diagnostics=False).attributions
    kept = method(model, x, LABELS[:3], generator=draws(7), create_graph=True).attributions
    check_close(kept, plain)
    check_term(rt.Objective(model, F.cross_entropy, [rt.Term(method, rt.priors.L2())]), x, LABELS[:3])


# --- parts


@pytest.mark.parametrize("method", [rt.IntegratedHessians, rt.ExpectedHessians])
def test_rows_and_pairs_are_parts_of_the_whole(method):
    problem = images(2)
    constant = rt.references.Constant(0.1)

    def explained(**arguments):
        return method(constant, **arguments)(problem.model, problem.inputs, problem.labels)

    whole = explained()
    flat = whole.attributions.reshape(2, 72, 72)
    rows = explained(features=[70, 3])
    check_close(rows.attributions, flat[:, [70, 3]].reshape(2, 2, 2, 6, 6))
    for pairs in (torch.tensor([[0, 5], [7, 5], [9, 5], [5, 5]]), torch.tensor([[3, 8], [3, 3], [4, 8]])):
        found = explained(pairs=pairs)
        check_close(found.attributions, flat[:, pairs[:, 0], pairs[:, 1]])
        assert found.completeness_gap is None
        check_close(found.outputs, whole.outputs)
    check_chunks(method(constant, pairs=torch.tensor([[0, 5], [2, 3]])), vectors(3))


def test_a_common_partner_costs_one_row(monkeypatch):
    """Of a pair's two sides, the one with fewer features is differentiated."""
    taken, rows = [], autodiff.hessian_rows

    def watched(slopes, points, features, **arguments):
        taken.append(features)
        return rows(slopes, points, features, **arguments)

    monkeypatch.setattr(autodiff, "hessian_rows", watched)
    for pairs in ([[0, 3], [1, 3], [2, 3]], [[3, 0], [3, 1], [3, 2]]):
        rt.IntegratedHessians(n_steps=2, pairs=torch.tensor(pairs))(quadratic, X)
    assert taken == [[3], [3]]


def test_a_standard_error_is_that_of_the_draws():
    method = rt.ExpectedHessians(rt.references.Constant(0.0), n_samples=50, design="independent")
    found = [method(quadratic, X[:1], generator=draws(seed)) for seed in range(200)]
    spread = torch.stack([one.attributions for one in found]).std(0)
    said = torch.stack([one.standard_error for one in found]).mean(0)
    assert torch.allclose(said, spread, rtol=0.25)
    assert method(quadratic, X, diagnostics=False).standard_error is None


# --- engines and training


def _net(activation=nn.Softplus):
    return initialised(nn.Sequential(nn.Linear(4, 8), activation(), nn.Linear(8, 8), activation(), nn.Linear(8, 3)))


@pytest.mark.parametrize("engine", [FrozenMasks(), DoubleBackward(kernels=True)], ids=["frozen masks", "kernels"])
def test_engines_whose_gradients_cannot_be_differentiated_are_refused(engine):
    with pytest.raises(Unsupported, match="once more"):
        rt.ExpectedHessians()(_net(nn.ReLU), X, LABELS, create_graph=True, engine=engine)


def test_an_objective_takes_double_backward_and_says_why():
    term = rt.Term(rt.ExpectedHessians(), rt.priors.L1(), name="pairs")
    whole = rt.Objective(_net(nn.ReLU), F.cross_entropy, [term])
    whole(X, LABELS)
    choice = whole.engines.choices["pairs"]
    assert (choice.name, choice.kernels) == ("double-backward", False)
    assert "once more" in choice.why
    for engine in ("frozen-masks", "finite-differences"):
        asked = rt.Objective(_net(), F.cross_entropy, [term.with_engine(engine)])
        with pytest.raises(ArgumentError, match="cannot use"):
            asked(X, LABELS)


def test_two_phases_give_the_same_gradient():
    found = []
    for engine in ("double-backward", "two-phase"):
        term = rt.Term(rt.ExpectedHessians(n_samples=9), rt.priors.L2(), engine=engine)
        whole = rt.Objective(_net(), F.cross_entropy, [term])
        whole(X, LABELS, part="prior", generator=draws(3)).total.backward()
        assert whole.engines.choices["l2"].name == engine
        found.append(torch.cat([p.grad.flatten() for p in whole.parameters() if p.grad is not None]))
    check_close(*found)


def test_a_relu_network_has_no_interactions():
    """Only what a feature does alone is left, and it is the integrated gradient."""
    found = rt.IntegratedHessians(n_steps=20)(_net(nn.ReLU), X, LABELS).attributions
    assert not found[:, ~torch.eye(4, dtype=torch.bool)].any()
    assert found.diagonal(dim1=1, dim2=2).abs().min() > 0


def test_interactions_can_be_trained_away():
    x = normal(200, 4, seed=7)
    y = (x[:, 0] * x[:, 1] + x[:, 2] + 0.5 * x[:, 3])[:, None]
    pairs = torch.combinations(torch.arange(4))
    method = rt.ExpectedHessians(n_samples=2, pairs=pairs)
    sizes = {}
    for weight in (0.0, 10.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 16), nn.Softplus(), nn.Linear(16, 1)).double()
        rt.fit(rt.Objective(model, F.mse_loss, [rt.Term(method, rt.priors.L1(), weight)]), (x, y), epochs=40, lr=0.02)
        found = rt.IntegratedHessians(n_steps=10, pairs=pairs)(model, x).attributions
        sizes[weight] = found.abs().mean(0)
    assert sizes[0.0].argmax() == 0, "the planted interaction is not the strongest"
    assert sizes[0.0][0] > 3 * sizes[0.0][1:].max()
    assert sizes[10.0].max() < sizes[0.0][0] / 5


def test_an_annotation_can_choose_pairs():
    """In the shape of the interactions, the same for every example."""
    off = ~torch.eye(4, dtype=torch.bool)[None]
    model = _net()
    method = rt.IntegratedHessians(n_steps=5)
    whole = rt.Objective(model, F.cross_entropy, [rt.Term(method, rt.priors.Irrelevant("l1"))])
    report = whole(X, LABELS, rt.Annotation(irrelevant=off), part="prior")
    expected = method(model, X, LABELS).attributions[:, off[0]].abs().sum(1).mean()
    check_close(report.total, expected)


def test_many_trainings_fall_back_to_one_after_the_other():
    term = rt.Term(rt.ExpectedHessians(), rt.priors.L1())
    trials = rt.fit_many(
        lambda seed: rt.models.mlp(4, [5], 3, seed=seed),
        F.cross_entropy,
        [term],
        (X.float(), LABELS),
        seeds=range(3),
        epochs=2,
    )
    assert [trial.together for trial in trials] == [1, 1, 1]
    assert "second derivatives" in trials[0].reason


def test_explaining_by_name_in_parts_and_to_a_folder(tmp_path):
    model = _net()
    given = {"method": "expected_hessians", "reference": rt.references.Sample(X), "n_samples": 6, "target": LABELS}
    found = rt.attribute(model, X, **given)
    assert found.attributions.shape == found.standard_error.shape == (5, 4, 4)
    stored = rt.attribute(model, X, **given, out=tmp_path / "pairs")
    assert tuple(stored.attributions.shape) == (5, 4, 4)
    sure = rt.attribute(model, X, "expected_hessians", reference=rt.references.Constant(0.0), target=1, tolerance=0.1)
    sizes = sure.attributions.abs().flatten(1).amax(1)
    assert bool((sure.standard_error.flatten(1).amax(1) <= 0.1 * sizes).all())


# --- what cannot be asked


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"features": [0], "pairs": torch.tensor([[0, 1]])}, "say two things"),
        ({"features": [-1]}, "positions"),
        ({"features": [0.5]}, "positions"),
        ({"features": []}, "positions"),
        ({"features": [True, False]}, "positions"),
        ({"pairs": torch.tensor([0, 1])}, "positions"),
        ({"pairs": torch.tensor([[0, 1, 2]])}, "positions"),
        ({"n_steps": 0}, "n_steps"),
        ({"n_samples": 0}, "n_samples"),
    ],
    ids=str,
)
def test_wrong_arguments(arguments, error):
    with pytest.raises(ArgumentError, match=error):
        rt.IntegratedHessians(**arguments)


def test_features_that_are_not_there():
    for arguments in ({"features": [4]}, {"pairs": torch.tensor([[0, 9]])}):
        with pytest.raises(ShapeError, match="no such features"):
            rt.IntegratedHessians(**arguments)(quadratic, X)
