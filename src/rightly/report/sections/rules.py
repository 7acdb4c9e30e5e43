"""The rules: each as it was written, with how well every run holds it."""

from __future__ import annotations

from rightly.report.blocks import Block, Cell, Facts, Figure, Folded, Prose, Section, Table
from rightly.report.charts.intervals import Row, intervals
from rightly.report.cleaning import Record
from rightly.report.numerals import ABSENT, count, has_interval, interval, p_value, percent, setting
from rightly.report.runs import Run, runs_of
from rightly.report.sections.results import MARKS
from rightly.report.verdict import judged, reading
from rightly.report.words import judged_rows

_MEANINGS = [
    (
        "Holds",
        "share of the examples it speaks of whose explanation breaks the rule by no more than its threshold",
    ),
    (
        "Violation",
        "share of an example's explanation that goes against the rule, from 0% (kept) to 100%; its mean over those "
        "examples. For two examples: how far apart their predictions are",
    ),
]


def rules(record: Record) -> Section | None:
    """The share of examples on which each rule holds, before and after, as a table and a chart; then the violations."""
    found = record.get("rules") or []
    if not found:
        return None
    runs = [run for run in runs_of(record) if any(run.name in rule["runs"] for rule in found)]
    lead = (
        f"{count(len(found), 'rule')} asked something of the model. The columns say on how many of the "
        f"{judged_rows(record['data'])} each one holds; a rule with a weight of 0 was watched and not trained."
    )
    blocks: list[Block] = [
        Prose([lead]),
        _holding(found, runs),
        Facts(_MEANINGS),
        Figure("On how many examples the rules hold.", [_panel(rule, runs) for rule in found], MARKS),
        Folded("How far the rules are broken", _violations(found, runs)),
    ]
    return Section("rules", "The rules", blocks)


def _holding(found: list[Record], runs: list[Run]) -> Table:
    columns = ["Rule", "Weight", *(run.title for run in runs), "Difference", "p", "Reading"]
    rows = [
        [_said(rule), Cell(setting(rule["weight"])), *_shares(rule, runs, "holds"), *_tested(rule.get("comparison"))]
        for rule in found
    ]
    note = "Difference: the share with the rules less the share without. p is corrected for the number of rules."
    comparisons = [rule.get("comparison") or {} for rule in found]
    if tests := sorted({entry["test"] for entry in comparisons if entry.get("test")}):
        note += f" Test: {', '.join(tests)}."
    numeric = frozenset(range(1, len(runs) + 4))
    return Table("Share of the examples on which each rule holds.", columns, rows, numeric, stacked=True, note=note)


def _violations(found: list[Record], runs: list[Run]) -> Table:
    columns = ["Rule", "Examples", "Threshold", *(run.title for run in runs)]
    rows = [
        [
            _said(rule),
            Cell(count(max(rule["runs"][run.name]["examples"] for run in runs if run.name in rule["runs"]))),
            Cell(percent(rule["threshold"])),
            *_shares(rule, runs, "violation"),
        ]
        for rule in found
    ]
    return Table("Mean violation of each rule.", columns, rows, frozenset(range(1, len(columns))))


def _said(rule: Record) -> Cell:
    spared = f", {percent(rule['exceptions'])} may break it" if rule.get("exceptions") else ""
    return Cell(rule["text"], f"line {rule['line']}{spared}")


def _shares(rule: Record, runs: list[Run], key: str) -> list[Cell]:
    entries = [(rule["runs"].get(run.name) or {}).get(key) for run in runs]
    return [Cell(ABSENT) if entry is None else _share(entry) for entry in entries]


def _share(entry: Record) -> Cell:
    ends = f"{percent(entry['low'])} to {percent(entry['high'])}" if has_interval(entry) else ""
    return Cell(percent(entry["mean"]), ends, entry["mean"])


def _tested(entry: Record | None) -> list[Cell]:
    if entry is None:
        return [Cell(ABSENT), Cell(ABSENT), Cell("Not tested")]
    middle, ends = interval(entry, "difference", signed=True)
    told = reading("holds", entry | {"higher_is_better": True})
    return [Cell(middle, ends), Cell(p_value(judged(entry))), Cell(told)]


def _panel(rule: Record, runs: list[Run]) -> str:
    entries = [(run, (rule["runs"].get(run.name) or {}).get("holds")) for run in runs]
    rows = [_row(run, entry) for run, entry in entries if entry is not None]
    told = "; ".join(f"{row.label} {row.written}" for row in rows) or "It speaks of no example"
    return intervals(rule["text"], f"Share of examples on which it holds. {told}.", rows, zero=True)


def _row(run: Run, entry: Record) -> Row:
    low, high = (entry["low"], entry["high"]) if has_interval(entry) else (None, None)
    return Row(
        run.title, run.colour, run.shape, entry["mean"], low, high, entry.get("values") or [], percent(entry["mean"])
    )
