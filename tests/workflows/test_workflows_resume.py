"""A run that is killed and resumed ends in the record of one that was not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rightly.core.errors import ArgumentError, NotConnectedError, RightlyError
from workflows.made import classes
from workflows.small_jobs import fit, lasting


class Killed(BaseException):
    """What no handler expects, as a kill would be."""


def test_a_crash_at_every_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is written aside and renamed; stop just before and just after each rename, then resume."""
    classes(60).to_csv(tmp_path / "people.csv", index=False)
    arguments = {"label": "y", "seeds": 1, "epochs": 2}
    replace, seen = os.replace, []

    def counted(source: str | Path, target: str | Path) -> None:
        seen.append(Path(target).name)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted)
        whole = fit(tmp_path / "people.csv", tmp_path / "whole", **arguments)
    assert {"config.toml", "model.safetensors", "plain-0.json", "sparsity-0.json", "record.json"} <= set(seen)
    weights = (tmp_path / "whole" / "model.safetensors").read_bytes()
    for stop in range(len(seen)):
        for after in (False, True):
            left = [stop]

            def stopped(source: str | Path, target: str | Path, left: list[int] = left, after: bool = after) -> None:
                left[0] -= 1
                if left[0] >= 0 or after:
                    replace(source, target)
                if left[0] < 0:
                    raise Killed

            out = tmp_path / "run"
            with monkeypatch.context() as patch:
                patch.setattr(os, "replace", stopped)
                with pytest.raises(Killed):
                    fit(tmp_path / "people.csv", out, **arguments)
            if not (out / "config.toml").exists():
                shutil.rmtree(out)
            resumed = fit(tmp_path / "people.csv", out, resume=True, **arguments)
            assert lasting(resumed) == lasting(whole), (stop, after)
            assert (out / "model.safetensors").read_bytes() == weights
            assert not [path for path in out.rglob("*") if path.suffix == ".part"]
            shutil.rmtree(out)


def test_kill_minus_nine(tmp_path: Path) -> None:
    """A real process, killed twice in the middle of its trainings."""
    classes(200).to_csv(tmp_path / "people.csv", index=False)
    command = ["fit", "people.csv", "--label", "y", "--weight", "0.5", "--seeds", "2", "--epochs", "30", "--quiet"]
    out = tmp_path / "run"
    for wanted in (1, 3):
        process = subprocess.Popen(
            [sys.executable, "-m", "rightly", *command, "--out", "run", "--resume"],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and len(list(out.glob("trials/*"))) < wanted:
            time.sleep(0.01)
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not (out / "record.json").exists()
    arguments = {"label": "y", "weight": "0.5", "epochs": 30}
    previous = Path.cwd()
    os.chdir(tmp_path)  # the source is part of a run's identity, as it was typed
    try:
        resumed = fit("people.csv", out, resume=True, **arguments)
        whole = fit("people.csv", tmp_path / "whole", **arguments)
    finally:
        os.chdir(previous)
    assert lasting(resumed) == lasting(whole)


def test_a_finished_run_is_read_and_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes(60).to_csv(tmp_path / "people.csv", index=False)
    first = fit(tmp_path / "people.csv", tmp_path / "run", label="y", seeds=1, epochs=1)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("rightly.workflows.job.run_trial", refuse)
    again = fit(tmp_path / "people.csv", tmp_path / "run", label="y", seeds=1, epochs=1, resume=True)
    assert lasting(first) == lasting(again)


def test_what_diverges_leaves_nothing_behind(tmp_path: Path) -> None:
    classes(60).to_csv(tmp_path / "people.csv", index=False)
    with pytest.raises(RightlyError, match=r"finite|NaN"):
        fit(tmp_path / "people.csv", tmp_path / "run", label="y", lr=1e30, epochs=3)
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    with pytest.raises(RightlyError, match=r"finite|NaN"):
        fit(tmp_path / "people.csv", tmp_path / "run", label="y", lr=1e30, epochs=3)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_term_that_trains_nothing_is_found_before_the_plain_arm_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes(60).to_csv(tmp_path / "people.csv", index=False)
    monkeypatch.setattr(
        "rightly.objectives.Objective.penalty", lambda *_: (_ for _ in ()).throw(NotConnectedError("planted"))
    )
    monkeypatch.setattr("rightly.workflows.job.run_trial", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(NotConnectedError, match="planted"):
        fit(tmp_path / "people.csv", tmp_path / "run", label="y")
    assert not (tmp_path / "run").exists()


def test_a_second_run_does_not_overwrite(tmp_path: Path) -> None:
    classes(60).to_csv(tmp_path / "people.csv", index=False)
    fit(tmp_path / "people.csv", tmp_path / "run", label="y", seeds=1, epochs=1)
    with pytest.raises(ArgumentError, match="not empty"):
        fit(tmp_path / "people.csv", tmp_path / "run", label="y", seeds=1, epochs=1)
