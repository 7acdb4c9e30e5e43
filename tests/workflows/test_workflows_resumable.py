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

from rightly.core.errors import ArgumentError, CheckpointError
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
