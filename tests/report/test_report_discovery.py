"""The section of models to choose from, and what a record of them must hold."""

from __future__ import annotations

from typing import Any

import pytest

from report.examples import full_record
from rightly.report import render
from rightly.report.schema import record_problems


def discovered() -> dict[str, Any]:
    record = full_record()
    names = list(record["runs"])
    eye = [[1.0 if a == b else 0.25 for b in names] for a in names]
    return record | {
        "discovery": {
            "models": {name: {"weight": 0.5, "train": 0.91, "validation": None} for name in names},
            "similarity": eye,
            "overlap": eye,
            "distinct": names[:1],
            "cutoff": 0.67,
            "tolerance": 0.05,
            "stopped": "enough",
        }
    }


def test_every_model_has_a_row_and_a_column() -> None:
    record = discovered()
    assert record_problems(record) == []
    page = render(record)
    section = page[page.index('id="choose"') :]
    section = section[: section.index("</section>")]
    assert section.count(">0.250<") == 2 * len(record["runs"]) * (len(record["runs"]) - 1)
    assert section.count(">yes<") == 1
    assert "0.910" in section
    assert 'id="choose"' not in render(full_record())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("models", {}),
        ("models", {"nobody": {"weight": 0, "train": 1, "validation": 1}}),
        ("similarity", [[1.0]]),
        ("overlap", [[1.0, "a"], [0.2, 1.0]]),
        ("distinct", ["nobody"]),
        ("cutoff", None),
    ],
)
def test_a_broken_discovery_is_named(key: str, value: Any) -> None:
    record = discovered()
    record["discovery"][key] = value
    problems = record_problems(record)
    assert problems
    assert all(line.startswith(f"discovery.{key}") for line in problems)
