"""Records are checked whole: each planted defect is named with its path, and all of them at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from report.examples import bare_record, full_figures, full_record
from rightly.core.errors import DataError
from rightly.report import validate_figures, validate_record
from rightly.report.schema import figure_problems, record_problems

GONE = object()


def planted(record: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Put ``value`` at a path such as ``runs.plain.seeds.0``; GONE takes the key away."""
    *way, last = path.split(".")
    place: Any = record
    for step in way:
        place = place[int(step)] if isinstance(place, list) else place[step]
    key: Any = int(last) if isinstance(place, list) else last
    if value is GONE:
        del place[key]
    else:
        place[key] = value
    return record


@pytest.mark.parametrize("make", [bare_record, full_record])
def test_a_good_record_has_no_problem(make: Any) -> None:
    assert record_problems(make()) == []
    validate_record(make())


def test_good_figures_have_no_problem() -> None:
    assert figure_problems(full_figures()) == []
    assert figure_problems({}) == []
    validate_figures(full_figures())


AUC = "runs.plain.metrics.test.auc"
DEFECTS: list[tuple[str, Any, str]] = [
    ("schema", 2, "schema: expected 1, got 2"),
    ("schema", True, "schema: expected 1"),
    ("schema", GONE, "schema: expected to be there"),
    ("command", None, "command: expected text"),
    ("data", [], "data: expected a dict"),
    ("runs", {}, "runs: expected a dict of at least 1"),
    ("runs", GONE, "runs: expected to be there"),
    ("comparison", GONE, "comparison: expected to be there"),
    ("title", 3, "title: expected text"),
    ("conclusion", "one", "conclusion: expected a list"),
    ("notes", [1], "notes[0]: expected text"),
    ("versions", {"torch": 2}, "versions.torch: expected text"),
    ("seconds", -1, "seconds: expected a finite number at least 0"),
    ("runs.plain", None, "runs.plain: expected a dict"),
    ("runs.plain.seeds", [], "runs.plain.seeds: expected a list of at least 1"),
    ("runs.plain.seeds", [0, 1, True], "runs.plain.seeds[2]: expected a whole number"),
    ("runs.plain.weight", "auto", "runs.plain.weight: expected a finite number, got 'auto'"),
    ("runs.plain.weight", float("inf"), "runs.plain.weight: expected a finite number, got inf"),
    ("runs.plain.metrics", {}, "runs.plain.metrics.test: expected to be there"),
    ("runs.plain.metrics.train", {"auc": 0.5}, "runs.plain.metrics.train.auc: expected a dict"),
    ("runs.plain.seconds", -1.0, "runs.plain.seconds: expected a finite number at least 0"),
    ("runs.plain.explanations", GONE, "runs.plain.explanations: expected to be there"),
    (f"{AUC}.mean", float("nan"), f"{AUC}.mean: expected a finite number, got nan"),
    (f"{AUC}.mean", None, f"{AUC}.mean: expected a finite number, got None"),
    (f"{AUC}.mean", True, f"{AUC}.mean: expected a finite number"),
    (f"{AUC}.values", GONE, f"{AUC}.values: expected to be there"),
    (f"{AUC}.values.1", float("inf"), f"{AUC}.values[1]: expected a finite number"),
    (f"{AUC}.values", [0.1], f"{AUC}.values: expected a list of 3, one per seed"),
    (f"{AUC}.low", 0.99, f"{AUC}: expected low at most high"),
    (f"{AUC}.low", None, f"{AUC}: expected low and high both given or both null"),
    ("runs.plain.explanations.gini", 0.4, "explanations.gini: expected a dict"),
    ("runs.plain.explanations.gini.mean", float("nan"), "explanations.gini.mean: expected a finite number"),
    ("runs.plain.explanations.lorenz", [0.0, 1.0], "explanations.lorenz: expected a list of 101"),
    ("runs.plain.explanations.importance.0.mean", -1, "importance[0].mean: expected a finite number at least 0"),
    ("runs.plain.explanations.importance.0.feature", 3, "importance[0].feature: expected text"),
    ("runs.plain.explanations.importance.1.feature", "age", "importance: expected each feature once, got 'age' 2"),
    ("runs.plain.history.0.task", [1.0], "history[0]: expected lists of one length"),
    ("runs.plain.history.0.epoch", GONE, "history[0].epoch: expected to be there"),
    ("runs.sparsity.history.0.terms.sparsity", [1.0], "terms.sparsity: expected a list of 8, one per epoch"),
    ("runs.sparsity.history.0.best_epoch", 1.5, "best_epoch: expected a whole number"),
    ("runs.sparsity.prior.name", 1, "prior.name: expected text"),
    ("runs.sparsity.weight_choice.rule", "luck", "rule: expected 'auto' or 'balance' or 'given'"),
    (
        "runs.sparsity.weight_choice.candidates.0.weight",
        -1,
        "candidates[0].weight: expected a finite number at least 0",
    ),
    ("runs.sparsity.weight_choice.candidates.0.chosen", True, "expected at most one chosen candidate, got 2"),
    ("runs.sparsity.engines", "frozen-masks", "runs.sparsity.engines: expected a dict"),
    ("runs.sparsity.engines.sparsity", 1, "runs.sparsity.engines.sparsity: expected text"),
    ("comparison.auc.p", 1.5, "comparison.auc.p: expected a finite number at least 0 and at most 1"),
    ("comparison.auc.difference", GONE, "comparison.auc.difference: expected to be there"),
    ("comparison.auc.high", -1, "comparison.auc: expected low at most high"),
    ("comparison.auc.higher_is_better", "yes", "higher_is_better: expected true or false"),
    ("comparison.auc.run", "nobody", "comparison.auc.run: expected one of the runs (plain, sparsity)"),
    ("data.kind", "sound", "data.kind: expected 'table' or 'images' or 'custom'"),
    ("data.rows", 10.5, "data.rows: expected a whole number of at least 0"),
    ("data.columns.0.name", None, "data.columns[0].name: expected text"),
    ("data.columns.0.levels", {}, "data.columns[0].levels: expected a whole number or a list"),
    ("data.class_counts", {"died": -1}, "data.class_counts.died: expected a whole number"),
    ("data.split", [1, 2], "data.split: expected a dict"),
    ("anything", {"else": [float("nan")]}, "anything.else[0]: expected a finite number"),
    ("anything", object(), "anything: expected something that JSON can hold"),
]


@pytest.mark.parametrize(
    ("path", "value", "expected"), DEFECTS, ids=[f"{path}-{at}" for at, (path, _, _) in enumerate(DEFECTS)]
)
def test_a_planted_defect_is_named(path: str, value: Any, expected: str) -> None:
    record = planted(full_record(), path, value)
    with pytest.raises(DataError) as caught:
        validate_record(record)
    assert expected in str(caught.value)
    assert "1 problem\n" in str(caught.value), str(caught.value)


FIGURE_DEFECTS: list[tuple[str, Any, str]] = [
    ("beeswarm.plain.0.values", [0.5], "beeswarm.plain[0]: expected lists of one length"),
    ("beeswarm.plain.0.values.0", 1.5, "values[0]: expected a finite number at least 0 and at most 1"),
    ("beeswarm.plain.0.attributions.0", None, "attributions[0]: expected a finite number"),
    ("beeswarm.plain.0.feature", GONE, "feature: expected to be there"),
    ("maps.0.image", [[0.5], [0.1, 0.2]], "image: expected nested lists"),
    ("maps.0.image", [[0.5, 2.0, 0.0], [0.0, 0.0, 0.0]], "image: expected numbers from 0 to 1, got 0 to 2"),
    ("maps.0.image", [], "image: expected nested lists"),
    ("maps.0.image", "picture", "image: expected nested lists"),
    ("maps.0.annotation", [[1]], "annotation: expected the image's size (2, 3), got (1, 1)"),
    ("maps.0.runs.plain.map", [[1.0]], "runs.plain.map: expected the image's size"),
    ("maps.0.runs.plain.map", [[float("nan")] * 3] * 2, "map: expected finite numbers, got 6 that are not"),
    ("maps.0.runs.plain.correct", "yes", "correct: expected true or false"),
    ("curves.0.series.0.y", [1.0], "series[0]: expected lists of one length"),
    ("curves.0.series.0.x.0", None, "x[0]: expected a finite number"),
    ("curves.0.title", None, "title: expected text"),
    ("regions.0.levels.0.groups", [[0, 1]], "levels[0].groups: expected the image's size (2, 3), got (1, 2)"),
    ("regions.0.levels.0.groups.0.0", 2, "levels[0].groups: expected whole numbers, -1 or one of the 2 scores"),
    ("regions.0.levels.0.groups.0.0", -2, "levels[0].groups: expected whole numbers, -1 or one of the 2 scores"),
    ("regions.0.levels.0.groups.0.0", 0.5, "levels[0].groups: expected whole numbers, -1 or one of the 2 scores"),
    ("regions.0.levels.0.scores.0", None, "scores[0]: expected a finite number"),
    ("tables.0.rows.0", ["A"], "rows[0]: expected a list of 2, one per column"),
    ("tables.0.rows.0.0", {"a": 1}, "rows[0][0]: expected text or a number"),
]


@pytest.mark.parametrize(("path", "value", "expected"), FIGURE_DEFECTS)
def test_a_planted_defect_in_the_figures_is_named(path: str, value: Any, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        validate_figures(planted(full_figures(), path, value))
    assert expected in str(caught.value)
    assert "1 problem\n" in str(caught.value), str(caught.value)


def test_all_problems_are_listed_at_once() -> None:
    record = full_record()
    for path, value in [("command", 1), ("title", 2), (f"{AUC}.mean", float("nan")), ("comparison.auc.p", -1)]:
        planted(record, path, value)
    with pytest.raises(DataError) as caught:
        validate_record(record)
    message = str(caught.value)
    assert "4 problems" in message
    assert all(path in message for path in ("command", "title", f"{AUC}.mean", "comparison.auc.p"))
    assert "docs/reference/report.md" in message


def test_a_flood_of_problems_in_the_figures_is_counted() -> None:
    figures = {"beeswarm": {"plain": [{"feature": "a", "values": [2.0] * 300, "attributions": [0.0] * 300}]}}
    with pytest.raises(DataError, match="300 problems") as caught:
        validate_figures(figures)
    assert "... and 250 more" in str(caught.value)


@pytest.mark.parametrize("record", [None, [], "text", 3])
def test_what_is_no_record_at_all_is_refused(record: Any) -> None:
    with pytest.raises(DataError, match="expected a dict"):
        validate_record(record)


def test_one_seed_without_an_interval_is_fine() -> None:
    record = bare_record()
    record["runs"]["plain"]["seeds"] = [7]
    record["runs"]["plain"]["metrics"]["test"]["auc"] = {"mean": 0.8, "low": None, "high": None, "values": [0.8]}
    assert record_problems(record) == []


def test_numpy_numbers_and_arrays_are_read_as_plain_ones() -> None:
    record = full_record()
    record["runs"]["plain"]["explanations"]["lorenz"] = np.linspace(0, 1, 101)
    record["runs"]["plain"]["seconds"] = np.float32(3.5)
    assert record_problems(record) == []
    figures = full_figures()
    figures["maps"][0]["image"] = np.zeros((2, 3, 3), dtype=np.float32)
    assert figure_problems(figures) == []


def test_rounding_of_an_image_just_outside_its_range_is_forgiven() -> None:
    figures = planted(full_figures(), "maps.0.image", [[1.0000002, -1e-7, 0.5], [0.0, 0.0, 0.0]])
    assert figure_problems(figures) == []
