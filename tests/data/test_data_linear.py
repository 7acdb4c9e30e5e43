"""The two made tables: the published numbers themselves, their correlations, their outcome."""

from __future__ import annotations

import numpy as np
import pytest

from rightly.core.errors import ArgumentError
from rightly.data import corrgroups60, independentlinear60

#: of shap.datasets.corrgroups60() and independentlinear60(): X.iloc[0, :4] and y[[0, 1, 999]]
PUBLISHED = {
    corrgroups60: (
        [1.5228419534382522, 1.6276158243630354, 1.718660861642738, 2.54648131155742],
        [8.77502750273053, -1.203514506689315, 2.772083017317586],
    ),
    independentlinear60: (
        [1.757736804175974, 0.4159665900430522, 0.9885423631325598, 2.240217896632474],
        [9.483896632382171, -1.6481553772226942, 4.023122652365244],
    ),
}
BOTH = pytest.mark.parametrize("make", list(PUBLISHED))


@BOTH
def test_the_default_is_the_published_data_set(make):
    found, (inputs, labels) = make(), PUBLISHED[make]
    assert found.inputs.shape == (1000, 60)
    assert found.inputs[0, :4] == pytest.approx(inputs, rel=1e-9)
    assert found.labels[[0, 1, 999]] == pytest.approx(labels, rel=1e-9)


@BOTH
def test_the_outcome_is_linear(make):
    found = make(300, seed=2)
    assert np.flatnonzero(found.coefficients).tolist() == list(range(0, 30, 3))
    assert set(found.coefficients.tolist()) == {0.0, 1.0}
    noise = found.labels - found.inputs @ found.coefficients
    assert noise.std() == pytest.approx(0.01, rel=0.2)
    assert np.abs(found.inputs.mean(0)).max() < 1e-12


@pytest.mark.parametrize(("n", "seed"), [(1000, 0), (61, 1), (200, 7)])
def test_the_correlations_of_the_groups_are_exact(n, seed):
    found = np.corrcoef(corrgroups60(n, seed=seed).inputs.T)
    for i in range(60):
        for j in range(60):
            together = i // 3 == j // 3 and max(i, j) < 30
            expected = 1.0 if i == j else 0.99 if together else 0.0
            assert found[i, j] == pytest.approx(expected, abs=1e-7), (i, j)


def test_independent_features_keep_the_correlations_of_chance():
    found = np.corrcoef(independentlinear60().inputs.T) - np.eye(60)
    assert 0.05 < np.abs(found).max() < 0.2


@BOTH
def test_the_seed_decides_and_nothing_else(make):
    one, again, other = make(100, seed=1), make(100, seed=1), make(100, seed=2)
    assert (one.inputs == again.inputs).all()
    assert (one.labels == again.labels).all()
    assert (one.inputs != other.inputs).any()


def test_too_few_rows_are_refused():
    with pytest.raises(ArgumentError, match="61"):
        corrgroups60(60)
    with pytest.raises(ArgumentError, match="at least 1"):
        independentlinear60(0)
    with pytest.raises(ArgumentError, match="seed"):
        corrgroups60(seed=-1)
