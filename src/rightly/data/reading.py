"""From a file to a raw table: CSV, TSV (plain or gzip) and Parquet, with one clear error for each bad file.

Nothing is guessed about the columns here (that is ``columns.py``); only the file itself is judged: its place,
suffix, encoding, delimiter, header and shape.
"""

from __future__ import annotations

import csv
import gzip
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rightly.core.errors import DataError
from rightly.core.extras import require

if TYPE_CHECKING:
    from pandas import DataFrame, Series

#: suffix of a readable table -> its delimiter; None for Parquet
SUFFIXES: dict[str, str | None] = {
    ".csv": ",",
    ".csv.gz": ",",
    ".tsv": "\t",
    ".tsv.gz": "\t",
    ".parquet": None,
    ".pq": None,
}

#: text that is a missing entry in any column. "None" is not among them: it is a frequent level of its own.
MISSING = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "null", "NULL", "<NA>"]

_DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)?")


@dataclass(frozen=True)
class Reading:
    """A table as it was in its file: ``frame``, what had to be guessed (``notes``) and the path (``source``)."""

    frame: DataFrame
    notes: tuple[str, ...]
    source: str


def read_frame(path: str | Path) -> Reading:
    """Read a CSV, TSV or Parquet file whole, without judging its columns.

    Args:
        path: ``.csv``, ``.tsv`` (UTF-8, either may end in ``.gz``), ``.parquet`` or ``.pq``.

    Errors:
        DataError: the file is absent, a folder, empty, of another kind, damaged, not UTF-8, without rows, or has
            a column name twice.
        MissingExtraError: pandas or pyarrow is not installed.
    """
    place = Path(path)
    suffix = _checked_suffix(place)
    delimiter = SUFFIXES[suffix]
    frame, notes = _read_parquet(place) if delimiter is None else _read_text(place, delimiter)
    if len(frame) == 0:
        raise DataError(
            f"{place} has a header and no rows",
            expected="one row for each example",
            got="0 rows",
            mend="check how the file was written",
        )
    return Reading(frame, tuple(notes), str(place))


def _checked_suffix(path: Path) -> str:
    """The known suffix of an existing, non-empty file."""
    if not path.exists():
        raise DataError(
            f"there is no file {path}",
            expected="an existing table",
            got="nothing at that place",
            mend="check the path and its spelling",
        )
    if path.is_dir():
        raise DataError(
            f"{path} is a folder, not a table",
            expected=f"a file ending in {', '.join(SUFFIXES)}",
            got="a folder",
            mend="name one file in it, or use read_images for a folder of pictures",
        )
    lowered = path.name.lower()
    suffix = max((known for known in SUFFIXES if lowered.endswith(known)), key=len, default=None)
    if suffix is None:
        raise DataError(
            f"the kind of table of {path} is not known",
            expected=f"a file ending in {', '.join(SUFFIXES)}",
            got=path.suffix or "no suffix",
            mend="save the table as CSV or Parquet",
        )
    if path.stat().st_size == 0:
        raise DataError(
            f"{path} is empty", expected="a header and rows", got="0 bytes", mend="check how it was written"
        )
    return suffix


def _read_text(path: Path, delimiter: str) -> tuple[DataFrame, list[str]]:
    """A CSV or TSV file. The header is read first: pandas would rename a repeated column without a word."""
    pandas = require("pandas")
    _check_is_text(path)
    with _mended(path):
        header, found = _header(path, delimiter)
    _check_names(path, header)
    notes = [] if found == delimiter else [f"the file separates its columns by {found!r} and was read so"]
    with _mended(path), warnings.catch_warnings():
        # pandas only warns when a row is longer than the header, and drops what does not fit
        warnings.simplefilter("error", pandas.errors.ParserWarning)
        frame = pandas.read_csv(
            path,
            sep=found,
            header=0,
            names=header,
            index_col=False,
            encoding="utf-8",
            skipinitialspace=True,
            keep_default_na=False,
            na_values=MISSING,
            # whole columns get one type; read in pieces, "1" and "1.0" would be two levels of one category
            low_memory=False,
        )
    return (_decimal_commas(frame, notes) if found == ";" else frame), notes


def _header(path: Path, delimiter: str) -> tuple[list[str], str]:
    """The column names, stripped, and the delimiter; ';' or a tab where the line has those and no comma."""
    with _opener(path)(path, "rt", encoding="utf-8-sig", newline="") as lines:
        for first in lines:
            if first.strip():
                break
        else:
            raise DataError(f"{path} is empty", expected="a header and rows", got="blank lines", mend="check the file")
        if delimiter not in first:
            delimiter = next((other for other in (";", "\t", ",") if other in first), delimiter)
        rest = csv.reader(chain([first], lines), delimiter=delimiter, skipinitialspace=True)
        names = [name.strip() for name in next(rest)]
    return [name or f"Unnamed: {index}" for index, name in enumerate(names)], delimiter


def _check_names(path: Path, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"{path} has more than one column named {quoted(twice)}",
            expected="a different name for every column",
            got=f"{len(names)} columns, {len(set(names))} names",
            mend="rename or remove the repeated columns",
        )


def _decimal_commas(frame: DataFrame, notes: list[str]) -> DataFrame:
    """Text columns of a ';' file that hold numbers with a decimal comma ("1,5") get a decimal point."""
    for name in frame.columns:
        if _has_decimal_commas(frame[name]):
            frame[name] = frame[name].str.replace(",", ".", regex=False).astype(float)
            notes.append(f"'{name}': read with a decimal comma")
    return frame


def _has_decimal_commas(column: Series) -> bool:
    if column.dtype.kind in "iufb":
        return False
    values = column.dropna().unique()
    return len(values) > 0 and all(isinstance(v, str) and _DECIMAL_COMMA.fullmatch(v.strip()) for v in values)


def _read_parquet(path: Path) -> tuple[DataFrame, list[str]]:
    pandas, arrow, parquet = require("pandas"), require("pyarrow"), require("pyarrow.parquet")
    try:
        names = [str(name) for name in parquet.read_schema(path).names]
        _check_names(path, names)
        frame = pandas.read_parquet(path, engine="pyarrow")
    except (arrow.ArrowException, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} cannot be read as Parquet",
            expected="an undamaged Parquet file",
            got=_first_line(error),
            mend="write the file again, or save the table as CSV",
        ) from error
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()  # pandas stored a column as its row names
    frame.columns = [str(name).strip() for name in frame.columns]
    _check_names(path, list(frame.columns))
    return frame.reset_index(drop=True), []


def _opener(path: Path) -> Callable[..., IO[Any]]:
    return gzip.open if path.suffix.lower() == ".gz" else open


def _check_is_text(path: Path) -> None:
    """A null byte never occurs in UTF-8 text; UTF-16 and binary files are told from their first bytes."""
    with _mended(path), _opener(path)(path, "rb") as stream:
        start: bytes = stream.read(8192)
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(
            f"{path} is not UTF-8 text",
            expected="a text file in UTF-8",
            got="UTF-16 (the file begins with its byte-order mark)",
            mend="save the file again with the encoding UTF-8",
        )
    if b"\0" in start:
        kind = "a zip archive or an Excel workbook" if start.startswith(b"PK") else "binary content"
        raise DataError(
            f"{path} cannot be read as CSV",
            expected="a text file in UTF-8",
            got=kind,
            mend="export the table as CSV or Parquet",
        )


@contextmanager
def _mended(path: Path) -> Iterator[None]:
    """Turn every way in which reading text fails into one DataError about ``path``."""
    try:
        yield
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text",
            expected="a text file in UTF-8",
            got=f"byte 0x{error.object[error.start]:02x}, which is not UTF-8 (Latin-1 or Windows-1252?)",
            mend="save the file again with the encoding UTF-8",
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{path} cannot be unpacked",
            expected="an undamaged gzip file",
            got=_first_line(error),
            mend="write or download the file again, or unpack it first",
        ) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be opened",
            expected="a readable file",
            got=error.strerror or _first_line(error),
            mend="check its permissions",
        ) from error
    except (ValueError, csv.Error, Warning) as error:  # pandas' ParserError is a ValueError
        raise DataError(
            f"{path} cannot be read as CSV",
            expected="the same number of columns in every row, and every quote closed",
            got=_first_line(error),
            mend="mend that line, or save the table as Parquet",
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def quoted(names: list[str], most: int = 5) -> str:
    """``'a', 'b', ...`` with at most ``most`` names."""
    return ", ".join(f"'{name}'" for name in names[:most]) + (", ..." if len(names) > most else "")
