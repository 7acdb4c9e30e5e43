"""How well a model keeps its rules, against the definition: the share of an explanation that goes against a rule."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import rightly as rt

FEATURES = ["age", "zip", "x", "y"]
W = [3.0, -1.0, 0.5, 2.0]


def linear(*rows: list[float]) -> nn.Linear:
    model = nn.Linear(len(rows[0]), len(rows), bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor(rows))
    return model


def kinked() -> nn.Module:
    """relu(x_age) - relu(-x_age) / 4 + x_zip: how much age matters hangs on its sign."""
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.ReLU(), nn.Linear(3, 1, bias=False)).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
        model[2].weight.copy_(torch.tensor([[1.0, -0.25, 1.0]]))
    return model


X = torch.tensor([[1.0, 1, 0, 0], [-1, 1, 0, 0], [-2, 3, 0, 0], [2, 1, 0, 0], [-1, 2, 0, 0]], dtype=torch.float64)


def held(text: str, model: nn.Module, inputs: torch.Tensor = X, **changes):
    given = {"features": FEATURES, "classes": ["well", "risk"], **changes}
    (found,) = rt.rules.parse(text).holds(model, inputs, **given)
    return found


LINEAR = {
    'feature "age" increases "risk"': 0,
    'feature "age" decreases "risk"': 3 / 6.5,
    'feature "zip" increases "risk"': 1 / 6.5,
    'features "age" and "y" increase "well"': 5 / 6.5,
    'ignore features "zip", "x"': 1.5 / 6.5,
    'ignore region "corner"': 3 / 6.5,
    # x and y would meet at 1.25: 0.75 has to move
    'features "x" and "y" act alike for "risk"': 0.75 / 6.5,
    'features "age" and "zip" act alike for "risk"': 2 / 6.5,
    'features "age" and "zip" matter alike for "risk"': 1 / 6.5,
    'only 2 features matter for "risk"': 1.5 / 6.5,
    "only few features matter": 3.5 / 6.5,
    'concept "both" increases "risk"': 0,
    'concept "both" decreases "risk"': 2 / math.sqrt(2) / math.sqrt(14.25),
    'concept "both" does not matter': 2 / math.sqrt(2) / math.sqrt(14.25),
}


@pytest.mark.parametrize("text", LINEAR)
def test_the_violation_of_a_linear_model_is_known(text):
    further = {
        "regions": {"corner": torch.tensor([True, False, False, False])},
        "concepts": {"both": rt.rules.Concept(torch.tensor([1.0, 1, 0, 0]))},
    }
    found = held(text, linear(W), **further)
    assert found.examples == 5
    assert found.violation == pytest.approx(LINEAR[text], abs=1e-12)
    assert found.holds == (1.0 if LINEAR[text] <= 0.05 else 0.0)
    # an explanation has no unit: a model that is surer breaks a rule as far
    assert held(text, linear([10 * w for w in W]), **further).violation == pytest.approx(found.violation, abs=1e-12)


def test_examples_are_judged_one_by_one_against_the_threshold():
    """Where age is positive the gradient is (1, 1, 0, 0), where it is negative (0.25, 1, 0, 0)."""
    rule = 'feature "age" does not matter for "risk"'
    for threshold, share in ((0.05, 0), (0.19, 0), (0.21, 0.6), (0.49, 0.6), (0.51, 1)):
        found = held(f"{rule} (threshold {threshold})", kinked())
        assert found.holds == pytest.approx(share)
        assert found.violation == pytest.approx((2 * 0.5 + 3 * 0.2) / 5)


@pytest.mark.parametrize(("how", "examples", "violation"), [("when", 2, 0.5), ("unless", 3, 0.2)])
def test_a_condition_leaves_the_others_out(how, examples, violation):
    old = {"concepts": {"old": lambda inputs: inputs[:, 0] > 0}}
    found = held(f'feature "age" does not matter for "risk" {how} concept "old"', kinked(), **old)
    assert (found.examples, found.violation) == (examples, pytest.approx(violation))


def test_a_rule_that_speaks_of_no_example_neither_holds_nor_not():
    none = {"concepts": {"none": lambda inputs: torch.zeros(len(inputs), dtype=torch.bool)}}
    found = held('ignore feature "age" when concept "none"', kinked(), **none)
    assert (found.examples, found.holds, found.violation) == (0, None, None)
    assert "speaks of no example" in str(found)


def test_few_features_are_those_that_matter_most_in_all_examples():
    """Age matters most overall, so that what the second example leans on lies outside."""
    model = kinked()
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[10.0, -0.25, 1.0]]))
    found = held('only 1 feature matters for "risk"', model)
    assert found.violation == pytest.approx((2 * 1 / 11 + 3 * 1 / 1.25) / 5)


def test_two_examples_are_one_and_are_compared_by_their_predictions():
    examples = {"examples": {"a": torch.tensor([0.0, 0, 0, 0]), "b": torch.tensor([1.0, 1, 0, 0])}}
    rule = 'examples "a" and "b" are alike (threshold 0.4)'
    found = held(rule, linear(W), **examples)
    assert (found.examples, found.holds) == (1, 1.0)
    assert found.violation == pytest.approx(1 / (1 + math.exp(-2)) - 0.5)
    three = held(rule, linear([1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 0, 0]), **examples, classes=["a", "b", "c"])
    scores = torch.tensor([1.0, 1, 0], dtype=torch.float64).softmax(0)
    assert three.violation == pytest.approx(float((scores - 1 / 3).abs().sum() / 2))
    value = held(rule, linear(W), **examples, classes=())
    assert (value.violation, value.holds) == (pytest.approx(2.0), 0.0)


def test_a_model_that_uses_nothing_breaks_nothing():
    for text in ('ignore feature "age"', 'feature "age" increases "risk"', "only few features matter"):
        found = held(text, linear([0.0] * 4))
        assert (found.holds, found.violation) == (1.0, 0.0)


def test_measuring_changes_nothing():
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    rules = rt.rules.parse('ignore feature "age"\nexamples "a" and "b" are alike')
    given = {"features": FEATURES, "classes": ["well", "risk"], "examples": {"a": torch.zeros(4), "b": torch.ones(4)}}
    found = [rules.holds(model, X.float(), **given) for _ in range(2)]
    assert found[0] == found[1]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training


def test_more_rows_than_a_piece_are_no_different(monkeypatch):
    from rightly.rules import binding

    many = X.repeat(30, 1)
    rule = 'feature "age" does not matter for "risk" (threshold 0.3)'
    whole = held(rule, kinked(), many)
    monkeypatch.setattr(binding, "_PIECE", 7)
    assert held(rule, kinked(), many) == whole


def test_what_holds_is_told_in_a_line():
    assert str(held('feature "age" does not matter for "risk" (threshold 0.3)', kinked())) == (
        "feature age does not matter for risk: holds on 60.0% of 5, mean violation 0.320"
    )
