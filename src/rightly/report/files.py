"""Records and reports on disk: written aside and then moved into place, so that no reader meets half a file."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

from rightly.core.errors import DataError
from rightly.report.cleaning import Record, cleaned
from rightly.report.page import render
from rightly.report.schema import validate_figures, validate_record

RECORD, FIGURES, REPORT = "record.json", "figures.json", "report.html"


def write_text(path: Path, content: str) -> Path:
    """Write ``content`` to ``path`` whole or not at all (UTF-8, flushed to the disk before the move)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with aside.open("x", encoding="utf-8", newline="\n") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return path


def write_record(folder: str | os.PathLike[str], record: Record, figures: Record | None = None) -> Path:
    """Write ``record.json`` (and ``figures.json`` when given) into ``folder`` and return the record's path.

    Keys are sorted, so the same record gives the same bytes. Both are checked before anything is written.

    Raises:
        DataError: the record or the figures have a problem; nothing is written then.
    """
    record, figures = cleaned(record), cleaned(figures)
    validate_record(record)
    if figures is not None:
        validate_figures(figures)
        write_text(Path(folder) / FIGURES, _dumped(figures, indent=None))
    return write_text(Path(folder) / RECORD, _dumped(record, indent=1))


def read_record(folder: str | os.PathLike[str]) -> Record:
    """Read and check ``record.json`` of ``folder``; raises ``DataError`` when it is missing or cannot be used."""
    record = _loaded(Path(folder) / RECORD)
    validate_record(record)
    return dict(record)


def read_figures(folder: str | os.PathLike[str]) -> Record | None:
    """Read and check ``figures.json`` of ``folder``; None when there is none."""
    if not (Path(folder) / FIGURES).exists():
        return None
    figures = _loaded(Path(folder) / FIGURES)
    validate_figures(figures)
    return dict(figures)


def write_report(folder: str | os.PathLike[str], record: Record, figures: Record | None = None) -> Path:
    """Render the record and write ``report.html`` into ``folder``.

    Args:
        folder: made when it does not exist.
        record: schema 1, see docs/reference/report.md.
        figures: the big arrays, same page; may be None.

    Returns:
        The path of the page.

    Raises:
        DataError: the record or the figures have a problem; an older page stays as it was.
    """
    return write_text(Path(folder) / REPORT, render(record, figures))


def _dumped(value: Any, indent: int | None) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False, indent=indent) + "\n"


def _loaded(path: Path) -> Any:
    """The JSON in ``path``, or one DataError that says what is wrong with the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path} cannot be read",
            expected=f"a folder that a rightly command wrote, with {path.name} in it",
            got=error.strerror or type(error).__name__,
            mend="give the folder that was named with --out",
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not a whole JSON file",
            expected="JSON in UTF-8",
            got=str(error),
            mend="run the command again, or take the file from a copy",
        ) from None
