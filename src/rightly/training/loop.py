"""One epoch at a time, the same for every method, and the whole state in and out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rightly.core import autodiff
from rightly.core.batch import call, outputs_of, rows
from rightly.core.errors import ArgumentError, CheckpointError, RightlyError
from rightly.objectives import LossReport, Objective
from rightly.training import checkpoint as files
from rightly.training.batches import Batches
from rightly.training.run import Run

Schedule = Literal["joint", "alternate"]
Precision = Literal["float32", "bfloat16"]
Monitor = Callable[[Tensor, Tensor], float]


class Loop:
    """One epoch at a time, and the whole state in and out."""

    def __init__(
        self,
        objective: Objective,
        optimizers: Sequence[torch.optim.Optimizer],
        scheduler: Any,
        schedule: Schedule,
        precision: Precision,
        monitor: Monitor | None,
    ) -> None:
        self.objective, self.optimizers, self.scheduler = objective, list(optimizers), scheduler
        self.schedule, self.precision, self.monitor = schedule, precision, monitor

    def epoch(self, batches: Batches, epoch: int) -> dict[str, Any]:
        """Train one epoch; means over its examples."""
        objective = self.objective
        objective.train()
        seen, task, terms = 0, 0.0, dict.fromkeys(objective.weights, 0.0)
        others = batches.epoch(-1 - epoch) if self.schedule == "alternate" and objective.terms else None
        for inputs, labels, annotation in batches.epoch(epoch):
            size = rows(inputs)
            if others is None:
                report = self._step(0, lambda: objective(inputs, labels, annotation))  # noqa: B023 (called at once)
                reports = report.terms
            else:
                report = self._step(0, lambda: objective(inputs, labels, part="task"))  # noqa: B023
                reports = self._step(-1, lambda: objective(*next(others), part="prior")).terms
            seen += size
            task += size * float(report.task.detach()) if report.task is not None else 0.0
            for name, term in reports.items():
                terms[name] += 0.0 if term.contribution is None else size * float(term.contribution)
        if seen == 0:
            raise ArgumentError("there was nothing to train on", expected="at least one batch", got=0)
        if self.scheduler is not None:
            self.scheduler.step()
        means = {name: total / seen for name, total in terms.items()}
        if not all(map(math.isfinite, (task, *means.values()))):
            raise RightlyError(
                f"the loss is no longer a finite number in epoch {epoch}",
                got=f"task {task / seen}, terms {means}",
                mend="lower the learning rate or the weights; look for NaN in the data",
            )
        return {"epoch": epoch, "task": task / seen, "terms": means}

    def _step(self, which: int, evaluate: Callable[[], LossReport]) -> LossReport:
        optimizer = self.optimizers[which]
        optimizer.zero_grad(set_to_none=True)
        kind = next(self.objective.parameters()).device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bfloat16"):
            report = evaluate()
        if report.total.requires_grad:
            with autodiff.naming_operators():
                report.total.backward()
            optimizer.step()
        return report

    @torch.no_grad()
    def validate(self, batches: Batches) -> float:
        """The monitored number on the validation data."""
        model = self.objective.model
        training = [module for module in model.modules() if module.training]
        model.eval()
        found = [(outputs_of(call(model, inputs)).float(), labels) for inputs, labels, _ in batches.epoch(0)]
        for module in training:
            module.training = True
        outputs, labels = torch.cat([o for o, _ in found]), torch.cat([y for _, y in found])
        return float((self.monitor or self.objective.loss)(outputs, labels))

    def save(self, path: Path, run: Run, identity: dict[str, Any], best: dict[str, Tensor] | None) -> None:
        """Everything that the next epoch depends on."""
        tensors: dict[str, Tensor] = {}
        state = {
            "objective": self.objective.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "best": best,
        }
        facts = {
            "identity": identity,
            "state": files.flatten("state", state, tensors),
            "run": asdict(run),
        }
        files.write(path, tensors, facts)

    def load(self, path: Path, run: Run, identity: dict[str, Any]) -> dict[str, Tensor] | None:
        """Put everything back; returns the best weights so far."""
        tensors, facts = files.read(path)
        if facts.get("identity") != identity:
            raise CheckpointError(
                "the checkpoint belongs to another run",
                expected=identity,
                got=facts.get("identity"),
                mend="resume with the same arguments, or choose another folder",
            )
        state = files.restore(facts["state"], tensors)
        self.objective.load_state_dict(state["objective"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        run.restore(facts["run"])
        best: dict[str, Tensor] | None = state["best"]
        return best
