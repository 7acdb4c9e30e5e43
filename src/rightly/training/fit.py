"""The training loop: one for every method, so that comparisons are fair."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from rightly.core import autodiff, seeding
from rightly.core.batch import call, outputs_of, rows
from rightly.core.errors import ArgumentError, CheckpointError, RightlyError
from rightly.core.progress import bar
from rightly.objectives import LossReport, Objective
from rightly.training import checkpoint as files
from rightly.training.batches import Batches, Data
from rightly.training.run import Run
from rightly.training.selection import choose_weight

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Schedule = Literal["joint", "alternate"]
Precision = Literal["float32", "bfloat16"]
Monitor = Callable[[Tensor, Tensor], float]

_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
}


def fit(
    objective: Objective,
    train: Data,
    validation: Data | None = None,
    *,
    epochs: int = 10,
    batch_size: int = 256,
    optimizer: str | MakeOptimizer = "adam",
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
    schedule: Schedule = "joint",
    prior_optimizer: str | MakeOptimizer | None = None,
    monitor: Monitor | None = None,
    patience: int | None = None,
    restore_best: bool = True,
    precision: Precision = "float32",
    device: torch.device | str | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
    callback: Callable[[int, dict[str, Any]], None] | None = None,
) -> Run:
    """Train ``objective.model`` in place.

    The same seed gives the same bits on the same machine, also when the run was killed and resumed: order, dropout
    and draws are seeded by epoch and step. The global random state is left as it was.

    Args:
        objective: model, loss and terms. Terms with ``weight="auto"`` are settled first, on ``validation``; those
            with ``"balance"`` on the first batches.
        train, validation: ``(inputs, labels[, annotation])``, a dataset, a loader or an iterable of batches.
        epochs, batch_size: as usual; a loader keeps its own batch size.
        optimizer: ``"adam"``, ``"adamw"``, ``"sgd"``, or a function from parameters to an optimizer.
        lr, weight_decay: for optimizers given by name.
        scheduler: from the optimizer to a learning-rate scheduler, stepped once an epoch.
        schedule: ``"joint"`` steps on the total; ``"alternate"`` steps on the task and then on the terms, each on
            its own batch, as the papers' image code does.
        prior_optimizer: an optimizer of its own for the terms' steps; by default they share. Attention: an Adam of
            its own ignores the scale of its loss, so that weights act only through its epsilon.
        monitor: (outputs, labels) -> number to minimise on the validation data; the task loss by default.
        patience: stop after so many epochs without improvement.
        restore_best: end with the weights of the best validated epoch.
        precision: ``"bfloat16"`` runs under autocast.
        device: where to train; by default where the model is.
        checkpoint: folder of this run's checkpoint, written after every epoch.
        resume: go on from that checkpoint if there is one.
        progress: show a bar.
        callback: called with (epoch, that epoch's history).

    Raises:
        NotConnectedError, DoubleBackwardError: a term cannot train.
        CheckpointError: the checkpoint belongs to another run or is damaged.
    """
    _check(epochs, schedule, precision, patience, validation, prior_optimizer)
    if device is not None:
        objective.to(device)
    choices = {}
    for term in objective.terms:
        if term.weight == "auto" and math.isnan(objective.weights[term.name]):
            choices[term.name] = _choose(objective, term.name, train, validation, locals())
    batches = Batches(train, batch_size=batch_size, shuffle=True, seed=seed, device=device)
    valid = None
    if validation is not None:
        valid = Batches(validation, batch_size=max(batch_size, 1024), shuffle=False, seed=seed, device=device)
    parameters = [p for p in objective.parameters() if p.requires_grad]
    if not parameters:
        raise ArgumentError("there is nothing to train", expected="parameters with requires_grad", got="none")
    first = make_optimizer(optimizer, parameters, lr, weight_decay)
    second = None if prior_optimizer is None else make_optimizer(prior_optimizer, parameters, lr, weight_decay)
    loop = _Loop(
        objective=objective,
        optimizers=[first] if second is None else [first, second],
        scheduler=None if scheduler is None else scheduler(first),
        schedule=schedule,
        precision=precision,
        monitor=monitor,
    )
    run = Run(choices=choices)
    path = None if checkpoint is None else Path(checkpoint) / "checkpoint.safetensors"
    identity = {"seed": seed, "batch_size": batch_size, "schedule": schedule, "terms": list(objective.weights)}
    best: dict[str, Tensor] | None = None
    if resume and path is not None and path.exists():
        best = loop.load(path, run, identity)
    with bar("fit", enabled=progress) as report:
        for epoch in range(len(run.history), epochs):
            if run.stopped == "patience":
                break
            start = time.monotonic()
            with seeding.guarded(seed, "epoch", epoch):
                entry = loop.epoch(batches, epoch)
                entry["validation"] = None if valid is None else loop.validate(valid)
            run.history.append(entry)
            run.weights = dict(objective.weights)
            if _improved(entry["validation"], run):
                run.best_epoch, run.best_value = epoch, entry["validation"]
                best = files.clone_state(objective.model) if valid is not None and restore_best else None
            elif patience is not None and epoch - run.best_epoch >= patience:
                run.stopped = "patience"
            run.seconds += time.monotonic() - start
            if path is not None:
                loop.save(path, run, identity, best)
            if callback:
                callback(epoch, entry)
            if report:
                report(epoch + 1, epochs)
    if best is not None:
        objective.model.load_state_dict(best)
    return run


class _Loop:
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
        if epoch == 0 and any(t.weight == "balance" and math.isnan(objective.weights[t.name]) for t in objective.terms):
            objective.balance([batch for batch, _ in zip(batches.epoch(0), range(10), strict=False)])
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
            "run": {k: v for k, v in asdict(run).items() if k != "choices"},
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
        for name, value in facts["run"].items():
            setattr(run, name, value)
        best: dict[str, Tensor] | None = state["best"]
        return best


def make_optimizer(
    optimizer: str | MakeOptimizer, parameters: list[nn.Parameter], lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimizer by name, or by the user's function."""
    if not isinstance(optimizer, str):
        return optimizer(parameters)
    if optimizer not in _OPTIMIZERS:
        raise ArgumentError(
            "unknown optimizer", expected=", ".join(_OPTIMIZERS) + ", or a function of the parameters", got=optimizer
        )
    return _OPTIMIZERS[optimizer](parameters, lr=lr, weight_decay=weight_decay)  # type: ignore[call-arg]


def _improved(value: float | None, run: Run) -> bool:
    return value is None or run.best_value is None or value < run.best_value


def _check(
    epochs: int,
    schedule: str,
    precision: str,
    patience: int | None,
    validation: Data | None,
    prior_optimizer: object,
) -> None:
    if epochs < 1:
        raise ArgumentError("epochs counts epochs", expected="at least 1", got=epochs)
    if schedule not in get_args(Schedule):
        raise ArgumentError("unknown schedule", expected=", ".join(get_args(Schedule)), got=repr(schedule))
    if precision not in get_args(Precision):
        raise ArgumentError("unknown precision", expected=", ".join(get_args(Precision)), got=repr(precision))
    if patience is not None and (patience < 1 or validation is None):
        raise ArgumentError(
            "patience watches the validation data", expected="patience >= 1 and validation=...", got=patience
        )
    if prior_optimizer is not None and schedule != "alternate":
        raise ArgumentError(
            "an optimizer of its own for the terms needs steps of their own",
            expected="schedule='alternate'",
            got=repr(schedule),
        )


def _choose(objective: Objective, name: str, train: Data, validation: Data | None, given: dict[str, Any]) -> Any:
    """Settle a weight given as "auto" by short trainings of copies."""
    if validation is None:
        raise ArgumentError(
            "weight='auto' is chosen by validation", expected="validation=...", got=None, mend="or give a number"
        )
    passed_on = ["epochs", "batch_size", "optimizer", "lr", "weight_decay", "scheduler", "schedule"]
    passed_on += ["prior_optimizer", "monitor", "patience", "precision", "device", "seed"]
    choice = choose_weight(objective, name, train, validation, fit, **{key: given[key] for key in passed_on})
    objective.set_weight(name, choice.weight)
    return choice
