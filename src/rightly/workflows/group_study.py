"""Ladders of baselines where a shortcut splits the data into groups: what each method is worth for the worst of them.

A recipe says what the data are, which methods climb the ladder and what each is told beside the labels. Training all
of them by the same loop, choosing every method's strength by two rules, with and without knowing groups in the
validation rows, and testing them group by group are the same for all ladders and are done here. What comes out is told
by ``group_report``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from rightly.attributions import attribute
from rightly.core.annotation import Annotation
from rightly.core.autodiff import reading
from rightly.core.groups import group_numbers
from rightly.evaluation import GroupAccuracy, group_accuracy, share_inside
from rightly.objectives import GroupDRO, Objective, with_groups
from rightly.objectives.model_term import AnyTerm
from rightly.objectives.objective import Loss
from rightly.objectives.term import EngineName
from rightly.training import Run, fit, retrain_last_layer
from rightly.workflows.reproduce import Row, Settings

#: of the last layers that are averaged (the paper: 10), and test rows whose gradients are looked at
_SUBSETS, _EXPLAINED = 3, 1000

_CROSS_ENTROPY: Loss = cross_entropy

#: what a strength is chosen by: a result of the trials, larger is better -> in words
RULES = {
    "validation_worst": "worst group of validation rows in which groups are known",
    "validation": "accuracy on validation rows like the training rows",
}


@dataclass(frozen=True)
class Part:
    """Some rows.

    Attributes:
        inputs: (N, *F).
        labels: (N,) class numbers.
        groups: (N, K), columns that make groups.
        irrelevant: (N, *F) boolean, where the shortcut lies; one channel stands for all.
    """

    inputs: Tensor
    labels: Tensor
    groups: Tensor
    irrelevant: Tensor

    def __add__(self, other: Part) -> Part:
        """These rows and others."""
        return Part(*(torch.cat([mine, theirs]) for mine, theirs in zip(self._all(), other._all(), strict=True)))

    def take(self, index: Tensor | slice) -> Part:
        """Some of them."""
        return Part(*(part[index] for part in self._all()))

    def _all(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.inputs, self.labels, self.groups, self.irrelevant


@dataclass(frozen=True)
class Parts:
    """One seed's rows.

    Attributes:
        train: with the shortcut.
        annotated: (N,) boolean, training rows whose ``irrelevant`` the methods are shown.
        held_out: rows in which groups are known, for methods that need such.
        validation: like the training rows; groups are not known.
        grouped: validation rows in which groups are known.
        tests: by name, the first is what methods are judged by.
    """

    train: Part
    annotated: Tensor
    held_out: Part
    validation: Part
    grouped: Part
    tests: Mapping[str, Part]


def _no_terms(weight: float) -> Sequence[AnyTerm]:
    return ()


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        title: in the report.
        told: what it knows beside inputs and labels, in words.
        strengths: to choose from.
        terms: of a strength.
        changed: (rows, training rows, seed) -> rows, applied to every part, the test included.
        annotated: (regions of the training rows, seed) -> the regions that the terms are shown instead.
        joined: trains on the held-out rows too.
        dro: trains with GroupDRO, whose step is the strength, on the groups that are.
        retrained: fits the last layer anew on the held-out rows, with the strength as L1 penalty.
        network: which of the study's.
    """

    title: str
    told: str = "nothing"
    strengths: Sequence[float] = (0.0,)
    terms: Callable[[float], Sequence[AnyTerm]] = _no_terms
    changed: Callable[[Part, Part, int], Part] | None = None
    annotated: Callable[[Tensor, int], Tensor] | None = None
    joined: bool = False
    dro: bool = False
    retrained: bool = False
    network: str = "main"


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is trained, on what, and how.

    Attributes:
        name: tells its trials from those of another study of the recipe.
        groupings: what is reported as a group: by name, which columns. The first is what methods are judged by, and
            what the rows are balanced by that fit a last layer; GroupDRO takes all columns.
        arms: by name; ``plain`` is what the others are compared with.
        parts: seed -> rows.
        networks: by name, seed -> an untrained network; ``main`` is every arm's that asks for no other.
        seeds: of every arm.
        tried: how many of them choose the strength.
        fit: arguments of ``rt.fit``.
    """

    name: str
    groupings: Mapping[str, Sequence[int]]
    arms: Mapping[str, Arm]
    parts: Callable[[int], Parts]
    networks: Mapping[str, Callable[[int], nn.Module]]
    seeds: Sequence[int]
    tried: int
    fit: Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """What a study trained.

    Attributes:
        tried: trials that chose the strengths.
        chosen: rule -> arm -> strength.
        rows: rule -> arm -> its trials, one a seed.
    """

    tried: list[Row]
    chosen: dict[str, dict[str, float]]
    rows: dict[str, dict[str, list[Row]]]


def run_study(study: Study, settings: Settings) -> Found:
    """Choose each arm's strength by each rule, then train every arm with every seed."""
    parts = lru_cache(1)(study.parts)

    def work(key: Row) -> Row:
        return _trial(study, parts(key["seed"]), key, settings.engine)

    first, everyone = study.seeds[: study.tried], study.arms.items()
    keys = [
        {"study": study.name, "arm": name, "strength": strength, "seed": seed}
        for seed in first
        for name, arm in everyone
        for strength in arm.strengths
    ]
    tried = settings.trials.run("strengths", keys, work)
    chosen = {
        rule: {name: choose([row for row in tried if row["arm"] == name], rule) for name in study.arms}
        for rule in RULES
    }
    pairs = dict.fromkeys((name, by_arm[name]) for name in study.arms for by_arm in chosen.values())
    keys = [
        {"study": study.name, "arm": name, "strength": strength, "seed": seed}
        for seed in study.seeds
        for name, strength in pairs
    ]
    trained = settings.trials.run("seeds", keys, work)
    rows = {
        rule: {
            name: [row for row in trained if (row["arm"], row["strength"]) == (name, strength)]
            for name, strength in by_arm.items()
        }
        for rule, by_arm in chosen.items()
    }
    return Found(tried, chosen, rows)


def choose(rows: Sequence[Row], rule: str) -> float:
    """The strength whose trials have the largest mean of ``rule``; of equals the strongest."""
    strengths = {float(row["strength"]) for row in rows}

    def mean(strength: float) -> float:
        values = [float(row[rule]) for row in rows if row["strength"] == strength]
        return round(sum(values) / len(values), 9)

    return max(strengths, key=lambda strength: (mean(strength), strength))


def filled_in(part: Part, train: Part, seed: int) -> Part:
    """The region shows the mean of the training rows there: nothing is left of the shortcut."""
    return replace(part, inputs=torch.where(part.irrelevant, train.inputs.mean(0), part.inputs))


def noised(part: Part, train: Part, seed: int) -> Part:
    """The region shows uniform noise, between the training rows' smallest and largest value."""
    draws = torch.Generator().manual_seed(seed)
    low, high = float(train.inputs.min()), float(train.inputs.max())
    noise = low + (high - low) * torch.rand(part.inputs.shape, generator=draws)
    return replace(part, inputs=torch.where(part.irrelevant, noise, part.inputs))


def _trial(study: Study, parts: Parts, key: Row, engine: Any) -> Row:
    """Train one network and test it."""
    arm, strength, seed = study.arms[key["arm"]], key["strength"], key["seed"]
    main = list(next(iter(study.groupings.values())))

    def seen(part: Part) -> Part:
        return part if arm.changed is None else arm.changed(part, parts.train, seed)

    model = study.networks[arm.network](seed)
    run = _train(study, arm, strength, seed, model, parts, seen, engine)
    if arm.retrained:
        held = seen(parts.held_out)
        rows = held.inputs, held.labels, held.groups[:, main]
        model = retrain_last_layer(model, rows, strengths=[strength], subsets=_SUBSETS, seed=seed).model
    found: Row = {
        "validation": _tested(model, seen(parts.validation), main).average.mean,
        "validation_worst": _tested(model, seen(parts.grouped), main).worst.mean,
        "engines": run.engines,
    }
    for name, part in parts.tests.items():
        every = {grouping: _tested(model, seen(part), list(by)) for grouping, by in study.groupings.items()}
        first = next(iter(every.values()))
        found |= {name: first.average.mean, f"{name}_worst": first.worst.mean}
        found |= {f"{name}_worst_{grouping}": each.worst.mean for grouping, each in every.items()}
    test = seen(next(iter(parts.tests.values())))
    few = test.take(test.irrelevant.flatten(1).any(1).nonzero()[:_EXPLAINED, 0])
    explained = attribute(model, few.inputs, "gradient", labels=few.labels, output="log_prob").attributions
    return found | {"inside": float(share_inside(explained, few.irrelevant.expand_as(explained)).mean())}


def _train(
    study: Study,
    arm: Arm,
    strength: float,
    seed: int,
    model: nn.Module,
    parts: Parts,
    seen: Callable[[Part], Part],
    engine: EngineName,
) -> Run:
    train, annotated = parts.train, parts.annotated
    if arm.joined:
        train = parts.train + parts.held_out
        annotated = torch.cat([annotated, annotated.new_ones(len(parts.held_out.labels))])
    regions = train.irrelevant if arm.annotated is None else arm.annotated(train.irrelevant, seed)
    known = annotated.reshape(-1, *(1,) * (regions.ndim - 1))
    irrelevant = torch.where(known, regions.float(), torch.nan)
    labels, loss = train.labels, _CROSS_ENTROPY
    if arm.dro:
        numbers, entries = group_numbers(train.groups, len(labels))
        labels, loss = with_groups(labels, numbers), GroupDRO(len(entries), step=strength)
    terms = [term.with_engine(engine) for term in arm.terms(strength)]
    annotation = Annotation(irrelevant=irrelevant, relevant=1 - irrelevant)
    objective = Objective(model, loss, terms, seed=seed)
    return fit(objective, (seen(train).inputs, labels, annotation), seed=seed, **study.fit)


def _tested(model: nn.Module, part: Part, columns: list[int]) -> GroupAccuracy:
    with reading(model, trainable=False), torch.no_grad():
        outputs = torch.cat([model(rows) for rows in part.inputs.split(2048)])
    return group_accuracy(outputs, part.labels, part.groups[:, columns])
