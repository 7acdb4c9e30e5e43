"""The preflight: a good objective passes, a bad one is told what is wrong with it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import rightly as rt
from contracts.problems import Attentive, annotation_for, draws, images, initialised, normal, objective, tokens, vectors
from controls import defects
from rightly.core.errors import AnnotationError, DoubleBackwardError, NotConnectedError
from rightly.objectives.check import TOLERANCE


def _check(model, *terms, inputs=None, labels=None, annotation=None):
    problem = vectors()
    inputs = problem.inputs if inputs is None else inputs
    return rt.check(
        rt.Objective(model, F.cross_entropy, terms), inputs, problem.labels if labels is None else labels, annotation
    )


def test_a_good_objective_passes():
    problem = images()
    note = annotation_for(rt.priors.Irrelevant(), problem.inputs)
    terms = [
        rt.Term(rt.ExpectedGradients(n_samples=2), rt.priors.TotalVariation(), 0.1),
        rt.Term(rt.Gradient(output="log_prob_sum"), rt.priors.Irrelevant(), "balance"),
        rt.Term(rt.GradCam(rt.spaces.Layer("4")), rt.priors.Sparsity(), 0.0),
    ]
    report = rt.check(objective(problem, *terms), problem.inputs, problem.labels, note)
    assert report.ok
    assert report.step_seconds > 0
    smooth, right, cam = report.terms
    assert [term.name for term in report.terms] == ["total_variation", "irrelevant", "sparsity"]
    parameters = len(list(problem.model.parameters()))
    for term in report.terms:
        assert term.problem is None
        assert term.error < TOLERANCE
        assert 0 < term.reached[0] <= term.reached[1] == parameters
        assert term.cost > 1
    assert smooth.gradient_ratio > 0
    assert right.gradient_ratio != right.gradient_ratio  # open: NaN
    assert cam.gradient_ratio == 0
    text = str(report)
    assert "plain step" in text
    for term in report.terms:
        assert f"{term.name[:20]:20} yes" in text


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision_of_the_model_does_not_matter(dtype):
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    term = rt.Term(rt.ExpectedGradients(rt.references.Sample(torch.randn(9, 6, dtype=dtype))), rt.priors.L2())
    hidden = rt.Term(
        rt.ExpectedGradients(rt.references.Sample(torch.randn(9, 6, dtype=dtype)), space=rt.spaces.Layer("0")),
        rt.priors.L1(),
    )
    assert _check(model, term, hidden, inputs=vectors().inputs.to(dtype)).ok


def test_layers_given_as_instances_are_those_of_the_copy():
    problem = vectors()
    term = rt.Term(rt.InputXGradient(space=rt.spaces.Layer(problem.model[4])), rt.priors.L2())
    assert _check(problem.model, term).ok


def test_token_numbers():
    problem = tokens()
    term = rt.Term(rt.IntegratedGradients(n_steps=3, space=problem.space), rt.priors.L2())
    assert _check(problem.model, term, inputs=problem.inputs, labels=problem.labels).ok


@pytest.mark.parametrize("method", [defects.half_detached, defects.detached_range], ids=lambda d: d.__name__)
def test_a_partial_gradient_is_found(method):
    report = _check(vectors().model, rt.Term(method(rt.spaces.Layer("0")), rt.priors.L2()))
    assert not report.ok
    assert report.terms[0].error > TOLERANCE
    assert "disagrees with finite differences" in report.terms[0].advice[0]
    assert " NO " in str(report)


def test_a_term_that_reaches_nothing_is_found():
    class Deaf(rt.priors.Prior):
        def penalty(self, attributions, annotation, target):
            return attributions.detach().flatten(1).sum(1)

    report = _check(vectors().model, rt.Term(rt.Gradient(), Deaf()), rt.Term(rt.Gradient(), rt.priors.L2()))
    assert not report.ok
    assert isinstance(report.terms[0].problem, NotConnectedError)
    assert report.terms[0].reached[0] == 0
    assert report.terms[1].ok
    assert "does not reach the parameters" in str(report)


def test_a_gradient_of_zero_is_told():
    report = _check(vectors().model, rt.Term(defects.nothing(), rt.priors.L2()))
    assert "zero on this batch" in report.terms[0].advice[0]
    assert report.ok  # it is the right gradient, after all


def test_a_gradient_of_zero_where_the_penalty_moves_is_found():
    """Connected, so that nothing is raised, but all that matters is detached."""

    class Numb(rt.priors.Prior):
        def penalty(self, attributions, annotation, target):
            return (attributions.detach().square() + 0 * attributions).flatten(1).sum(1)

    report = _check(vectors().model, rt.Term(rt.Gradient(), Numb()))
    assert not report.ok
    assert "disagrees" in report.terms[0].advice[0]


class Flash(nn.Module):
    """Attention by a kernel that cannot be differentiated twice, whatever the caller wishes."""

    def forward(self, x):
        q = x.reshape(len(x), 1, 2, 4)
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(q, q, q).reshape(len(x), 8)


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(8, 8, mode="sum")

    def forward(self, x):
        return self.bag(torch.arange(8).expand(len(x), 8), per_sample_weights=x)


class Distances(nn.Module):
    def __init__(self):
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(8, 8, generator=draws(0)))

    def forward(self, x):
        return -torch.cdist(x, self.prototypes)


@pytest.mark.parametrize(
    ("module", "operator", "mend"),
    [
        (Flash(), "attention", "SDPBackend.MATH"),
        (Bag(), "embedding_bag", "nn.Embedding"),
        (Distances(), "cdist", "replace the operator"),
    ],
    ids=["attention", "embedding-bag", "cdist"],
)
def test_operators_without_a_second_derivative_are_named(module, operator, mend):
    model = nn.Sequential(nn.Linear(6, 8), module, nn.Linear(8, 3)).double()
    report = _check(model, rt.Term(rt.Gradient(), rt.priors.L2()))
    assert not report.ok
    problem = report.terms[0].problem
    assert isinstance(problem, DoubleBackwardError)
    assert operator in problem.what
    assert mend in problem.mend
    with pytest.raises(DoubleBackwardError):
        rt.Objective(model, F.cross_entropy, [rt.Term(rt.Gradient(), rt.priors.L2())])(
            vectors().inputs, vectors().labels
        )


def test_attention_that_may_choose_its_kernel_passes():
    model = initialised(Attentive(), 3)
    term = rt.Term(rt.Gradient(), rt.priors.L2())
    assert _check(model, term, inputs=normal(4, 5, 8, seed=1)).ok


def test_an_annotation_that_is_missing_is_named():
    with pytest.raises(AnnotationError, match="irrelevant"):
        _check(vectors().model, rt.Term(rt.Gradient(), rt.priors.Irrelevant()))


def test_a_large_batch_is_checked_on_a_part_of_it():
    problem = vectors()
    inputs, labels = normal(50, 6, seed=1), torch.arange(50) % 3
    note = rt.Annotation(irrelevant=torch.ones(50, 6))
    term = rt.Term(rt.Gradient(), rt.priors.Irrelevant())
    assert rt.check(objective(problem, term), inputs, labels, note).ok


def test_an_objective_without_terms_passes():
    report = _check(vectors().model)
    assert report.ok
    assert report.terms == ()
