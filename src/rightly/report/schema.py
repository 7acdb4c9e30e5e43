"""What a record must look like, as a table of checks. See docs/reference/report.md for the words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rightly.core.errors import DataError
from rightly.report.checks import (
    LABEL,
    TRACE,
    Check,
    both,
    either,
    equal_lengths,
    fields,
    flag,
    integer,
    mapping,
    nullable,
    number,
    one_of,
    problem,
    sequence,
    text,
)
from rightly.report.cleaning import cleaned
from rightly.report.figure_schema import FIGURES

#: more problems than this in the figures are counted, not listed: one broken array can hold a million
_MOST_LISTED = 50

_NUMBER = number()


def _bounds(value: Any, path: str) -> Iterator[str]:
    """Both ends of an interval or none, and in order."""
    low, high = value.get("low"), value.get("high")
    if (low is None) != (high is None):
        yield problem(path, "low and high both given or both null", {"low": low, "high": high})
    elif low is not None and low > high:
        yield f"{path}: expected low at most high, got low {low!r} and high {high!r}"


_ENDS: dict[str, Check] = {"low": nullable(_NUMBER), "high": nullable(_NUMBER)}
_INTERVAL = both(fields({"mean": _NUMBER, **_ENDS}, {"values": sequence(_NUMBER)}), _bounds)
_METRIC = both(fields({"mean": _NUMBER, **_ENDS, "values": sequence(_NUMBER)}), _bounds)


def _distinct_features(value: Any, path: str) -> Iterator[str]:
    names = [entry["feature"] for entry in value]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{path}: expected each feature once, got {name!r} {names.count(name)} times"


_IMPORTANCE = both(sequence(both(fields({"feature": text, "mean": number(0)}, _ENDS), _bounds)), _distinct_features)


def _terms_fit(value: Any, path: str) -> Iterator[str]:
    for name, term in value.get("terms", {}).items():
        if len(term) != len(value["epoch"]):
            yield problem(f"{path}.terms.{name}", f"a list of {len(value['epoch'])}, one per epoch", term)


_HISTORY = both(
    fields(
        {"epoch": sequence(_NUMBER)},
        {
            "task": TRACE,
            "validation": TRACE,
            "terms": mapping(TRACE),
            "best_epoch": nullable(integer()),
        },
    ),
    both(equal_lengths("epoch", "task", "validation"), _terms_fit),
)


def _one_chosen(value: Any, path: str) -> Iterator[str]:
    chosen = sum(bool(entry.get("chosen")) for entry in value)
    if chosen > 1:
        yield f"{path}: expected at most one chosen candidate, got {chosen}"


_CANDIDATE = fields({"weight": number(0), "mean": _NUMBER}, {"error": nullable(number(0)), "chosen": nullable(flag)})
_WEIGHT_CHOICE = fields(
    {},
    {
        "rule": one_of("auto", "balance", "given"),
        "reason": text,
        "measure": text,
        "candidates": both(sequence(_CANDIDATE), _one_chosen),
    },
)

_RUN = fields(
    {
        "seeds": sequence(integer(), least=1),
        "weight": nullable(_NUMBER),
        "metrics": fields({"test": mapping(_METRIC)}, others=mapping(_METRIC)),
        "explanations": fields(
            {}, {"importance": _IMPORTANCE, "lorenz": sequence(_NUMBER, length=101)}, others=_INTERVAL
        ),
        "seconds": number(0),
    },
    {
        "title": text,
        "prior": nullable(
            fields(
                {},
                dict.fromkeys(("name", "description", "attribution", "reference", "citation"), nullable(text)),
            )
        ),
        "weight_choice": nullable(_WEIGHT_CHOICE),
        "engines": mapping(text),
        "history": sequence(_HISTORY),
    },
)


def _one_value_per_seed(value: Any, path: str) -> Iterator[str]:
    for split, metrics in value["metrics"].items():
        for name, metric in metrics.items():
            if len(metric["values"]) != len(value["seeds"]):
                expected = f"a list of {len(value['seeds'])}, one per seed"
                yield problem(f"{path}.metrics.{split}.{name}.values", expected, metric["values"])


_COLUMN = fields(
    {"name": text},
    {
        "kind": nullable(text),
        "missing": nullable(number(0)),
        "levels": nullable(either("a whole number or a list of levels", integer(0), sequence(nullable(LABEL)))),
    },
)
_DATA = fields(
    {},
    {
        "name": text,
        "source": nullable(text),
        "kind": one_of("table", "images", "custom"),
        "rows": nullable(integer(0)),
        "features": nullable(integer(0)),
        "label": nullable(text),
        "task": one_of("classification", "regression"),
        "classes": nullable(sequence(LABEL)),
        "class_counts": nullable(mapping(integer(0))),
        "split": mapping(nullable(integer(0))),
        "columns": nullable(sequence(_COLUMN)),
        "notes": nullable(sequence(text)),
        "licence": nullable(text),
    },
)
_COMPARISON = both(
    fields(
        {"difference": _NUMBER, **_ENDS, "p": nullable(number(0, 1))},
        {
            "test": nullable(text),
            "n": nullable(integer(0)),
            "p_adjusted": nullable(number(0, 1)),
            "p_ranks": nullable(number(0, 1)),
            "effect": nullable(_NUMBER),
            "higher_is_better": nullable(flag),
            "run": text,
            "against": text,
        },
    ),
    _bounds,
)


_RULE = fields(
    {
        "text": text,
        "line": integer(1),
        "weight": number(0),
        "threshold": number(0, 1),
        "runs": mapping(
            fields({"examples": integer(0), "holds": nullable(_INTERVAL), "violation": nullable(_INTERVAL)}), least=1
        ),
    },
    {"exceptions": number(0, 1), "comparison": nullable(_COMPARISON)},
)


_MATRIX = sequence(sequence(_NUMBER))
_DISCOVERY = fields(
    {
        "models": mapping(fields(dict.fromkeys(("weight", "train", "validation"), nullable(_NUMBER)))),
        "similarity": _MATRIX,
        "overlap": _MATRIX,
        "distinct": sequence(text),
        **dict.fromkeys(("cutoff", "tolerance"), number(0)),
    },
    {"method": text, "stopped": text},
)


def _known_runs(value: Any, path: str) -> Iterator[str]:
    expected = "one of the runs (" + ", ".join(value["runs"]) + ")"
    for metric, entry in value["comparison"].items():
        for key in ("run", "against"):
            if key in entry and entry[key] not in value["runs"]:
                yield problem(f"comparison.{metric}.{key}", expected, entry[key])
    for index, rule in enumerate(value.get("rules", [])):
        for name in rule["runs"]:
            if name not in value["runs"]:
                yield problem(f"rules[{index}].runs", expected, name)
    yield from _whole_discovery(value["discovery"], list(value["runs"]), expected) if "discovery" in value else ()


def _whole_discovery(found: Any, runs: list[str], expected: str) -> Iterator[str]:
    """A model for each run, and a row and a column of the matrices."""
    if set(found["models"]) != set(runs):
        yield problem("discovery.models", "each of the runs", sorted(found["models"]))
    if set(found["distinct"]) - set(runs):
        yield problem("discovery.distinct", expected, found["distinct"])
    for key in ("similarity", "overlap"):
        if (sizes := [len(row) for row in found[key]]) != [len(runs)] * len(runs):
            yield problem(f"discovery.{key}", "a row and a column for each run", sizes)


_RECORD = both(
    fields(
        {
            "schema": one_of(1),
            "command": text,
            "data": _DATA,
            "runs": mapping(both(_RUN, _one_value_per_seed), least=1),
            "comparison": mapping(_COMPARISON),
        },
        {
            "title": text,
            "question": text,
            "created": text,
            "intervals": text,
            "attribution": text,
            "rerun": text,
            "seconds": number(0),
            "versions": mapping(text),
            "conclusion": sequence(text),
            "notes": sequence(text),
            "rules": sequence(_RULE),
            "discovery": _DISCOVERY,
        },
    ),
    _known_runs,
)


def record_problems(record: Any) -> list[str]:
    """List everything that is wrong with a record, one line each; empty when it can be used."""
    return list(_RECORD(cleaned(record), ""))


def figure_problems(figures: Any) -> list[str]:
    """List everything that is wrong with the figures, one line each; empty when they can be used."""
    return list(FIGURES(cleaned(figures), "figures"))


def _raise(what: str, problems: list[str], most: int | None = None) -> None:
    if not problems:
        return
    lines = problems[:most]
    if len(lines) < len(problems):
        lines = [*lines, f"... and {len(problems) - len(lines)} more"]
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    raise DataError(
        "\n".join([f"{what}: {count}", *(f"  - {line}" for line in lines)]),
        mend="see docs/reference/report.md for what a record holds",
    )


def validate_record(record: Any) -> None:
    """Check a record (schema 1).

    Raises:
        DataError: naming every problem with its path in the record, what was expected and what was got.
    """
    _raise("the record cannot be used", record_problems(record))


def validate_figures(figures: Any) -> None:
    """Check the figures that go with a record; raises ``DataError`` as ``validate_record`` does."""
    _raise("the figures cannot be used", figure_problems(figures), _MOST_LISTED)
