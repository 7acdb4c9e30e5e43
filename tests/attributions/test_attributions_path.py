"""Quadrature, sampling error, and what integrated and expected gradients share."""

import math

import pytest
import torch

import rightly as rt
from contracts.problems import draws, vectors
from rightly.attributions.path import quadrature

#: rule -> (degree that n nodes integrate exactly, order of the error otherwise)
RULES = {
    "gauss-legendre": (lambda n: 2 * n - 1, None),
    "middle": (lambda n: 1, 2),
    "trapezoid": (lambda n: 1, 2),
    "left": (lambda n: 0, 1),
    "right": (lambda n: 0, 1),
}


def _integral(rule, n, power):
    nodes, weights = quadrature(rule, n)
    assert nodes.dtype == weights.dtype == torch.float64
    assert nodes.shape == weights.shape == (n,)
    return float((weights * nodes**power).sum())


@pytest.mark.parametrize("n", [2, 3, 5, 24])
@pytest.mark.parametrize("rule", RULES)
def test_rules_are_exact_up_to_their_degree_and_no_further(rule, n):
    degree = RULES[rule][0](n)
    for power in range(degree + 1):
        assert _integral(rule, n, power) == pytest.approx(1 / (power + 1), abs=1e-14)
    if n <= 5:
        assert abs(_integral(rule, n, degree + 1) - 1 / (degree + 2)) > 1e-9


@pytest.mark.parametrize("rule", ["middle", "trapezoid", "left", "right"])
def test_riemann_rules_converge_at_their_order(rule):
    def error(n):
        nodes, weights = quadrature(rule, n)
        return abs(float((weights * nodes.exp()).sum()) - (math.e - 1))

    order = math.log2(error(100) / error(200))
    assert order == pytest.approx(RULES[rule][1], abs=0.05)


@pytest.mark.parametrize("rule", RULES)
def test_nodes_stay_on_the_path_and_weights_sum_to_one(rule):
    nodes, weights = quadrature(rule, 7)
    assert float(nodes.min()) >= 0
    assert float(nodes.max()) <= 1
    assert float(weights.sum()) == pytest.approx(1, abs=1e-15)
    assert bool((nodes.diff() > 0).all())


def test_the_ends_are_where_they_are_said_to_be():
    assert quadrature("left", 4)[0].tolist() == [0, 0.25, 0.5, 0.75]
    assert quadrature("right", 4)[0].tolist() == [0.25, 0.5, 0.75, 1]
    assert quadrature("middle", 2)[0].tolist() == [0.25, 0.75]
    assert quadrature("trapezoid", 3)[1].tolist() == [0.25, 0.5, 0.25]
    assert quadrature("middle", 1)[0].tolist() == quadrature("gauss-legendre", 1)[0].tolist() == [0.5]


def test_a_sampling_reference_averages_over_its_draws():
    problem, data = vectors(), torch.randn(3, 6, generator=draws(0), dtype=torch.float64)
    call = (problem.model, problem.inputs, problem.labels)
    found = rt.IntegratedGradients(rt.references.Sample(data), n_samples=3, n_steps=4)(*call).attributions
    each = [rt.IntegratedGradients(rt.references.Constant(row), n_steps=4)(*call).attributions for row in data]
    assert torch.allclose(found, sum(each) / 3, rtol=1e-12, atol=1e-14)


def test_the_standard_error_is_that_of_the_mean():
    """From the K terms, taken one at a time; and it says how far off the mean is, in most cases."""
    problem = vectors(1)
    call = (problem.model, problem.inputs, problem.labels)
    method = rt.ExpectedGradients(rt.references.Constant(0.0), n_samples=50, design="independent")
    found = method(*call, generator=draws(3))
    alphas = torch.rand(1, 50, generator=draws(3)).double()[0]
    terms = []
    for alpha in alphas:
        point = (alpha * problem.inputs).requires_grad_()
        problem.model.eval()
        (g,) = torch.autograd.grad(problem.model(point)[0, problem.labels[0]], point)
        terms.append((problem.inputs * g)[0])
    terms = torch.stack(terms)
    expected = terms.std(0, unbiased=True) / math.sqrt(50)
    assert torch.allclose(found.standard_error[0], expected, rtol=1e-9, atol=1e-14)
    exact = rt.IntegratedGradients()(*call).attributions
    far = [
        ((run := method(*call, generator=draws(seed))).attributions - exact).abs() > 2 * run.standard_error
        for seed in range(40)
    ]
    assert torch.stack(far).double().mean() < 0.12


def test_no_standard_error_of_a_single_draw_or_without_diagnostics():
    problem = vectors()
    call = (problem.model, problem.inputs, problem.labels)
    assert rt.ExpectedGradients()(*call).standard_error is None
    assert rt.ExpectedGradients(n_samples=3)(*call, diagnostics=False).standard_error is None
    assert rt.ExpectedGradients(n_samples=3)(*call).standard_error.shape == (4, 6)
    assert rt.IntegratedGradients()(*call).standard_error is None


def test_diagnostics_change_no_attribution():
    problem = vectors()
    for method in (rt.ExpectedGradients(n_samples=3), rt.SmoothGrad(n_samples=3), rt.IntegratedGradients()):
        first, second = (
            method(problem.model, problem.inputs, problem.labels, diagnostics=wanted, generator=draws(1)).attributions
            for wanted in (True, False)
        )
        assert torch.equal(first, second)
