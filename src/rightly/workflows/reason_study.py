"""Ways of telling a network the right reasons, side by side: strengths chosen on validation rows, then every seed.

A recipe says which ways there are and how one network is trained and tested; ``group_study`` does so for data that
fall into groups. What comes out is told here too: runs of the record, one table, paired tests, sentences of claims.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rightly.evaluation import Comparison, adjust, compare
from rightly.objectives.model_term import AnyTerm
from rightly.workflows.group_study import choose
from rightly.workflows.reproduce import Claim, Row, Settings, adjusted, over, run_entry, shown
from rightly.workflows.wording import in_sentence, p_told


def _no_terms(strength: float) -> Sequence[AnyTerm]:
    return ()


@dataclass(frozen=True)
class Way:
    """One way to train.

    Attributes:
        title: in the report.
        told: what it knows beside inputs and labels, in words.
        strengths: to choose from.
        terms: of a strength.
        rows: which of the study's training rows it learns from.
        marks: which of the study's annotations its terms see.
    """

    title: str
    told: str = "nothing"
    strengths: Sequence[float] = (0.0,)
    terms: Callable[[float], Sequence[AnyTerm]] = _no_terms
    rows: str = "all"
    marks: str = "true"


@dataclass(frozen=True, kw_only=True)
class Study:
    """What is trained, and how strengths are chosen.

    Attributes:
        ways: by name; ``plain`` is what the others are compared with.
        work: (way, its terms at a strength, seed) -> what was measured, as JSON can hold it.
        seeds: of every way.
        tried: how many of them choose the strengths.
        rule: a result of ``work`` on validation rows, larger is better: the strength with the largest mean is chosen,
            of equals the strongest.
        told: the rule in words.
        test_share: see ``compare``: for seeds that split one table anew.
    """

    ways: Mapping[str, Way]
    work: Callable[[Way, Sequence[AnyTerm], int], Row]
    seeds: Sequence[int]
    tried: int
    rule: str
    told: str
    test_share: float | None = None


@dataclass(frozen=True)
class Found:
    """What a study trained.

    Attributes:
        tried: trials that chose the strengths.
        chosen: of every way.
        rows: way -> its trials, one a seed.
    """

    tried: list[Row]
    chosen: dict[str, float]
    rows: dict[str, list[Row]]

    def mean(self, way: str, key: str) -> float:
        """Of a result over seeds."""
        return float(over(self.rows[way], key)["mean"])

    def told(self, way: str, key: str) -> str:
        """Mean of a result over seeds and half the width of its 95 % interval."""
        found = over(self.rows[way], key)
        return f"{found['mean']:.3f} ± {(found['high'] - found['low']) / 2:.3f}"


def run_study(study: Study, settings: Settings) -> Found:
    """Choose each way's strength, then train all with every seed."""

    def work(key: Row) -> Row:
        way = study.ways[key["way"]]
        terms = [term.with_engine(settings.engine) for term in way.terms(key["strength"])]
        return study.work(way, terms, key["seed"])

    def trained(title: str, seeds: Sequence[int], strengths: Mapping[str, Sequence[float]]) -> list[Row]:
        keys = [
            {"way": name, "strength": strength, "seed": seed}
            for seed in seeds
            for name, tried in strengths.items()
            for strength in tried
        ]
        return settings.trials.run(title, keys, work)

    several = {name: way.strengths for name, way in study.ways.items() if len(way.strengths) > 1}
    tried = trained("strengths", study.seeds[: study.tried], several) if several else []
    chosen = {name: float(way.strengths[0]) for name, way in study.ways.items()}
    chosen |= {name: choose([row for row in tried if row["way"] == name], study.rule) for name in several}
    rows = trained("seeds", study.seeds, {name: (strength,) for name, strength in chosen.items()})
    return Found(tried, chosen, {name: [row for row in rows if row["way"] == name] for name in study.ways})


def difference(study: Study, found: Found, key: str, first: str, second: str) -> Comparison:
    """Paired test of the second way against the first."""
    return compare(*([row[key] for row in found.rows[way]] for way in (first, second)), test_share=study.test_share)


class Contest(NamedTuple):
    """A claim that one way does better than another.

    Attributes:
        told: by what, in words.
        paper: its numbers, or one of ``OURS`` of ``reproduce``.
        key: a result of ``Study.work``.
        second, first: of which ways, the better one before.
        smaller: whether a small result is good.
    """

    told: str
    paper: str
    key: str
    second: str
    first: str = "plain"
    smaller: bool = False


def claims(study: Study, found: Found, contests: Sequence[Contest]) -> list[Claim]:
    """Each contest judged by a paired test, their p corrected for how many they are."""
    tests = adjusted([difference(study, found, each.key, each.first, each.second) for each in contests])
    return [_claim(study, found, contest, test) for contest, test in zip(contests, tests, strict=True)]


def _claim(study: Study, found: Found, contest: Contest, test: Comparison) -> Claim:
    titles = study.ways[contest.second].title, in_sentence(study.ways[contest.first].title)
    means = " against ".join(f"{found.mean(way, contest.key):.3f}" for way in (contest.second, contest.first))
    larger = shown(test)
    return Claim(
        f"{titles[0]} {'below' if contest.smaller else 'above'} {titles[1]}: {contest.told}",
        contest.paper,
        f"{means} ({test.difference:+.3f}, {test.low:+.3f} to {test.high:+.3f}{p_told(test)})",
        larger if larger is None else larger is not contest.smaller,
    )


def run_entries(study: Study, found: Found, metrics: Mapping[str, str], explanations: Mapping[str, str]) -> Row:
    """The record's runs: every way at its chosen strength."""
    return {name: _entry(study, found, name, metrics, explanations) for name in study.ways}


def _entry(study: Study, found: Found, name: str, metrics: Mapping[str, str], explanations: Mapping[str, str]) -> Row:
    way, strength = study.ways[name], found.chosen[name]
    entry = run_entry(found.rows[name], metrics, explanations, weight=strength or None, title=way.title)
    if len(way.strengths) > 1:
        tried = [row for row in found.tried if row["way"] == name]
        means = {s: over([row for row in tried if row["strength"] == s], study.rule)["mean"] for s in way.strengths}
        entry["weight_choice"] = {
            "rule": "auto",
            "reason": f"It has the largest {study.told}; of equals the strongest.",
            "measure": study.told[0].upper() + study.told[1:],
            "candidates": [{"weight": s, "mean": mean, "chosen": s == strength} for s, mean in means.items()],
        }
    return entry


def comparisons(study: Study, found: Found, way: str, metrics: Mapping[str, str]) -> Row:
    """The record's comparison of a way with plain training."""
    return {
        name: {**difference(study, found, key, "plain", way).as_dict(), "run": way, "against": "plain"}
        for name, key in metrics.items()
    }


def table(study: Study, found: Found, title: str, columns: Mapping[str, str]) -> dict[str, Any]:
    """Every way, what it is told, its strength, and its results (heading -> result) with 95 % intervals."""
    body = [
        [
            way.title,
            way.told,
            f"{found.chosen[name]:g}" if found.chosen[name] else None,
            *(found.told(name, key) for key in columns.values()),
        ]
        for name, way in study.ways.items()
    ]
    return {"title": title, "columns": ["Way", "Told beside labels", "Strength", *columns], "rows": body}


def paired(study: Study, found: Found, key: str, title: str) -> dict[str, Any]:
    """Paired tests of every way against plain training, p-values corrected for their number."""
    names = [name for name in study.ways if name != "plain"]
    tests = [difference(study, found, key, "plain", name) for name in names]
    body = [
        [study.ways[name].title, test.difference, test.low, test.high, p]
        for name, test, p in zip(names, tests, adjust([test.p for test in tests]), strict=True)
    ]
    return {"title": title, "columns": ["Way", "Difference", "95% from", "to", "Corrected p"], "rows": body}
