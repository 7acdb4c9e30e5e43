"""Contract 8: a bad argument raises a named error that says what happened, what was expected and what was got."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.messages import check_named
from contracts.problems import images, normal, objective, vectors
from rightly.core import registry

PROBLEM = vectors()
MODEL, X, Y = PROBLEM.model.eval(), PROBLEM.inputs, PROBLEM.labels
PHI = normal(4, 6, seed=1)
TERM = rt.Term(rt.Gradient(), rt.priors.L2())


def explain(method=None, model=MODEL, inputs=X, labels=Y, **arguments):
    return (method or rt.Gradient())(model, inputs, labels, **arguments)


def trained(*terms, loss=F.cross_entropy, inputs=X, labels=Y, annotation=None, **arguments):
    return rt.Objective(MODEL, loss, terms)(inputs, labels, annotation, **arguments)


class _SequenceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)

    def forward(self, x):
        return self.inner(x.transpose(0, 1)).mean(0)


class _Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(torch.tanh(self.layer(x)))


class _Never(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.used(x)


class _WrongShape(rt.priors.Prior):
    def penalty(self, attributions, annotation, target):
        return attributions.sum()


#: outputs that models should not have
OUTPUTS = {
    "reduced over the batch": lambda x: x.sum(),
    "one too few": lambda x: x[1:],
    "a structure without logits": lambda x: {"score": x},
    "maps": lambda x: x[:, :, None] * x[:, None],
}
SPARSE = torch.eye(6).roll(1, 0)  # a ring in one direction: not symmetric

BAD = {
    # core: what a model takes and gives
    "inputs as numpy": lambda: explain(inputs=X.numpy()),
    "inputs as numpy, post-hoc": lambda: rt.attribute(MODEL, X.numpy(), "gradient"),
    "inputs as a list of numbers": lambda: rt.attribute(MODEL, [1.0, 2.0], "gradient"),
    "no example": lambda: explain(inputs=X[:0], labels=Y[:0]),
    "inputs that disagree": lambda: explain(inputs=(X, X[:2])),
    "inputs of whole numbers": lambda: explain(inputs=X.long()),
    "inputs without a batch": lambda: explain(inputs=torch.tensor(1.0)),
    "a model that is none": lambda: explain(model=None),
    "labels as a list": lambda: explain(labels=[0, 1, 2, 0]),
    "labels as numpy": lambda: explain(labels=np.zeros(4, dtype=int)),
    "labels too few": lambda: explain(labels=Y[:2]),
    "labels as a number": lambda: explain(labels=torch.tensor(1)),
    "labels missing": lambda: explain(labels=None),
    "labels as probabilities": lambda: explain(labels=torch.rand(4, 3)),
    "labels as floats": lambda: explain(labels=Y.double()),
    "labels of no class": lambda: explain(labels=Y + 2),
    "labels below zero": lambda: explain(labels=Y - 100),
    "loss without labels": lambda: explain(rt.Gradient(output="loss"), labels=None),
    "loss of a single output without labels": lambda: explain(
        rt.Gradient(output="loss"), model=lambda x: x[:, 0], labels=None
    ),
    "regression labels for a binary loss": lambda: explain(
        rt.Gradient(output="loss"), model=lambda x: x[:, 0], labels=normal(4, seed=1) * 9
    ),
    **{
        f"a model with outputs {name}": lambda change=change: explain(model=lambda x: change(MODEL(x)))
        for name, change in OUTPUTS.items()
    },
    "maps, predicted": lambda: explain(rt.Gradient(target="predicted"), model=lambda x: OUTPUTS["maps"](MODEL(x))),
    "reduced, predicted": lambda: explain(rt.Gradient(target="predicted"), model=lambda x: MODEL(x).sum()),
    "unknown output": lambda: rt.Gradient(output="logits"),
    "output of another type": lambda: rt.Gradient(output=3),
    "output that gives too much": lambda: explain(rt.Gradient(output=lambda outputs, labels: outputs)),
    "output that gives a number": lambda: explain(rt.Gradient(output=lambda outputs, labels: 1.0)),
    "unknown target": lambda: rt.Gradient(target="top"),
    "target as a float": lambda: rt.Gradient(target=1.0),
    "target as a truth value": lambda: rt.Gradient(target=True),
    "target as a list": lambda: rt.Gradient(target=[0, 1]),
    "target as numpy": lambda: rt.Gradient(target=np.array([0, 1, 2, 0])),
    "target of float numbers": lambda: rt.Gradient(target=torch.rand(4)),
    "target of two dimensions": lambda: rt.Gradient(target=torch.zeros(4, 1, dtype=torch.long)),
    "target too short": lambda: explain(rt.Gradient(target=torch.tensor([0, 1]))),
    "target beyond the classes": lambda: explain(rt.Gradient(target=3)),
    "target below the classes": lambda: explain(rt.Gradient(target=-1)),
    "chunks of nothing": lambda: explain(chunk_size=0),
    "chunks of a half": lambda: explain(chunk_size=2.5),
    "generator as a seed": lambda: explain(rt.ExpectedGradients(), generator=3),
    "unknown component": lambda: registry.find("attribution", "lime"),
    "component as a number": lambda: registry.find("attribution", 3),
    "unknown family": lambda: registry.family("model"),
    "unknown trait": lambda: registry.register("prior", citation="erion2021", traits=("green",)),
    "unknown citation": lambda: registry.register("prior", citation="nobody1900"),
    # annotations
    "annotation without examples": lambda: rt.Annotation(relevant=torch.tensor(1.0)),
    "annotation of infinities": lambda: rt.Annotation(targets=torch.tensor([[math.inf]])),
    "annotations that disagree": lambda: rt.Annotation(relevant=torch.ones(2, 3), irrelevant=torch.ones(4, 3)),
    "annotations of two shapes": lambda: rt.Annotation(relevant=[torch.ones(2), torch.ones(3)]),
    "annotations of nothing": lambda: rt.Annotation(relevant=[None, None]),
    "annotation as an array": lambda: rt.Annotation(relevant=np.ones((4, 6))),
    "annotation as numbers": lambda: rt.Annotation(relevant=[1, 0, 1]),
    "annotation missing": lambda: rt.priors.Irrelevant()(PHI),
    "annotation of another field": lambda: rt.priors.Energy()(PHI, rt.Annotation(irrelevant=torch.ones(4, 6))),
    "annotation of another batch": lambda: rt.priors.Irrelevant()(PHI, rt.Annotation(irrelevant=torch.ones(3, 6))),
    "annotation of other features": lambda: rt.priors.Irrelevant()(PHI, rt.Annotation(irrelevant=torch.ones(4, 5))),
    "annotation without its batch": lambda: rt.priors.Irrelevant()(PHI, rt.Annotation(irrelevant=torch.ones(6))),
    "annotation of too many dimensions": lambda: rt.priors.MatchTargets()(PHI, rt.Annotation(targets=PHI[:, None])),
    # spaces
    "unknown input": lambda: explain(rt.Gradient(space=rt.spaces.Input("pixels")), inputs={"x": X}),
    "unknown input number": lambda: explain(rt.Gradient(space=rt.spaces.Input(2)), inputs=(X, X)),
    "unknown layer": lambda: explain(rt.Gradient(space=rt.spaces.Layer("7"))),
    "layer of another model": lambda: explain(rt.Gradient(space=rt.spaces.Layer(nn.Linear(6, 3)))),
    "layer of a function": lambda: explain(rt.Gradient(space=rt.spaces.Layer("0")), model=lambda x: MODEL(x)),
    "layer that runs twice": lambda: explain(rt.Gradient(space=rt.spaces.Layer("layer")), model=_Twice().double()),
    "layer that never runs": lambda: explain(rt.Gradient(space=rt.spaces.Layer("unused")), model=_Never().double()),
    "layer without the batch in front": lambda: explain(
        rt.Gradient(space=rt.spaces.Layer("inner")),
        model=_SequenceFirst().double(),
        inputs=normal(4, 7, 6, seed=1),
    ),
    "space that is none": lambda: rt.Gradient(space="input"),
    "space as a class": lambda: rt.Gradient(space=rt.spaces.Input),
    # references
    "reference as a tensor": lambda: rt.ExpectedGradients(X),
    "reference as a class": lambda: rt.ExpectedGradients(rt.references.InBatch),
    "constant of another shape": lambda: explain(rt.IntegratedGradients(rt.references.Constant(torch.ones(5)))),
    "constant that is no number": lambda: explain(rt.IntegratedGradients(rt.references.Constant("black"))),
    "constant with a batch": lambda: explain(rt.IntegratedGradients(rt.references.Constant(X))),
    "sample of nothing": lambda: rt.references.Sample(X[:0]),
    "sample of an empty set": lambda: rt.references.Sample([]),
    "sample of a number": lambda: rt.references.Sample(5),
    "sample of other features": lambda: explain(rt.ExpectedGradients(rt.references.Sample(torch.ones(9, 5)))),
    "where without a question": lambda: rt.references.Where(X),
    "where without a label": lambda: rt.references.Where(X, labels=Y),
    "where nobody is": lambda: rt.references.Where(X, labels=Y, label=9),
    "where labels are few": lambda: rt.references.Where(X, labels=Y[:2], label=0),
    "where labels are a list": lambda: rt.references.Where(X, labels=[0, 1, 2, 0], label=0),
    "where the predicate is wrong": lambda: rt.references.Where(X, predicate=lambda inputs: inputs > 0),
    "blur of nothing": lambda: rt.references.Blur(0.0),
    "blur in no dimension": lambda: rt.references.Blur(1.0, dims=0),
    "blur of too few dimensions": lambda: explain(rt.IntegratedGradients(rt.references.Blur(1.0, dims=2))),
    "noise of nothing": lambda: rt.references.Noise(0.0),
    "noise that is not a number": lambda: rt.references.Noise(math.nan),
    "noise as a word": lambda: rt.references.Noise("some"),
    # attributions
    "no samples": lambda: rt.ExpectedGradients(n_samples=0),
    "half a sample": lambda: rt.ExpectedGradients(n_samples=1.5),
    "no steps": lambda: rt.IntegratedGradients(n_steps=0),
    "unknown rule": lambda: rt.IntegratedGradients(rule="simpson"),
    "trapezoid of one": lambda: rt.IntegratedGradients(rule="trapezoid", n_steps=1),
    "negative noise": lambda: rt.SmoothGrad(sigma=-1.0),
    "unknown kind": lambda: rt.SmoothGrad(kind="max"),
    "variance of one": lambda: rt.SmoothGrad(kind="variance", n_samples=1),
    "window of nothing": lambda: rt.Occlusion(window=(0,)),
    "window that is a number": lambda: rt.Occlusion(window=3),
    "window too large": lambda: explain(rt.Occlusion(window=(7,))),
    "window of too many dimensions": lambda: explain(rt.Occlusion(window=(1, 2))),
    "stride without a window": lambda: rt.Occlusion(stride=(1,)),
    "stride of other dimensions": lambda: rt.Occlusion(window=(2, 2), stride=(1,)),
    "grad-cam of vectors": lambda: explain(rt.GradCam(rt.spaces.Input())),
    "unknown method": lambda: rt.attribute(MODEL, X, "shap"),
    "method as a number": lambda: rt.attribute(MODEL, X, 3),
    "argument of another method": lambda: rt.attribute(MODEL, X, "gradient", n_samples=3),
    "argument that is missing": lambda: rt.attribute(MODEL, X, "grad_cam"),
    "arguments twice": lambda: rt.attribute(MODEL, X, rt.Gradient(), n_samples=3),
    # priors
    "attributions without features": lambda: rt.priors.L1()(torch.ones(4)),
    "attributions as numpy": lambda: rt.priors.L1()(PHI.numpy()),
    "a penalty of the wrong shape": lambda: _WrongShape()(PHI),
    "unknown norm of irrelevant": lambda: rt.priors.Irrelevant("linf"),
    "unknown norm of match": lambda: rt.priors.MatchTargets("l0"),
    "maps of four dimensions": lambda: rt.priors.TotalVariation(4),
    "floor of nothing": lambda: rt.priors.TotalVariation(floor=0.0),
    "variation of vectors": lambda: rt.priors.TotalVariation(2)(PHI),
    "adjacency that is not square": lambda: rt.priors.GraphSmoothness(torch.ones(3, 4)),
    "adjacency that is not symmetric": lambda: rt.priors.GraphSmoothness(SPARSE),
    "adjacency below zero": lambda: rt.priors.GraphSmoothness(-torch.ones(3, 3)),
    "adjacency of NaN": lambda: rt.priors.GraphSmoothness(torch.full((3, 3), math.nan)),
    "adjacency as lists": lambda: rt.priors.GraphSmoothness([[0, 1], [1, 0]]),
    "unknown level": lambda: rt.priors.GraphSmoothness(torch.ones(6, 6), level="row"),
    "graph of other features": lambda: rt.priors.GraphSmoothness(torch.ones(5, 5))(PHI),
    "nodes without features": lambda: rt.priors.GraphSmoothness(torch.ones(3, 3), features=torch.tensor([0, 1])),
    "features as floats": lambda: rt.priors.GraphSmoothness(torch.ones(2, 2), features=torch.tensor([0.0, 1.0])),
    "features that are not there": lambda: rt.priors.GraphSmoothness(torch.ones(2, 2), features=torch.tensor([0, 6]))(
        PHI
    ),
    "signs of two": lambda: rt.priors.Sign(2 * torch.ones(6)),
    "signs as words": lambda: rt.priors.Sign("positive"),
    "signs of other features": lambda: rt.priors.Sign(torch.ones(5))(PHI),
    "signs with a batch": lambda: rt.priors.Sign(torch.ones(4, 6))(PHI[:1]),
    "signs per class without classes": lambda: rt.priors.Sign(torch.ones(3, 6), per_class=True)(PHI),
    "signs of too few classes": lambda: rt.priors.Sign(torch.ones(2, 6), per_class=True)(PHI, None, Y),
    "signs per class of one number": lambda: rt.priors.Sign(torch.tensor(1.0), per_class=True),
    # objectives
    "term without an attribution": lambda: rt.Term("gradient", rt.priors.L2()),
    "term without a prior": lambda: rt.Term(rt.Gradient(), "l2"),
    "term with a class": lambda: rt.Term(rt.Gradient(), rt.priors.L2),
    "term with a function": lambda: rt.Term(rt.Gradient(), rt.functional.l2),
    "negative weight": lambda: rt.Term(rt.Gradient(), rt.priors.L2(), -1.0),
    "weight that is not a number": lambda: rt.Term(rt.Gradient(), rt.priors.L2(), math.nan),
    "weight without end": lambda: rt.Term(rt.Gradient(), rt.priors.L2(), math.inf),
    "weight as a word": lambda: rt.Term(rt.Gradient(), rt.priors.L2(), "strong"),
    "schedule of no steps": lambda: rt.Schedule(every=0),
    "schedule of half steps": lambda: rt.Schedule(every=1.5),
    "schedule before the start": lambda: rt.Schedule(start=-1),
    "objective of a function": lambda: rt.Objective(lambda x: x, F.cross_entropy),
    "objective without a loss": lambda: rt.Objective(MODEL, "cross_entropy"),
    "objective of priors": lambda: rt.Objective(MODEL, F.cross_entropy, [rt.priors.L2()]),
    "objective of a single term": lambda: rt.Objective(MODEL, F.cross_entropy, TERM),
    "terms of one name": lambda: rt.Objective(MODEL, F.cross_entropy, [TERM, TERM]),
    "loss that is not reduced": lambda: trained(loss=lambda outputs, labels: (outputs[:, 0] - labels) ** 2),
    "loss that is a number": lambda: trained(loss=lambda outputs, labels: 1.0),
    "labels of an objective as a list": lambda: trained(TERM, labels=[0, 1, 2, 0]),
    "unknown part": lambda: trained(TERM, part="half"),
    "auto without fit": lambda: trained(rt.Term(rt.Gradient(), rt.priors.L2(), "auto")),
    "balance without the task": lambda: trained(rt.Term(rt.Gradient(), rt.priors.L2(), "balance"), part="prior"),
    "objective without annotation": lambda: trained(rt.Term(rt.Gradient(), rt.priors.Irrelevant())),
    "weight of nobody": lambda: objective(PROBLEM, TERM).set_weight("l3", 1.0),
    "weight set below zero": lambda: objective(PROBLEM, TERM).set_weight("l2", -1.0),
    "weight set to a word": lambda: objective(PROBLEM, TERM).set_weight("l2", "auto"),
    "state of another objective": lambda: objective(PROBLEM, TERM).set_extra_state(torch.zeros(4)),
    "unknown convention": lambda: rt.recipes.sparse_attribution_prior(convention="theirs"),
    "scale of nothing": lambda: rt.recipes.right_for_the_right_reasons(input_scale=0.0),
    "batch of nothing": lambda: rt.recipes.double_backpropagation(paper_batch=0),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name):
    check_named(BAD[name], nothing_was_passed="missing" in name or name.endswith("without labels"))


def test_there_are_many_bad_arguments():
    assert len(BAD) >= 150


def test_good_arguments_pass():
    """The same calls with what they ask for: the checks above do not refuse everything."""
    explain()
    explain(inputs=X, chunk_size=1, generator=torch.Generator().manual_seed(3))
    explain(rt.Gradient(target=torch.tensor([0, 1, 2, 0])))
    explain(rt.ExpectedGradients(rt.references.Where(X, labels=Y, label=0)))
    explain(rt.Occlusion(window=(2,), stride=(1,)))
    explain(rt.IntegratedGradients(rt.references.Constant(torch.ones(6)), rule="trapezoid", n_steps=2))
    rt.priors.Irrelevant()(PHI, rt.Annotation(irrelevant=torch.ones(1, 6)))
    rt.priors.Sign(torch.ones(3, 6), per_class=True)(PHI, None, Y)
    rt.priors.GraphSmoothness(torch.ones(2, 2), features=torch.tensor([0, 5]))(PHI)
    rt.attribute(MODEL, X, "expected-gradients", n_samples=3)
    rt.attribute(images().model, images().inputs, "GradCam", space=rt.spaces.Layer("0"))
    trained(rt.Term(rt.Gradient(), rt.priors.L2(), "balance"), TERM.__class__(rt.Gradient(), rt.priors.L1()))
    rt.recipes.sparse_attribution_prior(convention="paper")
