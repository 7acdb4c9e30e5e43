"""What a training returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rightly.objectives.engines import EngineChoice


@dataclass(frozen=True)
class Candidate:
    """One weight that was tried: its mean validation loss, with the standard error of that mean."""

    weight: float
    mean: float
    error: float
    chosen: bool = False


@dataclass(frozen=True)
class WeightChoice:
    """How a weight was chosen."""

    weight: float
    reason: str
    candidates: tuple[Candidate, ...]


@dataclass
class Run:
    """A training that has ended.

    Attributes:
        history: one dict an epoch: ``epoch``, ``task``, ``terms`` (weighted penalties by name), ``validation`` (the
            monitored number, None without validation data), means over the epoch's examples.
        best_epoch: the best validated epoch, whose weights the model has now (unless ``restore_best=False``); the
            last one without validation.
        best_value: the monitored number of that epoch; None without validation.
        stopped: ``"epochs"`` or ``"patience"``.
        weights: of the terms, as used.
        choices: how weights given as ``"balance"`` or ``"auto"`` were settled, by term.
        engines: what took each term's input gradients, and why, as ``"name: why"`` by term.
        seconds: spent training, over all sessions of a resumed run.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    best_value: float | None = None
    stopped: str = "epochs"
    weights: dict[str, float] = field(default_factory=dict)
    choices: dict[str, WeightChoice] = field(default_factory=dict)
    engines: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    def improved(self, value: float | None) -> bool:
        """Whether ``value`` is the best so far; always without validation."""
        return value is None or self.best_value is None or value < self.best_value

    def add(self, entry: dict[str, Any], patience: int | None) -> bool:
        """Take over an epoch that has ended, stopping when patience has run out; whether it is the best so far."""
        self.history.append(entry)
        if self.improved(entry["validation"]):
            self.best_epoch, self.best_value = entry["epoch"], entry["validation"]
            return True
        if patience is not None and entry["epoch"] - self.best_epoch >= patience:
            self.stopped = "patience"
        return False

    def note_engines(self, choices: Mapping[str, EngineChoice]) -> None:
        """Take over the engines in force; one that a resumed training proves again keeps what was first said of it."""
        for term, choice in choices.items():
            if self.engines.get(term, "").partition(":")[0] != choice.name:
                self.engines[term] = f"{choice.name}: {choice.why}"

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over what ``dataclasses.asdict`` made of another run."""
        for name, value in saved.items():
            setattr(self, name, value)
        self.choices = {
            name: WeightChoice(c["weight"], c["reason"], tuple(Candidate(**one) for one in c["candidates"]))
            for name, c in saved["choices"].items()
        }
