"""The main job: train without and with a prior on the same splits and seeds, compare, write the run folder."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from rightly import report
from rightly.core.errors import ArgumentError, CheckpointError, DataError, RightlyError
from rightly.core.progress import bar
from rightly.workflows.case import Case
from rightly.workflows.summary import figures_of, record_of
from rightly.workflows.trial import TRIAL_KEYS, prove, run_trial


@dataclass(frozen=True)
class Job:
    """What to run.

    Attributes:
        make_case: seed -> case.
        seeds: each a split and an initialisation of its own.
        about: the fixed parts of the record: title, question, command, data, rerun, notes.
        identity: what makes this run this run; written to ``config.toml`` and compared on resuming.
        compared: names of the two arms compared, the first the yardstick.
        threads: of torch while the job runs; small networks are faster on one.
    """

    make_case: Callable[[int], Case]
    seeds: Sequence[int]
    about: dict[str, Any]
    identity: dict[str, Any]
    compared: tuple[str, str]
    threads: int = 1


def run_job(job: Job, out: Path, *, resume: bool, progress: bool) -> dict[str, Any]:
    """Run every trial, write ``record.json``, ``figures.json``, ``report.html`` and the model; returns the record.

    Each finished trial is a file of its own, so a killed job goes on where it was; the trial that was running goes
    on from its last epoch. What cannot be trained is found before the folder is made.
    """
    check_folder(out, job.identity, resume)
    first = job.make_case(job.seeds[0])
    prove(first)
    with run_folder(out, job.identity), torch_threads(job.threads):
        start = time.monotonic()
        trials: list[dict[str, Any]] = []
        with bar(str(job.about.get("title", "fit")), enabled=progress) as shown:
            for position, seed in enumerate(job.seeds):
                case = job.make_case(seed) if position else first
                for number in range(len(case.arms)):
                    trials.append(_trial(job, case, number, seed, out, resume))
                    if shown:
                        shown(position * len(case.arms) + number + 1, len(job.seeds) * len(case.arms))
        record = record_of(first, trials, job.about, job.compared, time.monotonic() - start)
        figures = figures_of(trials)
        report.write_record(out, record, figures)
        report.write_report(out, record, figures)
    return record


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Torch's number of threads inside; the old one afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _trial(job: Job, case: Case, number: int, seed: int, out: Path, resume: bool) -> dict[str, Any]:
    arm = case.arms[number]
    done = out / "trials" / f"{arm.name}-{seed}.json"
    working = out / "trials" / f"{arm.name}-{seed}"
    if done.exists():
        results = _read_trial(done, arm.name, seed)
    else:
        model, results = run_trial(case, arm, seed, working, resume=resume)
        if seed == job.seeds[0] and arm.name in job.compared:
            target = out if arm.name == job.compared[1] else out / "plain"
            save_model(
                target,
                model,
                {"architecture": case.architecture, "task": case.task, "classes": list(case.classes)}
                | case.attached
                | {"features": list(case.features)},
            )
        write_json(done, results)
    shutil.rmtree(working, ignore_errors=True)
    return results


def check_folder(out: Path, identity: dict[str, Any], resume: bool) -> None:
    """The run folder has to be new or empty or, when resuming, the same run's. Writes nothing."""
    if out.exists() and not out.is_dir():
        raise DataError("the run folder cannot be made", expected="a folder", got=f"a file: {out}")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not resume:
        raise ArgumentError(
            "the run folder is not empty",
            expected="a new folder",
            got=str(out),
            mend="choose another --out, or go on with --resume",
        )
    config = out / "config.toml"
    if not config.exists():
        raise CheckpointError(
            "the folder holds no run", expected=f"{config}", got="other files", mend="choose another --out"
        )
    wanted, found = to_toml(identity).splitlines(), config.read_text("utf-8", errors="replace").splitlines()
    if wanted != found:
        raise CheckpointError(
            "the folder holds another run",
            expected="; ".join(line for line in found if line not in wanted) or "nothing more",
            got="; ".join(line for line in wanted if line not in found) or "nothing more",
            mend="resume with the same arguments and data, or choose another --out",
        )


@contextmanager
def run_folder(out: Path, identity: dict[str, Any]) -> Iterator[None]:
    """The run folder with its ``config.toml``; a run that cannot be trained leaves nothing of a new one behind."""
    made = not out.exists()
    fresh = made or not any(out.iterdir())
    try:
        (out / "trials").mkdir(parents=True, exist_ok=True)
        _write_text(out / "config.toml", to_toml(identity))
    except OSError as error:
        raise DataError("the run folder cannot be made", got=str(error), mend="choose another --out") from None
    try:
        yield
    except RightlyError:
        if fresh and not any(path.suffix == ".json" for path in (out / "trials").iterdir()):
            for path in [out] if made else list(out.iterdir()):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
        raise


def save_model(folder: Path, model: torch.nn.Module, facts: dict[str, Any]) -> None:
    """``model.safetensors`` and ``model.json`` with what rebuilds the network and reads its inputs."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / "model.safetensors.part"
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}, aside)
    os.replace(aside, folder / "model.safetensors")
    write_json(folder / "model.json", facts)


def write_json(path: Path, value: Any) -> None:
    """Write aside, then rename."""
    _write_text(path, json.dumps(value, allow_nan=False))


def _write_text(path: Path, text: str) -> None:
    aside = path.with_name(path.name + ".part")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


def _read_trial(path: Path, arm: str, seed: int) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if (found["arm"], found["seed"]) != (arm, seed) or not found.keys() >= TRIAL_KEYS:
            raise ValueError("it holds something else")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"the finished trial {path} cannot be read",
            expected="what rightly wrote",
            got=str(error) or type(error).__name__,
            mend="delete it and resume",
        ) from error
    return found


def to_toml(values: dict[str, Any]) -> str:
    """A flat table as TOML: text, numbers, booleans and lists of them; ``None`` is left out."""
    # JSON's text, numbers, booleans and lists are written the same way in TOML, if text is not escaped to ASCII
    pairs = ((key, json.dumps(value, ensure_ascii=False)) for key, value in values.items() if value is not None)
    return "".join(f"{key} = {text}\n" for key, text in pairs)
