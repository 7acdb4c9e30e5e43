"""The sentences at the top of a report say no more than the numbers do."""

from __future__ import annotations

from typing import Any

import pytest

from rightly.workflows.conclusion import conclusion_of


def _record(p: float | None, difference: float = 0.1, kind: str = "images", name: str = "accuracy") -> dict[str, Any]:
    runs = {
        run: {"title": run, "metrics": {"test": {name: {"mean": mean}}}, "explanations": {}}
        for run, mean in (("plain", 0.5), ("prior", 0.5 + difference))
    }
    found = {
        "difference": difference,
        "low": difference - 3,
        "high": difference + 3,
        "p": p,
        "n": 1 if p is None else 5,
    }
    return {"data": {"kind": kind}, "runs": runs, "comparison": {name: found}}


@pytest.mark.parametrize(
    ("p", "difference", "words"),
    [
        (0.3, 0.1, ("No difference in prediction shown", "p = 0.3")),
        (0.01, 0.1, ("Predicts better", "p = 0.01")),
        (0.01, -0.1, ("Predicts worse", "-0.100")),
        (0.0, 0.1, ("Predicts better", "p < 0.001")),
        (None, 0.1, ("one seed", "nothing can be said about chance")),
    ],
)
def test_the_verdict(p: float | None, difference: float, words: tuple[str, ...]) -> None:
    (told,) = conclusion_of(_record(p, difference), ("plain", "prior"))
    assert all(word in told for word in words), told


def test_an_interval_stays_within_what_the_measure_can_be() -> None:
    (told,) = conclusion_of(_record(0.3), ("plain", "prior"))
    assert "95% interval -1.000 to +1.000" in told
    (told,) = conclusion_of(_record(0.3, kind="table", name="r2"), ("plain", "prior"))
    assert "95% interval -2.900 to +3.100" in told


def test_seeds_that_all_differ_alike_are_not_called_one_seed() -> None:
    record = _record(None)
    record["comparison"]["accuracy"]["n"] = 3
    (told,) = conclusion_of(record, ("plain", "prior"))
    assert "the same difference with every seed" in told
    assert "one seed" not in told
