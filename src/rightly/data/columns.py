"""What a raw column is: a number, a category, a date, an identifier. The same rules serve training and new tables.

``as_numbers`` and ``as_levels`` are the only two ways from raw entries to values, here and in ``encoding.py``: a
table read tomorrow is understood exactly as the one that was trained on.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rightly.core.extras import require

if TYPE_CHECKING:
    from pandas import Series

Kind = Literal["number", "category"]
Guess = Literal["number", "category", "date", "unusable"]

#: lower-case text that stands for a missing entry in a column that otherwise holds numbers
MARKERS = frozenset(["", "na", "n/a", "#n/a", "nan", "<na>", "null", "none", "?", "-", "--", ".", "missing", "unknown"])

#: a category keeps this many levels at most; the rarest become POOL
MAX_LEVELS = 50
POOL = "other"

_ID_NAME = re.compile(r"(^|[_\s.-])(id|ids|seqn|uuid|guid|rowid)$|^(idx|index|row|rownames|key|unnamed: \d+)$")
_CAMEL_ID = re.compile(r"[a-z](ID|Id)$")
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_TIME = r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?(\s*[ap]\.?m\.?)?(\s*(z|utc|gmt|[+-]\d{2}:?\d{2}))?"
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})"
    rf"|\d{{1,2}}[-\s]{_MONTH}[-\s,]+\d{{2,4}}|{_MONTH}\s+\d{{1,2}},?\s+\d{{4}}|\d{{4}}[-\s]{_MONTH}[-\s]\d{{1,2}})"
    rf"([t\s]+{_TIME})?|{_TIME}"
)


@dataclass(frozen=True)
class Column:
    """One feature column of a table.

    Attributes:
        name: as in the file.
        kind: ``number`` or ``category``.
        missing: how many entries are missing.
        levels: the values of a category, sorted, as text; empty for a number.
        pooled: whether rare levels were united as ``other``.
    """

    name: str
    kind: Kind
    missing: int
    levels: tuple[str, ...] = ()
    pooled: bool = False


@dataclass(frozen=True)
class Numbers:
    """A column read as numbers: ``values`` (N,) float64 with NaN for missing, and what stood for missing."""

    values: np.ndarray
    markers: Counter[str]
    infinite: int
    wrong: str | None  # the first entry that is no number and no marker; then ``values`` has NaN for it


def as_numbers(column: Series) -> Numbers:
    """Read a column of any type as numbers. Infinite entries and missing markers become NaN and are counted."""
    pandas = require("pandas")
    if _is_numeric(column):
        values, markers, wrong = column.to_numpy(dtype=np.float64, na_value=np.nan), Counter[str](), None
    else:
        codes, distinct = pandas.factorize(column)  # each distinct text is read once
        read, markers, wrong = _read_texts([str(value) for value in distinct], np.bincount(codes[codes >= 0]))
        values = np.append(read, np.nan)[codes]  # the code of a missing entry is -1
    infinite = np.isinf(values)
    return Numbers(np.where(infinite, np.nan, values), markers, int(infinite.sum()), wrong)


def _read_texts(texts: list[str], counts: np.ndarray) -> tuple[np.ndarray, Counter[str], str | None]:
    values, markers, wrong = np.full(len(texts), np.nan), Counter[str](), None
    for index, text in enumerate(texts):
        stripped = text.strip()
        if stripped.lower() in MARKERS:
            markers[stripped] += int(counts[index])
        else:
            number = _number(stripped)
            values[index] = np.nan if number is None else number
            if number is None and wrong is None:
                wrong = text
    return values, markers, wrong


def _number(text: str) -> float | None:
    try:
        return None if "_" in text else float(text)  # Python reads 1_0 as ten; a code in a table is no ten
    except ValueError:
        return None


def as_levels(column: Series) -> np.ndarray:
    """Read a column of any type as text: (N,) objects, ``str`` or None for missing. 1.0 and 1 are both ``"1"``."""
    pandas = require("pandas")
    codes, distinct = pandas.factorize(column)
    texts = [_level(value) for value in distinct]
    levels: np.ndarray = np.array([*texts, None], dtype=object)[codes]  # the code of a missing entry is -1
    return levels


def _level(value: Any) -> str | None:
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value).strip() or None


def _is_numeric(column: Series) -> bool:
    types = require("pandas").api.types
    return bool(types.is_numeric_dtype(column) and not types.is_complex_dtype(column))


def is_boolean(column: Series) -> bool:
    """Whether a column holds only true and false, beside missing entries."""
    if require("pandas").api.types.is_bool_dtype(column):
        return True
    values = column.dropna().unique() if column.dtype == object else []
    return len(values) > 0 and all(isinstance(value, (bool, np.bool_)) for value in values)


def kind_of(column: Series) -> Guess:
    """Guess what a column holds: numbers, also as text beside missing markers; categories; dates; or neither."""
    types = require("pandas").api.types
    if not _is_flat(column) or isinstance(column.dtype, require("pandas").PeriodDtype):
        return "unusable"
    if is_boolean(column) or isinstance(column.dtype, require("pandas").CategoricalDtype):
        return "category"
    if _is_numeric(column):
        return "number"
    if types.is_datetime64_any_dtype(column) or types.is_timedelta64_dtype(column):
        return "date"
    return _kind_of_texts(column)


def _is_flat(column: Series) -> bool:
    """False for columns of lists, records, bytes or complex numbers, which are neither numbers nor levels."""
    if column.dtype != object:
        return not require("pandas").api.types.is_complex_dtype(column)
    return not any(isinstance(v, (list, tuple, dict, set, bytes, complex, np.ndarray)) for v in column)


def _kind_of_texts(column: Series) -> Guess:
    numbers = as_numbers(column)
    if numbers.wrong is None and np.isfinite(numbers.values).any():
        return "number"
    texts = [text for value in column.dropna().unique() if (text := str(value).strip().lower())]
    return "date" if texts and all(_DATE.fullmatch(text) for text in texts) else "category"


def is_identifier(name: str, present: np.ndarray, rows: int, kind: Guess) -> bool:
    """Whether a column only names its rows: another value in every row, as text or as whole numbers called id.

    Args:
        name: the column's name.
        present: its entries that are not missing, as numbers or levels.
        rows: how many rows there are.
        kind: ``number`` or ``category``.
    """
    if len(present) < max(3, rows / 2) or len(set(present.tolist())) < len(present):
        return False
    return kind == "category" or (named_as_identifier(name) and len(present) == rows and is_whole(present))


def named_as_identifier(name: str) -> bool:
    """Whether a column's name says that it identifies something: ``id``, ``seqn``, ``patient_id``, ``PatientID``."""
    return bool(_ID_NAME.search(name.strip().lower()) or _CAMEL_ID.search(name.strip()))


def is_whole(values: np.ndarray) -> bool:
    """Whether all finite values are whole numbers."""
    finite = values[np.isfinite(values)]
    return bool((finite == np.floor(finite)).all())
