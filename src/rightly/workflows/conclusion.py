"""What a run shows, in two or three plain sentences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rightly.report.verdict import SIGNIFICANT, judged

#: the headline of each kind of data
HEADLINES = {"table": ("auc", "r2"), "images": ("accuracy",), "custom": ("accuracy", "r2")}
_WORDS = {"auc": "AUC", "r2": "R²", "accuracy": "accuracy"}


def conclusion_of(record: dict[str, Any], compared: tuple[str, str]) -> list[str]:
    """Sentences for the top of the report: how well, how sure, for which reasons.

    Args:
        record: complete but for its conclusion.
        compared: names of the yardstick and of the run judged against it.
    """
    first, second = (record["runs"][name] for name in compared)
    told = [_performance(record, first, second)]
    told += _kept(record.get("rules", []), compared)
    told += _reasons(first, second)
    return [sentence for sentence in told if sentence]


def _performance(record: dict[str, Any], first: dict[str, Any], second: dict[str, Any]) -> str:
    names = [name for name in HEADLINES[record["data"]["kind"]] if name in record["comparison"]]
    if not names:
        return ""
    name = names[0]
    found = record["comparison"][name]
    numbers = f"{_WORDS[name]} {_mean(second, name):.3f} against {_mean(first, name):.3f}"
    p = judged(found)
    if p is None:
        why = "one seed" if found["n"] < 2 else "the same difference with every seed"
        return f"{numbers} ({second['title']} against {first['title']}); {why}, so nothing can be said about chance."
    # Student's interval of a few seeds may leave what a difference of two shares can be
    bound = 1.0 if name in ("auc", "accuracy") else math.inf
    low, high = max(found["low"], -bound), min(found["high"], bound)
    interval = f"difference {found['difference']:+.3f}, 95% interval {low:+.3f} to {high:+.3f}"
    chance = f"p = {p:.2g}" if p >= 0.001 else "p < 0.001"
    if p >= SIGNIFICANT:
        verdict = "No difference in prediction shown"
    else:
        verdict = "Predicts better" if found["difference"] > 0 else "Predicts worse"
    return f"{verdict}: {numbers} ({second['title']} against {first['title']}; {interval}, {chance})."


def _kept(rules: list[dict[str, Any]], compared: tuple[str, str]) -> list[str]:
    """How well rules hold, averaged over them."""
    pairs = [[rule["runs"][name]["holds"] for name in compared] for rule in rules]
    known = [(before["mean"], after["mean"]) for before, after in pairs if before is not None and after is not None]
    if not known:
        return []
    before, after = np.mean(known, axis=0)
    count = f"Its {len(known)} rules hold" if len(known) > 1 else "Its rule holds"
    return [f"{count} on {100 * after:.1f} % of the examples, against {100 * before:.1f} % in the plain model."]


def _reasons(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    told = []
    before, after = first["explanations"], second["explanations"]
    if "inside" in before and "inside" in after:
        told.append(
            f"{100 * after['inside']['mean']:.1f} % of its reasons lie inside the region that must not matter, "
            f"against {100 * before['inside']['mean']:.1f} % in the plain model."
        )
    if "importance" in before and "importance" in after:
        told.append(
            f"{_carriers(after)} features carry four fifths of its importance, against {_carriers(before)} of "
            f"{len(after['importance'])} in the plain model (Gini {after['gini']['mean']:.2f} against "
            f"{before['gini']['mean']:.2f})."
        )
        top = sorted(after["importance"], key=lambda entry: -entry["mean"])[:5]
        listed = ", ".join(f"{entry['feature']} ({100 * entry['mean']:.0f} %)" for entry in top)
        told.append(f"It relies most on {listed}.")
    return told


def _carriers(explanations: dict[str, Any], share: float = 0.8) -> int:
    """How many of the most important features hold ``share`` of the importance."""
    sizes = np.sort([entry["mean"] for entry in explanations["importance"]])[::-1]
    return int(np.searchsorted(np.cumsum(sizes) / max(sizes.sum(), 1e-300), share) + 1)


def _mean(run: dict[str, Any], metric: str) -> float:
    return float(run["metrics"]["test"][metric]["mean"])
