"""The recipe on planted interactions: what is planted is there, what is forbidden is measured as it is meant."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

import rightly as rt
from rightly.workflows import reproduce as reproductions


@pytest.fixture(scope="module")
def recipe():
    path = reproductions.EXPERIMENTS / "erion2021/planted_interactions.py"
    spec = importlib.util.spec_from_file_location("recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Curve(nn.Module):
    """Pairs (0, 1) and (2, 3) act together, everything else alone, the last features strongly."""

    def forward(self, x):
        together = torch.relu(x[:, :1] * x[:, 1:2]) + x[:, 2:3] * x[:, 3:4]
        return together + x[:, 4:5].sin() + 10 * x[:, 8:].sum(1, keepdim=True)


def test_pairs_that_act_together_are_told_from_large_effects(recipe):
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(300, recipe.FEATURES, generator=draws)
    found = recipe.strengths(Curve(), x[:200], x[200:], 0)
    planted = [tuple(pair) in ((0, 1), (2, 3)) for pair in recipe.PAIRS.tolist()]
    for name in ("expected_hessians", "integrated_hessians"):
        assert found[name][~np.array(planted)].max() < 1e-3 < 0.05 < found[name][planted].min()
    # large alone: the pair of the last two comes first
    assert recipe.PAIRS[found["gradient_product"].argmax()].tolist() == [8, 9]
    assert recipe.score(np.array(planted).astype(int), np.stack([-found["random"], found["random"]], 1), ["auc"])


def test_what_is_planted_is_in_the_labels(recipe):
    x, y, planted = recipe.plant(4000, 3)
    assert planted.sum() == recipe.PLANTED
    assert (x.shape, y.shape, y.std().item()) == ((4000, 10), (4000, 1), pytest.approx(1, rel=1e-4))
    products = x[:, recipe.PAIRS].prod(2)
    correlation = (products * y).mean(0).abs()
    # the product, and the square and the cosine of a sum, go with the product of the pair
    assert correlation[planted].mean() > 3 * correlation[~planted].mean()


def test_both_ways_tell_the_label_and_one_of_them_misleads_on_shifted_rows(recipe):
    for broken in (False, True):
        x, y = recipe.twice_told(5000, 0, broken=broken)
        rest = y[:, 0] - 0.7 * x[:, 0] + 0.7 * x[:, 1] - 0.5 * x[:, 4].sin()
        hidden = (x[:, 2] - x[:, 3]) * (1 + recipe.COMMON**2) ** 0.5
        assert (rest - hidden).std().item() == pytest.approx(recipe.NOISE, rel=0.05)
        assert ((rest - x[:, 0] * x[:, 1]).std().item() < 0.4) == (not broken)
    x, _ = recipe.twice_told(100, 0)
    assert not recipe._without(x)[:, :2].any()
    assert torch.equal(recipe._without(x)[:, 2:], x[:, 2:])


def test_the_strength_is_the_largest_that_validation_rows_allow(recipe):
    def row(arm, weight, validation):
        return {"arm": arm, "weight": weight, "seed": 0, "validation": validation}

    rows = [row("plain", 0, 0.9), row("forbidden_pair", 0.3, 0.9), row("forbidden_pair", 1.0, 0.895)]
    rows += [row("forbidden_pair", 3.0, 0.88)]
    assert [one["weight"] for one in recipe._chosen(rows)["forbidden_pair"]] == [1.0]
    for one in rows[1:]:
        one["validation"] = 0.5
    assert [one["weight"] for one in recipe._chosen(rows)["forbidden_pair"]] == [0.3]


def test_the_prior_acts_on_the_forbidden_pair(recipe):
    plain, prior = (
        recipe.forbid(arm, weight, 0, 600, 15, "auto") for arm, weight in (("plain", 0.0), ("forbidden_pair", 3.0))
    )
    assert prior["forbidden"] < 0.5 * plain["forbidden"]
    assert prior["validation"] > plain["validation"] - 0.1
    assert rt.ExpectedHessians(pairs=recipe.ONE).pairs.tolist() == [[0, 1]]
