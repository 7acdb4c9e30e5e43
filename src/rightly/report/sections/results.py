"""The results: every measure for every run, the paired test, and a chart of intervals and seeds."""

from __future__ import annotations

from rightly.report.blocks import Block, Cell, Facts, Figure, Folded, Prose, Section, Table
from rightly.report.charts.intervals import Row, intervals
from rightly.report.cleaning import Record
from rightly.report.numerals import ABSENT, count, decimals, has_interval, interval, number, p_value
from rightly.report.runs import Run, compared, runs_of
from rightly.report.verdict import judged, reading
from rightly.report.words import judged_rows, ordered, row_noun, word_of

MARKS = "Large mark: mean over seeds. Line: 95% interval. Small dots: one seed each."


#: measures whose distance from 0 is what matters
_ZERO = {"completeness_gap", "inside"}


def results(record: Record) -> Section | None:
    """The table of test results, what the measures mean, the chart, and the numbers seed by seed."""
    runs = runs_of(record)
    entries = {run.name: run.record["metrics"]["test"] for run in runs}
    names = ordered({name for metrics in entries.values() for name in metrics})
    if not names:
        return None
    blocks: list[Block] = [
        Prose([_lead(record)]),
        comparison_table(f"Results on the {judged_rows(record['data'])}.", record, entries, names),
        meanings(names, record["data"]),
        _chart(runs, entries, names),
        Folded("The value of each seed", _seeds(runs, names)),
    ]
    splits = sorted({split for run in runs for split in run.record["metrics"]} - {"test"})
    blocks += [_other(record, runs, split) for split in splits]
    return Section("results", "The results", blocks)


def _lead(record: Record) -> str:
    test = (record["data"].get("split") or {}).get("test")
    noun = row_noun(record["data"])
    judged = f"on {count(test, f'test {noun}')}" if test is not None else f"on test {noun}s"
    who = "The model is" if len(record["runs"]) == 1 else "Models are"
    if (given := (record["data"].get("split") or {}).get("given")) is not None:
        # somebody's own data: whether they were trained on, no record knows
        lead = f"{who} judged on the {count(given, noun)} given. "
        lead += "If a model was trained on some of them, it looks better here than it is."
    else:
        lead = f"{who} judged {judged} that took no part in training or in choosing settings."
    how = record.get("intervals") or "Numbers are means over the seeds, with 95% intervals."
    return f"{lead} {how}"


def comparison_table(caption: str, record: Record, entries: Record, names: list[str]) -> Table:
    """A row per measure: each run's value with its interval, then the difference, its p and how to read it.

    ``entries[run][measure]`` is an interval; the last columns are there only when something was compared.
    """
    runs = [run for run in runs_of(record) if run.name in entries]
    tested = {name: record["comparison"][name] for name in names if name in record["comparison"]}
    columns = ["Measure", *(run.title for run in runs)]
    if tested:
        columns += ["Difference", "p", "Reading"]
    rows = []
    for name in names:
        row = [Cell(word_of(name).label), *(_value(entries[run.name].get(name)) for run in runs)]
        if tested:
            row += _tested(name, tested.get(name))
        rows.append(row)
    numeric = frozenset(range(1, len(runs) + (3 if tested else 1)))
    return Table(caption, columns, rows, numeric, stacked=True, note=_note(record, tested))


def _value(entry: Record | None) -> Cell:
    if entry is None:
        return Cell(ABSENT)
    middle, ends = interval(entry)
    return Cell(middle, ends)


def _tested(name: str, entry: Record | None) -> list[Cell]:
    if entry is None:
        return [Cell(ABSENT), Cell(ABSENT), Cell("Not tested")]
    middle, ends = interval(entry, "difference", signed=True)
    return [Cell(middle, ends), Cell(p_value(judged(entry))), Cell(reading(name, entry))]


def _note(record: Record, tested: Record) -> str:
    """What was compared with what, and by which test."""
    if not tested:
        return ""
    pairs = {name: compared(record, name) for name in tested}
    told = sorted({f"\u201c{a.title}\u201d less \u201c{b.title}\u201d" for a, b in filter(None, pairs.values())})
    parts = [f"Difference: {'; '.join(told)}."] if told else []
    tests: dict[str, list[str]] = {}
    for name, entry in tested.items():
        if entry.get("test"):
            size = f", n = {count(entry['n'])}" if entry.get("n") is not None else ""
            tests.setdefault(f"{entry['test']}{size}", []).append(word_of(name).label)
    if len(tests) == 1:
        parts.append(f"Test: {next(iter(tests))}.")
    elif tests:
        parts.append("Tests: " + "; ".join(f"{test} ({', '.join(names)})" for test, names in tests.items()) + ".")
    if corrected := sum(entry.get("p_adjusted") is not None for entry in tested.values()):
        parts.append(f"p is corrected for {count(corrected, 'measure')} (Benjamini-Hochberg).")
    parts.append("p below 0.05 is read as a difference.")
    return " ".join(parts)


def meanings(names: list[str], about: Record) -> Facts:
    """What the measures mean, for those that are known."""
    words = [word_of(name, about) for name in names]
    return Facts([(word.label, word.meaning) for word in words if word.meaning])


def interval_panels(runs: list[Run], entries: Record, names: list[str]) -> list[str]:
    """One dot-and-interval chart per measure."""
    panels = []
    for name in names:
        rows = [_row(run, entries[run.name][name]) for run in runs if name in entries.get(run.name, {})]
        told = "; ".join(f"{row.label} {row.written}" for row in rows)
        panels.append(intervals(word_of(name).label, f"Mean and 95% interval. {told}.", rows, zero=name in _ZERO))
    return panels


def _row(run: Run, entry: Record) -> Row:
    middle, ends = interval(entry)
    low, high = (entry["low"], entry["high"]) if has_interval(entry) else (None, None)
    written = f"{middle} ({ends})" if ends else middle
    return Row(run.title, run.colour, run.shape, entry["mean"], low, high, entry.get("values") or [], written)


def _chart(runs: list[Run], entries: Record, names: list[str]) -> Figure:
    note = "The axes do not start at 0, so that small differences can be seen."
    return Figure("The same results as a chart.", interval_panels(runs, entries, names), f"{MARKS} {note}")


def _seeds(runs: list[Run], names: list[str]) -> Table:
    rows = []
    for run in runs:
        metrics = run.record["metrics"]["test"]
        for at, seed in enumerate(run.record["seeds"]):
            values = [metrics[name]["values"][at] if name in metrics else None for name in names]
            rows.append([Cell(run.title), Cell(str(seed)), *(_seed_cell(value) for value in values)])
    columns = ["Model", "Seed", *(word_of(name).label for name in names)]
    return Table("Test results of each seed.", columns, rows, frozenset(range(1, len(columns))))


def _seed_cell(value: float | None) -> Cell:
    places = None if value is None else decimals(value) + 1
    return Cell(number(value, places), order=value)


def _other(record: Record, runs: list[Run], split: str) -> Folded:
    entries = {run.name: run.record["metrics"].get(split, {}) for run in runs}
    names = ordered({name for metrics in entries.values() for name in metrics})
    bare = {**record, "comparison": {}}
    label = split.replace("_", " ")
    table = comparison_table(f"Results on the {label} rows.", bare, entries, names)
    return Folded(f"Results on other rows: {label}", table)
