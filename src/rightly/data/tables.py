"""From a file (or a frame) to features and labels: ``read_table``. What was guessed is told in ``Table.notes``.

The order of events: read the file, take the labels out, drop rows without one, then judge every other column.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from rightly.core.errors import ArgumentError, DataError
from rightly.core.extras import require
from rightly.data.columns import (
    MAX_LEVELS,
    POOL,
    Column,
    Guess,
    Numbers,
    as_levels,
    as_numbers,
    is_identifier,
    is_whole,
    kind_of,
    named_as_identifier,
)
from rightly.data.labels import Task, read_labels
from rightly.data.reading import quoted, read_frame

if TYPE_CHECKING:
    from pandas import DataFrame, Series

MIN_ROWS = 30


@dataclass(frozen=True)
class Table:
    """Features and labels of N examples.

    Attributes:
        features: N rows; numbers are float64 with NaN for missing, categories are pandas categoricals of text.
        labels: (N,) int64 class indices, or (N,) float32 for regression.
        task: ``classification`` or ``regression``.
        classes: the label's values as text, in sorted order: ``labels == i`` means ``classes[i]``. Empty for
            regression.
        label: name of the label column.
        columns: one ``Column`` for each column of ``features``, in its order.
        notes: sentences for a person: what was guessed, read as missing or dropped, and why.
        source: where the table came from.
    """

    features: DataFrame
    labels: np.ndarray
    task: Task
    classes: tuple[str, ...]
    label: str
    columns: tuple[Column, ...]
    notes: tuple[str, ...]
    source: str


def read_table(path: str | Path, label: str, *, task: Task | None = None, drop: Iterable[str] = ()) -> Table:
    """Read a table to learn from.

    Args:
        path: ``.csv``, ``.tsv`` (either may end in ``.gz``) or ``.parquet``.
        label: the column to predict.
        task: ``classification`` or ``regression``; guessed when None: classes if the label is no number or has at
            most ten different whole values.
        drop: columns that must not be used.

    Errors:
        DataError: one for anything in the file that cannot be used, with what to do about it.
        ArgumentError: ``task`` is neither.
        MissingExtraError: pandas or pyarrow is not installed.
    """
    reading = read_frame(path)
    return table_from_frame(reading.frame, label, task=task, drop=drop, source=reading.source, notes=reading.notes)


def table_from_frame(
    frame: DataFrame,
    label: str,
    *,
    task: Task | None = None,
    drop: Iterable[str] = (),
    source: str = "a data frame",
    notes: Sequence[str] = (),
) -> Table:
    """The same as ``read_table`` for a pandas frame that is in memory already. ``frame`` is left as it is."""
    if task is not None and task not in get_args(Task):
        raise ArgumentError(
            "unknown task", expected=" or ".join(get_args(Task)), got=repr(task), mend="leave it out to have it guessed"
        )
    told = list(notes)
    names = [str(name) for name in frame.columns]
    frame = frame.set_axis(names, axis=1)
    dropped = [drop] if isinstance(drop, str) else list(drop)
    _check_names(names, label, dropped, source)
    labels, keep = read_labels(frame[label], label, task, source, told, min_rows=MIN_ROWS)
    rows = frame.loc[keep].reset_index(drop=True)
    before = len(told)
    features, columns = _features(rows, [name for name in names if name != label and name not in dropped], told)
    if not columns:
        raise DataError(
            f"{source} has no column left to learn from",
            expected="at least one usable column beside the label",
            got="; ".join(told[before:]) or f"only '{label}'",
            mend="add feature columns, or drop fewer",
        )
    return Table(features, labels.values, labels.task, labels.classes, label, columns, tuple(told), source)


def _check_names(names: list[str], label: str, dropped: list[str], source: str) -> None:
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(
            f"{source} has more than one column named {quoted(twice)}",
            expected="a different name for every column",
            got=f"{len(names)} columns, {len(set(names))} names",
            mend="rename or remove the repeated columns",
        )
    for name, role in [(label, "label"), *((name, "column to drop") for name in dropped)]:
        if name not in names:
            raise DataError(
                f"{source} has no column '{name}' (the {role})",
                expected=f"one of {quoted(names, most=12)}",
                got=f"'{name}'",
                mend=_did_you_mean(name, names),
            )
    if label in dropped:
        raise DataError(
            f"'{label}' is both the label and a column to drop",
            expected="a label that is kept",
            got=f"drop={dropped}",
            mend="take it out of drop",
        )


def _did_you_mean(name: str, names: list[str]) -> str:
    lowered = {other.lower(): other for other in names}
    near = difflib.get_close_matches(str(name).lower(), lowered, n=1, cutoff=0.5)
    return f"did you mean '{lowered[near[0]]}'?" if near else "check the spelling; capitals count"


def _features(rows: DataFrame, names: list[str], notes: list[str]) -> tuple[DataFrame, tuple[Column, ...]]:
    """Judge every column; those that cannot be used are left out with a note."""
    read = [_feature(name, rows[name], notes) for name in names]
    kept = [pair for pair in read if pair is not None]
    data = {column.name: values for column, values in kept}
    return require("pandas").DataFrame(data, index=rows.index), tuple(column for column, _ in kept)


def _feature(name: str, column: Series, notes: list[str]) -> tuple[Column, object] | None:
    kind = kind_of(column)
    reason = _reason_to_drop(name, column, kind)
    if reason:
        notes.append(f"'{name}' was dropped: {reason}")
        return None
    return _number(name, column, notes) if kind == "number" else _category(name, column, notes)


def _reason_to_drop(name: str, column: Series, kind: Guess) -> str | None:
    """Why a column cannot be a feature, or None if it can."""
    if bool(column.isna().all()):
        return "every entry is missing"
    if kind == "unusable":
        return "its entries are neither numbers nor text"
    if kind == "date":
        return "it holds dates or times (turn them into numbers, such as days since a start, to use them)"
    values = as_numbers(column).values if kind == "number" else as_levels(column)
    present = values[~require("pandas").isna(values)]
    if len(present) == 0:
        return "every entry is missing"
    # one value beside missing entries is no constant: that an entry is missing may say something
    if len(present) == len(values) and bool((present == present[0]).all()):
        return f"it is {present[0]} in every row"
    if is_identifier(name, present, len(values), kind):
        return "it differs in every row and only names the row"
    return None


def _number(name: str, column: Series, notes: list[str]) -> tuple[Column, np.ndarray]:
    numbers = as_numbers(column)
    notes.extend(_number_notes(name, numbers))
    if named_as_identifier(name) and is_whole(numbers.values):
        notes.append(f"'{name}' is named like an identifier but repeats: it was kept as a number; drop it if it is one")
    return Column(name, "number", int(np.isnan(numbers.values).sum())), numbers.values


def _number_notes(name: str, numbers: Numbers) -> list[str]:
    """What had to be read as missing in a column of numbers."""
    notes = []
    count = sum(numbers.markers.values())
    if count:
        notes.append(f"'{name}': {count} entries ({quoted(sorted(numbers.markers))}) were read as missing numbers")
    if numbers.infinite:
        notes.append(f"'{name}': {numbers.infinite} infinite entries were read as missing")
    return notes


def _category(name: str, column: Series, notes: list[str]) -> tuple[Column, object]:
    pandas = require("pandas")
    values = pandas.Series(as_levels(column), dtype=object)
    counts = values.value_counts()
    pooled = len(counts) > MAX_LEVELS
    if pooled:
        # equally frequent levels are ordered by name: the choice must not hang on the order of the rows
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        frequent = {level for level, _ in ranked[: MAX_LEVELS - 1]}
        values = values.where(values.isna() | values.isin(frequent), POOL)
        notes.append(
            f"'{name}' has {len(counts)} levels: the {MAX_LEVELS - 1} most frequent were kept, "
            f"the others became '{POOL}'"
        )
    levels = tuple(sorted(values.dropna().unique()))
    column_ = Column(name, "category", int(values.isna().sum()), levels, pooled)
    return column_, pandas.Categorical(values, categories=list(levels))
