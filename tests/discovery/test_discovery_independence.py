"""The term between models that are trained at once: closed forms, finite differences, a loop over pairs."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from rightly.attributions.base import Attribution, Explanation
from rightly.core.errors import ArgumentError
from rightly.objectives import Ensemble, IndependenceTerm
from rightly.objectives.independence import EveryMember
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
    objective = rt.Objective(model, EveryMember(F.cross_entropy, len(model.members)), [term])
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
    report = rt.Objective(model, EveryMember(F.cross_entropy, len(model.members)))(X, Y)
    expected = sum(F.cross_entropy(member(X), Y) for member in model.members)
    assert torch.allclose(report.total, expected)
    assert report.outputs.shape == (5, 3, 3)


def test_without_gradient_nothing_is_kept():
    model = ensemble(2)
    with torch.no_grad():
        value = rt.Objective(model, EveryMember(F.cross_entropy, len(model.members)), [IndependenceTerm()])(X, Y).total
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


def test_a_loss_with_a_state_is_each_members_own_and_trains_as_it_does_alone():
    with torch.random.fork_rng():
        members = [smooth(0), smooth(1)]
        alone = [smooth(0), smooth(1)]
    loss = rt.GroupDRO(2, step=0.5)
    labels = rt.with_groups(Y, torch.tensor([0, 0, 1, 0, 1]))
    objective = rt.Objective(Ensemble(members), EveryMember(loss, 2))
    for _ in range(3):
        together = objective(X, labels).task
    for number, model in enumerate(alone):
        own = rt.Objective(model, rt.GroupDRO(2, step=0.5))
        for _ in range(3):
            last = own(X, labels).task
        together = together - last
        assert torch.equal(objective.state_dict()[f"loss.losses.{number}.weights"], own.loss.weights)
    assert abs(float(together.detach())) < 1e-12
    assert torch.equal(loss.weights, rt.GroupDRO(2).weights)
    objective.eval()
    assert not any(own.training for own in objective.loss.losses)


def test_an_ensembles_stateful_loss_resumes_to_the_same_bits(tmp_path):
    labels = rt.with_groups(Y, torch.tensor([0, 0, 1, 0, 1]))

    def trained(epochs, **further):
        objective = rt.Objective(ensemble(2), EveryMember(rt.GroupDRO(2, step=0.5), 2))
        rt.fit(objective, (X, labels), epochs=epochs, batch_size=2, lr=0.05, **further)
        return objective.state_dict()

    whole = trained(4)
    trained(2, checkpoint=tmp_path)
    resumed = trained(4, checkpoint=tmp_path, resume=True)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def twins(model):
    return Ensemble([model, copy.deepcopy(model)])


@pytest.mark.parametrize("seed", [None, 0])
def test_members_are_explained_by_the_same_draws(seed):
    attribution = rt.ExpectedGradients(rt.references.Sample(X + 3), n_samples=1)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        model = twins(smooth(0))
    term = IndependenceTerm(attribution, eps=1e-20)
    first, second = (term.of(model, Batch(X, Y, None, generator)).detach() for _ in range(2))
    assert torch.allclose(first, torch.ones(5, dtype=torch.float64))
    other = Ensemble([model.members[0], ensemble(2).members[1]])
    if generator is not None:
        # and the next step draws anew
        state = generator.get_state()
        a = term.of(other, Batch(X, Y, None, generator)).detach()
        assert not torch.equal(generator.get_state(), state)
        assert not torch.equal(a, term.of(other, Batch(X, Y, None, generator)).detach())
    assert torch.allclose(second, torch.ones(5, dtype=torch.float64))


@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_room_for_the_cosine(dtype, size):
    member = nn.Linear(4, 1, bias=False)
    member.weight.data.fill_(size)
    model = twins(member).to(dtype)
    value = IndependenceTerm(rt.Gradient(output="logit"), eps=1e-15).measured(model, Batch(X.to(dtype), Y.clamp_max(1)))
    value.backward()
    assert float(value.detach()) == pytest.approx(1.0, rel=1e-3)
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters())


def test_a_compiled_step_has_the_same_draws_too():
    attribution = rt.ExpectedGradients(rt.references.Sample(X + 3), n_samples=1)
    totals = []
    for compiled in (False, True):
        objective = rt.Objective(ensemble(2), EveryMember(F.cross_entropy, 2), [IndependenceTerm(attribution)])
        if compiled:
            objective.compile(backend="aot_eager")
        totals.append([float(objective(X, Y).total.detach()) for _ in range(4)])
    assert totals[0] == pytest.approx(totals[1], rel=1e-9)


class Filled(Attribution):
    """Noise that is drawn into a tensor, and then a plain draw."""

    def __init__(self):
        super().__init__(rt.spaces.Input(), "log_odds", "label")

    def _explain(self, problem, generator, diagnostics):
        x = problem.view.coordinates
        found = torch.empty_like(x).normal_(generator=generator) + torch.rand(x.shape, generator=generator)
        return Explanation(found.to(x) + 0 * x)


def test_draws_into_tensors_are_the_same_too():
    found = IndependenceTerm(Filled(), eps=1e-20).of(ensemble(2), Batch(X, Y, None, torch.Generator().manual_seed(0)))
    assert torch.allclose(found.detach(), torch.ones(5, dtype=torch.float64))
