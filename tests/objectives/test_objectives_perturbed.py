"""Penalties on the answers to changed inputs: right in value and gradient, and no trace left."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.derivatives import check_term
from contracts.problems import draws, images, objective, vectors
from contracts.unchanged import check_unchanged
from rightly.core.errors import AnnotationError, ArgumentError, ShapeError
from rightly.objectives import Batch
from rightly.objectives.perturbed import divergence, squared_difference
from rightly.perturbations import FGSM, PGD, Noise, Occlude
from training.training_problems import classification

PERTURBATIONS = {
    "noise": Noise(0.3),
    "fgsm": FGSM(0.1),
    "fgsm of predictions": FGSM(0.1, labels="predicted"),
    "tgsm": FGSM(0.1, targeted="next"),
    "pgd": PGD(0.1, steps=3),
    "occlude": Occlude(0.5),
}


def annotated(problem):
    """The first half of what is there is irrelevant; of the last example nothing is known."""
    marked = torch.zeros_like(problem.inputs)
    marked.flatten(1)[:, : marked[0].numel() // 2] = 1
    marked[-1] = math.nan
    return rt.Annotation(irrelevant=marked, relevant=1 - marked)


@pytest.mark.parametrize("make", [vectors, images])
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("compare", ["loss", "agreement"])
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_parameter_gradients(make, mode, compare, name):
    problem = make()
    problem.model.train(mode == "train")
    term = rt.PerturbationTerm(PERTURBATIONS[name], compare, inside="irrelevant", weight=0.7)
    check_term(objective(problem, term), problem.inputs, problem.labels, annotated(problem))


@pytest.mark.parametrize("inside", ["irrelevant", "not_relevant"])
@pytest.mark.parametrize("compare", ["loss", "agreement"])
def test_by_definition(inside, compare):
    """Example by example, with the region written out."""
    problem = vectors()
    model = problem.model.eval()
    term = rt.PerturbationTerm(FGSM(0.2), compare, inside=inside)
    found = term.of(model, Batch(problem.inputs, problem.labels, annotated(problem)))
    assert float(found[-1].detach()) == 0  # nothing is known
    for b in range(len(found) - 1):
        x, y = problem.inputs[b : b + 1].clone().requires_grad_(), problem.labels[b : b + 1]
        (slope,) = torch.autograd.grad(F.cross_entropy(model(x), y), x)
        changed = x.detach() + 0.2 * slope.sign() * torch.tensor([1, 1, 1, 0, 0, 0])
        p, q = (model(z).softmax(1)[0] for z in (x, changed))
        expected = -q[y].log()[0] if compare == "loss" else sum(p[k] * (p[k] / q[k]).log() for k in range(3))
        torch.testing.assert_close(found[b], expected)
    assert (found[:-1] > 1e-6).all()


@pytest.mark.parametrize("compare", ["loss", "agreement"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_no_trace(compare, mode):
    """Batch norm's statistics follow the clean inputs, dropout's draws are the term's own."""
    problem = images()
    problem.model.train(mode == "train")
    term = rt.PerturbationTerm(PGD(0.1, random_start=True), compare)
    trained = objective(problem, term)
    value = check_unchanged(
        lambda: trained.penalty(term, problem.inputs, problem.labels), problem.model, [problem.inputs, problem.labels]
    )
    assert torch.equal(value, trained.penalty(term, problem.inputs, problem.labels))
    moved, plain = copy.deepcopy(problem.model), copy.deepcopy(problem.model)
    rt.Objective(moved, F.cross_entropy, [term])(problem.inputs, problem.labels).total.backward()
    rt.Objective(plain, F.cross_entropy, [])(problem.inputs, problem.labels).total.backward()
    assert all(torch.equal(a, b) for a, b in zip(moved.buffers(), plain.buffers(), strict=True))


def test_the_model_is_in_its_own_mode():
    problem = images()
    term = rt.PerturbationTerm(Occlude(0.0), inside="irrelevant")
    batch = Batch(problem.inputs, problem.labels, rt.Annotation(irrelevant=torch.ones(1, 1, 6, 6)), draws(0))
    own, still = (float(term.of(problem.model.train(mode), batch).mean().detach()) for mode in (True, False))
    assert own != pytest.approx(still, rel=1e-3)


@pytest.mark.parametrize("order", [1, -1])
def test_beside_a_term_on_explanations(order):
    """Frozen batch statistics that one term's gradient needs must not be written to by the other."""
    problem = images()
    terms = [rt.recipes.double_backpropagation(0.1), rt.PerturbationTerm(FGSM(0.1))][::order]
    objective(problem, *terms)(problem.inputs, problem.labels).total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in problem.model.parameters())


def test_agreement_of_the_same_answers_is_perfect():
    problem = vectors()
    term = rt.PerturbationTerm(Noise(0.0), "agreement")
    assert torch.equal(term.of(problem.model.eval(), Batch(problem.inputs)), torch.zeros(4).double())


def test_divergence_by_hand():
    a, b = torch.tensor([[1.0, 2.0, -1.0]]).double(), torch.tensor([[0.0, 0.5, 0.2]]).double()
    expected = F.kl_div(a.log_softmax(1), b.log_softmax(1), log_target=True, reduction="sum")
    torch.testing.assert_close(divergence(a, b), expected[None])
    p, q = torch.sigmoid(torch.tensor([0.3, -2.0]).double())
    binary = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    for shape in ((1,), (1, 1)):
        found = divergence(torch.full(shape, -2.0).double(), torch.full(shape, 0.3).double())
        torch.testing.assert_close(found, binary[None])


def test_a_regression_brings_its_loss():
    model = nn.Linear(3, 1).double()
    x, y = torch.randn(5, 3, generator=draws(0)).double(), torch.randn(5, 1, generator=draws(1)).double()
    ridge = FGSM(0.1, output=squared_difference)
    term = rt.PerturbationTerm(ridge, loss=squared_difference)
    found = term.of(model, Batch(x, y))
    # the residual grows by eps |w|_1
    expected = ((model(x) - y).abs()[:, 0] + 0.1 * model.weight.abs().sum()) ** 2
    torch.testing.assert_close(found, expected)
    agreeing = rt.PerturbationTerm(Occlude(0.0), "agreement", "irrelevant", squared_difference)
    marked = rt.Annotation(irrelevant=torch.tensor([[0, 1, 0]]))
    torch.testing.assert_close(agreeing.of(model, Batch(x, y, marked)), (model.weight[0, 1] * x[:, 1]) ** 2)


def test_training_makes_the_model_robust():
    """The second feature tells the class best and is weak; the first is strong: what survives a change of 0.3."""
    labels = torch.arange(400) % 2
    sign = (2 * labels - 1).float()
    noise = torch.randn(400, 2, generator=draws(0))
    x = torch.stack([sign + 0.8 * noise[:, 0], 0.1 * sign + 0.02 * noise[:, 1]], 1)
    attack, right = FGSM(0.3), []
    for terms in ([], [rt.PerturbationTerm(attack)]):
        model = nn.Linear(2, 2)
        with torch.no_grad():
            model.weight.zero_(), model.bias.zero_()
        rt.fit(rt.Objective(model, F.cross_entropy, terms), (x, labels), epochs=120, batch_size=100, lr=0.1, seed=0)
        right.append(float((model(attack(model, x, labels)).argmax(1) == labels).float().mean()))
    assert right[0] < 0.3
    assert right[1] > 0.7


def test_resting_is_plain_training():
    x, y = classification()
    found = []
    for terms in ([], [rt.PerturbationTerm(PGD(0.1, random_start=True), weight=0.0)]):
        trained = rt.Objective(rt.models.mlp(6, [8], 2, dropout=0.3, seed=0), F.cross_entropy, terms)
        rt.fit(trained, (x, y), epochs=2, seed=0)
        found.append([p.detach() for p in trained.model.parameters()])
    assert all(map(torch.equal, *found))


def test_balance_and_check():
    x, y = classification()
    trained = rt.Objective(rt.models.mlp(6, [8], 2, seed=0), F.cross_entropy, [rt.PerturbationTerm(FGSM(0.1))])
    report = rt.check(trained, x, y)
    assert report.ok, report
    ratio = trained.ratios([(x, y)])["loss_under_fgsm"]
    assert 0.5 < ratio < 1  # changed inputs cost a little more


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: rt.PerturbationTerm("fgsm"), "perturbation"),
        (lambda: rt.PerturbationTerm(FGSM(0.1), "accuracy"), "agreement"),
        (lambda: rt.PerturbationTerm(FGSM(0.1), inside="relevant"), "not_relevant"),
        (lambda: rt.PerturbationTerm(FGSM(0.1), weight=-1.0), "weight"),
        (lambda: rt.PerturbationTerm(FGSM(0.1)).of(nn.Linear(2, 2), Batch((torch.ones(3, 2),))), "tuple"),
        (lambda: rt.PerturbationTerm(Noise(0.1)).of(nn.Linear(2, 2), Batch(torch.ones(3, 2))), "labels"),
    ],
)
def test_bad_arguments_are_named(wrong, said):
    with pytest.raises(ArgumentError, match=said):
        wrong()


def test_a_loss_that_averages_is_named():
    term = rt.PerturbationTerm(Noise(0.1), loss=F.cross_entropy)
    with pytest.raises(ShapeError, match="number an example"):
        term.of(nn.Linear(2, 2), Batch(torch.ones(3, 2), torch.tensor([0, 1, 1])))


def test_an_absent_annotation_is_named():
    term = rt.PerturbationTerm(Noise(0.1), "agreement", "irrelevant")
    with pytest.raises(AnnotationError, match="irrelevant"):
        term.of(nn.Linear(2, 2), Batch(torch.ones(3, 2)))
