"""``rightly sweep`` from a CSV to a report, stopped and resumed, and what it says to mistakes."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cli.running import contents, run
from rightly.core.errors import DataError
from rightly.report import read_figures, read_record
from rightly.workflows import sweep as workflow
from rightly.workflows.sweep import SweepRequest, parse_weights, run_sweep, sweep_for
from workflows.made import classes, pictures, table
from workflows.small_jobs import lasting

SMALL = ("--label", "y", "--weights", "0.1,1", "--seeds", "2", "--epochs", "3")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    classes(80).to_csv(tmp_path / "people.csv", index=False)
    return tmp_path


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "trials" / "trials.jsonl").read_text().splitlines()]


def test_from_a_table_to_a_report(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    ran = run(["sweep", "people.csv", *SMALL, "--prior", "sparsity,l1"], monkeypatch, capsys)
    assert ran.code == 0, ran.err
    out = folder / "runs" / "people-sweep-1"
    assert f"report: runs/{out.name}/report.html" in ran.out
    assert "task guessed from 'y': classification" in ran.err
    assert "fit_many: 10/10" in ran.err
    settings = [(line["setting"]["prior"], line["setting"].get("weight"), line["seed"]) for line in lines(out)]
    pairs = [("plain", None)] + [(prior, weight) for prior in ("sparsity", "l1") for weight in (0.1, 1.0)]
    assert settings == [(*pair, seed) for pair in pairs for seed in (0, 1)]
    record, figures = read_record(out), read_figures(out) or {}
    assert list(record["runs"]) == ["l1", "plain", "sparsity"]
    assert record["command"] == "sweep"
    assert record["rerun"].startswith("rightly sweep people.csv --label y")
    for prior in ("sparsity", "l1"):
        choice = record["runs"][prior]["weight_choice"]
        (chosen,) = [c["weight"] for c in choice["candidates"] if c["chosen"]]
        assert record["runs"][prior]["weight"] == chosen
        for candidate in choice["candidates"]:
            mine = [e for e in lines(out) if e["setting"] == {"prior": prior, "weight": candidate["weight"]}]
            assert candidate["mean"] == pytest.approx(sum(e["run"]["best_value"] for e in mine) / 2, rel=1e-5)
    assert [curve["y_label"] for curve in figures["curves"]] == [
        "validation loss",
        "auc (test)",
        "Gini of the importances",
    ]
    for curve in figures["curves"]:
        assert [(s["name"], s["x"]) for s in curve["series"]] == [(p, [0.1, 1.0]) for p in ("plain", "sparsity", "l1")]
        for series in curve["series"]:
            assert all(
                low <= y <= high for low, y, high in zip(series["low"], series["y"], series["high"], strict=True)
            )
    (rows,) = (shown["rows"] for shown in figures["tables"])
    assert [row[:3] for row in rows] == [[p, w or 0.0, "2 of 2"] for p, w in pairs]
    page = (out / "report.html").read_text()
    assert "Every setting, means over seeds" in page
    assert "trained" in page
    explained = run(["explain", str(out), "people.csv", "--samples", "4", "--quiet"], monkeypatch, capsys)
    assert (explained.code, explained.err) == (0, "")


def test_a_plain_sweep_is_quiet_and_numbers_its_folders(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    for number in (1, 2):
        ran = run(["sweep", "people.csv", *SMALL, "--quiet"], monkeypatch, capsys)
        assert (ran.code, ran.err) == (0, "")
        assert f"people-sweep-{number}/report.html" in ran.out
    first, second = (read_record(folder / "runs" / f"people-sweep-{number}") for number in (1, 2))
    assert first["runs"]["plain"]["metrics"] == second["runs"]["plain"]["metrics"]


def test_a_regression_with_columns_that_must_not_matter(folder: Path) -> None:
    table(80).to_csv(folder / "scores.csv", index=False)
    request = SweepRequest("scores.csv", label="score", irrelevant=("a",), weights="0,1", seeds=2, epochs=2)
    record = run_sweep(sweep_for(request), folder / "out", resume=False, progress=False)
    assert set(record["runs"]) == {"plain", "right-reasons"}
    assert [line["setting"].get("weight") for line in lines(folder / "out")] == [None, None, 1.0, 1.0]


def test_stopped_and_resumed_it_is_the_same_sweep(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = SweepRequest("people.csv", label="y", weights="0.1,1", seeds=2, epochs=3)
    whole = run_sweep(sweep_for(request), folder / "whole", resume=False, progress=False)
    real, seen = workflow.fit_many, []

    def dying(factory: Any, *arguments: Any, **settings: Any) -> Any:
        def model(seed: int) -> Any:
            seen.append(seed)
            if len(seen) == 6:
                raise KeyboardInterrupt
            return factory(seed)

        return real(model, *arguments, **settings)

    monkeypatch.setattr(workflow, "fit_many", dying)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep_for(request), folder / "killed", resume=False, progress=False)
    monkeypatch.setattr(workflow, "fit_many", real)
    resumed = run_sweep(sweep_for(request), folder / "killed", resume=True, progress=False)
    assert lasting(resumed) == lasting(whole)
    before = contents(folder / "killed" / "trials")
    again = run_sweep(sweep_for(request), folder / "killed", resume=True, progress=False)
    assert lasting(again) == lasting(whole)
    assert contents(folder / "killed" / "trials") == before  # nothing was trained again


def test_pruned_trials_are_told_and_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = SweepRequest(
        "people.csv", label="y", prior="l1", weights="0.001,0.01,1000", seeds=2, epochs=12, lr=0.02, pruner="median"
    )
    record = run_sweep(sweep_for(request), folder / "out", resume=False, progress=False)
    status = {(line["setting"].get("weight"), line["seed"]): line["status"] for line in lines(folder / "out")}
    pruned = [key for key, value in status.items() if value == "pruned"]
    assert pruned  # the seeds that were trained together with other settings may be spared
    assert {weight for weight, _ in pruned} == {1000.0}
    assert any(f"{len(pruned)} of 8 trials were stopped early" in note for note in record["notes"])
    assert [c["weight"] for c in record["runs"]["l1"]["weight_choice"]["candidates"]] == [0.001, 0.01]
    (rows,) = (shown["rows"] for shown in (read_figures(folder / "out") or {})["tables"])
    assert [row[:2] for row in rows][:3] == [["plain", 0.0], ["l1", 0.001], ["l1", 0.01]]
    assert all(row[2] == f"{2 - len(pruned)} of 2" for row in rows[3:])
    request = replace(request, weights="1000", lr=1e30, pruner=None)
    with pytest.raises(DataError, match="nothing came through"):
        run_sweep(sweep_for(request), folder / "diverging", resume=False, progress=False)


def test_weights_are_sorted_and_zero_is_the_plain_run() -> None:
    assert parse_weights("1, 0.1,0,1e-3") == (0.001, 0.1, 1.0)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["people.csv", "--label", "y", "--weights", "0.1,x"], "--weights cannot be used"),
        (["people.csv", "--label", "y", "--weights", "-1"], "--weights cannot be used"),
        (["people.csv", "--label", "y", "--weights", "inf"], "--weights cannot be used"),
        (["people.csv", "--label", "y", "--weights", "0"], "--weights cannot be used"),
        (["people.csv", "--label", "y", "--weights", ""], "--weights cannot be used"),
        (["people.csv"], "needs its label column"),
        (["people.csv", "--label", "died"], "died"),
        (["absent.csv", "--label", "y"], "no file or folder"),
        (["pets", "--prior", "smoothness"], "a sweep reads a table"),
        (["module:function", "--label", "y"], "cannot be trained on with --label"),
        (["people.csv", "--label", "y", "--prior", "sparsity,smoothness"], "no prior 'smoothness' for tables"),
        (["people.csv", "--label", "y", "--prior", "right-reasons"], "which columns must not matter"),
        (["people.csv", "--label", "y", "--irrelevant", "nothing"], "no such feature column"),
        (["people.csv", "--label", "y", "--seeds", "0"], "--seeds cannot be used"),
        (["people.csv", "--label", "y", "--out", "full"], "the run folder is not empty"),
        (["people.csv", "--label", "y", "--out", "full", "--resume"], "the folder holds no run"),
    ],
)
def test_mistakes_end_in_one_message_and_write_nothing(
    arguments: list[str], told: str, folder: Path, monkeypatch: Any, capsys: Any
) -> None:
    pictures(folder / "pets")
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")
    before = contents(folder)
    ran = run(["sweep", *arguments, "--quiet"], monkeypatch, capsys)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err
    assert "Traceback" not in ran.err
    assert contents(folder) == before


def test_resuming_with_other_weights_is_refused(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    assert run(["sweep", "people.csv", *SMALL, "--quiet"], monkeypatch, capsys).code == 0
    other = ["sweep", "people.csv", "--label", "y", "--weights", "5", "--seeds", "2", "--epochs", "3", "--resume"]
    ran = run([*other, "--quiet"], monkeypatch, capsys)
    assert (ran.code, "the folder holds another run" in ran.err) == (2, True)


def test_a_pruner_without_the_tuner_names_the_package(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    ran = run(["sweep", "people.csv", *SMALL, "--pruner", "median", "--quiet"], monkeypatch, capsys)
    assert (ran.code, "optuna is needed for this" in ran.err) == (2, True)
    assert not (folder / "runs" / "people-sweep-1").exists()
