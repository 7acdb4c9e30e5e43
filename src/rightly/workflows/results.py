"""``docs/results.md``: every published claim beside ours, from the records that are committed.

A finished run is added by copying its ``record.json`` into a folder ``experiments/results/NAME`` (``NAME-DATASET``
where a recipe was run on another data set). Nothing on the page is typed by hand.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from rightly.report import read_record
from rightly.report.numerals import duration
from rightly.workflows import reproduce

RECORDS = reproduce.EXPERIMENTS / "results"

_HEAD = """# Results: the sources' claims beside ours

Made from the committed records by `python -m rightly.workflows.results`; do not edit by hand. A claim *holds* when a
test decided before the run says so, *does not hold* when it says the reverse, and is *not shown* when this run can say
neither. The counts are of the papers' claims; those that only we make stand beside them. Intervals are 95 %. What a run
reduces, and what else differs from the paper, stands beside its table; why a claim does not hold is discussed in
[reproductions](reproductions.md)."""


def results_page(records: Path = RECORDS) -> str:
    """The page: an overview, then the claims of each record."""
    found = {path.name: read_record(path) for path in sorted(records.iterdir())}
    overview = [
        "| experiment | source | holds | does not hold | not shown | of ours hold |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    overview += [_summary(name, record) for name, record in found.items()]
    return "\n\n".join([_HEAD, "\n".join(overview), *(_section(name, record) for name, record in found.items())]) + "\n"


def _summary(name: str, record: dict[str, Any]) -> str:
    verdicts: dict[bool, list[str]] = {True: [], False: []}
    for claim in record["claims"]:
        verdicts[claim.get("published", reproduce.is_published(claim["paper"]))].append(claim["verdict"])
    published, ours = Counter(verdicts[True]), verdicts[False]
    numbers = (str(published[verdict]) for verdict in ("holds", "does not hold", "not shown"))
    told = f"{ours.count('holds')} of {len(ours)}" if ours else ""
    return _row([f"[{name}](#{name})", record["source"], *numbers, told])


def _section(name: str, record: dict[str, Any]) -> str:
    rows = [_row(["claim", "paper", "ours", "verdict"]), _row(["---"] * 4)]
    rows += [_row([c["claim"], c["paper"], c["ours"], c["verdict"]]) for c in record["claims"]]
    seconds = sum(run["seconds"] or 0 for run in record["runs"].values())
    made = f"`{record['rerun']}`, {record['created'][:10]}, {duration(seconds)} of training."
    notes = [f"- {note}" for note in record["notes"] if note != record["reduction"]]
    parts = [f"## {name}", f"{record['source']}. {made} {record['reduction']}", "\n".join(rows), "\n".join(notes)]
    return "\n\n".join(part for part in parts if part)


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    import sys

    sys.stdout.write(results_page())
