"""How to do it again, with what it was done, whom to cite, and what the words mean."""

from __future__ import annotations

from rightly.report.blocks import Block, Bullets, Code, Facts, Prose, Section
from rightly.report.cleaning import Record
from rightly.report.numerals import duration
from rightly.report.runs import runs_of
from rightly.report.words import GLOSSARY


def notes(record: Record) -> Section | None:
    """The record's own notes."""
    return Section("notes", "Notes", [Bullets(record["notes"])]) if record.get("notes") else None


def again(record: Record) -> Section:
    """The line to run, the seeds, the versions and the citations."""
    blocks: list[Block] = []
    if record.get("rerun"):
        blocks += [Prose(["This line trains and compares the models again:"]), Code(record["rerun"])]
    facts = [("Seeds", _seeds(record))]
    versions = record.get("versions") or {}
    if versions:
        facts.append(("Versions", ", ".join(f"{name} {versions[name]}" for name in sorted(versions))))
    if record.get("seconds") is not None:
        facts.append(("Time in all", duration(record["seconds"])))
    blocks.append(Facts(facts))
    if cited := _citations(record):
        blocks.append(Facts(cited, linked=True))
    return Section("again", "How to do this again", blocks)


def _seeds(record: Record) -> str:
    told = {run.title: ", ".join(map(str, run.record["seeds"])) for run in runs_of(record)}
    if len(set(told.values())) == 1:
        return next(iter(told.values()))
    return "; ".join(f"{title}: {seeds}" for title, seeds in told.items())


def _citations(record: Record) -> list[tuple[str, str]]:
    """What to cite for each run's prior, each text once."""
    found: dict[str, str] = {}
    for run in runs_of(record):
        prior = run.record.get("prior") or {}
        if prior.get("citation"):
            found.setdefault(str(prior["citation"]), f"Cite for \u201c{run.title}\u201d")
    return [(term, citation) for citation, term in found.items()]


def glossary() -> Section:
    """What the words mean."""
    return Section("glossary", "Words used here", [Facts(list(GLOSSARY.items()))])
