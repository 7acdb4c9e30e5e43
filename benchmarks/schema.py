"""What a result file must look like. The checks are those of ``rightly.report``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rightly.core.errors import DataError
from rightly.report.checks import (
    Check,
    either,
    fields,
    flag,
    integer,
    mapping,
    nullable,
    number,
    one_of,
    sequence,
    text,
)

_SPREAD = fields({"median": number(), "low": number(), "high": number()})
_REFUSED = fields({"refused": text})


def _or_refused(check: Check) -> Check:
    def one(value: Any, path: str) -> Iterator[str]:
        yield from (_REFUSED if isinstance(value, Mapping) and "refused" in value else check)(value, path)

    return one


_CASE = {"title": text, "date": text, "commit": text, "seconds": number(0)}
_STEP = fields(
    {"milliseconds": _SPREAD, "ratio": _SPREAD, "megabytes": number(0), "repeats": integer(1)},
    {"gradient_error": nullable(number(0)), "note": text, "picked": nullable(text)},
)
_STEPS = fields(
    {
        **_CASE,
        "kind": one_of("steps"),
        "batch": integer(1),
        "k": integer(0),
        "floor": number(1),
        "variants": mapping(_or_refused(_STEP), least=1),
    }
)
_ERROR = fields({"evaluations": sequence(integer(1), least=1), "error": sequence(number(0), least=1)})
_ERRORS = fields({**_CASE, "kind": one_of("error"), "variants": mapping(_or_refused(_ERROR), least=1)})
_RATE = fields({"rate": _SPREAD}, {"evaluations": integer(1), "error": number(0)})
_RATES = fields(
    {**_CASE, "kind": one_of("bulk", "sweep"), "unit": text, "variants": mapping(_or_refused(_RATE), least=1)}
)
_TIMED = fields({"milliseconds": _SPREAD, "ratio": _SPREAD, "repeats": integer(1)}, {"megabytes": number(0)})
_RATIOS = fields({**_CASE, "kind": one_of("ratios"), "base": text, "variants": mapping(_or_refused(_TIMED), least=1)})
_KINDS = {"steps": _STEPS, "error": _ERRORS, "bulk": _RATES, "sweep": _RATES, "ratios": _RATIOS}


def _case(value: Any, path: str) -> Iterator[str]:
    kind = value.get("kind") if isinstance(value, Mapping) else None
    if kind not in _KINDS:
        yield f"{path}.kind: expected one of {', '.join(_KINDS)}, got {kind!r}"
    else:
        yield from _KINDS[kind](value, path)


_RESULTS = fields(
    {
        "schema": one_of(1),
        "quick": flag,
        "machine": fields(
            {
                "torch": text,
                "python": text,
                "device": one_of("cpu", "cuda"),
                "processor": text,
                "accelerator": nullable(text),
                "cores": integer(1),
                "threads": integer(1),
                "memory": text,
                "clock": text,
            }
        ),
        "peers": mapping(either("a version, or null", nullable(text))),
        "cases": mapping(_case),
    }
)


def validate(results: Any) -> None:
    """Raise ``DataError`` naming everything that is wrong with a result file."""
    if problems := list(_RESULTS(results, "")):
        raise DataError("\n".join(["the benchmark results cannot be used", *(f"  - {line}" for line in problems)]))
