"""Similarity of explanations against SciPy and plain loops, and agreement of several seeds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from rightly.core import seeding
from rightly.core.errors import ArgumentError, ShapeError
from rightly.evaluation import agreement, cosine, rank_correlation, structural_similarity, top_k_overlap


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=seeding.generator("similarity", seed), dtype=torch.float64)


@given(st.integers(0, 30), st.booleans(), st.integers(2, 12))
def test_rank_correlation_is_scipy_s(seed: int, ties: bool, features: int) -> None:
    a, b = draws(3, features, seed=seed), draws(3, features, seed=seed + 100)
    a, b = (a.round(), b.round()) if ties else (a, b)
    for found, x, y in zip(rank_correlation(a, b), a, b, strict=True):
        constant = float(x.std()) == 0 or float(y.std()) == 0
        assert float(found) == pytest.approx(0 if constant else scipy.stats.spearmanr(x, y).statistic, abs=1e-12)


@given(st.integers(0, 30))
def test_cosine_is_a_plain_loop(seed: int) -> None:
    a, b = draws(3, 2, 4, seed=seed), draws(3, 2, 4, seed=seed + 100)
    for found, x, y in zip(cosine(a, b), a, b, strict=True):
        assert float(found) == pytest.approx(float((x * y).sum() / (x.norm() * y.norm())), abs=1e-12)
    assert cosine(a, -3 * a).tolist() == pytest.approx([-1] * 3)
    assert cosine(1e-30 * a.float(), a.float()).tolist() == pytest.approx([1] * 3, abs=1e-6)
    assert cosine(a, torch.zeros_like(a)).tolist() == [0, 0, 0]


@given(st.integers(0, 30), st.integers(1, 9))
def test_overlap_is_a_plain_loop(seed: int, k: int) -> None:
    a, b = draws(3, 7, seed=seed), draws(3, 7, seed=seed + 100)
    for found, x, y in zip(top_k_overlap(a, b, k), a.abs().tolist(), b.abs().tolist(), strict=True):
        first, second = (set(sorted(range(7), key=lambda i: -v[i])[:k]) for v in (x, y))
        assert float(found) == pytest.approx(len(first & second) / min(k, 7))


def test_structural_similarity_is_a_plain_loop() -> None:
    a, b = draws(2, 9, 8), draws(2, 9, 8, seed=1)
    b[1] = a[1] + 0.3 * b[1]
    for found, x, y in zip(structural_similarity(a, b), a.numpy(), b.numpy(), strict=True):
        x, y = ((v - v.min()) / (v.max() - v.min()) for v in (x, y))
        values = []
        for i, j in itertools.product(range(3), range(2)):
            u, v = x[i : i + 7, j : j + 7].ravel(), y[i : i + 7, j : j + 7].ravel()
            covariance = np.cov(u, v)
            top = (2 * u.mean() * v.mean() + 1e-4) * (2 * covariance[0, 1] + 9e-4)
            values.append(top / ((u.mean() ** 2 + v.mean() ** 2 + 1e-4) * (u.var(ddof=1) + v.var(ddof=1) + 9e-4)))
        assert float(found) == pytest.approx(np.mean(values), abs=1e-10)
    assert structural_similarity(a, a).tolist() == pytest.approx([1, 1])
    assert structural_similarity(a, 5 * a + 2).tolist() == pytest.approx([1, 1])


def test_agreement_goes_over_all_pairs() -> None:
    models = [draws(5, 6, seed=s) for s in range(3)]
    found = agreement(models, k=2)
    pairs = list(itertools.combinations(models, 2))
    for name, measure in (("rank_correlation", rank_correlation), ("cosine", cosine)):
        expected = sum(measure(a, b) for a, b in pairs) / 3
        assert torch.allclose(getattr(found, name), expected)
    assert torch.allclose(found.top_k, sum(top_k_overlap(a, b, 2) for a, b in pairs) / 3)
    means = [m.abs().mean(0) for m in models]
    for pair, (a, b) in enumerate(itertools.combinations(means, 2)):
        assert float(found.global_rank_correlation[pair]) == pytest.approx(scipy.stats.spearmanr(a, b).statistic)
        shared = set(a.argsort()[-2:].tolist()) & set(b.argsort()[-2:].tolist())
        assert float(found.global_top_k[pair]) == len(shared) / 2


def test_the_same_models_agree_and_unrelated_ones_do_not() -> None:
    phi = draws(200, 30)
    same, other = agreement([phi, phi, 2 * phi]), agreement([phi, draws(200, 30, seed=9)])
    assert float(same.rank_correlation.mean()) == pytest.approx(1)
    assert float(same.global_top_k.min()) == 1
    assert abs(float(other.rank_correlation.mean())) < 0.05
    assert float(other.top_k.mean()) == pytest.approx(5 / 30, abs=0.05)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ArgumentError, match="at least 2"):
        agreement([draws(2, 3)])
    with pytest.raises(ShapeError, match="same examples"):
        cosine(draws(2, 3), draws(3, 3))
    with pytest.raises(ArgumentError, match="finite"):
        rank_correlation(draws(2, 3), draws(2, 3) / 0)
    with pytest.raises(ShapeError, match="maps"):
        structural_similarity(draws(2, 6, 9), draws(2, 6, 9))
