"""What a ladder of baselines shows: its table, the paired tests behind it, and the runs of the record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rightly.evaluation import adjust, compare
from rightly.workflows.group_study import RULES, Found, Study
from rightly.workflows.reproduce import Row, over, run_entry

#: the rule by which the record's runs were chosen
KNOWN, UNKNOWN = RULES


def percent(rows: Sequence[Row], key: str) -> str:
    """Mean over seeds and half the width of its 95 % interval."""
    found = over(rows, key)
    return f"{100 * found['mean']:.1f} % ± {50 * (found['high'] - found['low']):.1f}"


def run_entries(study: Study, found: Found, test: str) -> dict[str, Row]:
    """The record's runs: every arm at the strength that the worst known group of the validation rows chose."""
    return {name: _entry(study, found, name, test) for name in study.arms}


def _entry(study: Study, found: Found, name: str, test: str) -> Row:
    arm, strength, rows = study.arms[name], found.chosen[KNOWN][name], found.rows[KNOWN][name]
    measures = {"accuracy": test, "worst_group_accuracy": f"{test}_worst"}
    entry = run_entry(rows, measures, {"inside": "inside"}, weight=strength or None, title=arm.title)
    entry["metrics"]["validation"] = {"accuracy": over(rows, UNKNOWN), "worst_group_accuracy": over(rows, KNOWN)}
    if len(arm.strengths) > 1:
        tried = [row for row in found.tried if row["arm"] == name]
        means = {s: over([row for row in tried if row["strength"] == s], KNOWN)["mean"] for s in arm.strengths}
        entry["weight_choice"] = {
            "rule": "auto",
            "reason": f"It is the best by the {RULES[KNOWN]}; of equals the strongest.",
            "measure": "Worst-group accuracy (validation)",
            "candidates": [{"weight": s, "mean": mean, "chosen": s == strength} for s, mean in means.items()],
        }
    return entry


def comparisons(found: Found, arm: str, test: str, against: str = "plain") -> dict[str, Row]:
    """The record's comparison of an arm with plain training."""
    keys = {"accuracy": test, "worst_group_accuracy": f"{test}_worst"}
    return {
        name: {
            **compare(*([row[key] for row in found.rows[KNOWN][a]] for a in (against, arm))).as_dict(),
            "run": arm,
            "against": against,
        }
        for name, key in keys.items()
    }


def ladder(study: Study, found: Found, title: str, columns: Mapping[str, str]) -> dict[str, Any]:
    """Every arm, what it is told, and its test accuracies by both rules of choosing its strength.

    Args:
        columns: heading -> result of the trials.
    """
    body = []
    for name, arm in study.arms.items():
        cells = []
        for rule in RULES:
            chosen = f"{found.chosen[rule][name]:g}" if len(arm.strengths) > 1 else None
            cells += [chosen, *(percent(found.rows[rule][name], key) for key in columns.values())]
        body.append([arm.title, arm.told, *cells])
    heads = [f"{head} ({told})" for told in ("groups known", "not known") for head in ("Strength", *columns)]
    return {"title": title, "columns": ["Method", "Told beside labels", *heads], "rows": body}


def paired(study: Study, found: Found, key: str, title: str, against: Mapping[str, str]) -> dict[str, Any]:
    """Paired tests of every arm against the plain training of its network, p-values corrected for their number.

    Args:
        key: result of the trials, larger is better.
        against: network -> arm.
    """
    rows = found.rows[KNOWN]
    pairs = [(against[arm.network], name) for name, arm in study.arms.items() if name not in against.values()]
    tests = [compare(*([row[key] for row in rows[name]] for name in pair)) for pair in pairs]
    body = [
        [study.arms[name].title, study.arms[base].title, test.difference, test.low, test.high, p, test.p_ranks]
        for (base, name), test, p in zip(pairs, tests, adjust([test.p for test in tests]), strict=True)
    ]
    columns = ["Method", "Against", "Difference", "95% from", "to", "Corrected p", "p of ranks"]
    return {"title": title, "columns": columns, "rows": body}
