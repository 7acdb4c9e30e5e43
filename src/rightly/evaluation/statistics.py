"""Intervals and paired tests, in one place; the formulas are SciPy's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

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
    """

    difference: float
    low: float
    high: float
    p: float | None
    t: float | None
    n: int

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
    """Paired t-test of ``second`` against ``first``, value by value from the same split and seed."""
    if len(first) != len(second):
        raise ArgumentError("a paired comparison needs pairs", expected=len(first), got=len(second))
    found = interval([b - a for a, b in zip(first, second, strict=True)])
    p: float | None = None
    t: float | None = None
    if len(found.values) > 1:
        largest = max(abs(float(v)) for v in (*first, *second))
        if float(np.ptp(found.values)) > 8 * np.finfo(float).eps * largest:
            test = require("scipy.stats").ttest_rel(second, first)
            p, t = float(test.pvalue), float(test.statistic)
        else:
            # differences that do not vary leave a t-test nothing to measure chance by
            p = 1.0 if found.mean == 0 else None
    return Comparison(found.mean, found.low, found.high, p, t, len(found.values))


def _half_width(values: Sequence[float]) -> float:
    n = len(values)
    if n < 2:
        return 0.0
    factor = float(require("scipy.stats").t.ppf(0.5 + LEVEL / 2, n - 1))
    return factor * float(np.std(values, ddof=1)) / math.sqrt(n)
