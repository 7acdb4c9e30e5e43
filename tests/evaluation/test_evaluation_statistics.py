"""Intervals and paired tests against SciPy and against numbers worked out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from rightly.core.errors import ArgumentError
from rightly.evaluation import adjust, binomial, bootstrap, compare, interval

NUMBERS = st.floats(-100, 100).map(lambda value: round(value, 3))


def test_an_interval_worked_out_by_hand():
    # mean 2, standard deviation 1, t with 2 degrees of freedom at 97.5 %: 4.302652729749464
    found = interval([1, 2, 3])
    half = 4.302652729749464 / math.sqrt(3)
    assert found.mean == 2
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), rel=1e-12)
    assert found.values == (1.0, 2.0, 3.0)
    assert found.as_dict() == {"mean": 2.0, "low": found.low, "high": found.high, "values": [1.0, 2.0, 3.0]}
    json.dumps(found.as_dict())


def test_a_comparison_worked_out_by_hand():
    # differences 1, 2, 3: t = 2 / (1 / sqrt 3) = sqrt 12; p for 2 degrees of freedom is 1 - t / sqrt(t^2 + 2)
    found = compare([1.0, 1.0, 1.0], [2.0, 3.0, 4.0])
    assert found.difference == 2
    assert found.t == pytest.approx(math.sqrt(12), rel=1e-12)
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14), rel=1e-12)
    assert (found.low, found.high) == pytest.approx((2 - 4.302652729749464 / 3**0.5, 2 + 4.302652729749464 / 3**0.5))
    assert found.n == 3
    assert found.as_dict()["test"] == "paired t-test"


@given(st.lists(NUMBERS, min_size=2, max_size=12))
def test_intervals_are_scipy_s(values):
    found = interval(values)
    assert found.low <= found.mean <= found.high
    if np.std(values) > 1e-6:
        low, high = scipy.stats.t.interval(0.95, len(values) - 1, np.mean(values), scipy.stats.sem(values))
        assert (found.low, found.high) == pytest.approx((low, high), rel=1e-9, abs=1e-9)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=12))
def test_comparisons_are_scipy_s(pairs):
    first, second = zip(*pairs, strict=True)
    found = compare(first, second)
    differences = np.subtract(second, first)
    if np.std(differences) > 1e-6:
        expected = scipy.stats.ttest_rel(second, first)
        assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
        assert found.t == pytest.approx(expected.statistic, rel=1e-9)
        assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    turned = compare(second, first)
    assert turned.difference == pytest.approx(-found.difference, abs=1e-12)
    assert (turned.p is None) == (found.p is None)


def test_one_repeat_has_no_interval_and_one_pair_no_test():
    assert (interval([3.5]).low, interval([3.5]).mean, interval([3.5]).high) == (3.5, 3.5, 3.5)
    found = compare([1.0], [3.0])
    assert (found.difference, found.low, found.high, found.p, found.t, found.n) == (2.0, 2.0, 2.0, None, None, 1)


def test_all_equal():
    found = compare([0.3, 0.5, 0.7], [0.3, 0.5, 0.7])
    assert (found.difference, found.low, found.high, found.p, found.t) == (0.0, 0.0, 0.0, 1.0, None)
    assert (interval([2.0] * 5).low, interval([2.0] * 5).high) == (2.0, 2.0)


@pytest.mark.parametrize("step", [0.1, 1.0, 1e-3])
def test_a_constant_difference_leaves_no_test_also_up_to_rounding(step):
    first = [0.1, 0.2, 0.3, 0.7]
    found = compare(first, [value + step for value in first])
    assert found.difference == pytest.approx(step)
    assert (found.p, found.t) == (None, None)
    assert found.high - found.low < 1e-12


def test_a_tiny_difference_that_is_not_rounding_is_tested():
    first = [1.0, 1.0, 1.0]
    found = compare(first, [1 + 1e-9, 1 + 2e-9, 1 + 3e-9])
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14), rel=1e-3)


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_no_interval_of_nothing_or_of_what_is_not_finite(values):
    with pytest.raises(ArgumentError, match="no interval"):
        interval(values)
    with pytest.raises(ArgumentError, match="no interval"):
        compare(values, values)


def test_pairs_are_needed():
    with pytest.raises(ArgumentError, match="pairs") as caught:
        compare([1.0, 2.0], [1.0])
    assert (caught.value.expected, caught.value.got) == (2, 1)


def test_intervals_cover_as_often_as_they_say():
    draws = np.random.default_rng(0).normal(5, 2, (4000, 6))
    covered = np.mean([(found := interval(row)).low <= 5 <= found.high for row in draws])
    assert abs(covered - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 4000)


def test_effect_and_ranks_worked_out_by_hand():
    # differences 1, 2, 3: mean 2, standard deviation 1; all of 2^3 signs as extreme on either side: 2 / 8
    found = compare([1.0, 1.0, 1.0], [2.0, 3.0, 4.0])
    assert found.effect == pytest.approx(2.0)
    assert found.p_ranks == pytest.approx(0.25)
    turned = compare([2.0, 3.0, 4.0], [1.0, 1.0, 1.0])
    assert (turned.effect, turned.p_ranks) == (pytest.approx(-2.0), pytest.approx(0.25))
    alike = compare([1.0, 2.0], [2.0, 3.0])
    assert (alike.effect, alike.p_ranks) == (None, None)


def test_adjusted_p_values_worked_out_by_hand():
    # sorted 0.01, 0.03, 0.04 of three: 0.03, 0.045 lowered to 0.04, 0.04
    assert adjust([0.04, None, 0.01, 0.03]) == [pytest.approx(0.04), None, pytest.approx(0.03), pytest.approx(0.04)]
    assert adjust([None]) == [None]
    assert adjust([]) == []
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        adjust([0.2, 1.2])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_adjusting_keeps_the_order_and_lowers_nothing(p_values):
    found = adjust(p_values)
    assert all(after >= before - 1e-12 for before, after in zip(p_values, found, strict=True))
    order = np.argsort(p_values)
    assert (np.diff(np.array(found)[order]) >= -1e-12).all()


def test_a_binomial_test_worked_out_by_hand():
    assert binomial(3, 3) == pytest.approx(1 / 8)
    assert binomial(2, 2, chance=1 / 3) == pytest.approx(1 / 9)
    assert binomial(0, 4, alternative="less") == pytest.approx(1 / 16)
    with pytest.raises(ArgumentError, match="0 to 3"):
        binomial(4, 3)


def test_a_bootstrap_interval_of_a_mean_is_that_of_the_normal_law():
    values = np.random.default_rng(0).normal(size=400)
    found = bootstrap(np.mean, values)
    half = 1.96 * values.std() / 20
    assert found.mean == values.mean()
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert found == bootstrap(np.mean, values)
    assert found != bootstrap(np.mean, values, seed=1)


def test_a_bootstrap_keeps_pairs_together():
    labels = np.arange(50.0)
    found = bootstrap(lambda a, b: float(np.abs(a - b).max()), labels, labels)
    assert (found.low, found.mean, found.high) == (0, 0, 0)


def test_resamples_without_the_statistic_are_left_out():
    def share(labels):
        if labels.min() == labels.max():
            raise ValueError("one class")
        return float(labels.mean())

    found = bootstrap(share, [0, 0, 0, 1], resamples=400)
    assert len(found.values) < 400
    with pytest.raises(ArgumentError, match="not defined on most"):
        bootstrap(lambda values: math.nan, [1, 2], resamples=10)
    with pytest.raises(ArgumentError, match="one length"):
        bootstrap(np.mean, [1, 2], [1])


def test_splits_that_share_rows_are_corrected_for_by_hand():
    # differences 1, 2, 3 over 3 splits, a quarter tested: the variance of the mean is (1/3 + 1/3) times 1
    found = compare([1.0, 1.0, 1.0], [2.0, 3.0, 4.0], test_share=0.25)
    assert found.t == pytest.approx(2 / math.sqrt(2 / 3), rel=1e-12)
    # p for 2 degrees of freedom, as above
    assert found.p == pytest.approx(1 - found.t / math.sqrt(found.t**2 + 2), rel=1e-12)
    half = 4.302652729749464 * math.sqrt(2 / 3)
    assert (found.low, found.high) == pytest.approx((2 - half, 2 + half), rel=1e-12)
    assert (found.difference, found.effect, found.p_ranks) == (2, 2, None)
    assert found.as_dict()["test"] == "corrected resampled t-test"
    for share in (0, 1, -0.1, math.nan):
        with pytest.raises(ArgumentError, match="test_share"):
            compare([1.0, 2.0], [1.0, 3.0], test_share=share)


def test_the_plain_test_is_too_sure_of_splits_of_one_data_set_and_the_corrected_one_is_not():
    """Rows whose gains have expectation 0, averaged over a random half: how often a difference is shown by chance."""
    rng, false = np.random.default_rng(0), {None: 0, 0.5: 0}
    for _ in range(200):
        gains = rng.normal(size=40)  # of a row, of expectation 0
        values = [gains[rng.permutation(40)[:20]].mean() for _ in range(15)]
        for share in false:
            false[share] += compare([0.0] * 15, values, test_share=share).p < 0.05
    assert false[None] > 60  # of 200, where 10 were due
    assert false[0.5] < 30


def test_of_two_equal_learners_on_splits_of_one_table_one_is_called_better_at_about_the_nominal_rate():
    """Least squares on either half of exchangeable features: equal over tables, each table split ten times."""
    rng, tables, false = np.random.default_rng(0), 400, {None: 0, 0.2: 0}
    for _ in range(tables):
        inputs = rng.normal(size=(100, 8))
        labels = inputs.sum(1) + rng.normal(size=100)
        errors = []
        for _ in range(10):
            order = rng.permutation(100)
            train, test = order[:60], order[80:]  # as ``rightly fit`` splits
            gaps = [
                inputs[test][:, half] @ np.linalg.lstsq(inputs[train][:, half], labels[train])[0] - labels[test]
                for half in (slice(0, 4), slice(4, 8))
            ]
            errors.append([float((gap**2).mean()) for gap in gaps])
        first, second = zip(*errors, strict=True)
        for share in false:
            false[share] += compare(first, second, test_share=share).p < 0.05
    assert false[None] > 0.2 * tables  # where 0.05 were due
    assert 0.02 * tables < false[0.2] < 0.08 * tables
