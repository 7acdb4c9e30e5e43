"""Labels of a table: the task they make, their classes, and what cannot be learnt from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from rightly.core.errors import DataError
from rightly.data.columns import as_levels, as_numbers, is_boolean, is_whole, kind_of

if TYPE_CHECKING:
    from pandas import Series

Task = Literal["classification", "regression"]

MAX_CLASSES = 100
MIN_PER_CLASS = 5
#: a label of whole numbers with at most this many different values is taken for classes
GUESS_CLASSES = 10


@dataclass(frozen=True)
class Labels:
    """``values`` (N,) int64 class indices or float32, the ``task`` and the ``classes`` (empty for regression)."""

    values: np.ndarray
    task: Task
    classes: tuple[str, ...]


def read_labels(
    column: Series, label: str, task: Task | None, source: str, notes: list[str], *, min_rows: int
) -> tuple[Labels, np.ndarray]:
    """Read the label column.

    Returns:
        The labels of the rows that have one, and (rows,) bool: which rows those are. What was guessed or left out
        is added to ``notes``.

    Errors:
        DataError: no label is left, fewer than ``min_rows`` rows, one value only, a class with fewer than five
            rows, more than a hundred classes, dates, or text where numbers are needed.
    """
    numbers = _numbers(column, label, source)
    keep = np.isfinite(numbers) if numbers is not None else np.array([v is not None for v in as_levels(column)])
    _check_rows(keep, label, source, min_rows)
    if not keep.all():
        notes.append(f"{int((~keep).sum())} rows without a label were dropped")
    if task is None:
        task = _guess(None if numbers is None else numbers[keep])
        notes.append(f"task guessed from '{label}': {task}")
    if task == "classification":
        values = as_levels(column) if numbers is None or is_boolean(column) else numbers
        return _classes(values[keep], label, source), keep
    if numbers is None:
        wrong = as_numbers(column).wrong
        raise DataError(
            f"the label '{label}' of {source} is not a number, as regression needs",
            expected="numbers",
            got=f"for example '{wrong}'",
            mend="choose task='classification', or another label",
        )
    return Labels(_regression(numbers[keep], label, source), "regression", ()), keep


def known_labels(
    column: Series, label: str, classes: tuple[str, ...], source: str, notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Read the label column for a model that knows its classes.

    Args:
        classes: their names in the model's order; empty for a regression.

    Returns:
        (N,) int64 class indices or float32 values of the rows that have a label, and (rows,) bool: which rows those
        are. What was left out is added to ``notes``.

    Errors:
        DataError: no label is left, a class that the model does not know, or text where numbers are needed.
    """
    numbers = _numbers(column, label, source)
    if not classes and numbers is None:
        raise DataError(
            f"the label '{label}' of {source} is not a number, as this regression predicts",
            expected="numbers",
            got=f"for example '{as_numbers(column).wrong}'",
            mend="give data of the kind that the run was trained on",
        )
    keep = np.isfinite(numbers) if numbers is not None else np.array([v is not None for v in as_levels(column)])
    _check_rows(keep, label, source, 1)
    if not keep.all():
        notes.append(f"{int((~keep).sum())} rows without a label were dropped")
    if not classes and numbers is not None:
        return numbers[keep].astype(np.float32), keep
    values = as_levels(column) if numbers is None or is_boolean(column) else numbers
    names = [_class_name(value) for value in values[keep].tolist()]
    if unknown := sorted(set(names) - set(classes)):
        raise DataError(
            f"the label '{label}' of {source} has classes that the model does not know",
            expected=", ".join(classes),
            got=", ".join(unknown[:5]),
            mend="give data with the classes that the run was trained on",
        )
    return np.array([classes.index(name) for name in names], dtype=np.int64), keep


def _class_name(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _numbers(column: Series, label: str, source: str) -> np.ndarray | None:
    """The label as (rows,) float64, or None if it is text. Truth values count as 0 and 1."""
    if bool(column.isna().all()):
        return np.full(len(column), np.nan)
    kind = kind_of(column)
    if kind in ("date", "unusable"):
        raise DataError(
            f"the label '{label}' of {source} cannot be predicted",
            expected="classes or numbers",
            got="dates or times" if kind == "date" else "entries that are neither numbers nor text",
            mend="turn it into a number or a class, or choose another label",
        )
    if is_boolean(column):
        return as_numbers(column.map({True: 1.0, False: 0.0}).astype(float)).values
    return as_numbers(column).values if kind == "number" else None


def _check_rows(keep: np.ndarray, label: str, source: str, min_rows: int) -> None:
    if not keep.any():
        raise DataError(
            f"every entry of the label '{label}' of {source} is missing",
            expected="a label in most rows",
            got=f"{len(keep)} rows, none with a label",
            mend="choose another label column",
        )
    if keep.sum() < min_rows:
        raise DataError(
            f"{source} has too few rows to train, tune and test on",
            expected=f"at least {min_rows} rows with a label",
            got=f"{int(keep.sum())} rows",
            mend="add rows",
        )


def _guess(numbers: np.ndarray | None) -> Task:
    if numbers is None or (is_whole(numbers) and len(np.unique(numbers)) <= GUESS_CLASSES):
        return "classification"
    return "regression"


def _classes(values: np.ndarray, label: str, source: str) -> Labels:
    """Class indices in the sorted order of the values (float64, or objects of text): by size, by character."""
    numeric = values.dtype != object
    distinct, indices, counts = np.unique(values, return_inverse=True, return_counts=True)
    names = [_class_name(value) for value in distinct.tolist()]
    if len(distinct) == 1:
        raise _one_value(label, source, names[0])
    if len(distinct) > MAX_CLASSES:
        raise DataError(
            f"the label '{label}' of {source} has too many different values for classification",
            expected=f"at most {MAX_CLASSES} classes",
            got=f"{len(distinct)} values",
            mend="choose task='regression', or another label" if numeric else "choose another label",
        )
    small = {name: int(count) for name, count in zip(names, counts, strict=True) if count < MIN_PER_CLASS}
    if small:
        raise DataError(
            f"a class of the label '{label}' of {source} has too few rows to train, tune and test on",
            expected=f"at least {MIN_PER_CLASS} rows in every class",
            got=", ".join(f"'{name}': {count}" for name, count in small.items()),
            mend="unite rare classes or drop their rows" + (", or choose task='regression'" if numeric else ""),
        )
    return Labels(indices.astype(np.int64).reshape(-1), "classification", tuple(names))


def _regression(numbers: np.ndarray, label: str, source: str) -> np.ndarray:
    if numbers.min() == numbers.max():
        raise _one_value(label, source, f"{numbers[0]:g}")
    largest = float(np.abs(numbers).max())
    bound = float(np.finfo(np.float32).max)
    if largest > bound:
        raise DataError(
            f"the label '{label}' of {source} is too large for single precision",
            expected=f"absolute values up to {bound:.1e}",
            got=f"{largest:.1e}",
            mend="use a larger unit or the logarithm",
        )
    return numbers.astype(np.float32)


def _one_value(label: str, source: str, value: str) -> DataError:
    return DataError(
        f"the label '{label}' of {source} is the same in every row: there is nothing to learn",
        expected="at least two different values",
        got=f"only '{value}'",
        mend="choose another label column",
    )
