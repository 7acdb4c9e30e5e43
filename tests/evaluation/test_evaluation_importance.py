"""Importances, their concentration and their place, against plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rightly.core.errors import ArgumentError, ShapeError
from rightly.evaluation import global_importance, lorenz, share_inside

VALUES = st.lists(st.floats(0, 100).map(lambda v: round(v, 3)), min_size=1, max_size=30)


def attributions(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def area(curve: list[float]) -> float:
    """By the trapezoid rule, which is exact for a curve of straight pieces."""
    return (sum(curve) - (curve[0] + curve[-1]) / 2) / (len(curve) - 1)


def slow_gini(values: list[float]) -> float:
    p, total = len(values), sum(values)
    return sum(abs(a - b) for a in values for b in values) / (2 * p * total) if total else 0.0


@given(st.integers(1, 6), st.lists(st.integers(0, 4), min_size=1, max_size=8), st.integers(0, 5))
def test_importances_of_groups_are_a_plain_loop(batch, groups, seed):
    phi = attributions(batch, len(groups), seed=seed)
    found = global_importance(phi, groups)
    expected = [
        sum(abs(sum(float(row[j]) for j, g in enumerate(groups) if g == group)) for row in phi) / batch
        for group in range(max(groups) + 1)
    ]
    assert found.values.tolist() == pytest.approx(expected, abs=1e-12)
    assert found.gini == pytest.approx(slow_gini(expected), abs=1e-12)
    assert found.completeness_gap == 0.0


def test_without_groups_every_feature_is_its_own():
    phi = attributions(5, 2, 3)
    found = global_importance(phi, completeness_gap=torch.tensor([-1.0, 2.0, 0.0, 0.0, -2.0]))
    assert torch.allclose(found.values, phi.flatten(1).abs().mean(0))
    assert found.completeness_gap == pytest.approx(1.0)
    same = global_importance(phi, np.arange(6))
    assert torch.equal(same.values, found.values)


def test_columns_of_one_category_can_cancel():
    found = global_importance(torch.tensor([[1.0, -1.0, 2.0]]), [0, 0, 1])
    assert found.values.tolist() == [0.0, 2.0]
    assert found.gini == 0.5


@pytest.mark.parametrize(
    ("groups", "error"), [([0, 1], ShapeError), ([0, 1, -1], ArgumentError), ([0.0, 1.0, 2.0], ArgumentError)]
)
def test_bad_groups_are_refused(groups, error):
    with pytest.raises(error):
        global_importance(torch.ones(2, 3), groups)


@given(VALUES)
def test_gini_is_one_minus_twice_the_area_under_the_lorenz_curve(values):
    curve = lorenz(torch.tensor(values, dtype=torch.float64), points=len(values) + 1)
    # exact for every p: the coefficient is that of the population, which is 1 - 1/p for a single feature
    assert 1 - 2 * area(curve) == pytest.approx(slow_gini(values), abs=1e-9)


def test_the_default_points_come_close_for_many_features():
    values = attributions(2000, seed=1).abs()
    curve = lorenz(values)
    assert len(curve) == 101
    assert 1 - 2 * area(curve) == pytest.approx(slow_gini(values.tolist()), abs=1e-3)


@given(VALUES, st.floats(0.01, 100))
def test_a_lorenz_curve_rises_under_the_diagonal_and_has_no_scale(values, scale):
    curve = lorenz(torch.tensor(values, dtype=torch.float64))
    assert curve[0] == 0.0
    assert curve[-1] == pytest.approx(1.0)
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(curve))
    assert all(value <= q + 1e-9 for value, q in zip(curve, np.linspace(0, 1, 101), strict=True))
    assert lorenz(scale * torch.tensor(values, dtype=torch.float64)) == pytest.approx(curve, abs=1e-9)


def test_known_lorenz_curves():
    assert lorenz(torch.ones(4), 5) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert lorenz(torch.zeros(4), 5) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert lorenz(torch.tensor([0.0, 3.0, 0.0, 0.0]), 5) == pytest.approx([0, 0, 0, 0, 1])
    assert lorenz(torch.tensor([3.0, 1.0]), 3) == pytest.approx([0, 0.25, 1])


@pytest.mark.parametrize(
    "values", [torch.tensor([]), torch.tensor([1.0, -1.0]), torch.ones(2, 2), torch.tensor([torch.nan])]
)
def test_a_lorenz_curve_needs_importances(values):
    with pytest.raises(ArgumentError, match="Lorenz"):
        lorenz(values)


@given(st.integers(1, 4), st.integers(0, 9))
def test_the_share_inside_is_a_plain_loop(batch, seed):
    phi = attributions(batch, 1, 3, 4, seed=seed)
    region = attributions(batch, 1, 3, 4, seed=seed + 100) > 0
    found = share_inside(phi, region)
    for row in range(batch):
        inside = sum(abs(float(v)) for v, r in zip(phi[row].flatten(), region[row].flatten(), strict=True) if r)
        assert float(found[row]) == pytest.approx(inside / float(phi[row].abs().sum()), abs=1e-12)
    everything = share_inside(phi, torch.ones(1, 1, 1, 1, dtype=torch.bool))
    assert torch.allclose(everything, torch.ones(batch, dtype=torch.float64))
    assert torch.allclose(found + share_inside(phi, ~region), everything)


def test_no_attribution_has_no_share_and_regions_must_fit():
    assert share_inside(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)).tolist() == [0.0, 0.0]
    assert share_inside(torch.ones(2, 3), torch.tensor([[True, False, False]])).tolist() == pytest.approx([1 / 3] * 2)
    with pytest.raises(ShapeError, match="region"):
        share_inside(torch.ones(2, 3), torch.ones(2, 4, dtype=torch.bool))
