"""What a sweep found, and its folder: one JSON line a trial, written when the trial has ended."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from rightly.core.errors import ArgumentError, CheckpointError
from rightly.objectives.model_term import AnyTerm, learned
from rightly.training import checkpoint as files
from rightly.training.run import Run

Status = Literal["trained", "pruned", "diverged"]
TRIALS, SWEEP, MODELS = "trials.jsonl", "sweep.json", "models"


@dataclass(frozen=True)
class Trial:
    """One training of a sweep.

    Attributes:
        setting: ``prior`` and ``split`` (names, where the sweep has several) and the weights that were swept.
        seed: of the model, the order of the batches and all draws.
        status: ``"trained"``; ``"pruned"``, stopped early as hopeless; ``"diverged"``, its loss was not finite.
        run: as ``rt.fit`` returns it; for a trial that was not trained to its end, up to there.
        model: trained; None for the other statuses, and where models are not kept.
        together: how many models were trained at once; 1 means by ``rt.fit``, with its bits.
        reason: why so many.
        terms: its own, with what their priors learned along with the model; none where there is no model.
    """

    setting: dict[str, Any]
    seed: int
    status: Status
    run: Run
    model: nn.Module | None
    together: int
    reason: str
    terms: tuple[AnyTerm, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """All but the model and what was learned with it, for JSON."""
        facts = {"setting": self.setting, "seed": self.seed, "status": self.status}
        ended = {"epoch": self.run.history[-1]["epoch"] if self.run.history else None}
        return facts | ended | {"together": self.together, "reason": self.reason, "run": asdict(self.run)}


class Folder:
    """``sweep.json`` says what the sweep is, ``trials.jsonl`` holds a line a trial, ``models/`` their weights.

    Args:
        path: of the folder; made when it does not exist.
        identity: what makes this sweep this sweep; compared on resuming.
        resume: go on with what is there.

    Raises:
        ArgumentError: the folder is in use and ``resume`` is False.
        CheckpointError: it holds another sweep, or its files are damaged.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any], *, resume: bool) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ArgumentError("folder names a folder", expected="a folder, or a new name", got=str(path))
        self.done: dict[int, dict[str, Any]] = {}
        self.sizes: dict[str, list[Any]] = {}
        # as it comes back from the file, tuples turned into lists
        self.identity = json.loads(json.dumps(identity))
        if self.path.is_dir() and any(self.path.iterdir()):
            self._open(resume)
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            self._write_sweep()

    def _open(self, resume: bool) -> None:
        if not resume:
            raise ArgumentError(
                "the folder of the sweep is not empty",
                expected="a new folder",
                got=str(self.path),
                mend="choose another, or go on with resume=True",
            )
        saved = _loaded(self.path / SWEEP)
        if saved.get("identity") != self.identity:
            found = saved.get("identity") or {}
            differ = [key for key in self.identity if self.identity[key] != found.get(key)]
            raise CheckpointError(
                "the folder holds another sweep",
                expected={key: found.get(key) for key in differ},
                got={key: self.identity[key] for key in differ},
                mend="resume with the same arguments, or choose another folder",
            )
        self.sizes = dict(saved.get("sizes", {}))
        self.done = self._read_trials()

    def remember(self, group: str, size: int, reason: str) -> None:
        """Keep how many models of a group are trained at once, so that a resumed sweep does the same."""
        self.sizes[group] = [size, reason]
        self._write_sweep()

    def _write_sweep(self) -> None:
        aside = self.path / f"{SWEEP}.part"
        facts = {"schema": 1, "identity": self.identity, "sizes": self.sizes}
        aside.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        os.replace(aside, self.path / SWEEP)

    def append(self, ended: Mapping[int, Trial]) -> None:
        """Add a line for every trial that has none yet: whole lines, in one write, on the disk when this returns."""
        new = {number: trial for number, trial in ended.items() if number not in self.done}
        for number, trial in new.items():
            if trial.model is not None:
                for path, module in self._modules(number, trial.model, trial.terms):
                    files.write(path, module.state_dict(), {"setting": trial.setting})
        entries = {number: _finite({"number": number} | trial.as_dict()) for number, trial in new.items()}
        text = "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in entries.values())
        with (self.path / TRIALS).open("ab") as handle:
            handle.write(text.encode())
            handle.flush()
            os.fsync(handle.fileno())
        self.done |= entries

    def trial(self, number: int, model: nn.Module | None, terms: tuple[AnyTerm, ...] = ()) -> Trial:
        """A finished trial; ``model`` and what the terms learn take over the weights that were kept."""
        entry = self.done[number]
        run = Run()
        run.restore(entry["run"])
        kept = model if entry["status"] == "trained" else None
        if kept is None:
            terms = ()
        else:
            for path, module in self._modules(number, kept, terms):
                _load(module, path, f"the weights of trial {number}")
        facts = entry["together"], entry["reason"]
        return Trial(entry["setting"], entry["seed"], entry["status"], run, kept, *facts, terms)

    def model(self, number: int) -> Path:
        """Where a trial's weights are."""
        return self.path / MODELS / f"{number}.safetensors"

    def _modules(self, number: int, model: nn.Module, terms: Sequence[AnyTerm]) -> list[tuple[Path, nn.Module]]:
        """The model, and what the terms learn if they do, each with its file."""
        beside = nn.ModuleList(learned(terms, model))
        path = self.path / MODELS / f"{number}.learned.safetensors"
        return [(self.model(number), model), *([(path, beside)] if len(beside) else [])]

    def _read_trials(self) -> dict[int, dict[str, Any]]:
        """The finished trials; a half-written last line, which a kill leaves, is cut off."""
        path = self.path / TRIALS
        if not path.exists():
            return {}
        text = path.read_bytes()
        whole = text.rfind(b"\n") + 1
        if whole < len(text):
            with path.open("r+b") as handle:
                handle.truncate(whole)
        entries: Iterable[Any] = (_parsed(path, line) for line in text[:whole].splitlines())
        return {entry["number"]: entry for entry in entries}


def _load(module: nn.Module, path: Path, what: str) -> None:
    tensors, _ = files.read(path)
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"{what} do not fit the model",
            expected="the model_factory and the terms of the sweep that is resumed",
            got=str(error).split("\n")[0],
            mend="resume with the same model, or choose another folder",
        ) from error


def _parsed(path: Path, line: bytes) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(line)
        if entry["status"] not in get_args(Status) or not isinstance(entry["run"]["history"], list):
            raise ValueError("it holds something else")
        if not isinstance(entry["number"], int):
            raise ValueError("it has no number")
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"a line of {path} cannot be read",
            expected="what rightly wrote",
            got=str(error) or type(error).__name__,
            mend="delete the line and resume",
        ) from error
    return entry


def _loaded(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds something else")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read",
            expected="the folder of a sweep",
            got=str(error),
            mend="choose another folder",
        ) from error
    return found


def _finite(value: Any) -> Any:
    """JSON has no infinity: such a number becomes null."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
