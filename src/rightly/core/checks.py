"""Checks of plain arguments, each with the error that says what was expected."""

from __future__ import annotations

import math

from rightly.core.errors import ArgumentError


def check_count(name: str, value: int, *, least: int = 1) -> int:
    """Raise ``ArgumentError`` unless ``value`` is a whole number of at least ``least``."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return value
    raise ArgumentError(f"{name} counts", expected=f"a whole number of at least {least}", got=repr(value))


def check_number(name: str, value: float, *, positive: bool) -> float:
    """Raise ``ArgumentError`` unless ``value`` is finite, and above zero (``positive``) or at least zero."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if number and (value > 0 if positive else value >= 0):
        return value
    raise ArgumentError(
        f"{name} cannot be used", expected=f"a finite number {'> 0' if positive else '>= 0'}", got=repr(value)
    )
