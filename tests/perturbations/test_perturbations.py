"""Changed inputs: where closed forms say they go, what they may not touch, and that they can fail."""

import math

import pytest
import torch
from torch import nn

import rightly as rt
from contracts.problems import draws
from contracts.unchanged import check_unchanged
from rightly.core.errors import ArgumentError, NotConnectedError, ShapeError
from rightly.perturbations import FGSM, PGD, Noise, Occlude, iterated_tgsm

LOW, HIGH = 0.0, 1.0
#: every perturbation, at a strength
MAKERS = {
    "noise": lambda eps, **kw: Noise(eps, **kw),
    "uniform": lambda eps, **kw: Noise(eps, "uniform", **kw),
    "fgsm": lambda eps, **kw: FGSM(eps, **kw),
    "fgsm of predictions": lambda eps, **kw: FGSM(eps, labels="predicted", **kw),
    "fgsm of uncertainty": lambda eps, **kw: FGSM(eps, output="loss_uniform", **kw),
    "tgsm": lambda eps, **kw: FGSM(eps, targeted="next", **kw),
    "tgsm to a class": lambda eps, **kw: FGSM(eps, targeted=1, **kw),
    "pgd": lambda eps, **kw: PGD(eps, steps=4, **kw),
    "pgd from anywhere": lambda eps, **kw: PGD(eps, eps / 8, 4, random_start=True, **kw),
    "pgd l2": lambda eps, **kw: PGD(eps, steps=4, norm="l2", **kw),
    "pgd l2 from anywhere": lambda eps, **kw: PGD(eps, steps=4, norm="l2", random_start=True, **kw),
    "iterated tgsm": lambda eps, **kw: iterated_tgsm(eps, 3, **kw),
    "occlude": lambda eps, **kw: Occlude(0.4, noise=eps, **kw),
    "occlude by the mean": lambda eps, **kw: Occlude("mean", noise=eps, **kw),
}
DRAWN = {name for name in MAKERS if name in ("noise", "uniform") or "anywhere" in name or "occlude" in name}


def network(dtype=torch.float64, dropout=0.5):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(64, 3)]
        return nn.Sequential(*layers).to(dtype).train()


def pictures(count=5, dtype=torch.float64):
    inputs = torch.rand(count, 1, 6, 6, generator=draws(1), dtype=torch.float64).to(dtype)
    region = torch.zeros(1, 1, 6, 6)
    region[..., 1:4, 2:5] = 1
    return inputs, torch.arange(count) % 3, region


def linear(weights, bias=0.0):
    """One logit, w x + b."""
    model = nn.Linear(len(weights), 1).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([weights]))
        model.bias.fill_(bias)
    return model


# ---- what all of them keep to


@pytest.mark.parametrize("name", MAKERS)
def test_only_the_region_changes_and_it_does(name):
    inputs, labels, region = pictures()
    changed = MAKERS[name](0.1)(network(), inputs, labels, inside=region)
    assert torch.equal(changed[:, :, region[0, 0] == 0], inputs[:, :, region[0, 0] == 0])
    assert (changed[:, :, region[0, 0] == 1] != inputs[:, :, region[0, 0] == 1]).any(1).all()
    assert changed.isfinite().all()
    assert not changed.requires_grad
    assert changed.dtype == inputs.dtype


@pytest.mark.parametrize("name", [name for name in MAKERS if "occlude" not in name])
def test_no_strength_changes_no_bit(name):
    inputs, labels, _ = pictures()
    inputs[0, 0, 0, 0], inputs[0, 0, 0, 1] = 1.5, -0.5  # outside the range already
    assert torch.equal(MAKERS[name](0.0, clip=(LOW, HIGH))(network(), inputs, labels), inputs)


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_leaves_the_range(name):
    inputs, labels, region = pictures()
    inputs[0, 0, 0, 0], inputs[1, 0, 2, 2] = -0.5, 1.5
    changed = MAKERS[name](0.8, clip=(LOW, HIGH))(network(), inputs, labels, inside=torch.ones_like(region))
    assert (changed >= inputs.clamp(max=LOW)).all()
    assert (changed <= inputs.clamp(min=HIGH)).all()
    free = MAKERS[name](0.8)(network(), inputs, labels, inside=torch.ones_like(region))
    assert ((free < LOW) | (free > HIGH)).sum() > 2, "the range was never met, so that nothing was checked"


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("mode", ["train", "eval", "no_grad", "inference_mode"])
def test_the_model_and_the_world_stay_as_they_were(name, mode):
    inputs, labels, region = pictures()
    model = network()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.train(mode != "eval")
    with torch.inference_mode(mode == "inference_mode"), torch.set_grad_enabled(mode in ("train", "eval")):
        changed = check_unchanged(
            lambda: MAKERS[name](0.1)(model, inputs, labels, inside=region), model, [inputs, labels, region]
        )
    assert torch.equal(changed, MAKERS[name](0.1)(model.eval(), inputs, labels, inside=region))


@pytest.mark.parametrize("name", [name for name in MAKERS if name not in DRAWN])
def test_a_batch_is_its_examples(name):
    inputs, labels, region = pictures()
    each = [MAKERS[name](0.1)(network(), inputs[i : i + 1], labels[i : i + 1], inside=region) for i in range(5)]
    torch.testing.assert_close(MAKERS[name](0.1)(network(), inputs, labels, inside=region), torch.cat(each))


@pytest.mark.parametrize("name", DRAWN)
def test_draws_are_the_generators(name):
    inputs, labels, region = pictures()

    def changed(generator):
        return MAKERS[name](0.1)(network(), inputs, labels, inside=region, generator=generator)

    assert torch.equal(changed(draws(3)), changed(draws(3)))
    assert torch.equal(changed(None), changed(None))
    assert not torch.equal(changed(draws(3)), changed(draws(4)))


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_finite_whatever_the_model_answers(name, dtype):
    inputs, labels, region = pictures(dtype=dtype)

    class Extreme(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.scale = scale

        def forward(self, x):
            return self.scale * x.flatten(1)[:, :3].float() ** 3

    for scale in (0.0, 1e-30, 1e30, math.inf):
        changed = MAKERS[name](0.1)(Extreme(scale), inputs, labels, inside=region)
        assert changed.isfinite().all(), scale
        assert changed.dtype == dtype


@pytest.mark.parametrize("name", ["noise", "fgsm", "pgd", "occlude"])
def test_what_overflows_stays(name):
    inputs, labels, region = pictures(dtype=torch.float16)
    changed = MAKERS[name](1e6)(network(torch.float16), inputs, labels, inside=region)
    assert changed.isfinite().all()


@pytest.mark.parametrize("name", MAKERS)
def test_unknown_and_empty_regions_change_nothing(name):
    inputs, labels, region = pictures()
    for nowhere in (torch.zeros_like(region), torch.full_like(region, math.nan)):
        assert torch.equal(MAKERS[name](0.1)(network(), inputs, labels, inside=nowhere), inputs)


# ---- closed forms: the logit w x + b of the positive class


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("make", [FGSM, PGD, lambda eps, **kw: PGD(eps, random_start=True, **kw)])
def test_linear_optimum_by_sign(make, label):
    w = torch.tensor([3.0, -0.5, 0.0, 1e-6]).double()
    inputs = torch.rand(7, 4, generator=draws(2), dtype=torch.float64)
    model = linear(w.tolist(), 0.3)
    changed = make(0.25)(model, inputs, torch.full((7,), label))
    away = -1 if label else 1
    # no point of the ball has a smaller margin: it falls by eps |w|_1
    fall = (model(changed) - model(inputs)).flatten()
    torch.testing.assert_close(fall, torch.full((7,), away * 0.25 * float(w.abs().sum())).double())
    assert (changed - inputs).abs().max() <= 0.25 + 1e-12


@pytest.mark.parametrize("start", [False, True])
def test_linear_optimum_by_length(start):
    w = torch.tensor([3.0, -0.5, 0.0, 1e-6]).double()
    inputs = torch.randn(7, 4, generator=draws(2), dtype=torch.float64)
    changed = PGD(0.25, 0.25, 60, norm="l2", random_start=start)(linear(w.tolist()), inputs, torch.ones(7).long())
    # from anywhere each step halves what is left
    torch.testing.assert_close(changed, inputs - 0.25 * w / w.norm())
    assert ((changed - inputs).norm(dim=1) <= 0.25 + 1e-12).all()


def test_length_is_not_spent_outside_the_region():
    w = [5.0, 1.0, -2.0]
    inputs, inside = torch.zeros(1, 3).double(), torch.tensor([[0, 1, 1]])
    for steps in (1, 10):
        changed = PGD(1.0, 1.0, steps, norm="l2")(linear(w), inputs, torch.tensor([1]), inside=inside)
        torch.testing.assert_close(changed, torch.tensor([[0.0, -1, 2]]).double() / 5**0.5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_feature_without_a_gradient_does_not_stop_the_others(norm):
    """The root of nothing has a gradient that is no number."""

    def model(x):
        return 0 * x[:, :1].sqrt() + x[:, 1:]

    changed = PGD(0.3, 0.3, 3, norm=norm)(model, torch.tensor([[0.0, 1.0]]), torch.tensor([1]))
    torch.testing.assert_close(changed, torch.tensor([[0.0, 0.7]]))


def test_targets_are_approached():
    model = nn.Linear(4, 3, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.eye(3, 4))
    inputs, labels = torch.zeros(3, 4).double(), torch.tensor([0, 1, 2])
    successor = FGSM(1.0, targeted="next")(model, inputs, labels)
    # towards class y + 1: its own input rises, the others' fall, and what no class reads stays
    signs = torch.tensor([[-1.0, 1, -1, 0], [-1, -1, 1, 0], [1, -1, -1, 0]])
    assert torch.equal(successor, signs.double())
    assert torch.equal(FGSM(1.0, targeted=2)(model, inputs), signs[[1, 1, 1]].double())
    away = torch.cat([1 - 2 * torch.eye(3), torch.zeros(3, 1)], 1).double()
    assert torch.equal(FGSM(1.0)(model, inputs, labels), away)


def test_predictions_stand_for_labels():
    inputs, labels, _ = pictures()
    model = network().eval()
    guessed = model(inputs).argmax(1)
    assert (guessed != labels).any()
    assert torch.equal(FGSM(0.1, labels="predicted")(model, inputs), FGSM(0.1)(model, inputs, guessed))
    assert torch.equal(FGSM(0.1, labels="predicted")(model, inputs, labels), FGSM(0.1)(model, inputs, guessed))
    one = linear([1.0, -2.0])
    few = torch.randn(6, 2, generator=draws(5), dtype=torch.float64)
    known = (one(few).flatten() > 0).long()
    assert torch.equal(FGSM(0.1, labels="predicted")(one, few), FGSM(0.1)(one, few, known))


def test_iterated_steps_are_not_held_together():
    inputs = torch.zeros(2, 2).double()
    changed = iterated_tgsm(0.1, 15, targeted=1)(linear([1.0, -1.0]), inputs)
    torch.testing.assert_close(changed, torch.tensor([[1.5, -1.5]]).double().expand(2, 2))
    held = iterated_tgsm(0.1, 15, targeted=1, clip=(0, 1))(linear([1.0, -1.0]), inputs)
    torch.testing.assert_close(held, torch.tensor([[1.0, 0.0]]).double().expand(2, 2))


def test_steps_follow_a_curved_loss():
    """PGD beats the single step where the gradient turns, and stays in the same ball."""
    inputs, labels, _ = pictures(20)
    model = network().eval()
    loss = nn.CrossEntropyLoss()
    one, many = (attack(model, inputs, labels) for attack in (FGSM(0.3), PGD(0.3, steps=20)))
    assert loss(model(inputs), labels) < loss(model(one), labels) < loss(model(many), labels)
    assert (many - inputs).abs().max() <= 0.3 + 1e-12


def test_noise_has_the_scale_that_was_asked_for():
    inputs = torch.zeros(200, 500)
    gaussian, uniform = (Noise(0.3, kind)(None, inputs) for kind in ("gaussian", "uniform"))
    assert gaussian.std().item() == pytest.approx(0.3, rel=0.02)
    assert uniform.abs().max().item() == pytest.approx(0.3, rel=0.001)
    assert uniform.std().item() == pytest.approx(0.3 / 3**0.5, rel=0.02)


def test_random_starts_fill_the_ball():
    ball = PGD(2.0, step_size=0.0, steps=1, norm="l2", random_start=True)
    model = linear([1.0, 1.0])
    lengths = ball(model, torch.zeros(4000, 2).double(), torch.ones(4000)).norm(dim=1)
    # uniform in a disc of radius 2: half of the points lie within the square root of 2
    assert (lengths < 2**0.5).double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert lengths.max() <= 2


def test_occlusion_by_hand():
    inputs = torch.tensor([[1.0, 2, 3], [3, 6, 9]])
    inside = torch.tensor([[1, 0, 1], [0, 1, 0]])
    assert torch.equal(Occlude(7.0)(None, inputs, inside=inside), torch.tensor([[7.0, 2, 7], [3, 7, 9]]))
    assert torch.equal(Occlude("mean")(None, inputs, inside=inside), torch.tensor([[2.0, 2, 6], [3, 4, 9]]))


# ---- what is refused


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: FGSM(-0.1), "eps"),
        (lambda: FGSM(math.nan), "eps"),
        (lambda: FGSM(math.inf), "eps"),
        (lambda: FGSM(0.1, labels="guessed"), "predicted"),
        (lambda: FGSM(0.1, targeted="last"), "next"),
        (lambda: FGSM(0.1, targeted=-1), "next"),
        (lambda: FGSM(0.1, targeted=True), "next"),
        (lambda: FGSM(0.1, output="losses"), "loss_uniform"),
        *((lambda name=name: FGSM(0.1, output=name), "no loss") for name in ("logit", "prob", "log_prob", "log_odds")),
        (lambda: PGD(0.1, output="logit"), "unsaturated"),
        (lambda: FGSM(0.1, clip=(1, 0)), "low < high"),
        (lambda: PGD(0.1, steps=0), "steps"),
        (lambda: PGD(0.1, norm="l1"), "linf"),
        (lambda: PGD(0.1, -1.0), "step_size"),
        (lambda: PGD(math.inf), "step_size="),
        (lambda: PGD(math.inf, 0.1, random_start=True), "random_start=False"),
        (lambda: Noise(-1), "scale"),
        (lambda: Noise(1, "salt"), "gaussian"),
        (lambda: Occlude("black"), "mean"),
        (lambda: Occlude(0, noise=-1), "noise"),
        (lambda: Occlude()(None, torch.ones(2, 3)), "inside="),
        (lambda: Noise(1)(None, torch.ones(2, 3).long()), "floating"),
        (lambda: Noise(1)(None, (torch.ones(2, 3),)), "tuple"),
        (lambda: FGSM(0.1)(nn.Linear(3, 2), torch.ones(2, 3)), "labels"),
        (lambda: FGSM(0.1, targeted="next")(nn.Linear(3, 2), torch.ones(2, 3)), "labels='predicted'"),
        (lambda: FGSM(0.1, targeted=2)(nn.Linear(3, 2), torch.ones(2, 3)), "0 to 1"),
    ],
)
def test_bad_arguments_are_named(wrong, said):
    with pytest.raises(ArgumentError, match=said):
        wrong()


def test_a_region_that_does_not_fit_is_named():
    with pytest.raises(ShapeError, match="broadcasts"):
        Noise(1)(None, torch.ones(2, 3), inside=torch.ones(2, 4))


def test_a_model_that_does_not_read_its_inputs_is_named():
    with pytest.raises(NotConnectedError):
        FGSM(0.1)(lambda x: torch.zeros(len(x), 2), torch.ones(2, 3), torch.tensor([0, 1]))


def test_top_level():
    assert rt.perturbations.FGSM is FGSM
