"""Rules in words for a table: what their names stand for in its encoded columns, and how well models keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from rightly.core.batch import Inputs
from rightly.core.citations import CITATIONS
from rightly.data import TableEncoder
from rightly.evaluation import adjust, compare, interval
from rightly.objectives.model_term import AnyTerm
from rightly.rules import Feature, Rules


@dataclass(frozen=True)
class Keeping:
    """Rules with the columns that they speak of.

    Attributes:
        rules: as they were written.
        features: what a model of the table reads.
        classes: of the label; none for a regression.
    """

    rules: Rules
    features: Mapping[str, Feature]
    classes: tuple[str, ...]

    def terms(self) -> tuple[AnyTerm, ...]:
        """A term for each rule."""
        return tuple(self.rules.compile(features=self.features, classes=self.classes))

    def about(self) -> dict[str, str]:
        """The record's description of the prior."""
        count = len(self.rules)
        return {
            "name": "rules",
            "description": f"{count} {'rule' if count == 1 else 'rules'} in words, listed with how well each holds",
            "attribution": "Gradient",
            "citation": CITATIONS["ross2018"],
        }

    def kept(self, model: nn.Module, inputs: Inputs, weights: Mapping[str, float]) -> list[dict[str, Any]]:
        """How well a model keeps each rule, JSON-able; its weight is None where nothing was trained by it."""
        found = self.rules.holds(model, inputs, features=self.features, classes=self.classes)
        return [
            {
                **{name: getattr(one.rule, name) for name in ("text", "line", "threshold", "exceptions")},
                "weight": weights.get(one.rule.name),
                **{name: getattr(one, name) for name in ("examples", "holds", "violation")},
            }
            for one in found
        ]


def features_of(encoder: TableEncoder) -> dict[str, Feature]:
    """The columns of a table as a model reads them, and the levels of its categories as ``column=level``."""
    found: dict[str, Feature] = {}
    levels: dict[str, Feature] = {}
    start = 0
    for code in encoder.codes:
        inputs = tuple(range(start, start + len(code.names)))
        if code.kind == "number":
            missing = inputs[-1] if code.missing else None
            found[code.column] = Feature(inputs, inputs[0], code.mean, code.scale, missing)
        else:
            found[code.column] = Feature(inputs)
            levels |= {f"{code.column}={level}": Feature.at(at) for level, at in zip(code.levels, inputs, strict=False)}
        start += len(inputs)
    return levels | found


def kept_rules(
    trials: Sequence[Mapping[str, Any]], compared: tuple[str, str], test_share: float | None
) -> list[dict[str, Any]]:
    """Each rule with how well it holds in both runs, over seeds, and the paired test of the difference."""
    by_arm = {arm: [trial["rules"] for trial in trials if trial["arm"] == arm] for arm in compared}
    told = []
    for number, rule in enumerate(by_arm[compared[1]][0]):
        runs = {arm: [seed[number] for seed in seeds] for arm, seeds in by_arm.items()}
        weights = [seed["weight"] for seed in runs[compared[1]]]
        entry = {name: rule[name] for name in ("text", "line", "threshold", "exceptions")}
        entry |= {"weight": float(np.median(weights)), "runs": {arm: _over(seeds) for arm, seeds in runs.items()}}
        before, after = (runs[arm] for arm in compared)
        told.append(entry | {"comparison": _compared(before, after, test_share)})
    tested = [entry["comparison"] for entry in told if entry["comparison"] is not None]
    for one, p in zip(tested, adjust([one["p"] for one in tested]), strict=True):
        one["p_adjusted"] = p
    return told


def _over(seeds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the seeds in which the rule speaks of somebody; None where there are none."""
    found: dict[str, Any] = {"examples": round(float(np.mean([seed["examples"] for seed in seeds])))}
    for name in ("holds", "violation"):
        values = [seed[name] for seed in seeds if seed[name] is not None]
        found[name] = interval(values, (0.0, 1.0)).as_dict() if values else None
    return found


def _compared(
    before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]], test_share: float | None
) -> dict[str, Any] | None:
    """The share of examples on which it holds, after less before."""
    pairs = [
        (a["holds"], b["holds"])
        for a, b in zip(before, after, strict=True)
        if a["holds"] is not None and b["holds"] is not None
    ]
    if not pairs:
        return None
    return compare([a for a, _ in pairs], [b for _, b in pairs], test_share=test_share).as_dict()
