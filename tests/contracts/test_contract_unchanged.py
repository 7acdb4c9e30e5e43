"""Contract 3: nothing that the user passed changes, whatever happens."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.agreement import check_close
from contracts.problems import (
    attribution_of,
    components,
    draws,
    fitting,
    images,
    normal,
    objective,
    sequences,
    space_of,
    tokens,
    vectors,
)
from contracts.unchanged import check_unchanged
from rightly.core.errors import DecompositionError

METHODS = [
    pytest.param(entry, space, id=f"{entry.name}-{space.name}")
    for space in components("space")
    for entry in components("attribution")
    if fitting(space, entry)
]
OUTSIDE = {
    "plain": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
}


def _problem(entry, space):
    """A model in a mixed mode, with gradients, hooks and statistics of its own."""
    picture = "images" in entry.traits
    there = space_of(space, (2, 6, 6) if picture else (6,))
    return _lived_in(images(space=there) if picture else vectors(space=there))


def _lived_in(problem):
    model = problem.model
    for position, parameter in enumerate(model.parameters()):
        if position % 2:
            parameter.grad = torch.full_like(parameter, 0.5)
        if position % 3 == 2:
            parameter.requires_grad_(False)
    model.train()
    modules = [module for module in model.modules() if module is not model]
    for module in modules[1::3]:
        module.eval()
    modules[0].register_forward_hook(lambda module, args, output: None)
    modules[-1].register_full_backward_hook(lambda module, grads, outputs: None)
    next(model.parameters()).register_hook(lambda grad: None)
    return problem


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize(("entry", "space"), METHODS)
def test_explaining_leaves_no_trace(entry, space, outside):
    problem = _problem(entry, space)
    method = attribution_of(entry, problem.shape, problem.space)
    plain = method(problem.model, problem.inputs, problem.labels)

    def call():
        with OUTSIDE[outside]():
            return method(problem.model, problem.inputs, problem.labels, chunk_size=2)

    found = check_unchanged(call, problem.model, [problem.inputs, problem.labels])
    check_close(found.attributions, plain.attributions)
    for tensor in (found.attributions, found.outputs, found.completeness_gap):
        assert not tensor.requires_grad


@pytest.mark.parametrize(("entry", "space"), METHODS)
def test_explaining_with_a_graph_leaves_no_trace(entry, space):
    problem = _problem(entry, space)
    method = attribution_of(entry, problem.shape, problem.space)

    def call():
        with torch.no_grad():
            return method(problem.model, problem.inputs, problem.labels, create_graph=True)

    assert check_unchanged(call, problem.model, [problem.inputs, problem.labels]).attributions.requires_grad


@pytest.mark.parametrize(("entry", "space"), METHODS)
def test_inputs_that_require_a_gradient_are_left_alone(entry, space):
    problem = _problem(entry, space)
    inputs = problem.inputs.clone().requires_grad_()
    inputs.grad = torch.ones_like(inputs)
    method = attribution_of(entry, problem.shape, problem.space)
    found = check_unchanged(lambda: method(problem.model, inputs, problem.labels), problem.model, [inputs])
    assert not found.attributions.requires_grad


def test_inputs_made_in_inference_mode_can_be_explained():
    problem = vectors()
    for method in (rt.IntegratedGradients(n_steps=4), rt.Gradient(space=rt.spaces.Layer("0")), rt.Occlusion()):
        plain = method(problem.model, problem.inputs, problem.labels).attributions
        with torch.inference_mode():
            inputs, labels = problem.inputs.clone(), problem.labels.clone()
            found = check_unchanged(lambda m=method: m(problem.model, inputs, labels), problem.model, [inputs, labels])
        again = method(problem.model, inputs, labels).attributions
        check_close(found.attributions, plain)
        check_close(again, plain)


class Bomb(nn.Module):
    """Goes off at the n-th pass."""

    def __init__(self, fuse: int) -> None:
        super().__init__()
        self.fuse = [fuse]

    def forward(self, x):
        self.fuse[0] -= 1
        if self.fuse[0] == 0:
            raise KeyError("the model broke")
        return x


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("fuse", [1, 2])
@pytest.mark.parametrize(("entry", "space"), METHODS)
def test_a_model_that_breaks_is_left_as_it_was(entry, space, fuse, outside):
    problem = _problem(entry, space)
    method = attribution_of(entry, problem.shape, problem.space)
    fused = nn.Sequential(*problem.model, Bomb(fuse))
    for new, old in zip(fused, problem.model, strict=False):
        assert new is old

    def call():
        with OUTSIDE[outside]():
            method(fused, problem.inputs, problem.labels, chunk_size=1)

    check_unchanged(call, fused, [problem.inputs, problem.labels], error=KeyError)


@pytest.mark.parametrize("layer", ["embedding", "lstm"])
def test_recurrent_models_are_left_alone(layer):
    problem = tokens(layer=layer)
    method = rt.ExpectedGradients(n_samples=2, space=problem.space)
    check_unchanged(lambda: method(problem.model, problem.inputs, problem.labels), problem.model, [problem.inputs])


@pytest.mark.parametrize("outside", OUTSIDE)
def test_attention_models_are_left_alone(outside):
    problem = sequences()

    def call():
        with OUTSIDE[outside]():
            return rt.IntegratedGradients(n_steps=3)(problem.model, problem.inputs, problem.labels)

    check_unchanged(call, problem.model, [problem.inputs])


@pytest.mark.parametrize("reference", components("reference"), ids=lambda e: e.name)
def test_references_leave_no_trace(reference):
    problem = _lived_in(vectors())
    method = rt.ExpectedGradients(reference.cls(**reference.example((6,))), n_samples=3)
    check_unchanged(lambda: method(problem.model, problem.inputs, problem.labels), problem.model, [problem.inputs])


def test_reference_data_is_left_alone():
    problem, data = vectors(), normal(9, 6, seed=2)
    method = rt.ExpectedGradients(rt.references.Sample(data), n_samples=3, space=rt.spaces.Layer("0"))
    check_unchanged(lambda: method(problem.model, problem.inputs, problem.labels), problem.model, [data])


def _terms():
    return [
        rt.Term(rt.ExpectedGradients(n_samples=2), rt.priors.Irrelevant(), 0.5),
        rt.Term(rt.Gradient(space=rt.spaces.Layer("0")), rt.priors.Sparsity(), "balance"),
    ]


def _note(problem):
    return rt.Annotation(irrelevant=normal(*problem.inputs.shape, seed=1) > 0)


def _calls(problem, note):
    whole = objective(problem, *_terms())
    whole.set_weight("sparsity", 1.0)
    batch = (problem.inputs, problem.labels, note)
    fresh = objective(problem, *_terms())
    return {
        "prior": lambda: whole(*batch, part="prior").total.detach(),
        "penalty": lambda: whole.penalty(whole.terms[0], *batch),
        "ratios": lambda: fresh.ratios([batch, batch]),
        "check": lambda: rt.check(whole, *batch),
        "attribute": lambda: rt.attribute(problem.model, problem.inputs, "expected_gradients", n_samples=4),
        "attribute-integrated": lambda: rt.attribute(problem.model, problem.inputs, "IntegratedGradients", target=1),
    }


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("name", ["prior", "penalty", "ratios", "check", "attribute", "attribute-integrated"])
def test_objectives_leave_no_trace(name, outside):
    problem = _lived_in(vectors())
    note = _note(problem)

    def call():
        with OUTSIDE[outside]():
            return _calls(problem, note)[name]()

    check_unchanged(call, problem.model, [problem.inputs, problem.labels, note.irrelevant])


def test_a_check_under_no_grad_is_still_a_check():
    problem = vectors()
    whole = objective(problem, *_terms()[:1])
    with torch.no_grad():
        assert rt.check(whole, problem.inputs, problem.labels, _note(problem)).ok


def test_a_training_step_moves_the_statistics_once():
    """Reading the explanations does not count as a pass over the data."""
    problem, plain = vectors(), vectors()
    whole = objective(problem, *_terms()[:1])
    whole(problem.inputs, problem.labels, _note(problem)).total.backward()
    plain.model(plain.inputs)
    for (name, found), (_, expected) in zip(problem.model.named_buffers(), plain.model.named_buffers(), strict=True):
        assert torch.equal(found, expected), name


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_training_step_draws_what_plain_training_draws(weight):
    """Dropout of the next step falls where it would have fallen without a prior."""
    states = []
    for terms in ([], [rt.Term(rt.SmoothGrad(n_samples=3), rt.priors.L2(), weight)]):
        problem = vectors()
        whole = objective(problem, *terms)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            whole(problem.inputs, problem.labels).total.backward()
            states.append(torch.get_rng_state())
    assert torch.equal(*states)


class Noisy(nn.Module):
    """Draws in eval mode too, as ``F.dropout(x)`` without ``training=`` does."""

    def forward(self, x):
        return F.dropout(x, 0.3) + 0.1 * torch.randn(x.shape).to(x)


def test_a_model_that_always_draws_leaves_the_random_state():
    problem = vectors()
    model = nn.Sequential(Noisy(), *problem.model)

    def explain(method):
        if isinstance(method, rt.DeepLift):  # an example and its reference meet different noise: nothing adds up
            with pytest.raises(DecompositionError, match="randn"):
                method(model, problem.inputs, problem.labels)
        else:
            method(model, problem.inputs, problem.labels)

    for entry in components("attribution"):
        if "images" not in entry.traits:
            method = attribution_of(entry, (6,), rt.spaces.Input())
            check_unchanged(lambda m=method: explain(m), model, [problem.inputs])
    whole = rt.Objective(model, F.cross_entropy, _terms()[:1])
    batch = (problem.inputs, problem.labels, _note(problem))
    check_unchanged(lambda: whole(*batch, part="prior"), model, [problem.inputs])
    check_unchanged(lambda: rt.check(whole, *batch), model, [problem.inputs])
    check_unchanged(lambda: whole.ratios([batch]), model, [problem.inputs])


def test_a_users_train_override_is_not_called():
    class Proud(nn.Sequential):
        calls = 0

        def train(self, mode=True):
            Proud.calls += 1
            return super().train(mode)

    problem = vectors()
    model = Proud(*problem.model)
    Proud.calls = 0
    rt.IntegratedGradients(n_steps=3)(model, problem.inputs, problem.labels)
    assert Proud.calls == 0


def test_callables_that_are_no_modules_can_be_explained():
    problem = vectors()
    problem.model.eval()
    found = rt.IntegratedGradients(n_steps=4)(lambda x: problem.model(x), problem.inputs, problem.labels)
    plain = rt.IntegratedGradients(n_steps=4)(problem.model, problem.inputs, problem.labels)
    assert torch.equal(found.attributions, plain.attributions)


def test_a_layer_before_an_operation_in_place_is_explained_as_it_was():
    problem = images()
    own = [nn.ReLU(inplace=True) if isinstance(m, nn.GELU) else m for m in problem.model]
    other = [nn.ReLU() if isinstance(m, nn.GELU) else m for m in problem.model]
    for method in (rt.Gradient, rt.InputXGradient, rt.ExpectedGradients, rt.GradCam, rt.SmoothGrad):
        chosen = method(space=rt.spaces.Layer("1"))
        for graph in (False, True):
            found, expected = (
                chosen(
                    nn.Sequential(*layers), problem.inputs, problem.labels, create_graph=graph, generator=draws(0)
                ).attributions
                for layers in (own, other)
            )
            check_close(found, expected)


def test_inputs_before_an_operation_in_place_are_left_alone():
    problem = vectors()
    model = nn.Sequential(nn.ReLU(inplace=True), *problem.model)
    problem = replace(problem, model=model)
    for entry in components("attribution"):
        if "images" not in entry.traits:
            method = attribution_of(entry, (6,), rt.spaces.Input())
            check_unchanged(lambda m=method: m(model, problem.inputs, problem.labels), model, [problem.inputs])


def test_a_loss_that_breaks_leaves_the_objective_as_it_was():
    problem = _lived_in(vectors())

    def broken(outputs, labels):
        raise KeyError("the loss broke")

    whole = rt.Objective(problem.model.eval(), broken, _terms()[:1])
    check_unchanged(lambda: whole(problem.inputs, problem.labels, _note(problem)), whole, error=KeyError)
    assert whole.step == 0


def test_sgd_through_an_objective_is_what_autograd_says():
    """.grad after backward() is the gradient of the total: nothing was accumulated on the way."""
    problem = vectors()
    whole = objective(problem, *_terms()[:1]).eval()
    report = whole(problem.inputs, problem.labels, _note(problem), draws(0))
    expected = torch.autograd.grad(report.total, list(problem.model.parameters()), retain_graph=True)
    report.total.backward()
    for parameter, gradient in zip(problem.model.parameters(), expected, strict=True):
        assert torch.equal(parameter.grad, gradient)
    assert F.cross_entropy(report.outputs, problem.labels) == report.task
