"""From the columns of a table to one matrix of numbers that a network can read: ``TableEncoder``.

Everything that is learnt (means, scales, levels, bin edges) comes from the rows given to ``fit``: the training rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rightly.core.errors import ArgumentError, CheckpointError, DataError
from rightly.core.extras import require
from rightly.data.columns import POOL, Column, as_levels, as_numbers

if TYPE_CHECKING:
    from pandas import DataFrame, Series

SCHEMA = 1


@dataclass(frozen=True)
class Code:
    """How one column is encoded.

    Attributes:
        column: the column's name.
        kind: ``number`` or ``category``.
        missing: whether a feature tells missing entries: true if the training rows had any.
        mean, scale: of a number in the training rows; the scale of a constant is 1.
        edges: inner edges of a number's quantile bins, rising; empty without bins.
        levels: of a category, those of the training rows, sorted.
        pooled: whether unknown levels of a category count as ``other``.
    """

    column: str
    kind: str
    missing: bool
    mean: float = 0.0
    scale: float = 1.0
    edges: tuple[float, ...] = ()
    levels: tuple[str, ...] = ()
    pooled: bool = False

    @property
    def names(self) -> list[str]:
        """The encoded features' names, in order."""
        if self.kind == "number":
            bins = len(self.edges) + 1 if self.edges else 0
            names = [self.column, *(f"{self.column} (bin {index + 1} of {bins})" for index in range(bins))]
        else:
            names = [f"{self.column}={level}" for level in self.levels]
        return [*names, f"{self.column} (missing)"] if self.missing else names


class TableEncoder:
    """Turns the columns of a table into one float32 matrix.

    A number becomes (x - mean) / standard deviation with missing entries at the mean, that is at 0, and one more
    feature, 1 where the entry is missing, if training rows miss any. A category becomes one 0/1 feature for each
    level of the training rows, and one for missing; a level that was never seen gives zeros throughout.

    Args:
        quantile_bins: 0, or into how many bins of equal frequency each number is also cut, one 0/1 feature a bin
            (missing entries are in none). Equal edges are united, so there may be fewer.

    Attributes:
        columns: the original columns, as given to ``fit``.
        feature_names: (F,) names of the encoded features.
        groups: (F,) int64, the index in ``columns`` that each encoded feature came from.
    """

    def __init__(self, *, quantile_bins: int = 0) -> None:
        if quantile_bins < 0 or quantile_bins == 1:
            raise ArgumentError(
                "quantile_bins must be 0 (none) or at least 2",
                expected="0 or an int in [2, inf)",
                got=quantile_bins,
                mend="leave it out for no bins",
            )
        self.quantile_bins = quantile_bins
        self._columns: tuple[Column, ...] = ()
        self._codes: tuple[Code, ...] = ()

    def fit(self, features: DataFrame, columns: Sequence[Column]) -> TableEncoder:
        """Learn the encoding from training rows.

        Args:
            features: the training rows only; other rows must not be seen here.
            columns: ``Table.columns``.

        Returns:
            The encoder itself.

        Errors:
            DataError: no row, an absent column, or entries that are not of the column's kind.
        """
        _check_frame(features, [column.name for column in columns])
        if len(features) == 0 or not columns:
            raise DataError(
                "nothing to fit the encoding on",
                expected="at least one row and one column",
                got=f"{len(features)} rows, {len(columns)} columns",
                mend="pass the training rows and Table.columns",
            )
        self._columns = tuple(columns)
        self._codes = tuple(self._fitted(features[column.name], column) for column in columns)
        return self

    def _fitted(self, values: Series, column: Column) -> Code:
        if column.kind == "number":
            return _fit_number(values, column.name, self.quantile_bins)
        levels = _levels(values, column.name, (), column.pooled)
        seen = tuple(sorted({level for level in levels if level is not None}))
        missing = any(level is None for level in levels)
        return Code(column.name, "category", missing, levels=seen, pooled=column.pooled)

    def transform(self, features: DataFrame) -> np.ndarray:
        """Encode N rows as (N, F) float32, every entry finite. Further columns are ignored.

        Errors:
            DataError: a column is absent, or its entries are not of the kind that was fitted.
        """
        self._check_fitted()
        _check_frame(features, [code.column for code in self._codes])
        encoded = np.zeros((len(features), len(self.feature_names)), dtype=np.float32)
        start = 0
        for code in self._codes:
            stop = start + len(code.names)
            encode = _encode_number if code.kind == "number" else _encode_category
            encode(features[code.column], code, encoded[:, start:stop])
            start = stop
        return encoded

    @property
    def columns(self) -> tuple[Column, ...]:
        return self._columns

    @property
    def codes(self) -> tuple[Code, ...]:
        """How each column is encoded, in order."""
        return self._codes

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(name for code in self._codes for name in code.names)

    @property
    def groups(self) -> np.ndarray:
        return np.repeat(np.arange(len(self._codes)), [len(code.names) for code in self._codes])

    def to_json(self) -> dict[str, Any]:
        """Everything learnt, as a dict that ``json.dump`` takes; ``from_json`` is its inverse, bit for bit."""
        self._check_fitted()
        return {
            "schema": SCHEMA,
            "quantile_bins": self.quantile_bins,
            "columns": [_plain(asdict(column)) for column in self._columns],
            "codes": [_plain(asdict(code)) for code in self._codes],
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> TableEncoder:
        """The encoder that ``to_json`` saved.

        Errors:
            CheckpointError: ``saved`` is not what ``to_json`` of this version writes.
        """
        try:
            if saved["schema"] != SCHEMA:
                raise ValueError(f"schema {saved['schema']}")
            encoder = cls(quantile_bins=saved["quantile_bins"])
            encoder._columns = tuple(Column(**_tupled(column)) for column in saved["columns"])
            encoder._codes = tuple(Code(**_tupled(code)) for code in saved["codes"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(
                "this is not a saved table encoder",
                expected=f"what to_json wrote, schema {SCHEMA}",
                got=f"{type(error).__name__}: {error}",
                mend="fit the encoder again",
            ) from error
        return encoder

    def _check_fitted(self) -> None:
        if not self._codes:
            raise ArgumentError(
                "the encoder has not been fitted",
                expected="fit before this call",
                got="no fitted column",
                mend="call fit with the training rows first",
            )


def _fit_number(values: Series, name: str, bins: int) -> Code:
    numbers = _numbers(values, name)
    present = numbers[np.isfinite(numbers)]
    missing = len(present) < len(numbers)
    if len(present) == 0:
        return Code(name, "number", missing)
    # measured in units of the largest value, so that squares neither overflow nor vanish
    unit = float(np.abs(present).max()) or 1.0
    mean, deviation = float((present / unit).mean()) * unit, float((present / unit).std()) * unit
    # a constant leaves rounding errors in place of a deviation, and neighbours of a huge number may leave none
    scale = deviation if deviation > 0 and present.min() < present.max() else 1.0
    inner = np.quantile(present, np.arange(1, bins) / bins) if bins else np.empty(0)
    return Code(name, "number", missing, mean, scale, edges=tuple(np.unique(inner).tolist()))


def _encode_number(values: Series, code: Code, out: np.ndarray) -> None:
    numbers = _numbers(values, code.column)
    absent = np.isnan(numbers)
    largest = np.finfo(np.float32).max
    with np.errstate(over="ignore"):  # what overflows is clipped in the same breath
        out[:, 0] = np.clip((np.where(absent, code.mean, numbers) - code.mean) / code.scale, -largest, largest)
    if code.edges:
        bins = np.searchsorted(code.edges, numbers, side="left")
        rows = np.flatnonzero(~absent)
        out[rows, 1 + bins[rows]] = 1
    if code.missing:
        out[:, -1] = absent


def _encode_category(values: Series, code: Code, out: np.ndarray) -> None:
    levels = _levels(values, code.column, code.levels, code.pooled)
    index = {level: position for position, level in enumerate(code.levels)}
    places = np.array([index.get(level, -1) for level in levels], dtype=np.int64)
    rows = np.flatnonzero(places >= 0)
    out[rows, places[rows]] = 1
    if code.missing:
        out[:, -1] = [level is None for level in levels]


def _numbers(values: Series, name: str) -> np.ndarray:
    numbers = as_numbers(values)
    if numbers.wrong is not None:
        raise DataError(
            f"the column '{name}' must hold numbers",
            expected="numbers, or markers of missing entries such as '?' and 'NA'",
            got=f"for example '{numbers.wrong}'",
            mend="mend these entries, or read the table anew and train again with the column as a category",
        )
    return numbers.values


def _levels(values: Series, name: str, known: tuple[str, ...], pooled: bool) -> np.ndarray:
    """(N,) levels or None. Numbers where only words were known are another column under the same name."""
    types = require("pandas").api.types
    numeric = types.is_numeric_dtype(values) and not types.is_bool_dtype(values) and bool(values.notna().any())
    if numeric and known and not any(_is_number(level) for level in known):
        raise DataError(
            f"the column '{name}' must hold the levels of a category",
            expected=f"text such as '{known[0]}'",
            got=f"numbers such as {values.dropna().iloc[0]}",
            mend="give the column the same values as in the training table",
        )
    levels = as_levels(values)
    if pooled and POOL in known:
        return np.array([x if x is None or x in known else POOL for x in levels], dtype=object)
    return levels


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_frame(features: DataFrame, names: list[str]) -> None:
    if not isinstance(features, require("pandas").DataFrame):
        raise ArgumentError(
            "features must be a table",
            expected="a pandas DataFrame",
            got=type(features).__name__,
            mend="pass Table.features",
        )
    absent = [name for name in names if name not in features.columns]
    if absent:
        raise DataError(
            f"the table lacks {len(absent)} of the {len(names)} columns that are encoded",
            expected=", ".join(f"'{name}'" for name in absent),
            got=", ".join(f"'{name}'" for name in list(features.columns)[:12]) or "no columns",
            mend="add these columns, under these names",
        )


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in fields.items()}


def _tupled(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
