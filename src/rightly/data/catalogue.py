"""Data sets by name: ``load("mnist")``. The first place that has it wins.

Places, in order: the folder given as ``data_dir``, the folder of the environment variable ``RIGHTLY_DATA``, the user's
cache, an installed package that carries it, the file that ships with rightly, and the official address. Files are
checked against their SHA-256 and nothing is unpickled.
"""

from __future__ import annotations

import difflib
import gzip
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rightly.core.errors import ArgumentError, DataError
from rightly.core.extras import require
from rightly.data.download import fetch_mnist, written_aside
from rightly.data.entries import ENTRIES, Entry
from rightly.data.noted import file_digest, note

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from pandas import DataFrame

#: the environment variable that names a folder with the catalogue's files
VARIABLE = "RIGHTLY_DATA"


@dataclass(frozen=True)
class FrameData:
    """A data set that is a table: the pandas ``frame`` and its catalogue ``entry``."""

    frame: DataFrame
    entry: Entry


def load(name: str, *, data_dir: str | Path | None = None) -> dict[str, np.ndarray] | FrameData:
    """Load a data set of the catalogue.

    Args:
        name: one of ``ENTRIES``.
        data_dir: a folder to look in first.

    Returns:
        Arrays by name for entries of kind ``npz``, a ``FrameData`` for those of kind ``csv``. ``load_arrays`` and
        ``load_frame`` do the same for one kind each.

    Errors:
        ArgumentError: no entry has this name.
        DataError: it is in none of the places, or a file there is not the one that was catalogued.
        MissingExtraError: it is a table and pandas is not installed.
    """
    entry = _entry(name)
    if entry.kind == "csv":
        return FrameData(load_frame(name, data_dir=data_dir), entry)
    return load_arrays(name, data_dir=data_dir)


def load_arrays(name: str, *, data_dir: str | Path | None = None) -> dict[str, np.ndarray]:
    """Load a data set of kind ``npz`` as arrays by name. Errors as for ``load``."""
    entry = _entry(name, kind="npz")
    if entry.package is not None:
        return _digits()
    return _read_arrays(_found(entry, data_dir) or _downloaded(entry, data_dir))


def load_frame(name: str, *, data_dir: str | Path | None = None) -> DataFrame:
    """Load a data set of kind ``csv`` as a pandas frame. Errors as for ``load``."""
    entry = _entry(name, kind="csv")
    pandas = require("pandas")
    path = _found(entry, data_dir)
    if path is None and entry.embedded:
        with _embedded(entry).open("rb") as packed, gzip.open(packed) as text:
            return pandas.read_csv(text)
    return pandas.read_csv(path or _downloaded(entry, data_dir))


def available(data_dir: str | Path | None = None) -> dict[str, str]:
    """Every name of the catalogue -> where ``load`` would take it from, or why it cannot. Reads and fetches nothing."""
    return {name: _where(entry, data_dir) for name, entry in ENTRIES.items()}


def cache_folder() -> Path:
    """Where downloads are kept: ``rightly`` in XDG_CACHE_HOME or ~/.cache, in LOCALAPPDATA on Windows."""
    variable, default = ("LOCALAPPDATA", "AppData/Local") if os.name == "nt" else ("XDG_CACHE_HOME", ".cache")
    named = os.environ.get(variable)
    return (Path(named) if named else Path.home() / default) / "rightly"


def _entry(name: str, *, kind: str | None = None) -> Entry:
    if name not in ENTRIES:
        near = difflib.get_close_matches(str(name), ENTRIES, n=1, cutoff=0.4)
        raise ArgumentError(
            f"the catalogue has no data set '{name}'",
            expected=", ".join(ENTRIES),
            got=repr(name),
            mend=f"did you mean '{near[0]}'?" if near else "choose one of these",
        )
    entry = ENTRIES[name]
    if kind is not None and entry.kind != kind:
        raise ArgumentError(
            f"'{name}' is of kind {entry.kind}",
            expected=f"a data set of kind {kind}",
            got=repr(name),
            mend="use load_frame for tables and load_arrays for arrays",
        )
    return entry


def _places(entry: Entry, data_dir: str | Path | None) -> Iterator[tuple[str, Path]]:
    """What each place is called, and where the entry's file would lie in it."""
    if data_dir is not None:
        yield "data folder", Path(data_dir) / entry.file
    if os.environ.get(VARIABLE):
        yield VARIABLE, Path(os.environ[VARIABLE]) / entry.file
    yield "cache", cache_folder() / entry.file


def _found(entry: Entry, data_dir: str | Path | None) -> Path | None:
    """The first existing file of an entry, checked."""
    if data_dir is not None and not Path(data_dir).is_dir():
        raise DataError(
            f"the data folder {data_dir} does not exist",
            expected="a folder with files of the catalogue",
            got=str(data_dir),
            mend="check the path, or leave data_dir out",
        )
    for place, path in _places(entry, data_dir):
        if path.is_file():
            _check_digest(entry, path, made_here=place == "cache")
            return path
    return None


def _check_digest(entry: Entry, path: Path, *, made_here: bool) -> None:
    """A file must be the catalogued one; the cache may also hold one made from checked downloads, with its digest."""
    beside = _digest_note(path)
    known = {entry.sha256} | ({beside.read_text().strip()} if made_here and beside.is_file() else set())
    found = file_digest(path)
    note(entry.file, found)
    if entry.sha256 is not None and found not in known:
        raise DataError(
            f"{path} is not the catalogue's file '{entry.name}', or it is damaged",
            expected=f"SHA-256 {entry.sha256}",
            got=f"SHA-256 {found}",
            mend="remove it or replace it" + (f"; source: {entry.source}" if entry.source else ""),
        )


def _digest_note(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _downloaded(entry: Entry, data_dir: str | Path | None) -> Path:
    """Fetch an entry into the cache, or say where it was looked for and where to get it."""
    looked = [f"{place}: {path}" for place, path in _places(entry, data_dir)]
    if entry.url is None:
        raise DataError(
            f"the data set '{entry.name}' is not here: {entry.title}",
            expected=f"the file {entry.file}",
            got="not found as " + ", ".join(looked),
            mend=f"get it from its source ({entry.source}) and set {VARIABLE} to the folder that holds it",
        )
    path = cache_folder() / entry.file
    try:
        aside = path.with_name(f".{path.name}.new")
        fetch_mnist(entry.url, aside)
        # the digest comes before the file: a run killed in between finds no file and downloads again
        digest = file_digest(aside)
        with written_aside(_digest_note(path)) as stream:
            stream.write(digest.encode())
        os.replace(aside, path)
        note(entry.file, digest)
    except DataError as error:
        raise DataError(
            f"the data set '{entry.name}' is not here and could not be downloaded: {error.what}",
            expected=error.expected,
            got=error.got,
            mend=f"try again, or put {entry.file} into a folder and set {VARIABLE} to it; looked for it as "
            + ", ".join(looked),
        ) from error
    return path


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _digits() -> dict[str, np.ndarray]:
    bunch = require("sklearn.datasets").load_digits()
    return {"x": bunch.images.astype(np.uint8), "y": bunch.target.astype(np.uint8)}


def _embedded(entry: Entry) -> Traversable:
    return resources.files("rightly.data") / "embedded" / entry.file


def _where(entry: Entry, data_dir: str | Path | None) -> str:
    if entry.package is not None:
        return f"package: {entry.package}" + ("" if find_spec(entry.package) else ", which is not installed")
    for place, path in _places(entry, data_dir):
        if path.is_file():
            return f"{place}: {path}"
    if entry.embedded:
        return "embedded"
    if entry.url is not None:
        return f"not here yet: will be downloaded from {entry.url}"
    return f"not here: no file {entry.file} in {VARIABLE} or the cache; source: {entry.source}"
