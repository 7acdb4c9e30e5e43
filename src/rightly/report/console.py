"""Plain-text tables for the console: fixed width, a few box characters, no colours."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from rightly.report.cleaning import Record, cleaned
from rightly.report.numerals import count, interval, p_value
from rightly.report.runs import compared, runs_of
from rightly.report.schema import validate_record
from rightly.report.verdict import judged, reading
from rightly.report.words import ordered, row_noun, word_of

#: columns of the console; of the longest name; of a name before it is broken in two
_WIDTH, _NAME, _COLUMN = 100, 32, 16

_PLAIN = str.maketrans("\u2212\u2013\u201c\u201d\u00b2", '--""2')
_RAISED = str.maketrans("\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079", "-0123456789")


@dataclass(frozen=True)
class Entry:
    """One place of the table: its two lines where columns stand side by side, and its text where they do not."""

    main: str
    sub: str
    whole: str


def _number(text: str, ends: str = "") -> Entry:
    """A number over its interval."""
    text, ends = _printable(text), _printable(ends)
    return Entry(text, ends, f"{text} ({ends})" if ends else text)


def _words(text: str) -> Entry:
    """Words, broken at a space when they are long."""
    text = _short(text)
    at = text.rfind(" ", 0, _COLUMN) if len(text) > _COLUMN else -1
    return Entry(text, "", text) if at < 1 else Entry(text[:at], text[at + 1 :], text)


def results_table(record: Record, width: int = _WIDTH) -> str:
    """The test results of all runs with intervals, and the comparison, as text to print.

    Args:
        record: schema 1.
        width: columns of the console; a table that would be wider is set with one block per measure.

    Returns:
        Lines without a final newline; nothing in them but printable characters.

    Raises:
        DataError: the record has a problem.
    """
    record = cleaned(record)
    validate_record(record)
    runs = runs_of(record)
    names = ordered({name for run in runs for name in run.record["metrics"]["test"]} | set(record["comparison"]))
    head = ["measure", *(_short(run.title) for run in runs)]
    head += ["difference", "p", "reading"] if record["comparison"] else []
    rows = [[_words(text) for text in head], *(_row(record, name) for name in names)]
    table = _grid(rows)
    if max(map(_width, table)) > width:
        table = _blocks(rows)
    return "\n".join([_head(record), *table, *_foot(record)])


def _head(record: Record) -> str:
    about = record["data"]
    runs = runs_of(record)
    seeds = sorted({len(run.record["seeds"]) for run in runs})
    test = (about.get("split") or {}).get("test")
    parts = [
        about.get("name") or record["command"],
        count(seeds[0], "seed") if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds",
        count(test, f"test {row_noun(about)}") if test is not None else "",
    ]
    return _printable(", ".join(str(part) for part in parts if part))


def _row(record: Record, name: str) -> list[Entry]:
    row = [_words(word_of(name).label)]
    for run in runs_of(record):
        row.append(_entry(run.record["metrics"]["test"].get(name) or run.record["explanations"].get(name)))
    if record["comparison"]:
        entry = record["comparison"].get(name)
        row.append(_entry(entry, "difference"))
        row.append(_number("-" if entry is None else p_value(judged(entry))))
        row.append(_words("" if entry is None else reading(name, entry).lower()))
    return row


def _entry(entry: Record | None, key: str = "mean") -> Entry:
    return _number("-") if entry is None else _number(*interval(entry, key, signed=key == "difference"))


def _foot(record: Record) -> list[str]:
    pairs = [pair for name in record["comparison"] if (pair := compared(record, name))]
    told = sorted({f"{_short(run.title)} less {_short(against.title)}" for run, against in pairs})
    parts = ["Under a number or in brackets: its 95% interval."]
    if told:
        parts.append(f"Difference: {'; '.join(told)}.")
    if record["comparison"]:
        parts.append("No difference shown: p is not below 0.05.")
    return [" ".join(parts)]


def _grid(rows: list[list[Entry]]) -> list[str]:
    """Columns side by side, under a rule; intervals on a line of their own under their numbers."""
    widths = [max(max(_width(row[at].main), _width(row[at].sub)) for row in rows) for at in range(len(rows[0]))]
    rule = "\u2500" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [[_line([entry.main for entry in row], widths), _line([e.sub for e in row], widths)] for row in rows]
    head, *body = [[line for line in pair if line] for pair in lines]
    return [rule, *head, rule, *(line for pair in body for line in pair), rule]


def _line(texts: list[str], widths: list[int]) -> str:
    return "  ".join(_padded(text, wide) for text, wide in zip(texts, widths, strict=True)).rstrip()


def _blocks(rows: list[list[Entry]]) -> list[str]:
    """One block per measure: its name, then a line per column."""
    head, *body = rows
    label = max(_width(entry.whole) for entry in head)
    lines: list[str] = []
    for row in body:
        lines.append(f"\u2500\u2500 {row[0].whole}")
        pairs = zip(head[1:], row[1:], strict=True)
        lines += [f"   {_padded(name.whole, label)}  {entry.whole}" for name, entry in pairs if entry.whole]
    return lines


def _printable(text: str) -> str:
    """Text for a terminal: no control characters, no line breaks, ASCII signs."""
    text = re.sub(
        "\u00d710([\u207b\u2070\u00b9\u00b2\u00b3\u2074-\u2079]+)",
        lambda found: "e" + found[1].translate(_RAISED),
        text,
    )
    return "".join(c if c.isprintable() else " " for c in text).translate(_PLAIN)


def _short(text: str) -> str:
    text = _printable(text)
    return text if len(text) <= _NAME else f"{text[: _NAME - 3]}..."


def _width(text: str) -> int:
    """How many columns a text takes in a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _padded(text: str, width: int) -> str:
    return text + " " * (width - _width(text))
