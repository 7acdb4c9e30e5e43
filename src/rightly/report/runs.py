"""The runs of a record in the order, with the names and in the colours that every table and chart uses."""

from __future__ import annotations

from dataclasses import dataclass

from rightly.report.cleaning import Record
from rightly.report.palette import PLAIN, RUNS


@dataclass(frozen=True)
class Run:
    """One run: its name in the record, its human title, its colour and marker, and its part of the record."""

    name: str
    title: str
    colour: str
    shape: str
    record: Record

    @property
    def explanations(self) -> Record:
        return dict(self.record["explanations"])


def title_of(name: str, run: Record | None = None) -> str:
    """The human name of a run, with a capital first letter."""
    prior = (run or {}).get("prior") or {}
    made = "Plain (no prior)" if name == "plain" else str(prior.get("name") or name).replace("_", " ").replace("-", " ")
    title = str((run or {}).get("title") or made)
    return title[:1].upper() + title[1:]


def runs_of(record: Record) -> list[Run]:
    """Plain first, then runs that declare a prior, then the others, each by name.

    The order must not depend on the order of the keys: a record read back from disk has them sorted.
    """

    def rank(name: str) -> tuple[int, str]:
        return (0 if name == "plain" else 1 if record["runs"][name].get("prior") else 2, name)

    runs, styles = [], 0
    for name in sorted(record["runs"], key=rank):
        colour, shape = (PLAIN, "circle") if name == "plain" else RUNS[styles % len(RUNS)]
        styles += name != "plain"
        runs.append(Run(name, title_of(name, record["runs"][name]), colour, shape, record["runs"][name]))
    return runs


def compared(record: Record, metric: str) -> tuple[Run, Run] | None:
    """The two runs whose difference ``comparison[metric]`` is: (the run, what it is compared against).

    An entry may name them (``run``, ``against``); without that it is the first run after plain, less plain.
    """
    runs = {run.name: run for run in runs_of(record)}
    entry = record["comparison"][metric]
    others = [name for name in runs if name != "plain"]
    run = entry.get("run", others[0] if others else None)
    against = entry.get("against", "plain" if "plain" in runs else None)
    if run is None or against is None or run == against:
        return None
    return runs[run], runs[against]
