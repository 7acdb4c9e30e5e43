"""From trials to the record and the figures that the report room reads."""

from __future__ import annotations

import datetime
import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
import torch

from rightly.evaluation import METRICS, adjust, compare, interval
from rightly.workflows.case import Case
from rightly.workflows.conclusion import conclusion_of
from rightly.workflows.ruled import kept_rules

#: features in a beeswarm
_TOP = 10

_BOUNDS = {"gini": (0.0, 1.0), "inside": (0.0, 1.0), "completeness_gap": (0.0, math.inf)}

_RESPLIT = (
    "Each seed splits the same data anew. The intervals of single models are 95 % intervals of the mean over these "
    "splits (Student's t): they take the splits for independent, though these share rows, and are too narrow for data "
    "that are not here. The differences and their p are corrected for that (Nadeau and Bengio 2003)."
)
_GIVEN = "Intervals are 95 % intervals of the mean over seeds (Student's t), on the data given for each seed."

Trials = Sequence[dict[str, Any]]


def record_of(
    case: Case, trials: Trials, about: dict[str, Any], compared: tuple[str, str], seconds: float
) -> dict[str, Any]:
    """The record (schema 1)."""
    arms = {arm.name: arm for arm in case.arms}
    runs = {}
    for name, arm in arms.items():
        mine = [trial for trial in trials if trial["arm"] == name]
        runs[name] = _run(mine) | {"title": arm.title, "prior": dict(arm.about) if arm.about else None}
    data = about["data"] | {"split": trials[0]["split"]}
    record = {
        **about,
        "schema": 1,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {
            "rightly": metadata.version("rightly"),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "data": data,
        "runs": runs,
        "comparison": _comparison(runs, compared, case.test_share),
        "attribution": "They are expected gradients of the prediction, compared with the training rows.",
        "intervals": _RESPLIT if case.resplit else _GIVEN,
        "seconds": seconds,
    }
    if case.rules is not None:
        record["rules"] = kept_rules(trials, compared, case.test_share)
    return record | {"conclusion": conclusion_of(record, compared)}


def _run(trials: Trials) -> dict[str, Any]:
    weights = [trial["weight"] for trial in trials if trial["weight"] is not None]
    first = trials[0]
    explanations: dict[str, Any] = {
        name: interval([trial["explanations"][name] for trial in trials], _BOUNDS[name]).as_dict()
        for name in first["explanations"]
    }
    if first["importance"]:
        explanations["importance"] = _importances(trials)
    explanations["lorenz"] = np.mean([trial["lorenz"] for trial in trials], axis=0).tolist()
    return {
        "seeds": [trial["seed"] for trial in trials],
        "weight": statistics.median(weights) if weights else None,
        "weight_choice": first["weight_choice"],
        "metrics": {
            "test": {
                name: interval([trial["metrics"][name] for trial in trials], METRICS[name].bounds).as_dict()
                for name in first["metrics"]
            }
        },
        "explanations": explanations,
        "history": [trial["history"] for trial in trials],
        "seconds": sum(trial["seconds"] for trial in trials),
        "engines": engines_of([trial.get("engines", {}) for trial in trials]),
    }


def engines_of(trainings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The engine of each term, and why, as the first of the trainings that had it tells it."""
    told: dict[str, dict[str, str]] = {}
    for engines in trainings:
        for term, text in engines.items():
            told.setdefault(term, {}).setdefault(text.partition(":")[0], text)
    return {term: "; ".join(texts.values()) for term, texts in told.items()}


def _importances(trials: Trials) -> list[dict[str, Any]]:
    """Each run's importances are shares of its total, so that seeds and runs can be compared."""
    shares = []
    for trial in trials:
        total = sum(trial["importance"].values()) or 1.0
        shares.append({name: value / total for name, value in trial["importance"].items()})
    found = []
    for name in shares[0]:
        one = interval([share[name] for share in shares], (0.0, 1.0))
        found.append({"feature": name, "mean": one.mean, "low": one.low, "high": one.high})
    return found


def _comparison(runs: dict[str, Any], compared: tuple[str, str], test_share: float | None) -> dict[str, Any]:
    first, second = (runs[name] for name in compared)
    names = {"run": compared[1], "against": compared[0]}
    table = {}
    for name, metric in first["metrics"]["test"].items():
        values = (metric["values"], second["metrics"]["test"][name]["values"])
        found = compare(*values, test_share=test_share).as_dict()
        table[name] = found | names | {"higher_is_better": METRICS[name].higher_is_better}
    for name in ("gini", "inside"):
        if name in first["explanations"] and name in second["explanations"]:
            values = (first["explanations"][name]["values"], second["explanations"][name]["values"])
            better = {"higher_is_better": False} if name == "inside" else {}
            table[name] = compare(*values, test_share=test_share).as_dict() | names | better
    for entry, p in zip(table.values(), adjust([entry["p"] for entry in table.values()]), strict=True):
        entry["p_adjusted"] = p
    return table


def figures_of(trials: Trials) -> dict[str, Any]:
    """Figures of the first seed: the same examples in every run."""
    seed = trials[0]["seed"]
    mine = {trial["arm"]: trial["figures"] for trial in trials if trial["seed"] == seed}
    figures: dict[str, Any] = {}
    if all("beeswarm" in found for found in mine.values()):
        figures["beeswarm"] = _same_features({name: found["beeswarm"] for name, found in mine.items()})
    if all("maps" in found for found in mine.values()):
        maps = zip(*(found["maps"] for found in mine.values()), strict=True)
        figures["maps"] = [_joined(pictures, list(mine)) for pictures in maps]
    return figures


def _same_features(swarms: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The features that move any of the runs most, the same ones in every run."""
    size: dict[str, float] = {}
    for entries in swarms.values():
        for entry in entries:
            mean = float(np.abs(entry["attributions"]).mean())
            size[entry["feature"]] = max(mean, size.get(entry["feature"], 0.0))
    top = sorted(size, key=lambda name: -size[name])[:_TOP]
    by_name = {name: {entry["feature"]: entry for entry in entries} for name, entries in swarms.items()}
    return {name: [found[feature] for feature in top] for name, found in by_name.items()}


def _joined(pictures: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    shared = {key: pictures[0][key] for key in ("title", "label", "image", "annotation")}
    runs = {
        name: {key: picture[key] for key in ("map", "prediction", "correct")}
        for name, picture in zip(names, pictures, strict=True)
    }
    return shared | {"runs": runs}
