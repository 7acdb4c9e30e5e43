"""The data: what it is, how it was split, its columns."""

from __future__ import annotations

from rightly.report.blocks import Block, Bullets, Cell, Facts, Folded, Section, Table
from rightly.report.cleaning import Record
from rightly.report.numerals import ABSENT, count, listed, percent
from rightly.report.words import row_noun

_SPLITS = {
    "train": "the model learns from these",
    "validation": "settings are chosen on these",
    "test": "results come from these only",
}
_SPLIT_NAMES = {"train": "training"}
_MOST_LEVELS = 8


def data(record: Record) -> Section | None:
    """Facts, the split, the columns (folded) and the notes of the data."""
    about = record["data"]
    blocks: list[Block] = []
    if facts := _facts(about):
        blocks.append(Facts(facts))
    if about.get("split"):
        blocks.append(_split(about))
    if about.get("notes"):
        blocks.append(Bullets(about["notes"]))
    if about.get("columns"):
        blocks.append(Folded(f"All columns ({len(about['columns'])})", _columns(about)))
    return Section("data", "The data", blocks) if blocks else None


def _facts(about: Record) -> list[tuple[str, str]]:
    task = about.get("task")
    label = about.get("label") or ""
    noun = row_noun(about)
    asked = {"classification": f"which class each {noun} belongs to", "regression": f"a number for each {noun}"}
    size = [
        count(about["rows"], noun) if about.get("rows") is not None else "",
        count(about["features"], "feature") if about.get("features") is not None else "",
    ]
    facts = [
        ("Name", about.get("name") or ""),
        ("Source", about.get("source") or ""),
        ("Size", ", ".join(part for part in size if part)),
        ("Predicted", f"{label} ({task}: {asked[task]})" if label and task else label or asked.get(task or "", "")),
        ("Classes", _classes(about)),
        ("Licence", about.get("licence") or ""),
    ]
    return [(term, text) for term, text in facts if text]


def _classes(about: Record) -> str:
    counts = about.get("class_counts") or {}
    names = [str(name) for name in about.get("classes") or sorted(counts)]
    total = sum(counts.values())
    told = [
        f"{name}: {count(counts[name])} ({percent(counts[name] / total)})" if total and name in counts else name
        for name in names
    ]
    return ("; " if counts else ", ").join(told)


def _split(about: Record) -> Table:
    sizes = about["split"]
    names = [name for name in _SPLITS if name in sizes] + sorted(set(sizes) - set(_SPLITS))
    total = sum(size for size in sizes.values() if size)
    rows = [
        [
            Cell(str(_SPLIT_NAMES.get(name, name)).capitalize()),
            Cell(count(sizes[name])),
            Cell(percent(sizes[name] / total) if total and sizes[name] is not None else ABSENT),
            Cell(_SPLITS.get(name, "")),
        ]
        for name in names
    ]
    noun = f"{row_noun(about)}s".capitalize()
    return Table("How the data was split.", ["Part", noun, "Share", "Used for"], rows, frozenset({1, 2}))


def _columns(about: Record) -> Table:
    rows = [
        [
            Cell(column["name"]),
            Cell(column.get("kind") or ABSENT),
            Cell(_missing(column.get("missing"), about.get("rows")), order=column.get("missing")),
            Cell(_levels(column.get("levels"))),
        ]
        for column in about["columns"]
    ]
    return Table("The columns of the data.", ["Column", "Kind", "Missing", "Levels"], rows, frozenset({2}))


def _missing(missing: float | None, rows: int | None) -> str:
    """A whole number is a count of rows, a fraction is a share."""
    if missing is None:
        return ABSENT
    if isinstance(missing, float) and missing < 1:
        return percent(missing)
    return count(missing) + (f" ({percent(missing / rows)})" if rows and missing else "")


def _levels(levels: int | list[object] | None) -> str:
    if levels is None:
        return ABSENT
    if isinstance(levels, int):
        return count(levels, "level")
    named = ["missing" if level is None else str(level) for level in levels]
    if len(named) > _MOST_LEVELS:
        return ", ".join(named[:_MOST_LEVELS]) + f" and {len(named) - _MOST_LEVELS} more"
    return listed(named)
