"""The section of the rules: what it says, what it refuses, and that a rule is only ever text."""

from __future__ import annotations

from html import unescape
from typing import Any

import pytest

from report.examples import HOSTILE, bare_record, bare_run, interval
from rightly.report.page import render
from rightly.report.schema import record_problems


def ruled(**changes: Any) -> dict[str, Any]:
    """A record of two runs and one rule."""
    record = bare_record()
    record["runs"]["rules"] = bare_run() | {"title": "With the rules"}
    rule = {
        "text": 'feature "age" increases "risk"',
        "line": 3,
        "weight": 2.5,
        "threshold": 0.05,
        "exceptions": 0.1,
        "runs": {
            "plain": {"examples": 40, "holds": interval(0.25, 0.05), "violation": interval(0.3, 0.05)},
            "rules": {"examples": 40, "holds": interval(0.75, 0.05), "violation": interval(0.02, 0.01)},
        },
        "comparison": {"difference": 0.5, "low": 0.4, "high": 0.6, "p": 0.01, "p_adjusted": 0.02},
    }
    return record | {"rules": [rule | changes]}


def section(record: dict[str, Any]) -> str:
    page = render(record)
    start = page.index('id="rules"')
    return unescape(page[start : page.index("</section>", start)])


def test_a_rule_is_listed_with_how_well_it_holds_before_and_after() -> None:
    assert record_problems(ruled()) == []
    told = section(ruled())
    for text in (
        'feature "age" increases "risk"', "line 3, 10.0% may break it", "2.5", "25.0%", "20.0% to 30.0%", "75.0%",
        "+0.500", "0.020", "Higher (better)", "30.0%", "2.0%", "40",
    ):  # fmt: skip
        assert text in told, text


def test_a_rule_that_speaks_of_nobody_has_dashes() -> None:
    nobody = {"examples": 0, "holds": None, "violation": None}
    record = ruled(runs={"plain": nobody, "rules": nobody}, comparison=None)
    assert record_problems(record) == []
    assert "Not tested" in section(record)


def test_there_is_no_section_without_rules() -> None:
    for record in (bare_record(), bare_record() | {"rules": []}):
        assert 'id="rules"' not in render(record)


def test_a_rule_is_text() -> None:
    page = render(ruled(text=HOSTILE))
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert HOSTILE in unescape(page)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"text": 3}, "rules[0].text"),
        ({"line": 0}, "rules[0].line"),
        ({"weight": -1}, "rules[0].weight"),
        ({"threshold": 2}, "rules[0].threshold"),
        ({"exceptions": "few"}, "rules[0].exceptions"),
        ({"runs": {}}, "rules[0].runs"),
        ({"runs": {"other": {"examples": 1, "holds": None, "violation": None}}}, "rules[0].runs"),
        ({"runs": {"plain": {"examples": 1, "holds": 0.5, "violation": None}}}, "rules[0].runs.plain.holds"),
        ({"comparison": {"difference": "much"}}, "rules[0].comparison"),
    ],
)
def test_what_is_wrong_with_a_rule_is_named(changes: dict[str, Any], path: str) -> None:
    problems = record_problems(ruled(**changes))
    assert problems
    assert all(problem.startswith(path) for problem in problems), problems
