"""Small checks that combine into a schema: each takes a value and its path and yields what is wrong with it.

A check is a function ``(value, path) -> iterator of problems``; a problem is one line of text,
``"<path>: expected <what>, got <what>"``. Nothing is raised here: all problems are wanted, not the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

Check = Callable[[Any, str], Iterator[str]]


def shown(value: Any) -> str:
    """Say in a few words what ``value`` is."""
    if isinstance(value, dict):
        return f"a dict of {len(value)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def problem(path: str, expected: str, value: Any) -> str:
    """Write one problem."""
    return f"{path or 'record'}: expected {expected}, got {shown(value)}"


def anything(value: Any, path: str) -> Iterator[str]:
    """Accept every value whose numbers are finite."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from anything(entry, f"{path}.{key}")
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from anything(entry, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield problem(path, "a finite number", value)
    elif value is not None and not isinstance(value, (str, int, float)):
        yield problem(path, "something that JSON can hold", value)


def text(value: Any, path: str) -> Iterator[str]:
    """Accept text."""
    if not isinstance(value, str):
        yield problem(path, "text", value)


def flag(value: Any, path: str) -> Iterator[str]:
    """Accept true or false."""
    if not isinstance(value, bool):
        yield problem(path, "true or false", value)


def is_number(value: Any) -> bool:
    """Whether ``value`` is a finite number (a bool is not)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(low: float | None = None, high: float | None = None) -> Check:
    """Accept a finite number from ``low`` to ``high``."""
    parts = [f"at least {low:g}" if low is not None else "", f"at most {high:g}" if high is not None else ""]
    expected = " ".join(["a finite number", " and ".join(part for part in parts if part)]).strip()

    def check(value: Any, path: str) -> Iterator[str]:
        inside = is_number(value) and (low is None or value >= low) and (high is None or value <= high)
        if not inside:
            yield problem(path, expected, value)

    return check


def integer(low: int | None = None) -> Check:
    """Accept a whole number that is at least ``low``."""
    expected = "a whole number" + (f" of at least {low}" if low is not None else "")

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, int) or isinstance(value, bool) or (low is not None and value < low):
            yield problem(path, expected, value)

    return check


def one_of(*values: Any) -> Check:
    """Accept one of the ``values``."""
    expected = " or ".join(repr(value) for value in values)

    def check(value: Any, path: str) -> Iterator[str]:
        if isinstance(value, bool) or value not in values:
            yield problem(path, expected, value)

    return check


def nullable(inner: Check) -> Check:
    """Accept null and what ``inner`` accepts."""

    def check(value: Any, path: str) -> Iterator[str]:
        if value is not None:
            yield from inner(value, path)

    return check


def either(expected: str, *options: Check) -> Check:
    """Accept what any of the ``options`` accepts."""

    def check(value: Any, path: str) -> Iterator[str]:
        if all(any(True for _ in option(value, path)) for option in options):
            yield problem(path, expected, value)

    return check


def sequence(inner: Check, *, least: int = 0, length: int | None = None) -> Check:
    """Accept a list whose entries ``inner`` accepts, of a given or a least length."""

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield problem(path, "a list", value)
            return
        if length is not None and len(value) != length:
            yield problem(path, f"a list of {length}", value)
        if len(value) < least:
            yield problem(path, f"a list of at least {least}", value)
        for index, entry in enumerate(value):
            yield from inner(entry, f"{path}[{index}]")

    return check


def mapping(inner: Check, *, least: int = 0) -> Check:
    """Accept a dict whose values ``inner`` accepts, whatever the keys."""

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield problem(path, "a dict", value)
            return
        if len(value) < least:
            yield problem(path, f"a dict of at least {least}", value)
        for key, entry in value.items():
            yield from inner(entry, f"{path}.{key}" if path else key)

    return check


def fields(
    required: Mapping[str, Check] | None = None,
    optional: Mapping[str, Check] | None = None,
    others: Check = anything,
) -> Check:
    """Accept a dict with the ``required`` keys; ``optional`` keys may be absent, ``others`` checks the rest."""
    known = {**(required or {}), **(optional or {})}

    def check(value: Any, path: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield problem(path, "a dict", value)
            return
        for key in required or {}:
            if key not in value:
                yield f"{path}.{key}".lstrip(".") + ": expected to be there, got nothing"
        for key, entry in value.items():
            yield from known.get(key, others)(entry, f"{path}.{key}" if path else key)

    return check


def both(*checks: Check) -> Check:
    """Accept what all ``checks`` accept; the later ones run only when the earlier found nothing."""

    def check(value: Any, path: str) -> Iterator[str]:
        for inner in checks:
            found = list(inner(value, path))
            yield from found
            if found:
                return

    return check


def equal_lengths(*keys: str) -> Check:
    """The lists under ``keys`` (those that are there) have one length."""

    def check(value: Any, path: str) -> Iterator[str]:
        lengths = {key: len(value[key]) for key in keys if value.get(key) is not None}
        if len(set(lengths.values())) > 1:
            yield f"{path}: expected lists of one length, got " + ", ".join(
                f"{key} of {length}" for key, length in lengths.items()
            )

    return check


LABEL = either("text or a number", text, number(), flag)
TRACE = sequence(nullable(number()))
