"""What the demo promises is computed from its records, each promise by itself."""

from __future__ import annotations

from typing import Any

import pytest

from rightly.workflows.demo import digits_job, mortality_job, promises


def _records(
    plain: float = 0.6, right: float = 0.97, clean: float = 0.98, gini: float = 0.3, auc: float = 0.0
) -> dict[str, dict[str, Any]]:
    accuracies = {"plain": plain, "right-reasons": right, "no-decoy": clean}
    return {
        "digits": {"runs": {k: {"metrics": {"test": {"accuracy": {"mean": v}}}} for k, v in accuracies.items()}},
        "mortality": {"comparison": {"gini": {"difference": gini}, "auc": {"difference": auc}}},
    }


def test_all_kept() -> None:
    kept = promises(_records())
    assert [true for _, true in kept] == [True] * 4
    assert "37.0 points above plain" in kept[0][0]
    assert "1.0 points below" in kept[1][0]


@pytest.mark.parametrize(
    ("broken", "values"),
    [(0, {"plain": 0.8}), (1, {"right": 0.94}), (2, {"gini": 0.19}), (3, {"auc": -0.02})],
)
def test_each_can_be_broken(broken: int, values: dict[str, float]) -> None:
    assert [true for _, true in promises(_records(**values))] == [index != broken for index in range(4)]


@pytest.mark.parametrize(("job", "arms"), [(digits_job, 3), (mortality_job, 2)])
def test_the_jobs_can_be_made(job: Any, arms: int) -> None:
    made = job(2)
    case = made.make_case(0)
    assert list(made.seeds) == [0, 1]
    assert len(case.arms) == arms
    assert {arm.name for arm in case.arms} >= set(made.compared)
