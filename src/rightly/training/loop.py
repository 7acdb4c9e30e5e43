"""One epoch at a time, the same for every method, and the whole state in and out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from rightly.core import autodiff, seeding
from rightly.core.batch import call, outputs_of, rows
from rightly.core.errors import ArgumentError, CheckpointError, NotConnectedError, RightlyError
from rightly.objectives import LossReport, Objective, Term
from rightly.objectives.engines import EngineChoice
from rightly.training import checkpoint as files
from rightly.training.batches import Batch, Batches
from rightly.training.run import Run
from rightly.training.settings import Settings


class DivergedError(RightlyError, ArithmeticError):
    """A loss is no longer a finite number."""


class Loop:
    """Objective, optimizers and scheduler, epoch by epoch.

    Args:
        objective: trained in place.
        settings: how.
    """

    def __init__(self, objective: Objective, settings: Settings) -> None:
        self.objective, self.settings = objective, settings
        self.optimizers = settings.optimizers(objective)
        self.scheduler = None if settings.scheduler is None else settings.scheduler(self.optimizers[0])

    def epoch(self, batches: Batches, epoch: int) -> dict[str, Any]:
        """Train one epoch; means over its examples."""
        objective = self.objective
        objective.train()
        sizes: list[int] = []
        # numbers stay on their device until the end of the epoch: reading them at every step would make it wait
        task: list[tuple[int, Tensor]] = []
        terms: dict[str, list[tuple[int, Tensor]]] = {name: [] for name in objective.weights}
        for batch, other in self._pairs(batches, epoch):
            sizes.append(rows(batch[0]))
            if other is None:
                report = self._step(0, lambda: objective(*batch))  # noqa: B023 (called at once)
                reports = report.terms
            else:
                report = self._step(0, lambda: objective(batch[0], batch[1], part="task"))  # noqa: B023
                reports = self._step(-1, lambda: objective(*other, part="prior")).terms  # noqa: B023
            if report.task is not None:
                task.append((sizes[-1], report.task.detach()))
            for name, term in reports.items():
                if term.contribution is not None:
                    terms[name].append((sizes[-1], term.contribution))
        if not sizes:
            raise ArgumentError("there was nothing to train on", expected="at least one batch", got=0)
        found = {"task": _mean(task, sum(sizes)), **{name: _mean(terms[name], sum(sizes)) for name in terms}}
        if not all(map(math.isfinite, found.values())):
            raise diverged(f" in epoch {epoch}", found)
        return {"epoch": epoch, "task": found.pop("task"), "terms": found}

    def step(self, batch: Batch) -> float:
        """One joint step on one batch; its task loss before the step."""
        report = self._step(0, lambda: self.objective(*batch))
        task = float("nan") if report.task is None else float(report.task.detach())
        if not math.isfinite(task):
            raise diverged("", task)
        return task

    def _pairs(self, batches: Batches, epoch: int) -> Iterator[tuple[Batch, Batch | None]]:
        """Every batch, and the one that the terms step on when they step by themselves."""
        if self.settings.schedule == "joint" or not self.objective.terms:
            yield from ((batch, None) for batch in batches.epoch(epoch))
        else:
            yield from zip(batches.epoch(epoch), batches.epoch(-1 - epoch), strict=False)

    def _step(self, which: int, evaluate: Callable[[], LossReport]) -> LossReport:
        optimizer = self.optimizers[which]
        optimizer.zero_grad(set_to_none=True)
        if self.settings.precision == "bfloat16":
            with torch.autocast(next(self.objective.parameters()).device.type, torch.bfloat16):
                report = evaluate()
        else:
            report = evaluate()
        if not report.total.requires_grad:
            raise NotConnectedError(
                "the loss does not reach the parameters: training would change nothing",
                expected="a loss with a graph to at least one trainable parameter",
                got="none (detached, or computed under torch.no_grad())",
            )
        with autodiff.naming_operators():
            report.total.backward()
        optimizer.step()
        return report

    def validate(self, batches: Batches) -> float:
        """The monitored number on the validation data; the model keeps its mode."""
        objective = self.objective
        with autodiff.reading(objective.model, trainable=False), torch.no_grad():
            found = [(wide_outputs(call(objective.model, inputs)), labels) for inputs, labels, _ in batches.epoch(0)]
        if not found:
            raise ArgumentError("there was nothing to validate on", expected="at least one batch", got=0)
        outputs, labels = torch.cat([o for o, _ in found]), torch.cat([y for _, y in found])
        number = float((self.settings.monitor or objective.loss)(outputs, labels))
        if math.isnan(number):
            raise DivergedError(
                "the monitored number on the validation data is NaN",
                mend="look for NaN in the validation data, and at monitor=",
            )
        return number

    def advance(self, number: float) -> None:
        """Step the scheduler after an epoch; ``number`` is what one that waits for a plateau watches."""
        if isinstance(self.scheduler, ReduceLROnPlateau):
            self.scheduler.step(number)
        elif self.scheduler is not None:
            self.scheduler.step()

    def save(self, path: Path, run: Run, best: dict[str, Tensor] | None) -> None:
        """Everything that the next epoch depends on."""
        tensors: dict[str, Tensor] = {}
        state = {
            "objective": self.objective.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "best": best,
        }
        facts = {
            "identity": self.identity(),
            "state": files.flatten("state", state, tensors),
            "run": asdict(run),
            # proved anew with other weights, another engine might be picked, and the bits would differ
            "engines": {name: asdict(choice) for name, choice in self.objective.engines.choices.items()},
        }
        files.write(path, tensors, facts)

    def load(self, path: Path, run: Run) -> dict[str, Tensor] | None:
        """Put everything back; returns the best weights so far."""
        tensors, facts = files.read(path)
        wanted, found = self.identity(), facts.get("identity", {})
        if wanted != found:
            differ = [key for key in wanted if wanted[key] != found.get(key)]
            raise CheckpointError(
                "the checkpoint belongs to another run",
                expected={key: wanted[key] for key in differ},
                got={key: found.get(key) for key in differ},
                mend="resume with the same arguments, or choose another folder",
            )
        state = files.restore(facts["state"], tensors)
        self.objective.load_state_dict(state["objective"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        run.restore(facts["run"])
        self.objective.engines.choices.update({n: EngineChoice(**c) for n, c in facts["engines"].items()})
        best: dict[str, Tensor] | None = state["best"]
        return best

    def identity(self) -> dict[str, Any]:
        """What has to be the same for a resumed run to give the same bits, as far as it can be written down."""
        settings, objective = self.settings, self.objective
        state = objective.trained().state_dict()
        shapes = [(name, tuple(t.shape), t.dtype) for name, t in state.items() if isinstance(t, Tensor)]
        identity = {
            "seed": settings.seed,
            "batch_size": settings.batch_size,
            "schedule": settings.schedule,
            "precision": settings.precision,
            "optimizers": [[type(o).__name__, _plain(o.defaults)] for o in self.optimizers],
            "scheduler": None if self.scheduler is None else type(self.scheduler).__name__,
            "terms": {term.name: [term.about, term.weight, repr(term.schedule)] for term in objective.terms},
            "engines": {term.name: term.engine for term in objective.terms if isinstance(term, Term)},
            "draws": objective.seed,
            "model": f"{len(shapes)} tensors, {seeding.mix(*shapes):x}",
        }
        if settings.always is not None:
            identity["always"] = seeding.mix(*settings.always.tolist())
        # as it comes back from the file, tuples turned into lists
        return json.loads(json.dumps(identity))  # type: ignore[no-any-return]


def wide_outputs(raw: Any) -> Tensor:
    """What a model returned, in at least float32, so that a validation loss does not depend on its precision."""
    outputs = outputs_of(raw)
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs


def _mean(pairs: list[tuple[int, Tensor]], seen: int) -> float:
    if not pairs:
        return 0.0
    sizes = torch.tensor([size for size, _ in pairs], dtype=torch.float64)
    return float((torch.stack([value for _, value in pairs]).cpu().double() * sizes).sum() / seen)


def _plain(defaults: dict[str, Any]) -> dict[str, Any]:
    """The optimizer's own numbers, such as the learning rate; what is no number cannot be compared."""
    return {
        key: value
        for key, value in defaults.items()
        if all(isinstance(v, bool | int | float | str) for v in (value if isinstance(value, tuple) else (value,)))
    }


def diverged(where: str, got: object) -> DivergedError:
    return DivergedError(
        f"the loss is no longer a finite number{where}",
        expected="finite losses",
        got=got,
        mend="lower the learning rate or the weights; look for NaN in the data",
    )
