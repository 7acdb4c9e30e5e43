"""What a training returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rightly.training.selection import Candidate, WeightChoice


@dataclass
class Run:
    """A training that has ended.

    Attributes:
        history: one dict an epoch: ``epoch``, ``task``, ``terms`` (weighted penalties by name), ``validation`` (the
            monitored number, None without validation data), means over the epoch's examples.
        best_epoch: the epoch whose weights the model has now; the last one without validation.
        stopped: ``"epochs"`` or ``"patience"``.
        weights: of the terms, as used.
        choices: how weights given as ``"auto"`` were chosen, by term.
        seconds: spent training, over all sessions of a resumed run.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = -1
    best_value: float | None = None
    stopped: str = "epochs"
    weights: dict[str, float] = field(default_factory=dict)
    choices: dict[str, WeightChoice] = field(default_factory=dict)
    seconds: float = 0.0

    def restore(self, saved: dict[str, Any]) -> None:
        """Take over what ``dataclasses.asdict`` made of another run."""
        for name, value in saved.items():
            setattr(self, name, value)
        self.choices = {
            name: WeightChoice(c["weight"], c["reason"], tuple(Candidate(**one) for one in c["candidates"]))
            for name, c in saved["choices"].items()
        }
