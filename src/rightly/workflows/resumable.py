"""Trials that are trained once, by one process or several, and kept as they finish."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import queue
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rightly.core.errors import ArgumentError, CheckpointError, RightlyError
from rightly.core.progress import bar
from rightly.data.noted import read_so_far
from rightly.workflows.job import torch_threads

Row = dict[str, Any]

#: seconds between looks at whether the workers are still alive, and theirs at whether their parent is
_LOOK, _LOOK_UP = 5.0, 0.5


class Trials:
    """Trials that are trained once: each result is a line of a file, read back instead of trained again.

    The file is made when the first trials are about to be trained: a run that fails before claims no folder, and one
    whose first trials fail (their data are not here) leaves nothing behind. Where data were noted (``data.noted``),
    the file says what they held, and a run that reads others does not go on with it. A file without that goes on.

    Args:
        path: the file. A line cut short by a kill is dropped.
        identity: what all its trials have in common; a file with another one is not continued.
        resume: go on from an existing file.
        progress: show a bar for the trials that are left.
        workers: processes that share them. This one alone writes the file. Whatever their number, a trial has one
            thread: the number of threads changes bits.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, Any], *, resume: bool, progress: bool, workers: int = 1
    ) -> None:
        self.path, self.progress, self.workers = path, progress, workers
        self._identity = dict(identity)
        self._claimed = self._own = self._made = False
        self._done: dict[str, Row] = {}
        self._data: dict[str, str] = {}
        if path.exists() and not resume:
            raise self._taken()
        if path.exists():
            self._read()

    def run(self, title: str, keys: Sequence[Mapping[str, Any]], work: Callable[[Row], Row]) -> list[Row]:
        """The results of ``work`` for every key, in order; only those that are not on file are worked out.

        Args:
            title: of the progress bar.
            keys: what sets one trial apart: names, numbers.
            work: key -> result, something JSON can hold.

        Returns:
            For each key, the key, the result and its ``seconds`` in one dict.
        """
        left = [key for key in keys if _name(key) not in self._done]
        self._check_data(read_so_far())
        if not self._claimed:
            self._claim()
        self._keep_data(read_so_far())
        try:
            with bar(title, enabled=self.progress and bool(left)) as report:
                for count, done in enumerate(_worked(left, work, self.workers), 1):
                    self._keep(*done)
                    if report:
                        report(count, len(left))
        except RightlyError:
            self._give_up()
            raise
        rows = [self._done[_name(key)] for key in keys]
        return [{**row["trial"], **row["result"], "seconds": row["seconds"]} for row in rows]

    def checkpoint(self, key: Mapping[str, Any]) -> Path:
        """A folder for the checkpoint of a trial that takes long; it is removed when the trial has finished."""
        return self.path.parent / "checkpoints" / hashlib.sha256(_name(key).encode()).hexdigest()[:16]

    def _taken(self) -> ArgumentError:
        return ArgumentError(
            f"{self.path.parent} holds the trials of an earlier run",
            expected="an empty or new folder",
            got=self.path.name,
            mend="pass --resume to go on with them, or choose another --out",
        )

    def _claim(self) -> None:
        self._made = not self.path.parent.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.path.touch(exist_ok=False)
        except FileExistsError:
            raise self._taken() from None  # by a run that began a moment before
        self._append({"identity": self._identity})
        self._claimed = self._own = True

    def _give_up(self) -> None:
        """Neither file nor folder is left of a run, begun by this object, whose first trials failed."""
        if self._own and not self._done and os.listdir(self.path.parent) == [self.path.name]:
            self.path.unlink()
            if self._made:
                self.path.parent.rmdir()
            self._claimed, self._own, self._data = False, False, {}

    def check_data(self) -> None:
        """Raise ``CheckpointError`` if what was read so far is not what the run began with."""
        self._check_data(read_so_far())

    def _keep(self, key: Mapping[str, Any], result: Row, seconds: float, data: Mapping[str, str]) -> None:
        """A finished trial, and the data that it read."""
        self._check_data(data)
        self._keep_data(data)
        row = {"trial": dict(key), "result": result, "seconds": seconds}
        self._append(row)
        self._done[_name(key)] = json.loads(json.dumps(row))
        shutil.rmtree(self.checkpoint(key), ignore_errors=True)

    def _check_data(self, read: Mapping[str, str]) -> None:
        if other := [name for name, digest in read.items() if self._data.get(name, digest) != digest]:
            raise CheckpointError(
                f"{self.path} belongs to a run on other data",
                expected={name: self._data[name] for name in other},
                got={name: read[name] for name in other},
                mend="resume with the data that it began with (SHA-256, shortened), or choose another --out",
            )

    def _keep_data(self, read: Mapping[str, str]) -> None:
        if new := {name: digest for name, digest in read.items() if name not in self._data}:
            self._append({"data": new})
            self._data |= new

    def _append(self, row: Row) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        if json.dumps({"identity": self._identity}).startswith(text):
            # killed before its first line was whole: nothing was trained
            self.path.unlink()
            return
        lines = text.splitlines(keepends=True)
        rows = list(_parsed(lines))
        found = rows[0].get("identity") if rows else None
        if found != json.loads(json.dumps(self._identity)):
            raise CheckpointError(
                f"{self.path} belongs to another run",
                expected=self._identity,
                got=found,
                mend="resume with the same arguments, or choose another --out",
            )
        self._claimed = True
        self._done = {_name(row["trial"]): row for row in rows[1:] if "trial" in row}
        for row in rows[1:]:
            self._data |= row.get("data", {})
        whole = "".join(lines[: len(rows)])
        if whole != text:
            aside = self.path.with_name(self.path.name + ".part")
            aside.write_text(whole, encoding="utf-8")
            os.replace(aside, self.path)


def _name(key: Mapping[str, Any]) -> str:
    return json.dumps(dict(key), sort_keys=True)


def _parsed(lines: Sequence[str]) -> Iterator[Row]:
    """The rows up to the first line that was cut short."""
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            return
        if not line.endswith("\n") or not isinstance(row, dict):
            return
        yield row


Done = tuple[Mapping[str, Any], Row, float, Mapping[str, str]]


def _worked(keys: Sequence[Mapping[str, Any]], work: Callable[[Row], Row], workers: int) -> Iterator[Done]:
    """Each key with its result, its seconds and the data read so far, as they come."""
    if workers == 1:
        for key in keys:
            yield _timed(key, work)
    else:
        yield from _shared(keys, work, workers)


def _timed(key: Mapping[str, Any], work: Callable[[Row], Row]) -> Done:
    start = time.monotonic()
    with torch_threads(1):
        result = work(dict(key))
    return key, result, round(time.monotonic() - start, 3), read_so_far()


def _shared(keys: Sequence[Mapping[str, Any]], work: Callable[[Row], Row], workers: int) -> Iterator[Done]:
    """The same by forked processes: they know ``work`` without it being sent, whatever it holds."""
    if "fork" not in multiprocessing.get_all_start_methods():
        raise ArgumentError("workers are forked, which this system cannot", expected="workers=1", got=workers)
    context = multiprocessing.get_context("fork")
    done = context.Queue()
    children = [
        context.Process(target=_child, args=(keys[start::workers], work, done, os.getpid()), daemon=True)
        for start in range(min(workers, len(keys)))
    ]
    for child in children:
        child.start()
    try:
        for _ in keys:
            yield _received(done, children)
    finally:
        for child in children:
            child.terminate()
            child.join()


def _child(keys: Sequence[Mapping[str, Any]], work: Callable[[Row], Row], done: Any, parent: int) -> None:
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    try:
        for key in keys:
            done.put(_timed(key, work))
    except BaseException:  # noqa: BLE001 (whatever it is, the parent has to hear of it)
        done.put(traceback.format_exc())


def _end_with(parent: int) -> None:
    """A parent that was killed cannot end its workers: they look for themselves."""
    while os.getppid() == parent:
        time.sleep(_LOOK_UP)
    os._exit(1)


def _received(done: Any, children: Sequence[Any]) -> Done:
    while True:
        try:
            found: Done | str = done.get(timeout=_LOOK)
        except queue.Empty:
            if killed := [child.exitcode for child in children if child.exitcode]:
                found = f"it was ended with exit code {killed[0]}"
            else:
                continue
        if isinstance(found, str):
            raise RightlyError("a worker process failed", got=found, mend="resume; with workers=1 to see more")
        return found
