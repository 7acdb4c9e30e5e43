"""From the ``X`` that scikit-learn users pass to a frame of named columns, and to the encoder of those."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from pandas import DataFrame, Series
from scipy import sparse
from sklearn.utils.validation import validate_data

from rightly.core.errors import DataError
from rightly.data import Column, TableEncoder
from rightly.data.columns import MAX_LEVELS, POOL, as_levels, as_numbers, kind_of


class CellError(DataError, TypeError):
    """A cell holds what is neither a number nor text. Also a TypeError, which is what scikit-learn asks for."""


def read_rows(estimator: Any, X: Any, *, fitting: bool) -> DataFrame:
    """``X`` as a frame (N, n_features_in_) whose columns have unique names; a frame's own index and ``X`` stay.

    Arrays of numbers are read by scikit-learn's rules, NaN being a missing entry. Frames, and arrays that hold text,
    keep the type of each column. Sets, or when not ``fitting`` compares, ``n_features_in_`` and ``feature_names_in_``.

    Raises:
        ValueError: scikit-learn's own errors on shapes, names, sparse and complex input.
        DataError: infinite entries, too few rows or columns, names that are not unique.
        CellError: a cell holds a dict, a list, bytes, ...
    """
    if not isinstance(X, DataFrame) and not _holds_text(X):
        allowed = {"dtype": np.float64, "ensure_all_finite": "allow-nan", "ensure_min_samples": 2 if fitting else 1}
        array = validate_data(estimator, X, reset=fitting, **allowed)
        return DataFrame(array, columns=column_names(estimator))
    frame = X if isinstance(X, DataFrame) else DataFrame(np.asarray(X)).infer_objects()
    _check_size(estimator, frame, 2 if fitting else 1)
    _check_names(frame)
    validate_data(estimator, X, reset=fitting, skip_check_array=True)
    frame = frame.set_axis(column_names(estimator), axis=1)
    for name in frame.columns:
        _check_cells(frame[name])
    return frame


def column_names(estimator: Any) -> list[str]:
    """The original columns' names: ``feature_names_in_``, or ``x0``, ``x1``, ... where they had none."""
    if hasattr(estimator, "feature_names_in_"):
        return [str(name) for name in estimator.feature_names_in_]
    return [f"x{index}" for index in range(estimator.n_features_in_)]


def fit_encoder(frame: DataFrame) -> TableEncoder:
    """The encoder learnt from training rows. Every column is kept, also constants and identifiers.

    Raises:
        DataError: a column holds dates or times.
    """
    read = {str(name): _read_column(str(name), frame[name]) for name in frame.columns}
    values = DataFrame({name: entries for name, (_, entries) in read.items()}, index=frame.index)
    return TableEncoder().fit(values, [column for column, _ in read.values()])


def _holds_text(X: Any) -> bool:
    """Whether an array-like is a matrix with text or objects in it, which scikit-learn would turn into numbers."""
    if sparse.issparse(X) or isinstance(X, str):
        return False
    kind = getattr(getattr(X, "dtype", None), "kind", None)
    if kind in ("b", "i", "u", "f", "c"):
        return False
    array = np.asarray(X)
    return array.ndim == 2 and array.dtype.kind in "OUS"


def _check_size(estimator: Any, frame: DataFrame, least: int) -> None:
    """The same words as scikit-learn's, whose checks look for them."""
    for found, noun, wanted in ((len(frame), "sample", least), (frame.shape[1], "feature", 1)):
        if found < wanted:
            raise DataError(
                f"Found array with {found} {noun}(s) (shape={frame.shape}) while a minimum of {wanted} is required by "
                f"{type(estimator).__name__}."
            )


def _check_names(frame: DataFrame) -> None:
    twice = [str(name) for name, count in Counter(frame.columns).items() if count > 1]
    if twice:
        raise DataError("columns share a name", expected="a different name for every column", got=", ".join(twice))


def _check_cells(values: Series) -> None:
    if kind_of(values) == "unusable":
        wrong = next((v for v in values if not isinstance(v, str | int | float | np.number)), values.dtype)
        raise CellError(
            f"the column '{values.name}' cannot be read: a cell argument must be a string or a number",
            expected="numbers, text, truth values, missing entries",
            got=f"a {type(wrong).__name__}",
        )
    if values.dtype.kind == "f" and bool(np.isinf(values.to_numpy(dtype=float, na_value=np.nan)).any()):
        raise DataError(
            f"the column '{values.name}' contains infinity",
            expected="finite numbers, NaN for missing",
            got="inf",
            mend="X.replace([np.inf, -np.inf], np.nan)",
        )


def _read_column(name: str, values: Series) -> tuple[Column, Any]:
    """What a column is, and its entries as the encoder takes them."""
    kind = kind_of(values)
    if kind == "date":
        raise DataError(
            f"the column '{name}' holds dates or times",
            expected="numbers, text, truth values",
            got=f"for example {values.dropna().iloc[0]}",
            mend="turn them into numbers, such as days since a start, or drop the column",
        )
    if kind == "number":
        numbers = as_numbers(values).values
        return Column(name, "number", int(np.isnan(numbers).sum())), numbers
    return _read_category(name, as_levels(values))


def _read_category(name: str, levels: np.ndarray) -> tuple[Column, np.ndarray]:
    """As in a table read from a file: the rarest levels of very many are united."""
    counts = Counter(level for level in levels if level is not None)
    pooled = len(counts) > MAX_LEVELS
    if pooled:
        # equally frequent levels are ordered by name: the choice must not hang on the order of the rows
        kept = set(sorted(counts, key=lambda level: (-counts[level], level))[: MAX_LEVELS - 1])
        levels = np.array([x if x is None or x in kept else POOL for x in levels], dtype=object)
    known = tuple(sorted({level for level in levels if level is not None}))
    return Column(name, "category", sum(level is None for level in levels), known, pooled), levels
