"""Contract 4: weight 0 is plain training to the bit, the same seed the same bits, and linear models obey formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts import oracles
from contracts.identity import check_matters, check_plain, check_repeatable, check_value, equal, trained_through
from contracts.problems import (
    annotation_for,
    attribution_of,
    components,
    draws,
    images,
    normal,
    prior_of,
    vectors,
)
from rightly.core.registry import name_of


def _annotated(prior, problem):
    return annotation_for(prior, problem.inputs)


def _problem_of(*entries):
    return images if any("images" in entry.traits for entry in entries) else vectors


def _term(attribution, prior, weight, **arguments):
    make = _problem_of(attribution, prior)
    problem = make()
    method = attribution_of(attribution, problem.shape, problem.space)
    penalty = prior_of(prior, (1, 6, 6) if attribution.name == "grad_cam" else problem.shape)
    like = problem.inputs[:, :1] if attribution.name == "grad_cam" else problem.inputs
    return make, rt.Term(method, penalty, weight, **arguments), annotation_for(penalty, like)


ATTRIBUTIONS = {entry.name: entry for entry in components("attribution")}
PRIORS = {entry.name: entry for entry in components("prior")}
#: every attribution with one prior, every prior with one attribution
PAIRS = [(a, "l2") for a in ATTRIBUTIONS] + [("expected_gradients", p) for p in PRIORS if p != "l2"]


@pytest.mark.parametrize(("attribution", "prior"), PAIRS)
def test_weight_zero_is_plain_training(attribution, prior):
    make, term, note = _term(ATTRIBUTIONS[attribution], PRIORS[prior], 0.0)
    check_plain(make, [term], note)


@pytest.mark.parametrize(("attribution", "prior"), PAIRS)
def test_a_weight_matters_and_repeats(attribution, prior):
    make, term, note = _term(ATTRIBUTIONS[attribution], PRIORS[prior], 0.5)
    check_matters(make, [term], note)
    check_repeatable(make, [term], note)


def test_no_terms_is_plain_training():
    check_plain(vectors, [])
    check_plain(images, [])


def test_a_term_that_rests_is_plain_training():
    later = rt.Term(rt.ExpectedGradients(), rt.priors.L2(), 1.0, schedule=rt.Schedule(start=5))
    check_plain(vectors, [later])


def test_a_term_that_wakes_matters():
    check_matters(vectors, [rt.Term(rt.Gradient(), rt.priors.L2(), 1.0, schedule=rt.Schedule(start=4))])


def test_another_seed_draws_otherwise():
    term = rt.Term(rt.ExpectedGradients(), rt.priors.L2(), 1.0)
    first, second = (trained_through(vectors, [term], seed=seed) for seed in (0, 1))
    assert not equal(first[:-1], second[:-1])


def test_the_seed_does_not_matter_without_draws():
    term = rt.Term(rt.Gradient(), rt.priors.L2(), 1.0)
    assert equal(*(trained_through(vectors, [term], seed=seed) for seed in (0, 1)))


# --- linear models: f_c(x) = W_c x + b_c ---

BATCH, FEATURES, CLASSES = 4, 6, 3


@pytest.fixture
def linear():
    model = nn.Linear(FEATURES, CLASSES).double()
    with torch.no_grad():
        model.weight.copy_(normal(CLASSES, FEATURES, seed=1))
        model.bias.copy_(normal(CLASSES, seed=2))
    return model


INPUTS = normal(BATCH, FEATURES, seed=3)
LABELS = torch.tensor([2, 0, 1, 2])
BASELINE = normal(FEATURES, seed=4)


def _closed_forms():
    constant = rt.references.Constant(BASELINE)
    return {
        "gradient": (rt.Gradient(), lambda w, x: w),
        "input_x_gradient": (rt.InputXGradient(), lambda w, x: w * x),
        "integrated_gradients": (rt.IntegratedGradients(constant, n_steps=2), lambda w, x: w * (x - BASELINE)),
        "expected_gradients": (rt.ExpectedGradients(constant, n_samples=3), lambda w, x: w * (x - BASELINE)),
        "hessian": (rt.Hessian(), lambda w, x: torch.zeros(BATCH, FEATURES, FEATURES)),
        "hessian_products": (rt.HessianProducts(n_samples=2), lambda w, x: torch.zeros(BATCH, 2, FEATURES)),
        "gradient_differences": (rt.GradientDifferences(n_samples=2), lambda w, x: torch.zeros(BATCH, 2, FEATURES)),
        "integrated_hessians": (
            rt.IntegratedHessians(constant, n_steps=2),
            lambda w, x: torch.diag_embed(w * (x - BASELINE)),
        ),
        "expected_hessians": (
            rt.ExpectedHessians(constant, n_samples=3),
            lambda w, x: torch.diag_embed(w * (x - BASELINE)),
        ),
        "occlusion": (rt.Occlusion(constant), lambda w, x: w * (x - BASELINE)),
        "occlusion-windows": (
            rt.Occlusion(constant, window=(3,)),
            lambda w, x: (w * (x - BASELINE)).reshape(BATCH, 2, 3).sum(2).repeat_interleave(3, 1),
        ),
        "smooth_grad": (rt.SmoothGrad(n_samples=3), lambda w, x: w),
        "smooth_grad-square": (rt.SmoothGrad(n_samples=3, kind="square"), lambda w, x: w**2),
        "smooth_grad-variance": (rt.SmoothGrad(n_samples=3, kind="variance"), lambda w, x: 0 * w),
    }


@pytest.mark.parametrize("name", _closed_forms())
def test_closed_forms_of_attributions(linear, name):
    method, form = _closed_forms()[name]
    found = method(linear, INPUTS, LABELS).attributions
    check_value(found, form(linear.weight[LABELS], INPUTS), name)


def test_closed_forms_cover_every_method():
    covered = {name.split("-")[0] for name in _closed_forms()} | {"grad_cam"}
    assert covered >= {"expected_gradients", "integrated_gradients", "occlusion", "gradient", "input_x_gradient"}
    assert len(covered & set(ATTRIBUTIONS)) >= 9


def test_closed_form_of_sampled_references(linear):
    data = normal(5, FEATURES, seed=5)
    for method in (
        rt.ExpectedGradients(rt.references.Sample(data), n_samples=5),
        rt.IntegratedGradients(rt.references.Sample(data), n_samples=5, n_steps=1),
        rt.Occlusion(rt.references.Sample(data), n_samples=5),
    ):
        found = method(linear, INPUTS, LABELS).attributions  # without replacement: all five rows
        check_value(found, linear.weight[LABELS] * (INPUTS - data.mean(0)), repr(method))


def test_closed_form_of_a_layer():
    model = nn.Sequential(nn.Linear(FEATURES, 4), nn.Linear(4, CLASSES)).double()
    found = rt.InputXGradient(space=rt.spaces.Layer("0"))(model, INPUTS, LABELS).attributions
    check_value(found, model[1].weight[LABELS] * model[0](INPUTS), "layer")


def test_closed_form_of_grad_cam():
    """f_c = sum of head_c over all activations: the weight of a channel is the mean of head_c over its pixels."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(2 * 16, CLASSES)).double()
    x = normal(BATCH, 1, 4, 4, seed=6)
    head = model[2].weight[LABELS].reshape(BATCH, 2, 16).mean(2)
    heat = torch.einsum("bc,bchw->bhw", head, model[0](x))[:, None]
    found = rt.GradCam(rt.spaces.Layer("0"), relu=False)(model, x, LABELS).attributions
    check_value(found, heat, "signed")
    found = rt.GradCam(rt.spaces.Layer("0"))(model, x, LABELS).attributions
    check_value(found, heat.clamp_min(0), "positive")


def _penalties():
    marked = normal(BATCH, FEATURES, seed=7) > 0
    signs = normal(FEATURES, seed=8).sign()
    targets = normal(BATCH, FEATURES, seed=9)
    adjacency = torch.ones(FEATURES, FEATURES).double()
    return {
        "l1": (rt.priors.L1(), lambda w: w.abs().sum(1).mean()),
        "l2": (rt.priors.L2(), lambda w: (w**2).sum(1).mean()),
        "irrelevant": (rt.priors.Irrelevant(), lambda w: (w**2 * marked).sum(1).mean()),
        "independence": (
            rt.priors.Independence(1e-3),
            lambda w: ((w * targets).sum(1) ** 2 / ((w**2).sum(1) * (targets**2).sum(1) + 1e-3)).mean(),
        ),
        "match_targets": (rt.priors.MatchTargets(), lambda w: ((w - targets) ** 2).sum(1).mean()),
        "energy": (rt.priors.Energy(positive=False), lambda w: ((w.abs() * ~marked).sum(1) / w.abs().sum(1)).mean()),
        "sign": (rt.priors.Sign(signs), lambda w: torch.relu(-signs * w).sum(1).mean()),
        "total_variation": (
            rt.priors.TotalVariation(1, standardize=False),
            lambda w: (w[:, 1:] - w[:, :-1]).abs().sum(1).mean(),
        ),
        "graph_smoothness": (  # all linked: sum over pairs = p sum v^2 - (sum v)^2
            rt.priors.GraphSmoothness(adjacency),
            lambda w: FEATURES * (w.abs().mean(0) ** 2).sum() - w.abs().mean(0).sum() ** 2,
        ),
        "sparsity": (
            rt.priors.Sparsity(),
            lambda w: 1 - (v := w.abs().mean(0), (v[:, None] - v).abs().sum() / (2 * FEATURES * v.sum()))[1],
        ),
    }, rt.Annotation(irrelevant=marked, relevant=marked, targets=targets)


@pytest.mark.parametrize("name", _penalties()[0])
def test_closed_forms_of_penalties(linear, name):
    """Summed over features, averaged over examples; the parameter gradient follows from the same formula."""
    forms, note = _penalties()
    prior, form = forms[name]
    whole = rt.Objective(linear, F.cross_entropy, [rt.Term(rt.Gradient(), prior, 3.0)])
    report = whole(INPUTS, LABELS, note, part="prior")
    expected = form(linear.weight[LABELS])
    check_value(report.terms[name_of(prior)].penalty, expected, name)
    check_value(report.total, 3.0 * expected, name)
    (found,) = torch.autograd.grad(report.total, linear.weight)
    (right,) = torch.autograd.grad(3.0 * expected, linear.weight)
    check_value(found, right, f"gradient of {name}")


def test_every_penalty_has_a_closed_form():
    assert {*_penalties()[0]} <= {*PRIORS}
    assert len(_penalties()[0]) >= 9


@pytest.mark.parametrize("entry", components("prior"), ids=lambda e: e.name)
def test_a_penalty_averages_over_examples(entry):
    """Every example twice: nothing changes."""
    shape = (2, 4, 5)
    phi, prior = normal(3, *shape, seed=1), prior_of(entry, shape)
    note = annotation_for(prior, phi)
    again = torch.arange(6) % 3
    once, twice = prior(phi, note), prior(phi[again], note.take(again))
    check_value(twice.mean(), once.mean(), entry.name)


@pytest.mark.parametrize(
    "entry", [e for e in components("prior") if e.name in ("l1", "l2", "irrelevant")], ids=lambda e: e.name
)
def test_a_penalty_sums_over_features(entry):
    phi, prior = normal(3, 5, seed=1), prior_of(entry, (5,))
    double = torch.cat([phi, phi], 1)
    note, wide = (rt.Annotation(irrelevant=torch.ones_like(v)) for v in (phi, double))
    check_value(prior(double, wide), 2 * prior(phi, note), entry.name)


def test_oracle_gini_is_the_sorted_one():
    values = normal(20, seed=1).abs()
    check_value(rt.functional.gini(values), torch.tensor(oracles.gini(values.tolist()), dtype=torch.float64), "gini")


def test_draws_are_the_generators():
    problem = vectors()
    method = rt.ExpectedGradients(n_samples=2)
    first, again, other = (
        method(problem.model, problem.inputs, problem.labels, generator=draws(seed)).attributions for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
