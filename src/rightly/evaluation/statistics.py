"""Intervals and paired tests, in one place; the formulas are SciPy's."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from rightly.core.errors import ArgumentError
from rightly.core.extras import require

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over repeats with its 95 % confidence interval (Student's t); of one repeat all three are equal."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return {**asdict(self), "values": list(self.values)}


@dataclass(frozen=True)
class Comparison:
    """A paired comparison over the same splits and seeds.

    Attributes:
        difference: mean of (second - first), with its 95 % interval ``low`` to ``high``.
        p: two-sided p-value of the paired t-test; where all differences are alike (up to rounding), 1 if they are
            zero and None if not (nothing to measure chance by); None with fewer than two pairs.
        t: the test statistic; None where it is not defined.
        n: pairs.
        effect: Cohen's d of the differences, their mean over their standard deviation; None like ``t``.
        p_ranks: two-sided p-value of the Wilcoxon signed-rank test, which assumes symmetric differences, not normal
            ones, and cannot fall below 2 / 2^n; None like ``t``, and where splits are corrected for, which it knows no
            correction for.
        test: its name.
    """

    difference: float
    low: float
    high: float
    p: float | None
    t: float | None
    n: int
    effect: float | None = None
    p_ranks: float | None = None
    test: str = "paired t-test"

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return asdict(self)


def interval(values: Sequence[float], bounds: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
    """Mean and 95 % confidence interval of repeats, cut to the values that the measure can take."""
    if len(values) == 0 or not np.isfinite(values).all():
        raise ArgumentError("no interval can be given", expected="finite numbers, at least one", got=list(values)[:5])
    mean = float(np.mean(values))
    half = _half_width(values)
    low, high = max(mean - half, bounds[0]), min(mean + half, bounds[1])
    return Interval(mean, low, high, tuple(float(v) for v in values))


def compare(first: Sequence[float], second: Sequence[float], *, test_share: float | None = None) -> Comparison:
    """Paired tests of ``second`` against ``first``, value by value from the same split and seed.

    Args:
        first, second: as many values each.
        test_share: for random splits of one data set, which are no independent samples since they share rows: the
            share of a split's rows that are tested, the others being trained on. The variance of the mean difference
            is then (1 / n + test_share / (1 - test_share)) times that of the differences in place of 1 / n, in the
            interval and in t (corrected resampled t-test: Nadeau, Bengio, Machine Learning 52, 2003). It is made for
            test parts smaller than what is trained on: for much larger ones it shows nothing, however large the gain.
    """
    if len(first) != len(second):
        raise ArgumentError("a paired comparison needs pairs", expected=len(first), got=len(second))
    if test_share is not None and not 0 < test_share < 1:
        raise ArgumentError("test_share is a share of the rows", expected="a number between 0 and 1", got=test_share)
    found = interval([b - a for a, b in zip(first, second, strict=True)])
    pairs = len(found.values)
    name = "paired t-test" if test_share is None else "corrected resampled t-test"
    low, high, wider = found.low, found.high, 1.0
    if test_share is not None:
        # by how much the mean's standard error is larger than among independent pairs
        wider = math.sqrt(1 + pairs * test_share / (1 - test_share))
        low, high = (found.mean + wider * (end - found.mean) for end in (low, high))
    largest = max(abs(float(v)) for v in (*first, *second))
    if pairs < 2 or float(np.ptp(found.values)) <= 8 * np.finfo(float).eps * largest:
        # differences that do not vary leave a test nothing to measure chance by
        p = 1.0 if pairs > 1 and found.mean == 0 else None
        return Comparison(found.mean, low, high, p, None, pairs, test=name)
    tests = require("scipy.stats")
    test = tests.ttest_rel(second, first)
    effect = found.mean / float(np.std(found.values, ddof=1))
    t, p, ranks = float(test.statistic), float(test.pvalue), None
    if test_share is None:
        ranks = float(tests.wilcoxon(found.values).pvalue)
    else:
        t = t / wider
        p = float(2 * tests.t.sf(abs(t), pairs - 1))
    return Comparison(found.mean, low, high, p, t, pairs, effect, ranks, name)


def adjust(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values of several tests, corrected so that a share of those called shown is wrong (Benjamini, Hochberg 1995).

    Tests without a p-value stay without one, and are not counted.
    """
    known = [p for p in p_values if p is not None]
    if not all(0 <= p <= 1 for p in known):
        raise ArgumentError("p-values lie between 0 and 1", expected="numbers from 0 to 1, or None", got=known)
    found = iter(require("scipy.stats").false_discovery_control(known) if known else ())
    return [None if p is None else float(next(found)) for p in p_values]


def binomial(
    successes: int,
    trials: int,
    chance: float = 0.5,
    alternative: Literal["two-sided", "greater", "less"] = "greater",
) -> float:
    """p-value of so many successes, if each trial had ``chance`` (the papers': best of so many metrics by chance)."""
    if not 0 <= successes <= trials or trials < 1:
        raise ArgumentError("successes are counted among trials", expected=f"0 to {trials}", got=successes)
    return float(require("scipy.stats").binomtest(successes, trials, chance, alternative).pvalue)


def proportion(successes: int, trials: int, *, level: float = LEVEL) -> Interval:
    """A share of independent trials with its exact confidence interval (Clopper, Pearson 1934)."""
    if not 0 <= successes <= trials or trials < 1:
        raise ArgumentError("successes are counted among trials", expected=f"0 to {trials}", got=successes)
    quantile, tail = require("scipy.special").betaincinv, (1 - level) / 2
    low = quantile(successes, trials - successes + 1, tail) if successes else 0.0
    high = quantile(successes + 1, trials - successes, 1 - tail) if successes < trials else 1.0
    share = successes / trials
    return Interval(share, float(low), float(high), (share,))


def mean_of(parts: Sequence[Interval]) -> Interval:
    """The mean of independent estimates, its interval recovered from theirs (Zou, Donner 2008).

    Each way from the mean the squared distances of the parts add up, as variances do.
    """
    if len(parts) == 0:
        raise ArgumentError("no interval can be given", expected="at least one", got=0)
    mean = sum(part.mean for part in parts) / len(parts)
    low, high = (
        math.sqrt(sum((part.mean - getattr(part, end)) ** 2 for part in parts)) / len(parts) for end in ("low", "high")
    )
    return Interval(mean, mean - low, mean + high, tuple(part.mean for part in parts))


def among(value: float, chances: Sequence[float]) -> float:
    """p-value of a size among those that chance gave: (1 + how many are as large) / (1 + how many there are)."""
    return (1 + sum(chance >= value for chance in chances)) / (1 + len(chances))


def bootstrap(
    statistic: Callable[..., float], *samples: Sequence[float] | np.ndarray, resamples: int = 2000, seed: int = 0
) -> Interval:
    """A statistic of examples with its 95 % percentile interval over resampled examples (Efron, 1979).

    Args:
        statistic: (*samples) -> number, such as R2 of labels and predictions.
        *samples: (N, ...) each, paired: an example keeps its label and its prediction. To resample in blocks (cell
            lines with several drugs), give one row a block.
        resamples: how often N rows are drawn with replacement.
        seed: of the draws.

    Returns:
        ``mean`` is the statistic of all examples, ``values`` are those of the resamples that have one (a resample may
        hold a single class).

    Raises:
        ArgumentError: samples differ in length, or fewer than half of the resamples give a finite number.
    """
    arrays = [np.asarray(sample) for sample in samples]
    sizes = {len(array) for array in arrays}
    if len(sizes) != 1 or sizes == {0}:
        raise ArgumentError("resampled together", expected="samples of one length, not empty", got=sorted(sizes))
    (size,) = sizes
    draws = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        rows = draws.integers(size, size=size)
        try:
            value = float(statistic(*(array[rows] for array in arrays)))
        except ValueError:
            continue
        if math.isfinite(value):
            found.append(value)
    if 2 * len(found) < resamples:
        raise ArgumentError(
            "the statistic is not defined on most resamples",
            expected=f"a finite number for at least half of {resamples}",
            got=len(found),
        )
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(found, [tail, 100 - tail])
    return Interval(float(statistic(*arrays)), float(low), float(high), tuple(found))


def _half_width(values: Sequence[float]) -> float:
    n = len(values)
    if n < 2:
        return 0.0
    factor = float(require("scipy.stats").t.ppf(0.5 + LEVEL / 2, n - 1))
    return factor * float(np.std(values, ddof=1)) / math.sqrt(n)
