"""Contract 5: what a component declares is true, and completeness is declared wherever it holds."""

from __future__ import annotations

import pytest
import torch

import rightly as rt
from contracts.axioms import (
    COMPLETE,
    another,
    check_completeness,
    check_implementation_invariance,
    check_linearity,
    check_pairs,
    check_sensitivity,
    check_symmetry,
    completeness_gap,
)
from contracts.problems import (
    attribution_of,
    components,
    draws,
    fitting,
    images,
    reference_of,
    sequences,
    space_of,
    tokens,
    vectors,
)
from rightly.core import registry

SPACES = components("space")


def _declaring(trait):
    return [entry for entry in components("attribution") if trait in entry.traits]


def _problem(entry, space=None):
    picture = "images" in entry.traits
    there = rt.spaces.Input() if space is None else space_of(space, (2, 6, 6) if picture else (6,))
    return images(space=there) if picture else vectors(space=there)


def _reference(method):
    reference = getattr(method, "reference", None)
    return float(reference.value) if isinstance(reference, rt.references.Constant) else 0.0


@pytest.mark.parametrize("space", SPACES, ids=lambda e: e.name)
@pytest.mark.parametrize("entry", _declaring("complete"), ids=lambda e: e.name)
def test_completeness_where_declared(entry, space):
    problem = _problem(entry, space)
    method = attribution_of(entry, problem.shape, problem.space)
    assert isinstance(method.reference, rt.references.Constant)
    check_completeness(method, problem, _reference(method))
    pictures = images(space=space_of(space, (2, 6, 6)))
    check_completeness(attribution_of(entry, pictures.shape, pictures.space), pictures, _reference(method))


@pytest.mark.parametrize(
    ("entry", "space"),
    [
        pytest.param(entry, space, id=f"{entry.name}-{space.name}")
        for space in SPACES
        for entry in components("attribution")
        if "complete" not in entry.traits and fitting(space, entry)
    ],
)
def test_completeness_fails_where_it_is_not_declared(entry, space):
    problem = _problem(entry, space)
    method = attribution_of(entry, problem.shape, problem.space)
    with pytest.raises(AssertionError, match="miss what they explain"):
        check_completeness(method, problem, _reference(method))


@pytest.mark.parametrize("entry", components("attribution"), ids=lambda e: e.name)
def test_the_gap_that_is_reported_is_the_gap(entry):
    problem = _problem(entry)
    method = attribution_of(entry, problem.shape, problem.space)
    reported = method(problem.model, problem.inputs, problem.labels, generator=draws(5)).completeness_gap
    counted = completeness_gap(method, problem, _reference(method))
    assert torch.allclose(reported, counted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("reference", components("reference"), ids=lambda e: e.name)
def test_integrated_gradients_are_complete_against_any_reference(reference):
    problem = vectors()
    method = rt.IntegratedGradients(reference_of(reference, (6,)), n_samples=3, n_steps=40)
    gap = method(problem.model, problem.inputs, problem.labels).completeness_gap
    assert gap.abs().max() <= COMPLETE


OUTPUTS = [
    "logit",
    "prob",
    "log_prob",
    "log_odds",
    "log_prob_sum",
    "loss",
    "loss_uniform",
    lambda outputs, labels: outputs[:, 0] ** 2,
]


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda o: o if isinstance(o, str) else "callable")
def test_integrated_gradients_are_complete_for_any_output(output):
    problem = vectors()
    method = rt.IntegratedGradients(n_steps=40, output=output, target="predicted")
    gap = method(problem.model, problem.inputs, problem.labels).completeness_gap
    assert gap.abs().max() <= COMPLETE


@pytest.mark.parametrize(
    "problem", [tokens(), tokens(layer="lstm"), sequences()], ids=["embedding", "lstm", "attention"]
)
def test_integrated_gradients_are_complete_in_sequences(problem):
    method = rt.IntegratedGradients(n_steps=60, space=problem.space)
    gap = method(problem.model, problem.inputs, problem.labels).completeness_gap
    assert gap.abs().max() <= COMPLETE


def test_expected_gradients_are_complete_on_average():
    """Erion et al. (2021): the sampling is unbiased, so that the gap is sampling error and nothing else."""
    problem = vectors(1)
    method = rt.ExpectedGradients(rt.references.Constant(0.1), n_samples=20000)
    found = method(problem.model, problem.inputs, problem.labels)
    assert found.completeness_gap.abs() < 4 * found.standard_error.sum()
    assert found.completeness_gap.abs() < 0.01
    exact = rt.IntegratedGradients(rt.references.Constant(0.1))(problem.model, problem.inputs, problem.labels)
    assert bool(((found.attributions - exact.attributions).abs() < 5 * found.standard_error + 1e-12).all())


@pytest.mark.parametrize("entry", _declaring("implementation_invariant"), ids=lambda e: e.name)
def test_implementation_invariance(entry):
    problem = _problem(entry)
    check_implementation_invariance(attribution_of(entry, problem.shape, problem.space), problem)


@pytest.mark.parametrize("picture", [False, True], ids=["vectors", "images"])
@pytest.mark.parametrize("entry", _declaring("sensitive"), ids=lambda e: e.name)
def test_sensitivity(entry, picture):
    problem = images() if picture else vectors()
    check_sensitivity(attribution_of(entry, problem.shape, problem.space), problem)


@pytest.mark.parametrize("entry", _declaring("linear"), ids=lambda e: e.name)
def test_linearity(entry):
    problem = _problem(entry)
    check_linearity(attribution_of(entry, problem.shape, problem.space), problem, another(problem.model))


@pytest.mark.parametrize("entry", _declaring("symmetric"), ids=lambda e: e.name)
def test_symmetry(entry):
    problem = _problem(entry)
    check_symmetry(attribution_of(entry, problem.shape, problem.space), problem)


#: what the interactions of a method make up, row by row; the Hessian itself nothing
ALONE = {"integrated_hessians": rt.IntegratedGradients, "expected_hessians": rt.ExpectedGradients, "hessian": None}


@pytest.mark.parametrize("space", SPACES, ids=lambda e: e.name)
@pytest.mark.parametrize("entry", _declaring("pairwise"), ids=lambda e: e.name)
def test_pairs_make_up_the_attributions(entry, space):
    for problem in (vectors(space=space_of(space, (6,))), images(space=space_of(space, (2, 6, 6)))):
        method = attribution_of(entry, problem.shape, problem.space)
        make = ALONE[entry.name]
        alone = make and make(rt.references.Constant(0.1), space=problem.space)
        if "sampled" not in entry.traits:
            check_pairs(method, problem, alone)
            continue
        with pytest.raises(AssertionError, match="miss the attributions"):  # by sampling error
            check_pairs(method, problem, alone)


def test_sampled_pairs_make_up_the_attributions_on_average():
    problem = vectors(2)
    data = rt.references.Sample(problem.inputs + 0.5)
    many = rt.ExpectedHessians(data, n_samples=20000)(problem.model, problem.inputs, problem.labels)
    alone = rt.IntegratedGradients(data, n_samples=2)(problem.model, problem.inputs, problem.labels).attributions
    exact = rt.IntegratedHessians(data, n_samples=2)(problem.model, problem.inputs, problem.labels).attributions
    assert torch.allclose(exact.sum(2), alone, rtol=0, atol=1e-10)
    assert bool(((many.attributions - exact).abs() < 5 * many.standard_error + 1e-12).all())
    assert (many.attributions.sum(2) - alone).abs().max() < 0.01


@pytest.mark.parametrize("entry", components("attribution") + components("reference"), ids=lambda e: e.name)
def test_draws_are_declared(entry):
    """Whatever answers differently to another generator says so, and nothing else does."""
    problem = _problem(entry)
    if entry.family == "reference":
        reference = reference_of(entry, (6,))
        view = problem.space.open(problem.model, problem.inputs)
        first, second = (reference.draw(view, 3, draws(seed)).all(4) for seed in (1, 2))
    else:
        method = attribution_of(entry, problem.shape, problem.space)
        first, second = (
            method(problem.model, problem.inputs, problem.labels, generator=draws(seed)).attributions for seed in (1, 2)
        )
    assert ("sampled" in entry.traits) == (not torch.equal(first, second))


def test_every_trait_is_declared_by_somebody():
    declared = set().union(*(e.traits for family in registry._ROOMS for e in components(family)))
    assert declared == registry.TRAITS
    for trait in ("complete", "implementation_invariant", "pairwise", "sensitive", "linear", "symmetric"):
        assert _declaring(trait)
