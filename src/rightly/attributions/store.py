"""Explanations on disk: a folder of growing .npy files, and a JSON file that says how many of their rows count."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from rightly.core.errors import ArgumentError, CheckpointError, DataError, ShapeError
from rightly.core.extras import require

_FACTS = "attributions.json"
_ROWS_A_GROUP = 65536

Array = np.ndarray[Any, Any]


class StoredAttributions:
    """What ``rt.attribute(..., out=folder)`` wrote, read from disk as it is needed.

    The arrays are memory maps of the rows that are finished; changing one does not change the file.

    Args:
        folder: where it was written; it may still be incomplete.

    Raises:
        CheckpointError: the folder holds nothing of the kind, or lacks rows that it counts.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.facts = _read(self.folder)

    @property
    def rows(self) -> int:
        """Examples explained so far, N."""
        return int(self.facts["rows"])

    @property
    def complete(self) -> bool:
        """Whether all examples are explained."""
        return bool(self.facts["complete"])

    @property
    def attributions(self) -> Array:
        """(N, *F), how much each feature mattered."""
        found = self._array("attributions")
        if found is None:
            raise CheckpointError("no row is explained yet", got=str(self.folder), mend="run it with resume=True")
        return found

    @property
    def outputs(self) -> Array | None:
        """(N, ...), what the model returned."""
        return self._array("outputs")

    @property
    def completeness_gap(self) -> Array | None:
        """(N,), as in ``AttributionResult``."""
        return self._array("completeness_gap")

    @property
    def standard_error(self) -> Array | None:
        """(N, *F), of the sampling."""
        return self._array("standard_error")

    @property
    def target(self) -> Array | None:
        """(N,), the class explained."""
        return self._array("target")

    def to_parquet(self, path: str | Path, names: Sequence[str] | None = None) -> Path:
        """Write the attributions of a table, a column each feature, group of rows by group of rows.

        Args:
            path: the file to write.
            names: of the F features; their numbers if not given.

        Raises:
            ShapeError: the attributions are not (N, F), or there are not F names.
            MissingExtraError: pyarrow is not installed.
        """
        arrow, parquet = require("pyarrow"), require("pyarrow.parquet")
        values, path = self.attributions, Path(path)
        if values.ndim != 2 or (names is not None and len(names) != values.shape[1]):
            raise ShapeError(
                "only a table has columns",
                expected="attributions (N, F), and F names",
                got=tuple(values.shape) if names is None else (tuple(values.shape), f"{len(names)} names"),
            )
        columns = [str(i) for i in range(values.shape[1])] if names is None else list(names)
        schema = arrow.schema([(name, arrow.from_numpy_dtype(values.dtype)) for name in columns])
        aside = path.with_name(path.name + ".part")
        with writing(path), parquet.ParquetWriter(aside, schema) as file:
            for start in range(0, len(values), _ROWS_A_GROUP):
                part = np.asarray(values[start : start + _ROWS_A_GROUP])
                file.write_table(arrow.table([arrow.array(column) for column in part.T], schema=schema))
        os.replace(aside, path)
        return path

    def __repr__(self) -> str:
        state = "complete" if self.complete else "incomplete"
        return f"StoredAttributions({str(self.folder)!r}, {self.rows} rows, {state})"

    def _array(self, name: str) -> Array | None:
        kind = self.facts["arrays"].get(name)
        if kind is None:
            return None
        with _reading(self.folder):
            return _loaded(self.folder, name, kind, self.rows)


class Growing:
    """The writing side. Rows are appended and count once ``commit`` has run; a kill in between loses them only.

    Order of a commit: the rows reach the disk, then the headers, then the JSON file (written aside and renamed). So
    the files never hold less than the JSON says, and what they hold beyond it is cut off when work resumes.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.folder, self.facts = folder, facts
        #: rows written, committed or not
        self.rows = int(facts["rows"])
        self._files: dict[str, BinaryIO] = {}

    def __enter__(self) -> Growing:
        with _reading(self.folder):
            for name, array in self.facts["arrays"].items():
                _loaded(self.folder, name, array, self.rows)
                file = self._files[name] = (self.folder / f"{name}.npy").open("r+b")
                size = len(_header(array, 0)) + self.rows * _row_bytes(array)
                file.truncate(size)
                file.seek(size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Keep what is finished, whatever ended the work; where nothing is, leave nothing behind."""
        with suppress(DataError) if error is not None else nullcontext():  # the first error is the one to tell
            if self.rows:
                self.commit()
        for name, file in self._files.items():
            with suppress(OSError):
                file.close()
                if not self.rows:
                    (self.folder / f"{name}.npy").unlink()

    def append(self, arrays: Mapping[str, Array]) -> None:
        """Write one block, each array (rows of the block, ...)."""
        kinds = {name: {"dtype": array.dtype.str, "shape": list(array.shape[1:])} for name, array in arrays.items()}
        if not self.facts["arrays"]:
            self.facts["arrays"] = kinds
        elif kinds != self.facts["arrays"]:
            raise ShapeError(
                f"the explanations do not have one shape: they change at row {self.rows}",
                expected=self.facts["arrays"],
                got=kinds,
                mend="explain inputs of one size at a time",
            )
        with writing(self.folder):
            for name, array in arrays.items():
                if name not in self._files:
                    self._files[name] = (self.folder / f"{name}.npy").open("w+b")
                    self._files[name].write(_header(kinds[name], 0))
                self._files[name].write(np.ascontiguousarray(array).data)
        self.rows += len(arrays["attributions"])

    def commit(self, **facts: Any) -> None:
        """Let the rows written so far count, and save ``facts`` with them."""
        with writing(self.folder):
            for file in self._files.values():
                _to_disk(file)
            for name, file in self._files.items():
                file.seek(0)
                file.write(_header(self.facts["arrays"][name], self.rows))
                _to_disk(file)
                file.seek(0, os.SEEK_END)
            self.facts |= {**facts, "rows": self.rows}
            aside = self.folder / f"{_FACTS}.part"
            with aside.open("w", encoding="utf-8") as handle:
                handle.write(json.dumps(self.facts, indent=1) + "\n")
                _to_disk(handle)
            os.replace(aside, self.folder / _FACTS)


def grow(folder: Path, identity: Mapping[str, Any], *, resume: bool) -> Growing:
    """The folder to write into, new or as a former run left it.

    Raises:
        ArgumentError: it holds something already, and ``resume`` is not set.
        CheckpointError: what it holds is something else, or belongs to other arguments.
    """
    wanted = json.loads(json.dumps(identity))  # as it comes back from the file, tuples turned into lists
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        fresh = not any(folder.iterdir())
    if fresh:
        return Growing(folder, {"schema": 1, "rows": 0, "complete": False, "identity": wanted, "arrays": {}})
    if not resume:
        raise ArgumentError(
            "the folder is not empty",
            expected="a new or empty folder",
            got=str(folder),
            mend="choose another out=, or go on with what is there: resume=True",
        )
    facts = _read(folder)
    if wanted != facts["identity"]:
        differ = [key for key in {**wanted, **facts["identity"]} if wanted.get(key) != facts["identity"].get(key)]
        raise CheckpointError(
            "the folder holds another explanation",
            expected={key: facts["identity"].get(key) for key in differ},
            got={key: wanted.get(key) for key in differ},
            mend="resume with the same model, data and arguments, or choose another folder",
        )
    return Growing(folder, facts)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into ``DataError``."""
    try:
        yield
    except OSError as error:
        raise DataError(
            "the explanations cannot be written",
            expected="a folder with enough space",
            got=str(error),
            mend=f"make room for {path}; what is finished is kept, resume=True goes on",
        ) from error


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"the explanations in {folder} cannot be read",
            expected=f"{_FACTS} and the .npy files that it names",
            got=str(error).split("\n")[0],
            mend="start anew in another folder",
        ) from error


def _read(folder: Path) -> dict[str, Any]:
    with _reading(folder):
        facts: dict[str, Any] = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        if facts["schema"] != 1:
            raise ValueError(f"schema {facts['schema']}, not 1")
        int(facts["rows"]), facts["complete"], dict(facts["arrays"]), dict(facts["identity"])
    return facts


def _loaded(folder: Path, name: str, kind: Mapping[str, Any], rows: int) -> Array:
    """The rows that count, as a memory map. Raises ``ValueError`` where the file is not what the JSON file says."""
    array: Array = np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
    if array.dtype.str != kind["dtype"] or list(array.shape[1:]) != kind["shape"] or array.shape[0] < rows:
        found = f"{array.dtype.str} {array.shape}"
        raise ValueError(f"{name}.npy holds {found}, not {rows} rows of {kind['dtype']} {kind['shape']}")
    return array[:rows]


def _header(array: Mapping[str, Any], rows: int) -> bytes:
    """A .npy header; NumPy pads it so that it keeps its length while the first dimension grows."""
    text = io.BytesIO()
    shape = (rows, *array["shape"])
    np.lib.format.write_array_header_1_0(text, {"descr": array["dtype"], "fortran_order": False, "shape": shape})
    return text.getvalue()


def _row_bytes(array: Mapping[str, Any]) -> int:
    return int(np.dtype(array["dtype"]).itemsize * np.prod(array["shape"], dtype=np.int64))


def _to_disk(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())
