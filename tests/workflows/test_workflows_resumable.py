"""Trials outlive what can happen to a run: a kill at any moment, one trial left, a failure before the first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rightly.core.errors import ArgumentError, CheckpointError, DataError, RightlyError
from rightly.data.noted import note_file, noted
from rightly.workflows.resumable import Trials

KEYS = [{"x": x} for x in range(3)]


def trials(folder: Path, *, resume: bool = False, workers: int = 1, **identity: object) -> Trials:
    return Trials(folder / "trials.jsonl", {"name": "t"} | identity, resume=resume, progress=False, workers=workers)


def threads(key: dict) -> dict:
    return {"threads": torch.get_num_threads(), "process": os.getpid()}


def test_a_run_that_fails_before_its_first_trial_claims_no_folder(tmp_path: Path) -> None:
    trials(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    trials(tmp_path / "out").run("t", KEYS, threads)
    with pytest.raises(ArgumentError, match="earlier run"):
        trials(tmp_path / "out")


def test_of_two_runs_that_begin_together_one_gets_the_folder(tmp_path: Path) -> None:
    first, second = trials(tmp_path), trials(tmp_path, seed=1)
    first.run("t", KEYS, threads)
    before = (tmp_path / "trials.jsonl").read_bytes()
    with pytest.raises(ArgumentError, match="earlier run"):
        second.run("t", KEYS, threads)
    assert (tmp_path / "trials.jsonl").read_bytes() == before


@pytest.mark.parametrize("left", ["", '{"ident', '{"identity": {"name": "t"}}'])
def test_a_run_killed_in_its_first_line_begins_anew(tmp_path: Path, left: str) -> None:
    (tmp_path / "trials.jsonl").write_text(left)
    rows = trials(tmp_path, resume=True).run("t", KEYS, threads)
    assert [row["x"] for row in rows] == [0, 1, 2]
    lines = (tmp_path / "trials.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"identity": {"name": "t"}}
    assert len(lines) == 1 + 3


def test_what_is_no_file_of_this_run_is_left_alone(tmp_path: Path) -> None:
    for text in ("notes of mine", '{"identity": {"name": "u"}}', "[]\n"):
        (tmp_path / "trials.jsonl").write_text(text)
        with pytest.raises(CheckpointError, match="another run"):
            trials(tmp_path, resume=True)
        assert (tmp_path / "trials.jsonl").read_text() == text


def test_one_trial_left_runs_as_the_others_did(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        trials(tmp_path, workers=2).run("t", KEYS[:2], threads)
        rows = trials(tmp_path, resume=True, workers=2).run("t", KEYS, threads)
    finally:
        torch.set_num_threads(before)
    assert [row["threads"] for row in rows] == [1, 1, 1]
    assert os.getpid() not in {row["process"] for row in rows}


def test_a_trial_has_one_thread_alone_as_among_workers(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        rows = trials(tmp_path).run("t", KEYS, threads)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert [row["threads"] for row in rows] == [1, 1, 1]


def absent(key: dict) -> dict:
    raise DataError("the data are not here")


@pytest.mark.parametrize("workers", [1, 2])
def test_data_that_a_trial_does_not_find_leave_nothing_behind(tmp_path: Path, workers: int) -> None:
    with pytest.raises(RightlyError, match="not here"):
        trials(tmp_path / "out", workers=workers).run("t", KEYS, absent)
    assert not (tmp_path / "out").exists()
    # a folder that was there stays, and what has been done is kept
    with pytest.raises(RightlyError, match="not here"):
        trials(tmp_path, workers=workers).run("t", KEYS, absent)
    assert list(tmp_path.iterdir()) == []
    both = trials(tmp_path)
    both.run("t", KEYS[:1], threads)
    kept = (tmp_path / "trials.jsonl").read_bytes()
    with pytest.raises(DataError):
        both.run("t", KEYS, absent)
    assert (tmp_path / "trials.jsonl").read_bytes() == kept
    (tmp_path / "trials.jsonl").unlink()
    begun = trials(tmp_path)
    (tmp_path / "checkpoints").mkdir()  # a trial that was under way
    with pytest.raises(DataError):
        begun.run("t", KEYS, absent)
    assert (tmp_path / "trials.jsonl").exists()


def reading(file: Path):
    def work(key: dict) -> dict:
        note_file("measured.csv", file)
        return {}

    return work


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("within", [True, False])
def test_a_run_on_other_data_is_not_continued(tmp_path: Path, within: bool, workers: int) -> None:
    """Whether the data are read before the trials or by them; wherever they lie."""
    files = [tmp_path / name / "measured.csv" for name in ("a", "b", "c")]
    for file, text in zip(files, ("one", "two", "one"), strict=True):
        file.parent.mkdir()
        file.write_text(text)

    def run(file: Path, keys: list, resume: bool = True) -> list:
        found = trials(tmp_path / "out", resume=resume, workers=workers)
        with noted():
            if not within:
                note_file("measured.csv", file)
            return found.run("t", keys, reading(file) if within else (lambda key: {}))

    run(files[0], KEYS[:1], resume=False)
    before = (tmp_path / "out" / "trials.jsonl").read_text()
    assert len(before.splitlines()) == 3
    with pytest.raises(CheckpointError, match="other data"):
        run(files[1], KEYS)
    assert (tmp_path / "out" / "trials.jsonl").read_text() == before
    assert [row["x"] for row in run(files[2], KEYS)] == [0, 1, 2]
    # a file from before data were noted goes on
    old = [line for line in before.splitlines(keepends=True) if not line.startswith('{"data"')]
    assert len(old) == 2
    (tmp_path / "out" / "trials.jsonl").write_text("".join(old))
    assert len(run(files[1], KEYS)) == 3
    with pytest.raises(CheckpointError, match="other data"):
        run(files[0], [*KEYS, {"x": 3}])
    if not within:  # nothing is left to train, and the page would be made from other data
        with pytest.raises(CheckpointError, match="other data"):
            run(files[0], KEYS)


PARENT = """
import os, sys, time
from pathlib import Path
from rightly.workflows.resumable import Trials

def work(key):
    (Path(sys.argv[1]) / f"{key['x']}.pid").write_text(str(os.getpid()))
    time.sleep(60)
    return {}

Trials(Path(sys.argv[1]) / "trials.jsonl", {}, resume=False, progress=False, workers=2).run(
    "t", [{"x": 0}, {"x": 1}], work
)
"""


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    files = [tmp_path / "0.pid", tmp_path / "1.pid"]
    try:
        wait(lambda: all(file.exists() and file.read_text() for file in files), 60)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    for file in files:
        wait(lambda file=file: not alive(int(file.read_text())), 20)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    # one that has ended and that nobody has asked after is no more
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def wait(until, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end
        time.sleep(0.1)
