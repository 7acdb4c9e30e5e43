"""Contract 1: the parameter gradient of every term is the true one, or the term refuses to train."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts import problems
from contracts.derivatives import check_term
from contracts.messages import check_discovery
from contracts.problems import (
    annotation_for,
    attribution_of,
    combinations,
    combine,
    components,
    draws,
    fitting,
    images,
    initialised,
    normal,
    objective,
    reference_of,
    sequences,
    space_of,
    tokens,
    vectors,
)
from rightly.core import registry
from rightly.core.errors import NotConnectedError

PAIRS = list(combinations())
ROOMS = {
    "space": (rt.spaces, set(), 6),
    "reference": (rt.references, set(), 6),
    "attribution": (rt.attributions, {"Attribution", "Hierarchy", "StoredAttributions"}, 7),
    "prior": (rt.priors, {"Prior"}, 9),
}
WITH_REFERENCES = [e for e in components("attribution") if "reference" in inspect.signature(e.cls).parameters]


@pytest.mark.parametrize("family", ROOMS)
def test_discovery_finds_every_public_component(family):
    room, others, floor = ROOMS[family]
    check_discovery(room, others, components(family), floor)


def test_discovery_feeds_the_contracts():
    assert len(PAIRS) >= 2 * 7 * 9
    assert len(WITH_REFERENCES) >= 3


@pytest.mark.parametrize(("attribution", "prior", "space", "picture"), PAIRS, ids=["-".join(p[:3]) for p in PAIRS])
def test_every_term_has_the_true_gradient(attribution, prior, space, picture):
    case = combine(attribution, prior, space, picture)
    problem = case.problem
    check_term(objective(problem, case.term()), problem.inputs, problem.labels, case.annotation)


REFERENCES = [
    pytest.param(reference, space, id=f"{reference.name}-{space.name}")
    for reference in components("reference")
    for space in components("space")
    if fitting(space, reference)
]


@pytest.mark.parametrize(("reference", "space"), REFERENCES)
@pytest.mark.parametrize("method", WITH_REFERENCES, ids=lambda e: e.name)
def test_every_reference_has_the_true_gradient(reference, method, space):
    problem = vectors(space=space_of(space, (6,)))
    compared = reference_of(reference, problem.shape if reference.name == "blur" else (6,))
    chosen = attribution_of(method, problem.shape, problem.space, reference=compared, n_samples=2)
    check_term(objective(problem, rt.Term(chosen, rt.priors.L2())), problem.inputs, problem.labels)


OUTPUTS = ["logit", "prob", "log_prob", "log_odds", "log_prob_sum", "loss", "loss_uniform"]
TARGETS = {"label": "label", "predicted": "predicted", "int": 1, "tensor": torch.tensor([2, 0, 1, 2])}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_and_target_has_the_true_gradient(output, target):
    problem = vectors()
    method = rt.ExpectedGradients(n_samples=2, output=output, target=TARGETS[target])
    check_term(objective(problem, rt.Term(method, rt.priors.L2())), problem.inputs, problem.labels)


def test_a_callable_output_has_the_true_gradient():
    problem = vectors()
    method = rt.Gradient(output=lambda outputs, labels: (outputs[:, 0] - labels) ** 2)
    check_term(objective(problem, rt.Term(method, rt.priors.L2())), problem.inputs, problem.labels)


@pytest.mark.parametrize("flat", [False, True], ids=["B1", "B"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_single_outputs_have_the_true_gradient(output, flat):
    problem = vectors()
    model = problems.vector_model(classes=1)
    model = nn.Sequential(model, nn.Flatten(0)) if flat else model
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    labels = labels if flat else labels[:, None]
    term = rt.Term(rt.InputXGradient(output=output), rt.priors.L2())
    whole = rt.Objective(model, F.binary_cross_entropy_with_logits, [term])
    check_term(whole, problem.inputs, labels)


@pytest.mark.parametrize("part", ["both", "task", "prior"])
def test_each_part_of_an_objective_has_the_true_gradient(part):
    problem = images()
    terms = [
        rt.Term(rt.ExpectedGradients(n_samples=2), rt.priors.TotalVariation(floor=1e-3), 0.3),
        rt.Term(rt.Gradient(output="log_prob_sum"), rt.priors.Sparsity(), 2.0),
    ]
    whole = objective(problem, *terms).eval()  # the task loss would see dropout otherwise
    check_term(whole, problem.inputs, problem.labels, part=part, directions=2)


SETTINGS = {
    "smooth_grad-square": rt.SmoothGrad(n_samples=3, kind="square"),
    "smooth_grad-variance": rt.SmoothGrad(n_samples=3, kind="variance"),
    "smooth_grad-variance-layer": rt.SmoothGrad(n_samples=3, kind="variance", space=rt.spaces.Layer("2")),
    **{f"integrated-{r}": rt.IntegratedGradients(n_steps=4, rule=r) for r in ("left", "right", "middle", "trapezoid")},
    "integrated-sampled": rt.IntegratedGradients(rt.references.InBatch(), n_steps=3, n_samples=2),
    "occlusion-overlap": rt.Occlusion(rt.references.Constant(0.3), window=(3, 2), stride=(2, 1)),
    "occlusion-sampled": rt.Occlusion(rt.references.InBatch(), window=(3, 3), n_samples=2),
    "grad_cam-signed": rt.GradCam(rt.spaces.Layer("4"), relu=False, resize=False),
    "layer-after-norm": rt.InputXGradient(space=rt.spaces.Layer("1")),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_attributions_have_the_true_gradient(name):
    problem = images()
    check_term(objective(problem, rt.Term(SETTINGS[name], rt.priors.L2())), problem.inputs, problem.labels)


RING = (torch.eye(72).roll(1, 0) + torch.eye(72).roll(-1, 0)).double()
PRIORS = {
    "gini": rt.priors.Sparsity(),
    "tv-raw": rt.priors.TotalVariation(standardize=False),
    "tv-signal": rt.priors.TotalVariation(1, floor=1e-3),
    "tv-papers-floor": rt.priors.TotalVariation(),
    "graph-symmetric": rt.priors.GraphSmoothness(RING, laplacian="symmetric"),
    "graph-random-walk": rt.priors.GraphSmoothness(RING, laplacian="random-walk"),
    "graph-signed": rt.priors.GraphSmoothness(RING, signed=True),
    "graph-example": rt.priors.GraphSmoothness(RING, level="example"),
    "graph-features": rt.priors.GraphSmoothness(RING[:5, :5], features=torch.tensor([7, 3, 1, 70, 9])),
    "irrelevant-l1": rt.priors.Irrelevant("l1"),
    "match-l1": rt.priors.MatchTargets("l1"),
    "energy-positive": rt.priors.Energy(),
    "sign-per-class": rt.priors.Sign(normal(3, 2, 6, 6, seed=4).sign(), per_class=True),
}


@pytest.mark.parametrize("name", PRIORS)
def test_settings_of_priors_have_the_true_gradient(name):
    problem, prior = images(), PRIORS[name]
    annotation = annotation_for(prior, problem.inputs)
    term = rt.Term(rt.InputXGradient(), prior)
    check_term(objective(problem, term), problem.inputs, problem.labels, annotation)


@pytest.mark.parametrize("method", [rt.Gradient(), rt.ExpectedGradients(), rt.GradCam(rt.spaces.Layer("0"))], ids=repr)
def test_kinked_nets_have_the_true_gradient_away_from_their_kinks(method):
    model, inputs = problems.kinked_model(), normal(3, 1, 6, 6, seed=5)
    whole = rt.Objective(model, F.cross_entropy, [rt.Term(method, rt.priors.L2())])
    check_term(whole, inputs, torch.tensor([0, 1, 2]))


@pytest.mark.parametrize("layer", ["embedding", "lstm"])
@pytest.mark.parametrize("method", [rt.Gradient, rt.ExpectedGradients, rt.IntegratedGradients])
def test_recurrent_nets_have_the_true_gradient(method, layer):
    problem = tokens(layer=layer)
    term = rt.Term(method(space=problem.space), rt.priors.L2())
    check_term(objective(problem, term), problem.inputs, problem.labels)


@pytest.mark.parametrize("space", [rt.spaces.Input(), rt.spaces.Layer("layer"), rt.spaces.Layer("layer.linear1")])
def test_attention_has_the_true_gradient(space):
    problem = sequences(space=space)
    term = rt.Term(rt.InputXGradient(space=problem.space), rt.priors.L2())
    check_term(objective(problem, term), problem.inputs, problem.labels)


def test_training_mode_hides_nothing_from_the_gradient():
    """Dropout would make these differ from call to call, and batch statistics would tie the examples."""
    problem = vectors()
    whole = objective(problem, rt.Term(rt.Gradient(), rt.priors.L2()))
    first, second = (whole(problem.inputs, problem.labels, part="prior").total for _ in range(2))
    assert whole.model.training
    assert first == second


class Detached(rt.attributions.Attribution):
    """Planted: an explanation that carries no graph."""

    def __init__(self) -> None:
        super().__init__(rt.spaces.Input(), "logit", "label")

    def _explain(self, problem, generator, diagnostics):
        found = rt.Gradient()._explain(problem, generator, diagnostics)
        return type(found)(found.attributions.detach())


class Deaf(rt.priors.Prior):
    """Planted: a penalty that ignores the attributions."""

    def penalty(self, attributions, annotation, target):
        return torch.ones(len(attributions))


def _frozen(model: nn.Module) -> nn.Module:
    return model.requires_grad_(False)


@pytest.mark.parametrize(
    ("method", "prior", "change"),
    [
        (Detached(), rt.priors.L2(), lambda model: model),
        (rt.Gradient(), Deaf(), lambda model: model),
        (rt.Gradient(), rt.priors.L2(), _frozen),
    ],
    ids=["detached-attribution", "deaf-prior", "frozen-model"],
)
def test_a_term_that_reaches_no_parameter_refuses(method, prior, change):
    problem = vectors()
    whole = rt.Objective(change(problem.model), F.cross_entropy, [rt.Term(method, prior)])
    with pytest.raises(NotConnectedError, match="does not reach the parameters"):
        whole(problem.inputs, problem.labels)


def test_an_output_that_ignores_the_space_refuses():
    class Blind(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x):
            return x.detach().sum(1, keepdim=True) * self.weight

    with pytest.raises(NotConnectedError, match="does not depend on the space"):
        rt.Gradient()(Blind(), torch.ones(2, 6), torch.tensor([0, 1]))


def test_a_frozen_part_leaves_the_rest_with_the_true_gradient():
    problem = vectors()
    for parameter in problem.model[0].parameters():
        parameter.requires_grad_(False)
    whole = objective(problem, rt.Term(rt.ExpectedGradients(), rt.priors.Sparsity()))
    check_term(whole, problem.inputs, problem.labels)


def test_shared_parameters_have_the_true_gradient():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.head(torch.tanh(self.inner(torch.tanh(self.inner(x)))))

    model = initialised(Tied(), 6)
    whole = rt.Objective(model, F.cross_entropy, [rt.Term(rt.IntegratedGradients(n_steps=5), rt.priors.L1())])
    check_term(whole, normal(3, 6, seed=1), torch.tensor([0, 1, 2]))


def test_inputs_of_several_tensors_have_the_true_gradient():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Linear(4, 5), nn.Linear(3, 5), nn.Linear(5, 3)

        def forward(self, a, b):
            return self.head(torch.tanh(self.a(a) * self.b(b)))

    model, labels = initialised(Two(), 7), torch.tensor([0, 1, 2])
    a, b = normal(3, 4, seed=1), normal(3, 3, seed=2)
    reference = rt.references.Sample({"a": normal(5, 4, seed=3), "b": normal(5, 3, seed=4)})
    for inputs, space in [((a, b), rt.spaces.Input(1)), ({"a": a, "b": b}, rt.spaces.Input("b"))]:
        compared = reference if isinstance(inputs, dict) else rt.references.InBatch()
        method = rt.ExpectedGradients(compared, n_samples=2, space=space)
        whole = rt.Objective(model, F.cross_entropy, [rt.Term(method, rt.priors.L2())])
        check_term(whole, inputs, labels)
        assert method(model, inputs, labels, generator=draws(0)).attributions.shape == (3, 3)


def test_registry_examples_make_every_component():
    for family in ("space", "reference", "attribution", "prior"):
        for entry in components(family):
            extra = {"space": rt.spaces.Input()} if entry.name == "grad_cam" else {}
            made = entry.cls(**{**entry.example((2, 6, 6)), **extra})
            assert registry.name_of(made) == entry.name
            assert entry.summary
