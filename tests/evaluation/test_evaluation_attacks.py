"""Accuracy under attack: closed forms on linear models, and masked gradients that have to be found out."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.problems import draws
from contracts.unchanged import check_unchanged
from rightly.core.errors import ArgumentError
from rightly.evaluation import (
    answered_right,
    attack_curve,
    attacked,
    gradient_masking,
    gradient_norms,
    targeted_grid,
    transfer_matrix,
)
from rightly.perturbations import FGSM, PGD, Noise, iterated_tgsm

CLIP = (-4.0, 4.0)


class Scaled(nn.Module):
    """Logits of +-margin(x): as sure as wanted."""

    def __init__(self, weights, sure=1.0):
        super().__init__()
        self.weights, self.sure = nn.Parameter(torch.tensor(weights)), sure

    def forward(self, x):
        margin = self.sure * (x @ self.weights)
        return torch.stack([-margin, margin], 1)


def examples(count=300):
    """Two features; the first tells the class with a gap of 1."""
    labels = torch.arange(count) % 2
    noise = torch.randn(count, 2, generator=draws(0))
    first = (2 * labels - 1) * (0.5 + noise[:, 0].abs())
    return torch.stack([first, noise[:, 1]], 1).clamp(*CLIP), labels


def test_curve_of_a_linear_model():
    """Right as long as |w x| > eps |w|_1: counted without the library."""
    inputs, labels = examples()
    model = Scaled([2.0, -0.5])
    margins = (2 * labels - 1) * (inputs @ model.weights.detach())
    strengths = (0.0, 0.2, 0.5, 1.0)
    curve = attack_curve(model, inputs, labels, FGSM, strengths, batch_size=37)
    assert curve.severities == strengths
    assert curve.means == pytest.approx([float((margins > eps * 2.5).double().mean()) for eps in strengths])
    one = curve.intervals[1]
    assert one.low < one.mean < one.high
    assert curve.means[0] > curve.means[1] > curve.means[3]


def test_batches_do_not_matter():
    inputs, labels = examples(50)
    model = Scaled([2.0, -0.5])
    inside = (inputs[:, :1] > 0).expand(-1, 2)
    whole, parts = (attacked(model, inputs, labels, PGD(0.3), inside=inside, batch_size=size) for size in (50, 7))
    assert torch.equal(whole, parts)
    assert torch.equal(whole[~inside], inputs[~inside])
    assert torch.equal(
        attacked(model, inputs, labels, PGD(0.3), inside=inside[:1])[:, :],
        attacked(model, inputs, labels, PGD(0.3), inside=inside[:1].expand(50, 2)),
    )


def test_nothing_of_the_model_changes():
    inputs, labels = examples(20)
    model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2)).train()
    for call in (
        lambda: attack_curve(model, inputs, labels, lambda eps: PGD(eps, random_start=True), [0.0, 0.1]),
        lambda: gradient_norms(model, inputs, labels),
        lambda: gradient_masking(model, inputs, labels, 0.1, clip=CLIP),
        lambda: transfer_matrix({"a": model}, inputs, labels, FGSM(0.1)),
        lambda: targeted_grid(model, inputs, lambda k: FGSM(0.1, targeted=k), 2),
    ):
        check_unchanged(call, model, [inputs, labels])


def test_gradient_norms_by_hand():
    """Binary logits +-m: the gradient of the loss is 2 w (1 - p)."""
    inputs, labels = examples(40)
    model = Scaled([2.0, -0.5])
    wrong = 1 - model(inputs).softmax(1)[torch.arange(40), labels].detach()
    expected = 2 * wrong * model.weights.detach().norm()
    torch.testing.assert_close(gradient_norms(model, inputs, labels, batch_size=7), expected)
    torch.testing.assert_close(
        gradient_norms(model, inputs, 1 - labels), 2 * (1 - wrong) * model.weights.detach().norm()
    )


def test_transfer_by_hand():
    inputs, labels = examples()
    first, second = Scaled([1.0, 0.0]), Scaled([1.0, 0.1])
    turned = Scaled([1.0, -0.1])
    models = {"first": first, "second": second, "turned": turned}
    found = transfer_matrix(models, inputs, labels, FGSM(0.8))
    sign = (2 * labels - 1)[:, None]
    for source, way in (("first", [1.0, 0.0]), ("second", [1.0, 1.0]), ("turned", [1.0, -1.0])):
        changed = inputs - 0.8 * sign * torch.tensor(way)
        for target, model in models.items():
            own = found.accuracy(source, target)
            assert own.mean == pytest.approx(float(answered_right(model, changed, labels).double().mean()))
            assert own.low <= own.mean <= own.high
    fooled = found.fooled_by("turned")
    assert not (fooled["second"] & ~found.clean[2]).any()
    # what is made for the turned one moves its second feature the other way, which helps the second one
    assert fooled["turned"].sum() > fooled["second"].sum()
    part = transfer_matrix(models, inputs, labels, FGSM(0.8), sources={"first": first})
    assert torch.equal(part.right, found.right[:1])
    with pytest.raises(ArgumentError, match="first, second, turned"):
        found.accuracy("third", "first")


def test_every_example_towards_every_class():
    model = nn.Linear(3, 3, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.eye(3))
    inputs = torch.eye(3)
    changed, named = targeted_grid(model, inputs, lambda k: iterated_tgsm(0.1, 15, k, clip=(0, 1)), 3)
    assert changed.shape == (3, 3, 3)
    assert torch.equal(named, torch.arange(3).expand(3, 3))
    assert torch.equal(changed[0, 1], torch.tensor([0.0, 1, 0]))


# ---- masked gradients


class Staircase(nn.Module):
    """Rounds its inputs, with a gradient through it that points the wrong way: neither zero nor of any use."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x.round().detach() + 0.05 * (x.detach() - x))


def test_an_honest_model_is_not_flagged():
    inputs, labels = examples()
    for sure in (0.3, 1.0, 3.0):
        model = Scaled([2.0, -0.5], sure)
        other = attacked(Scaled([1.0, 1.0]), inputs, labels, FGSM(0.3, clip=CLIP))
        found = gradient_masking(model, inputs, labels, 0.3, clip=CLIP, transferred={"other": other})
        assert not found.masked, found
        assert found.zero_gradients < 0.05
        # the linear optimum is the worst of all
        assert found.worst == found.accuracy["fgsm"] == found.accuracy["pgd"]
        assert found.accuracy["unbounded"] == 0


def test_saturation_is_found_out():
    """The same decisions, a million times as sure: single steps on cross-entropy do nothing."""
    inputs, labels = examples()
    honest, sure = (gradient_masking(Scaled([2.0, -0.5], s), inputs, labels, 0.6, clip=CLIP) for s in (1.0, 1e6))
    assert sure.accuracy["clean"] > 0.99
    assert sure.accuracy["fgsm"] > 0.99
    assert sure.masked
    assert sure.zero_gradients > 0.99
    assert sure.worst == honest.worst < 0.8
    for sign in ("zero at every value", "unsaturated fgsm", "unsaturated pgd", "without a bound"):
        assert any(sign in reason for reason in sure.reasons), sign


def test_useless_gradients_are_found_out():
    inputs, labels = examples()
    plain = Scaled([2.0, -0.5])
    other = attacked(plain, inputs, labels, FGSM(0.6, clip=CLIP))
    found = gradient_masking(Staircase(plain), inputs, labels, 0.6, clip=CLIP, transferred={"plain": other})
    assert found.zero_gradients < 0.05
    for sign in ("plain leaves", "random signs leaves", "without a bound"):
        assert any(sign in reason for reason in found.reasons), (sign, found)
    assert found.worst <= found.accuracy["plain"] < found.accuracy["fgsm"]


def test_steps_that_do_worse_than_one_are_found_out():
    labels = torch.arange(300) % 2
    inputs = (2 * labels - 1)[:, None] * (torch.arange(300) % 3 + 0.5)[:, None]

    class Ditch(nn.Module):
        """Right up to zero, with a gradient that turns back a little beside every example."""

        def forward(self, x):
            beside = ((x % 1 - 0.5).abs() > 0.01).detach()
            margin = torch.where(beside, 2 * x.detach() - x, x)
            return torch.cat([-margin, margin], 1)

    found = gradient_masking(Ditch(), inputs, labels, 0.6, clip=CLIP)
    assert any("many small steps" in reason for reason in found.reasons), found


def test_chance_is_not_called_robust():
    """A model that knows nothing is right by chance under any attack."""
    inputs, labels = examples()
    found = gradient_masking(Scaled([0.0, 1e-3]), inputs, labels, 0.1, clip=CLIP)
    assert not any("bound" in reason for reason in found.reasons)


def test_a_single_output_is_a_classifier_too():
    inputs, labels = examples()
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, -0.5]]))
    two = Scaled([1.0, -0.25])
    with torch.no_grad():
        model.bias.zero_()
    one, both = (gradient_masking(m, inputs, labels, 0.3, clip=CLIP) for m in (model, two))
    assert one.accuracy == pytest.approx(both.accuracy)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x, y: gradient_masking(Scaled([1.0, 1.0]), x, y, 0.0, clip=CLIP),
        lambda x, y: attack_curve(Scaled([1.0, 1.0]), x, y, FGSM, [math.nan]),
        lambda x, y: attacked(Scaled([1.0, 1.0]), x, y, FGSM(0.1), batch_size=0),
        lambda x, y: attacked(Scaled([1.0, 1.0]), x.long(), y, Noise(0.1)),
        lambda x, y: transfer_matrix({}, x, y, FGSM(0.1)),
        lambda x, y: targeted_grid(Scaled([1.0, 1.0]), x, FGSM, 1),
    ],
)
def test_bad_arguments_are_named(wrong):
    with pytest.raises(ArgumentError):
        wrong(*examples(6))


# ---- defensive distillation


def test_soft_labels_by_hand():
    inputs, labels = examples(30)
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.9)).train()
    expected = (model.eval()(inputs) / 5).softmax(1).detach()
    model.train()
    found = check_unchanged(lambda: rt.distillation.soft_labels(model, inputs, 5.0, batch_size=7), model)
    torch.testing.assert_close(found, expected)
    loss = rt.distillation.tempered(5.0)
    scores = model.eval()(inputs)
    torch.testing.assert_close(loss(scores, labels), F.cross_entropy(scores / 5, labels))
    torch.testing.assert_close(loss(scores, found), -(found * (scores / 5).log_softmax(1)).sum(1).mean())
    with pytest.raises(ArgumentError, match="temperature"):
        rt.distillation.tempered(0.0)
    with pytest.raises(ValueError, match="class scores"):
        rt.distillation.soft_labels(nn.Linear(2, 1), inputs)


def test_distillation_hides_gradients_and_is_found_out():
    """Papernot et al.'s defence, in small: evaluated at T = 1, its white-box FGSM accuracy is an artefact."""
    inputs, labels = examples()
    loss = rt.distillation.tempered(100.0)
    models, goal = [], labels
    for seed in range(2):
        model = rt.models.mlp(2, (16,), 2, seed=seed)
        rt.fit(rt.Objective(model, loss), (inputs, goal), epochs=300, batch_size=100, lr=0.05, seed=seed)
        goal = rt.distillation.soft_labels(model, inputs, 100.0)
        models.append(model)
    plain = rt.models.mlp(2, (16,), 2, seed=3)
    rt.fit(rt.Objective(plain, F.cross_entropy), (inputs, labels), epochs=10, lr=0.01, seed=3)
    found = {
        name: gradient_masking(model, inputs, labels, 1.0, clip=CLIP)
        for name, model in (("distilled", models[1]), ("plain", plain))
    }
    assert found["distilled"].masked
    assert not found["plain"].masked, found["plain"]
    assert found["distilled"].accuracy["fgsm"] > found["distilled"].accuracy["unsaturated fgsm"] + 0.2
