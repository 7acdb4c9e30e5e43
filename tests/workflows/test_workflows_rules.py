"""``rightly fit --rules``: both arms are held against every rule, and the record and the page say how well."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from cli.running import run
from rightly.core.errors import CheckpointError
from rightly.data import read_table
from rightly.data.encoding import TableEncoder
from rightly.report import read_record
from rightly.report.page import render
from rightly.report.schema import record_problems
from rightly.workflows.ruled import features_of
from workflows.made import classes, table
from workflows.small_jobs import fit, lasting

RULES = """
# what is known
rules = '''
feature "a" increases "yes" unless concept "reddish"
feature "c" does not matter (weight 30)
ignore feature "b" (weight 0)
features of group "numbers" matter alike (exceptions 0.1)
feature "colour=red" increases "yes" when concept "never"
'''
[groups]
numbers = ["a", "b"]
[concepts]
reddish = { feature = "colour", is = "red" }
never = { feature = "a", above = 1000 }
"""


def ruled(folder: Path, out: str, rules: str = RULES, **arguments: Any) -> dict[str, Any]:
    """A table with ``c`` confounded, and the record of a run with rules."""
    frame = classes(150)
    frame["c"] += 2.0 * (frame["y"] == "yes")
    frame.to_csv(folder / "table.csv", index=False)
    (folder / "rules.toml").write_text(rules, encoding="utf-8")
    given = {"label": "y", "rules": str(folder / "rules.toml"), "weight": None, "epochs": 20}
    return fit(folder / "table.csv", folder / out, **{**given, **arguments})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ruled")


@pytest.fixture(scope="module")
def record(folder: Path) -> dict[str, Any]:
    return ruled(folder, "run")


def test_the_record_lists_every_rule_before_and_after(folder: Path, record: dict[str, Any]) -> None:
    assert record_problems(record) == []
    assert read_record(folder / "run") == json.loads(json.dumps(record))
    assert list(record["runs"]) == ["plain", "rules"]
    assert [(rule["line"], rule["weight"]) for rule in record["rules"]] == [(4, 1), (5, 30), (6, 0), (7, 1), (8, 1)]
    assert [rule["text"] for rule in record["rules"]] == RULES.splitlines()[3:8]
    assert record["rules"][3]["exceptions"] == 0.1
    for rule in record["rules"][:4]:
        for entry in rule["runs"].values():
            assert 0 < entry["examples"] <= 30
            assert 0 <= entry["holds"]["mean"] <= 1
            assert len(entry["violation"]["values"]) == 2
        before, after = (rule["runs"][name]["holds"]["values"] for name in ("plain", "rules"))
        assert rule["comparison"]["difference"] == pytest.approx(np.mean(after) - np.mean(before), abs=1e-12)
        assert rule["comparison"]["p_adjusted"] >= rule["comparison"]["p"]
        assert rule["comparison"]["test"] == "corrected resampled t-test"


def test_a_condition_leaves_rows_out(record: dict[str, Any]) -> None:
    spoken, whole = (record["rules"][at]["runs"]["plain"]["examples"] for at in (0, 1))
    assert spoken < whole == 30


def test_a_rule_that_speaks_of_nobody_is_told_so(record: dict[str, Any]) -> None:
    entry = record["rules"][4]
    assert entry["runs"]["rules"] == {"examples": 0, "holds": None, "violation": None}
    assert entry["comparison"] is None


def test_a_rule_that_is_trained_holds_better_and_one_that_is_watched_need_not(record: dict[str, Any]) -> None:
    violations = [{n: run["violation"] for n, run in rule["runs"].items()} for rule in record["rules"][:3]]
    before, after = (violations[1][name]["mean"] for name in ("plain", "rules"))
    assert after < 0.5 * before
    assert violations[2]["rules"]["mean"] > 0.05  # b matters, and with weight 0 it may
    assert any("rules hold on" in sentence for sentence in record["conclusion"])


def test_the_page_shows_every_rule_as_it_was_written(folder: Path, record: dict[str, Any]) -> None:
    page = unescape((folder / "run" / "report.html").read_text(encoding="utf-8"))
    assert '<section id="rules"' in page or 'id="rules"' in page
    for rule in record["rules"]:
        assert rule["text"] in page
        assert f"line {rule['line']}" in page
    assert "10.0% may break it" in page
    assert 'id="rules"' not in render({key: value for key, value in record.items() if key != "rules"})


def test_each_rule_has_its_training_curve_and_none_poses_as_the_weight(record: dict[str, Any]) -> None:
    run = record["runs"]["rules"]
    assert run["weight"] is None
    assert run["weight_choice"] is None
    assert set(run["history"][0]["terms"]) == {
        "feature a increases yes unless concept reddish",
        "feature c does not matter",
        "ignore feature b",
        "features of group numbers matter alike",
        "feature colour=red increases yes when concept never",
    }
    assert "--rules" in record["rerun"]


def test_a_stopped_run_goes_on_to_the_same_record(folder: Path, record: dict[str, Any]) -> None:
    (folder / "run" / "trials" / "rules-1.json").unlink()
    again = ruled(folder, "run", resume=True)
    assert lasting(again) == lasting(record)


def test_other_rules_are_another_run(folder: Path, record: dict[str, Any], tmp_path: Path) -> None:
    assert record["rules"]
    with pytest.raises(CheckpointError, match="another run"):
        ruled(folder, "run", RULES.replace("weight 30", "weight 3"), resume=True)
    (folder / "rules.toml").write_text(RULES, encoding="utf-8")


def test_a_regression_has_rules_about_its_prediction(tmp_path: Path) -> None:
    frame = table(120).rename(columns={"score": "y"})
    frame.to_csv(tmp_path / "table.csv", index=False)
    text = "rules = 'feature \"a\" increases the prediction'"
    (tmp_path / "rules.toml").write_text(text, encoding="utf-8")
    rules = str(tmp_path / "rules.toml")
    record = fit(tmp_path / "table.csv", tmp_path / "run", label="y", rules=rules, weight=None, epochs=10)
    (rule,) = record["rules"]
    assert rule["line"] == 1
    assert rule["runs"]["plain"]["holds"]["mean"] > 0.5


def test_the_command_prints_and_writes_the_same(
    folder: Path, record: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    typed = ["fit", str(folder / "table.csv"), "--label", "y", "--rules", str(folder / "rules.toml"), "--seeds", "2"]
    ran = run([*typed, "--epochs", "20", "--out", "run", "--quiet"], monkeypatch, capsys)
    assert ran.code == 0, ran.err
    assert lasting(read_record(tmp_path / "run"))["rules"] == json.loads(json.dumps(lasting(record)))["rules"]


def test_columns_are_what_a_model_reads(tmp_path: Path) -> None:
    frame = pd.DataFrame({"age": [30.0, 50, np.nan] * 20, "drug": ["no", "yes", None] * 20, "y": ["p", "q", "p"] * 20})
    frame.to_csv(tmp_path / "t.csv", index=False)
    read = read_table(tmp_path / "t.csv", "y")
    encoder = TableEncoder().fit(read.features, read.columns)
    assert encoder.feature_names == ("age", "age (missing)", "drug=no", "drug=yes", "drug (missing)")
    found = features_of(encoder)
    assert found["age"].inputs == (0, 1)
    assert (found["age"].value, found["age"].mean, found["age"].scale, found["age"].missing) == (0, 40, 10, 1)
    assert (found["drug"].inputs, found["drug"].value) == ((2, 3, 4), None)
    assert [found[f"drug={level}"].inputs for level in ("no", "yes")] == [(2,), (3,)]
    encoded = torch.from_numpy(encoder.transform(read.features))
    assert (found["age"].mean + found["age"].scale * encoded[:2, 0]).tolist() == [30, 50]
