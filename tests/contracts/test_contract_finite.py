"""Contract 6: no NaN, at any edge, in any precision, under any weight."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.finiteness import WEIGHTS, check_finite, check_finite_training, edges
from contracts.problems import (
    annotation_for,
    attribution_of,
    components,
    image_model,
    images,
    prior_of,
    vector_model,
    vectors,
)

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
PRIORS = components("prior")


@pytest.mark.parametrize("edge", edges((1,), torch.float32))
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("entry", PRIORS, ids=lambda e: e.name)
def test_priors_stay_finite(entry, dtype, edge):
    for shape in ((1, 3, 4), (1, 1, 1)):
        phi = edges(shape, dtype)[edge]
        prior = prior_of(entry, shape)
        for weight in WEIGHTS:
            check_finite(prior, phi, annotation_for(prior, phi), weight)
        check_finite(prior, phi[:1], annotation_for(prior, phi[:1]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("entry", PRIORS, ids=lambda e: e.name)
def test_priors_compute_in_float32_at_least(entry, dtype):
    phi = edges((1, 3, 4), dtype)["ordinary"]
    prior = prior_of(entry, (1, 3, 4))
    assert prior(phi, annotation_for(prior, phi)).dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("entry", [e for e in PRIORS if e.cls.needs], ids=lambda e: e.name)
def test_priors_stay_finite_without_annotation(entry):
    """An example without annotation has no penalty, and no gradient."""
    phi = edges((1, 3, 4), torch.float32)["ordinary"].requires_grad_()
    prior = prior_of(entry, (1, 3, 4))
    note = annotation_for(prior, phi)
    unknown = rt.Annotation(**{name: torch.full(phi.shape, torch.nan) for name in prior.needs})
    value = prior(phi, unknown)
    assert not value.any()
    assert not torch.autograd.grad(value.sum(), phi)[0].any()
    second = torch.arange(3).reshape(3, 1, 1, 1) == 1
    partly = {name: torch.where(second, torch.nan, getattr(note, name).float()) for name in prior.needs}
    value = prior(phi, rt.Annotation(**partly))
    assert value[1] == 0
    assert torch.equal(value[[0, 2]], prior(phi, note)[[0, 2]])
    slopes = torch.autograd.grad(value.sum(), phi)[0]
    assert slopes.isfinite().all()
    assert not slopes[1].any()


def _silent(model):
    """A model whose output does not move: all attributions are zero."""
    with torch.no_grad():
        list(model.parameters())[-2].zero_()
    return model


def _methods():
    return [
        (entry, prior)
        for entry in components("attribution")
        for prior in PRIORS
        if "images" in entry.traits or prior.name in ("l2", "sparsity", "energy", "total_variation")
    ]


@pytest.mark.parametrize(
    ("entry", "prior"), _methods(), ids=[f"{entry.name}-{prior.name}" for entry, prior in _methods()]
)
def test_training_stays_finite_where_attributions_vanish(entry, prior):
    problem = images()
    method = attribution_of(entry, problem.shape, problem.space)
    phi = method(problem.model, problem.inputs, problem.labels).attributions
    penalty = prior_of(prior, tuple(phi.shape[1:]))
    note = annotation_for(penalty, phi)
    silent, vocal = _silent(image_model()), image_model()
    zeros, ones = torch.zeros_like(problem.inputs), torch.ones_like(problem.inputs)
    for weight in WEIGHTS[::2]:
        for model, inputs in ((silent, problem.inputs), (vocal, zeros), (vocal, ones)):
            whole = rt.Objective(model, F.cross_entropy, [rt.Term(method, penalty, weight)])
            check_finite_training(whole, inputs, problem.labels, note)


@pytest.mark.parametrize(
    "entry", [e for e in components("attribution") if "images" not in e.traits], ids=lambda e: e.name
)
def test_one_feature_and_one_example_are_enough(entry):
    labels = torch.tensor([1])
    for size in (1, 6):
        inputs = torch.full((1, size), 0.4, dtype=torch.float64)
        method = attribution_of(entry, (size,), rt.spaces.Input())
        like = method(vector_model(features=size), inputs, labels).attributions
        for prior in PRIORS:
            if "images" not in prior.traits:
                penalty = prior_of(prior, tuple(like.shape[1:]))
                model = vector_model(features=size).eval()
                whole = rt.Objective(model, F.cross_entropy, [rt.Term(method, penalty, 1.0)])
                check_finite_training(whole, inputs, labels, annotation_for(penalty, like))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "entry", [e for e in components("attribution") if "images" not in e.traits], ids=lambda e: e.name
)
def test_low_precision_models_train(entry, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    inputs, labels = vectors().inputs.to(dtype), vectors().labels
    method = attribution_of(entry, (6,), rt.spaces.Input())
    for prior in (rt.priors.L2(), rt.priors.Sparsity(), rt.priors.TotalVariation(1)):
        for weight in WEIGHTS[:2]:
            whole = rt.Objective(model, F.cross_entropy, [rt.Term(method, prior, weight)])
            check_finite_training(whole, inputs, labels)
    found = method(model, inputs, labels)
    assert found.attributions.dtype == dtype
    assert found.attributions.isfinite().all()
    exact = method(model.double(), inputs.double(), labels).attributions
    size = exact.abs().max()
    assert (found.attributions.double() - exact).abs().max() < size * (1e-5 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize("target", ["label", "predicted"])
@pytest.mark.parametrize("part", ["both", "prior"])
def test_autocast_reaches_every_parameter(target, part):
    """Weights that are cast without a gradient first must not be reused with one."""
    problem = vectors()
    model, inputs = problem.model.float(), problem.inputs.float()
    term = rt.Term(rt.ExpectedGradients(n_samples=2, target=target), rt.priors.L2(), 1.0)
    whole = rt.Objective(model, F.cross_entropy, [term])
    gradients = []
    for enabled in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            total = whole(inputs, problem.labels, generator=torch.Generator().manual_seed(1), part=part).total
        total.backward()
        gradients.append([p.grad for p in model.parameters()])
    assert [g is None for g in gradients[0]] == [g is None for g in gradients[1]]
    assert all(g.isfinite().all() for g in gradients[1] if g is not None)
