"""bfloat16 and channels-last: what each engine does with them, and how far off the gradient is."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import rightly as rt
from contracts.problems import draws, initialised, normal
from rightly.core.errors import ArgumentError

EG = rt.ExpectedGradients(n_samples=2)
LABELS = torch.arange(8) % 3


def smooth():
    return initialised(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))).float()


def kinked():
    return initialised(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))).float()


def pictures():
    """Piecewise linear."""
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    return initialised(nn.Sequential(*layers)).eval()


def objective(model, engine="auto", method=EG):
    return rt.Objective(model, F.cross_entropy, [rt.Term(method, rt.priors.L2(), engine=engine)])


def step(whole, inputs, half=False):
    """Gradients of one step, at draws that are always the same; the backward pass outside autocast, as in rt.fit."""
    whole.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        report = whole(inputs, LABELS, generator=draws(1))
    assert torch.isfinite(report.total)
    report.total.backward()
    return [parameter.grad for parameter in whole.parameters()]


def apart(found, expected):
    """Distance over size."""
    pairs = [(f.double(), e.double()) for f, e in zip(found, expected, strict=True)]
    return math.sqrt(sum(float(((f - e) ** 2).sum()) for f, e in pairs) / sum(float((e**2).sum()) for _, e in pairs))


@pytest.mark.parametrize("engine", ["auto", "double-backward", "two-phase"])
@pytest.mark.parametrize("model", [smooth, kinked])
def test_under_autocast_the_gradient_is_rounded_and_no_more(engine, model):
    exact = step(objective(model()), normal(8, 6, seed=0).float())
    rounded = step(objective(model(), engine), normal(8, 6, seed=0).float(), half=True)
    assert 1e-5 < apart(rounded, exact) < 2e-2
    assert all(gradient.dtype == torch.float32 for gradient in rounded)


def test_frozen_masks_leave_autocast_to_double_backward():
    whole = objective(kinked())
    step(whole, normal(8, 6, seed=0).float(), half=True)
    assert whole.engines.choices["l2"].name == "double-backward"
    assert "autocast" in whole.engines.choices["l2"].why
    with pytest.raises(ArgumentError, match="autocast"):
        step(objective(kinked(), "frozen-masks"), normal(8, 6, seed=0).float(), half=True)


def test_a_change_of_precision_on_the_way_is_noticed():
    whole, inputs = objective(kinked()), normal(8, 6, seed=0).float()
    exact = step(whole, inputs)
    assert whole.engines.choices["l2"].name == "frozen-masks"
    rounded = step(whole, inputs, half=True)
    assert 1e-5 < apart(rounded, exact) < 2e-2
    assert apart(step(whole, inputs), exact) < 1e-5


def test_finite_differences_refuse_autocast():
    with pytest.raises(ArgumentError, match="autocast rounds more"):
        step(objective(smooth(), "finite-differences"), normal(8, 6, seed=0).float(), half=True)


@pytest.mark.parametrize("engine", ["auto", "double-backward", "two-phase"])
@pytest.mark.parametrize("model", [smooth, kinked])
def test_parameters_in_bfloat16(engine, model):
    inputs = normal(8, 6, seed=0).bfloat16()
    exact = step(objective(model().bfloat16().float(), "double-backward"), inputs.float())
    found = step(objective(model().bfloat16(), engine), inputs)
    assert apart(found, exact) < 3e-2
    assert all(gradient.dtype == torch.bfloat16 for gradient in found)


def test_parameters_in_bfloat16_are_too_coarse_for_differences():
    with pytest.raises(ArgumentError, match="finite differences are no use"):
        step(objective(smooth().bfloat16(), "finite-differences"), normal(8, 6, seed=0).bfloat16())


def test_the_check_measures_what_autocast_costs_in_accuracy():
    model, inputs = kinked(), normal(8, 6, seed=0).float()
    (term,) = rt.check(objective(model), inputs, LABELS).terms
    (row,) = [row for row in term.engines if row.name.endswith("bfloat16")]
    exact, rounded = (objective(copy.deepcopy(model), "double-backward") for _ in range(2))

    def prior(whole, half):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            penalty = whole.penalty(whole.terms[0], inputs, LABELS, None, seeded())
        return [g for g in torch.autograd.grad(penalty, list(whole.parameters()), allow_unused=True) if g is not None]

    def seeded():
        return rt.core.seeding.generator("check", "engines")

    assert row.error == pytest.approx(apart(prior(rounded, True), prior(exact, False)), rel=1e-3)
    assert not row.chosen


def test_fit_trains_in_bfloat16():
    model, inputs = kinked(), normal(64, 6, seed=0).float()
    labels = (inputs[:, 0] > 0).long()
    run = rt.fit(objective(model), (inputs, labels), epochs=20, batch_size=16, lr=1e-2, precision="bfloat16", seed=0)
    assert run.history[-1]["task"] < 0.7 * run.history[0]["task"]
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("engine", ["auto", "double-backward", "frozen-masks", "two-phase"])
@pytest.mark.parametrize("method", [EG, rt.Gradient(output="log_prob_sum")])
def test_channels_last_changes_nothing(engine, method):
    inputs = normal(8, 3, 8, 8, seed=0)
    usual = objective(pictures(), engine, method)
    last = objective(pictures().to(memory_format=torch.channels_last), engine, method)
    expected = step(usual, inputs)
    found = step(last, inputs.contiguous(memory_format=torch.channels_last))
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)
    assert last.engines.choices["l2"].name == usual.engines.choices["l2"].name


def test_channels_last_with_finite_differences():
    def model():
        return initialised(nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(144, 3)))

    inputs = normal(8, 3, 8, 8, seed=0)
    expected = step(objective(model(), "double-backward"), inputs)
    last = objective(model().to(memory_format=torch.channels_last), "finite-differences")
    assert apart(step(last, inputs.contiguous(memory_format=torch.channels_last)), expected) < 1e-3
