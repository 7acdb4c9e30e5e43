"""Accuracy by groups: closed forms, intervals that cover, and the worst group that an average hides."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

import rightly as rt
from rightly.core.errors import ArgumentError, ShapeError
from rightly.evaluation import Interval, group_accuracy, mean_of, proportion, worst_group_error

#: group (0, 0): 3 of 4 right, (0, 1): 1 of 2, (1, 0): 0 of 1, (1, 1): 3 of 3
LABELS = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
SHADES = torch.tensor([0, 0, 0, 0, 1, 1, 0, 1, 1, 1])
ANSWERS = torch.tensor([0, 0, 0, 1, 0, 1, 0, 1, 1, 1])


def scores(answers, classes=2):
    return torch.nn.functional.one_hot(answers, classes).double()


def test_by_hand():
    found = group_accuracy(scores(ANSWERS), LABELS, [LABELS, SHADES])
    assert found.groups == ((0, 0), (0, 1), (1, 0), (1, 1))
    assert found.counts == (4, 2, 1, 3)
    assert [each.mean for each in found.accuracies] == [0.75, 0.5, 0, 1]
    assert (found.worst.mean, found.worst_group) == (0, (1, 0))
    assert found.group_average.mean == pytest.approx(2.25 / 4)
    assert found.average.mean == pytest.approx(0.7)
    table = found.table(names=("Digit", "Shade"))
    assert table["columns"] == ["Digit", "Shade", "Rows", "Accuracy", "95% from", "to"]
    assert table["rows"][1][:4] == [0, 1, 2, 0.5]


def test_one_column_counts_every_class():
    found = group_accuracy(scores(ANSWERS), LABELS, LABELS)
    assert found.counts == (6, 4)
    assert [each.mean for each in found.accuracies] == [4 / 6, 3 / 4]
    assert found.worst_group == (0,)


@pytest.mark.parametrize("shape", [(10,), (10, 1)])
def test_a_single_logit_answers_by_its_sign(shape):
    logits = (0.2 * ANSWERS - 0.1).reshape(shape)
    assert group_accuracy(logits, LABELS, SHADES) == group_accuracy(scores(ANSWERS), LABELS, SHADES)


def test_order_of_rows_and_names_of_groups_do_not_matter():
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    first = group_accuracy(scores(ANSWERS), LABELS, SHADES)
    again = group_accuracy(scores(ANSWERS)[order], LABELS[order], 5 - 3 * SHADES[order])
    for name in ("worst", "group_average", "average"):
        one, other = getattr(first, name), getattr(again, name)
        assert (one.mean, one.low, one.high) == pytest.approx((other.mean, other.low, other.high))


def test_an_exact_interval_by_hand():
    # none of n: the upper end solves (1 - p)^n = 0.025; all of n: the lower end p^n = 0.025
    none, every = proportion(0, 7), proportion(7, 7)
    assert (none.mean, none.low, none.high) == pytest.approx((0, 0, 1 - 0.025 ** (1 / 7)))
    assert (every.mean, every.low, every.high) == pytest.approx((1, 0.025 ** (1 / 7), 1))
    for hits in range(11):
        some, expected = proportion(hits, 10, level=0.9), scipy.stats.binomtest(hits, 10).proportion_ci(0.9)
        assert (some.low, some.high) == pytest.approx((expected.low, expected.high))
    for wrong in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ArgumentError, match="counted among"):
            proportion(*wrong)


def test_the_interval_of_a_mean_adds_squared_distances():
    parts = [Interval(0.5, 0.2, 0.9, ()), Interval(0.7, 0.3, 0.8, ())]
    found = mean_of(parts)
    assert found.mean == pytest.approx(0.6)
    assert found.low == pytest.approx(0.6 - math.hypot(0.3, 0.4) / 2)
    assert found.high == pytest.approx(0.6 + math.hypot(0.4, 0.1) / 2)
    alone = mean_of(parts[:1])
    assert (alone.low, alone.high) == pytest.approx((0.2, 0.9))
    with pytest.raises(ArgumentError, match="no interval"):
        mean_of([])


def test_the_worst_group_s_interval_holds_for_all_groups_at_once():
    found = group_accuracy(scores(ANSWERS), LABELS, [LABELS, SHADES])
    each = [proportion(*pair, level=1 - 0.05 / 4) for pair in ((3, 4), (1, 2), (0, 1), (3, 3))]
    assert found.worst.low == min(part.low for part in each)
    assert found.worst.high == min(part.high for part in each)
    assert found.worst.low <= min(part.low for part in found.accuracies)


def test_intervals_cover_what_they_should():
    """300 test sets of four groups: the true worst group, the mean over groups, and the average."""
    draws = np.random.default_rng(0)
    chances, sizes = np.array([0.95, 0.9, 0.7, 0.72]), np.array([200, 50, 30, 30])
    truths = {"worst": 0.7, "group_average": chances.mean(), "average": (chances * sizes).sum() / sizes.sum()}
    labels = torch.zeros(sizes.sum(), dtype=torch.long)
    groups = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    covered = dict.fromkeys(truths, 0)
    for _ in range(300):
        wrong = torch.tensor(draws.random(len(labels)) > np.repeat(chances, sizes)).long()
        found = group_accuracy(scores(wrong), labels, groups)
        for name, truth in truths.items():
            part = getattr(found, name)
            covered[name] += part.low <= truth <= part.high
    assert all(count >= 0.93 * 300 for count in covered.values()), covered


def test_a_monitor_reads_groups_beside_the_labels():
    labels = rt.with_groups(LABELS, SHADES)
    assert worst_group_error(scores(ANSWERS), labels) == pytest.approx(1 - 0.6)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"outputs": scores(ANSWERS)[:9]}, ShapeError, "9"),
        ({"outputs": scores(ANSWERS)[None]}, ShapeError, "1, 10, 2"),
        ({"labels": LABELS.float()}, ShapeError, "float32"),
        ({"labels": rt.with_groups(LABELS, SHADES)}, ShapeError, "10, 2"),
        ({"groups": SHADES[:9]}, ShapeError, "10 rows"),
        ({"groups": SHADES.float()}, ArgumentError, "whole numbers"),
        ({"outputs": scores(ANSWERS) * torch.nan}, ArgumentError, "20 NaN"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    given = {"outputs": scores(ANSWERS), "labels": LABELS, "groups": SHADES} | change
    with pytest.raises(error, match=message):
        group_accuracy(**given)


def test_a_table_needs_all_its_names():
    with pytest.raises(ArgumentError, match="has a name"):
        group_accuracy(scores(ANSWERS), LABELS, [LABELS, SHADES]).table(names=("Digit",))
