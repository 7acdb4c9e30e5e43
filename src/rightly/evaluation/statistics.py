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
            ones, and cannot fall below 2 / 2^n; None like ``t``.
    """

    difference: float
    low: float
    high: float
    p: float | None
    t: float | None
    n: int
    effect: float | None = None
    p_ranks: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return {**asdict(self), "test": "paired t-test"}


def interval(values: Sequence[float], bounds: tuple[float, float] = (-math.inf, math.inf)) -> Interval:
    """Mean and 95 % confidence interval of repeats, cut to the values that the measure can take."""
    if len(values) == 0 or not np.isfinite(values).all():
        raise ArgumentError("no interval can be given", expected="finite numbers, at least one", got=list(values)[:5])
    mean = float(np.mean(values))
    half = _half_width(values)
    low, high = max(mean - half, bounds[0]), min(mean + half, bounds[1])
    return Interval(mean, low, high, tuple(float(v) for v in values))


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Paired tests of ``second`` against ``first``, value by value from the same split and seed."""
    if len(first) != len(second):
        raise ArgumentError("a paired comparison needs pairs", expected=len(first), got=len(second))
    found = interval([b - a for a, b in zip(first, second, strict=True)])
    pairs = len(found.values)
    largest = max(abs(float(v)) for v in (*first, *second))
    if pairs < 2 or float(np.ptp(found.values)) <= 8 * np.finfo(float).eps * largest:
        # differences that do not vary leave a test nothing to measure chance by
        p = 1.0 if pairs > 1 and found.mean == 0 else None
        return Comparison(found.mean, found.low, found.high, p, None, pairs)
    tests = require("scipy.stats")
    test = tests.ttest_rel(second, first)
    effect = found.mean / float(np.std(found.values, ddof=1))
    ranks = float(tests.wilcoxon(found.values).pvalue)
    return Comparison(
        found.mean, found.low, found.high, float(test.pvalue), float(test.statistic), pairs, effect, ranks
    )


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
