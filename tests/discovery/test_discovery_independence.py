"""The term between models that are trained at once: closed forms, finite differences, a loop over pairs."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from rightly.core.errors import ArgumentError
from rightly.objectives import Ensemble, IndependenceTerm
from rightly.objectives.independence import of_every_member
from rightly.objectives.model_term import Batch

X = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 1, 0])


def smooth(seed, classes=3, width=6):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, classes)).double()


def ensemble(count=3, classes=3):
    with torch.random.fork_rng():
        return Ensemble([smooth(seed, classes) for seed in range(count)])


def test_the_penalty_is_a_loop_over_pairs_and_examples():
    model = ensemble()
    found = IndependenceTerm(eps=1e-3).of(model, Batch(X, Y)).detach()
    for row in range(5):
        gradients = []
        for member in model.members:
            x = X[row : row + 1].clone().requires_grad_()
            p = member(x).softmax(1)[0, Y[row]]
            gradients.append(torch.autograd.grad((p / (1 - p)).log(), x)[0].flatten())
        total = 0.0
        for a in range(3):
            for b in range(a + 1, 3):
                v, w = gradients[a], gradients[b]
                total += float(((v @ w) ** 2 / ((v @ v) * (w @ w) + 1e-3)).detach())
        assert float(found[row]) == pytest.approx(total, rel=1e-9)


def test_linear_members_have_a_closed_form():
    members = [nn.Linear(2, 1, bias=False).double() for _ in range(2)]
    for angle, expected in ((0.0, 1.0), (90.0, 0.0), (60.0, 0.25), (180.0, 1.0)):
        turned = torch.deg2rad(torch.tensor([0.0, angle], dtype=torch.float64))
        for member, at in zip(members, turned, strict=True):
            member.weight.data = torch.stack([at.cos(), at.sin()])[None]
        found = IndependenceTerm().measured(Ensemble(members), Batch(X[:, :2], Y.clamp_max(1)))
        assert float(found.detach()) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("output", ["log_odds", "loss", "log_prob_sum"])
@pytest.mark.parametrize("space", [None, "latent", "layer"])
def test_the_parameter_gradient_is_that_of_finite_differences(output, space):
    chosen = {"latent": rt.spaces.Latent(lambda x: x[:, :2] * 2, lambda z: F.pad(z / 2, (0, 2))), "layer": None}
    model = ensemble(2)
    where = rt.spaces.Layer("0") if space == "layer" else chosen.get(space)
    term = IndependenceTerm(rt.Gradient(space=where, output=output), 2.0)
    objective = rt.Objective(model, of_every_member(F.cross_entropy), [term])
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(objective(X, Y).total, parameters, allow_unused=True)
    draws = torch.Generator().manual_seed(3)
    way = [torch.randn(p.shape, generator=draws, dtype=torch.float64) for p in parameters]

    def moved(step):
        with torch.no_grad():
            for parameter, direction in zip(parameters, way, strict=True):
                parameter.add_(step * direction)
        value = float(objective(X, Y).total.detach())
        with torch.no_grad():
            for parameter, direction in zip(parameters, way, strict=True):
                parameter.sub_(step * direction)
        return value

    expected = (moved(1e-6) - moved(-1e-6)) / 2e-6
    along = sum(float((g * d).sum()) for g, d in zip(gradients, way, strict=True) if g is not None)
    assert along == pytest.approx(expected, rel=1e-6)


def test_every_member_has_its_loss():
    model = ensemble()
    report = rt.Objective(model, of_every_member(F.cross_entropy))(X, Y)
    expected = sum(F.cross_entropy(member(X), Y) for member in model.members)
    assert torch.allclose(report.total, expected)
    assert report.outputs.shape == (5, 3, 3)


def test_without_gradient_nothing_is_kept():
    model = ensemble(2)
    with torch.no_grad():
        value = rt.Objective(model, of_every_member(F.cross_entropy), [IndependenceTerm()])(X, Y).total
    assert not value.requires_grad


BAD = {
    "one member": lambda: Ensemble([smooth(0)]),
    "the same member twice": lambda: Ensemble([model := smooth(0), model]),
    "a plain model": lambda: IndependenceTerm().of(smooth(0), Batch(X, Y)),
    "no attribution": lambda: IndependenceTerm("gradient"),
    "a weight below zero": lambda: IndependenceTerm(weight=-1.0),
    "no eps": lambda: IndependenceTerm(eps=0.0),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_refused(case):
    with torch.random.fork_rng(), pytest.raises(ArgumentError):
        BAD[case]()
