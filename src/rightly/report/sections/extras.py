"""Whatever else a command found: its own curves, sentences and tables."""

from __future__ import annotations

from rightly.report.blocks import Block, Cell, Figure, Section, Table
from rightly.report.charts.axes import Key
from rightly.report.charts.lines import Frame, Line, lines, wants_log
from rightly.report.charts.phrases import Phrase, phrases
from rightly.report.cleaning import Record
from rightly.report.numerals import ABSENT, number
from rightly.report.palette import INK, PLAIN, RUNS
from rightly.report.runs import runs_of, title_of

#: x values that spread over more than this factor (weights, say) are drawn on a log axis
_DECADES = 300.0


def extras(record: Record, figures: Record) -> Section | None:
    """The curves two by two, then sentences and tables."""
    curves = [curve for curve in figures.get("curves") or [] if curve["series"]]
    blocks: list[Block] = []
    if curves:
        paper = any(series.get("paper") for curve in curves for series in curve["series"])
        note = "Open circles on dashed black lines are the published numbers." if paper else ""
        shaded = any(series.get("low") for curve in curves for series in curve["series"])
        note += " Shaded bands are 95% intervals." if shaded else ""
        blocks.append(Figure("Further curves.", [_curve(record, curve) for curve in curves], note.strip()))
    if sentences := [sentence for sentence in figures.get("sentences") or [] if sentence["words"]]:
        note = "Above the words are the phrases that the prediction is built of, from the first joined to the last."
        blocks.append(Figure("Sentences.", [_sentence(sentence) for sentence in sentences], note, wide=True))
    blocks += [_table(table) for table in figures.get("tables") or []]
    return Section("more", "Further results", blocks) if blocks else None


def _curve(record: Record, curve: Record) -> str:
    styles = {run.name: (run.colour, run.shape) for run in runs_of(record)}
    styles |= {run.title: (run.colour, run.shape) for run in runs_of(record)}
    free = [style for style in [*RUNS, (PLAIN, "circle")] if style not in styles.values()] or RUNS
    drawn, keys, used = [], [], 0
    for series in curve["series"]:
        paper = bool(series.get("paper"))
        colour, shape = (INK, "circle") if paper else styles.get(series["name"], free[used % len(free)])
        used += not paper and series["name"] not in styles
        dash = "5 4" if paper else None
        drawn.append(_line(series, colour, shape, dash, paper))
        label = (
            title_of(series["name"], record["runs"].get(series["name"]))
            if series["name"] in record["runs"]
            else series["name"]
        )
        keys.append(Key(label, colour, shape, dash, hollow=paper))
    description = f"Curves of {', '.join(key.label for key in keys)}"
    x_label, y_label = curve.get("x_label") or "", curve.get("y_label") or ""
    log_x = wants_log([x for line in drawn for x in line.x], _DECADES)
    x_label += " (log scale)" if log_x and x_label and "log" not in x_label else ""
    return lines(Frame(curve["title"], description, x_label, y_label, keys, height=190, log_x=log_x), drawn)


def _sentence(sentence: Record) -> str:
    found = [Phrase(**phrase) for phrase in sentence["phrases"]]
    description = "Phrases and their scores over the words of: " + " ".join(sentence["words"])
    return phrases(sentence["title"], description, sentence["words"], found)


def _line(series: Record, colour: str, shape: str, dash: str | None, paper: bool) -> Line:
    return Line(
        series["x"],
        series["y"],
        colour,
        low=series.get("low") or (),
        high=series.get("high") or (),
        dash=dash,
        shape=shape,
        hollow=paper,
    )


def _table(table: Record) -> Table:
    rows = [[_cell(entry) for entry in row] for row in table["rows"]]
    numeric = frozenset(
        index
        for index in range(1, len(table["columns"]))
        if all(row[index].order is not None or row[index].main == ABSENT for row in rows)
    )
    return Table(table["title"], table["columns"], rows, numeric)


def _cell(entry: object) -> Cell:
    if entry is None:
        return Cell(ABSENT)
    if isinstance(entry, bool):
        return Cell("yes" if entry else "no")
    if isinstance(entry, int):
        return Cell(f"{entry:,}" if abs(entry) >= 10_000 else str(entry), order=float(entry))
    if isinstance(entry, float):
        return Cell(number(entry), order=entry)
    return Cell(str(entry))
