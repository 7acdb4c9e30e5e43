"""Scales from numbers to coordinates, with round ticks; every finite input gives finite coordinates."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from rightly.report.numerals import MINUS, number, raised

#: beyond this the differences between numbers overflow; nobody reads such a chart
_LARGEST, _SMALLEST = 1e150, 1e-150


@dataclass(frozen=True)
class Scale:
    """Maps ``low..high`` to ``start..stop``, evenly or (``log``) by factors."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        value = min(max(value, -_LARGEST), _LARGEST)
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            position = (math.log10(max(value, _SMALLEST)) - low) / (high - low)
        else:
            position = (value - self.low) / (self.high - self.low)
        return self.start + position * (self.stop - self.start)

    def ticks(self, most: int = 5) -> list[float]:
        """Round numbers inside the scale, at most about ``most``."""
        return log_ticks(self.low, self.high, most) if self.log else linear_ticks(self.low, self.high, most)


def linear(
    values: Iterable[float], start: float, stop: float, *, include: Iterable[float] = (), margin: float = 0.06
) -> Scale:
    """A scale that holds ``values`` with a margin, and the ``include`` numbers without one."""
    kept = [min(max(value, -_LARGEST), _LARGEST) for value in values]
    fixed = list(include)
    if not kept and not fixed:
        return Scale(0, 1, start, stop)
    low, high = min(kept + fixed), max(kept + fixed)
    level = high - low <= 1e-9 * max(abs(low), abs(high))
    room = (0.1 * abs(low) or 0.5) if level else margin * (high - low)
    return Scale(
        low if low in fixed else low - room,
        high if high in fixed and not level else high + room,
        start,
        stop,
    )


def logarithmic(values: Iterable[float], start: float, stop: float) -> Scale:
    """A log scale that holds the positive numbers among ``values``."""
    sizes = [math.log10(min(max(value, _SMALLEST), _LARGEST)) for value in values if value > 0]
    if not sizes:
        return Scale(0.1, 10, start, stop, log=True)
    room = max(0.06 * (max(sizes) - min(sizes)), 0.18)
    return Scale(10 ** (min(sizes) - room), 10 ** (max(sizes) + room), start, stop, log=True)


def linear_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between ``low`` and ``high``."""
    wanted = max(most, 1)
    ticks: list[float] = []
    while len(ticks) < 2 and wanted < 50:  # a step of 1, 2 or 5 can overshoot; one tick says nothing
        step = _round_up((high - low) / wanted)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        ticks = [index * step for index in range(first, min(last, first + 50) + 1)]
        wanted += 1
    return ticks


def _round_up(rough: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= rough * 0.999), 10 * power)


def log_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Powers of ten between ``low`` and ``high`` (every second, third, ... when there are many)."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last < first:
        return [low, high] if high / low > 1.01 else [low]
    step = max(1, math.ceil((last - first + 1) / most))
    return [10.0**power for power in range(first, last + 1, step)]


def tick_labels(ticks: list[float], *, log: bool = False, percent: bool = False) -> list[str]:
    """Write ticks with just the decimals that tell them apart."""
    if percent:
        return [f"{label}%" for label in tick_labels([100 * tick for tick in ticks])]
    if log:
        return [_power(tick) for tick in ticks]
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=abs(ticks[0]) if ticks else 1)
    largest = max((abs(tick) for tick in ticks), default=0)
    if largest >= 1e7 or largest < 1e-4:
        return [number(tick) for tick in ticks]
    places = max(0, -math.floor(math.log10(step) + 1e-9)) if step else 0
    return [f"{tick + 0.0:,.{places}f}".replace("-", MINUS) for tick in ticks]


def _power(tick: float) -> str:
    """A tick of a log axis: ``0.01``, ``10\u207b\u2075``."""
    if 1e-4 <= tick < 1e5:
        return f"{tick:g}"
    exponent = math.log10(tick)
    whole = math.isclose(exponent, round(exponent), abs_tol=1e-9)
    return f"10{raised(round(exponent))}" if whole else number(tick)
