"""Numbers as a reader wants them: few digits, a real minus sign, intervals in words."""

from __future__ import annotations

import math

from rightly.report.cleaning import Record

MINUS = "\u2212"
ABSENT = "\u2013"

_RAISED = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def raised(exponent: int) -> str:
    """Write an exponent with raised digits."""
    return str(exponent).translate(_RAISED)


def decimals(*values: float | None) -> int:
    """How many decimals show the largest of ``values`` well: three for 0.84, one for 250, two digits below 0.01."""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    if largest >= 1000 or largest == 0:
        return 0
    if largest >= 100:
        return 1
    if largest >= 10:
        return 2
    if largest >= 0.01:
        return 3
    return min(1 - math.floor(math.log10(largest)), 12)


def number(value: float | None, places: int | None = None, *, signed: bool = False) -> str:
    """Write a number; None is a dash. Far too small or too large numbers are written with a power of ten."""
    if value is None:
        return ABSENT
    if places is None:
        places = decimals(value)
    if value and (abs(value) >= 1e7 or abs(value) < 1e-6):
        digits, exponent = f"{abs(value):.1e}".split("e")
        written = f"{digits}\u00d710{raised(int(exponent))}"
    else:
        written = f"{abs(value):,.{places}f}"
    zero = not any(digit in written for digit in "123456789")  # -0.0004 in three decimals has no sign
    sign = MINUS if value < 0 and not zero else "+" if signed and not zero else ""
    return sign + written


def setting(value: float) -> str:
    """Write a number that a person may type again, such as a weight: three digits at most, no zeros at its end."""
    if value and not 1e-5 <= abs(value) < 1e5:
        return number(value, 0)
    rounded = float(f"{value:.3g}")
    return number(rounded, max(len(f"{rounded:.12f}".rstrip("0").split(".")[1]), 0))


def has_interval(entry: Record) -> bool:
    """Whether an entry says how sure it is: both ends, and not the same number twice (a single repeat)."""
    low, high = entry.get("low"), entry.get("high")
    return low is not None and high is not None and low < high


def interval(entry: Record, key: str = "mean", *, signed: bool = False) -> tuple[str, str]:
    """Write ``entry[key]`` and its interval with one number of decimals: ``("0.842", "0.836 to 0.848")``.

    The second part is empty when the entry has no interval.
    """
    ends = [entry["low"], entry["high"]] if has_interval(entry) else []
    places = decimals(entry[key], *ends)
    written = [number(end, places, signed=signed) for end in ends]
    return number(entry[key], places, signed=signed), " to ".join(written)


def p_value(p: float | None) -> str:
    """Write a p value as journals do: ``<0.001``, three decimals below 0.1, two above, ``>0.99``; None is a dash."""
    if p is None:
        return ABSENT
    if p < 0.001:
        return "<0.001"
    if 0.045 <= p < 0.055:  # 0.0496 must not be written as 0.050, on the wrong side of the line
        return f"{p:.4f}".rstrip("0")
    if p > 0.99:
        return ">0.99"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def count(value: float | None, noun: str = "", plural: str | None = None) -> str:
    """Write a count with its noun: ``1 row``, ``2,000 rows``."""
    if value is None:
        return ABSENT
    name = noun if value == 1 else plural or f"{noun}s"
    return f"{value:,.0f} {name}".strip() if noun else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """Write a share of one in percent: ``12.3%``, ``<0.1%``."""
    if share is None:
        return ABSENT
    if 0 < share < 0.0005:
        return "<0.1%"
    return number(100 * share, 1) + "%"


def duration(seconds: float) -> str:
    """Write a time: ``42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def listed(words: list[str]) -> str:
    """Join words as in a sentence: ``a, b and c``."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)
